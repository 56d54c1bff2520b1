//! The OCI container runtime and the per-container shim. See README.md for an overview.

mod cgroup;
mod cli;
mod failure;
mod process;
mod sandbox;
mod seccomp;
mod shim;
mod spec;
mod state;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match arguments.split_first() {
        Some((command, rest)) if command == "shim" => match shim::main(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("keelson-runtime: {failure}");
                ExitCode::from(failure.kind.exit_code())
            }
        },
        _ => cli::main(arguments),
    }
}
