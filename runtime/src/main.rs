//! The program: its memory, its start, and the library's [`keelson_runtime::run`].

// Otherwise the standard library's start-up code would run twice for every command, see `entry`.
// `cargo test --bins` makes a program with a main of its own.
#![cfg_attr(not(test), no_main)]

use keelson_sys::allocator::Arena;
#[cfg(not(test))]
use keelson_sys::entry;

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
    let code = keelson_runtime::run(entry::name(), entry::arguments());
    let _ = std::io::Write::flush(&mut std::io::stdout());
    code.into()
}
