//! `hostname`, which shows and sets the machine's name.

use std::process::{Command, ExitCode};

use crate::error::ConsoleError;

pub(crate) fn run(words: &[String]) -> Result<ExitCode, ConsoleError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let short = name.split('.').next().unwrap_or_default();
    match words.as_slice() {
        [] => println!("{name}"),
        ["-s" | "--short"] => println!("{short}"),
        [new] if !new.starts_with('-') => {
            let program = "hostctl";
            let ended = Command::new("/usr/bin/hostctl")
                .args(["hostname", new])
                .status()
                .map_err(|source| ConsoleError::Execute { program, source })?;
            let code = ended.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
        _ => {
            return Err(ConsoleError::Usage(
                "usage: hostname [-s | NAME]".to_owned(),
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}
