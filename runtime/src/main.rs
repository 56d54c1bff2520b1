//! The OCI container runtime and the per-container shim. See README.md for an overview.

mod cgroup;
mod failure;
mod process;
mod sandbox;
mod seccomp;
mod shim;
mod spec;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let result = match arguments.split_first() {
        Some((command, rest)) if command == "shim" => shim::main(rest),
        _ => Err(failure::Failure::unsupported("not supported yet")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("keelson-runtime: {failure}");
            ExitCode::from(failure.kind.exit_code())
        }
    }
}
