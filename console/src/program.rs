//! Runs other programs to their ends.

use std::process::{Command, Stdio};

use crate::error::ConsoleError;

/// What a program printed. If it fails, the error has what it printed as the reason.
pub(crate) fn output_of(
    program: &'static str,
    command: &mut Command,
) -> Result<String, ConsoleError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ConsoleError::Execute { program, source })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(ConsoleError::Failed {
            program,
            reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
