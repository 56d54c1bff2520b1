//! The program: the library's [`keelson_resolver::run`].

use std::process::ExitCode;

use keelson_resolver::{Options, run};

fn main() -> ExitCode {
    let done = Options::parse(std::env::args().skip(1)).and_then(|options| run(&options));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keelson-resolver: {error:#}");
            ExitCode::FAILURE
        }
    }
}
