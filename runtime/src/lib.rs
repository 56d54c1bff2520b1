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
//! - `reaper`: the small init that runs in a container on request.
//! - `failure`, `files`: errors with their step, small files.

use std::ffi::OsString;

mod cgroup;
pub mod check;
mod cli;
mod failure;
mod files;
mod process;
mod reaper;
mod sandbox;
mod seccomp;
mod shim;
mod spec;
mod state;

/// Runs the program by its name and arguments, and returns its exit code.
pub fn run(name: Option<OsString>, arguments: Vec<OsString>) -> u8 {
    if name.is_some_and(|name| reaper::is_called(&name)) {
        return reaper::main(arguments);
    }
    let arguments: Vec<String> = arguments
        .into_iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
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
