//! The OCI container runtime and the per-container shim. See README.md for an overview.

// The standard library's start-up code would be run twice for every command, see `entry`.
#![cfg_attr(not(test), no_main)]

mod cgroup;
mod cli;
mod failure;
mod process;
mod sandbox;
mod seccomp;
mod shim;
mod spec;
mod state;

use keelson_sys::{allocator::Arena, entry};

#[global_allocator]
static MEMORY: Arena = Arena::new();

/// Where the C library starts the program.
// SAFETY: no other function of this name exists; the C library calls it once, first of all.
#[cfg(not(test))]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(_count: i32, arguments: *mut *const std::ffi::c_char) -> i32 {
    // SAFETY: as above.
    if let Err(error) = unsafe { entry::start(arguments) } {
        eprintln!("keelson-runtime: start: {error}");
        return 1;
    }
    let code = run();
    let _ = std::io::Write::flush(&mut std::io::stdout());
    code.into()
}

#[cfg_attr(test, allow(dead_code))]
fn run() -> u8 {
    let arguments: Vec<String> = entry::arguments()
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
