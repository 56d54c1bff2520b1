//! Fuzz targets for the code that reads bytes from outside, in two ways: by cargo-fuzz, guided by
//! coverage (nightly Rust), and by a driver of our own that any Rust compiles ([`steady`]), which
//! `cargo xtask test` runs for some seconds each.

pub mod steady;

#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// Defines the program of a target, whose file begins with `#![cfg_attr(fuzzing, no_main)]`.
#[macro_export]
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:block) => {
        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(|$bytes: &[u8]| $body);

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::steady::main(env!("CARGO_BIN_NAME"), |$bytes: &[u8]| $body)
        }
    };
}
