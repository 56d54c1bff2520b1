//! The OCI container runtime and the per-container shim. See README.md for an overview.
//!
//! A library so that fuzz targets and benchmarks reach the parsers ([`check`]); the program is
//! [`run`] and nothing else.

mod cgroup;
pub mod check;
mod cli;
mod failure;
mod files;
mod process;
mod sandbox;
mod seccomp;
mod shim;
mod spec;
mod state;

/// Runs the program with its arguments (without its name) and gives its exit code.
pub fn run(arguments: Vec<String>) -> u8 {
    match arguments.split_first() {
        Some((command, rest)) if command == "shim" => match shim::main(rest) {
            Ok(()) => 0,
            Err(failure) => {
                eprintln!("keelson-runtime: {failure}");
                failure.kind.exit_code()
            }
        },
        _ => cli::main(arguments),
    }
}
