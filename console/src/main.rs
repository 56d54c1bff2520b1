//! The first program of the console, the container in which people log in.
//!
//! Under its own name it prepares the console and keeps it going. Under other names it is what people
//! expect to be there: `reboot`, `poweroff`, `halt`, `shutdown` and `hostname` act on the machine, and
//! `own-container` is the login shell of users who have a container of their own.
//!
//! - `people`: the files of users and groups, from the configuration. Pure.
//! - `ids`: numbers of users that stay the same.
//! - `accounts`: writes these files, and makes home directories.
//! - `host_keys`: the keys of this machine's sshd, made once.
//! - `terminals`: logins on consoles.
//! - `keep`: puts all of it together.
//! - `power`, `host_name`: commands that act on the machine.
//! - `own_container`: logins that land in a container.
//! - `program`: runs other programs.
//! - `error`: what can fail.

mod accounts;
mod error;
mod host_keys;
mod host_name;
mod ids;
mod keep;
mod own_container;
mod people;
mod power;
mod program;
mod terminals;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::error::ConsoleError;

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    // A login shell's name begins with a hyphen.
    let name = Path::new(&program).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let name = name.trim_start_matches('-');
    let arguments: Vec<OsString> = arguments.collect();
    match run(name, arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, arguments: Vec<OsString>) -> Result<ExitCode, ConsoleError> {
    let words: Vec<String> = arguments
        .iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match name {
        "hostname" => host_name::run(&words),
        "own-container" => own_container::leave(arguments),
        "enter-container" => own_container::enter(arguments),
        "reboot" | "poweroff" | "halt" | "shutdown" => power::run(name, &words),
        _ => keep::run(),
    }
}
