//! The OCI container runtime and the per-container shim. See README.md for an overview.
//!
//! A library so that fuzz targets and benchmarks reach the parsers ([`check`]); the program is
//! [`run`] and nothing else. In the order of a start:
//!
//! - `cli`: runc's command line; `shim`: the process that keeps a container for hostd.
//! - `spec`: `config.json`, checked.
//! - `state`: the runtime's records in `/run`.
//! - `cgroup`: limits and the device filter.
//! - `process`: new processes: namespaces, hooks, capabilities, execution.
//! - `sandbox`: the container's mounts, devices and restrictions.
//! - `seccomp`: profiles compiled to BPF.
//! - `failure`, `files`: errors with their step, small files.

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

/// Runs the program with its arguments (without its name) and returns its exit code.
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
