//! Runs programs of the boot to their ends, within a limit: the boot never waits for ever.

use std::io;
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("execute {program}: {source}")]
    Execute { program: String, source: io::Error },
    #[error("{program} did not end within {} s", limit.as_secs())]
    TooLong { program: String, limit: Duration },
    #[error("wait for {program}: {source}")]
    Wait { program: String, source: io::Error },
    #[error("{program}: {status}")]
    Failed { program: String, status: ExitStatus },
}

/// Runs a program, and kills it after the limit. Its messages go to the console.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<ExitStatus, ProgramError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(source) => return Err(ProgramError::Execute { program, source }),
    };
    // The pipe is closed when the program has ended.
    if let Some(output) = child.stdout.take() {
        let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::empty())];
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        if matches!(poll(&mut descriptors, timeout), Ok(0)) {
            let _ = child.kill();
            // One that hangs in a driver can't be killed; the supervision reaps it.
            return Err(ProgramError::TooLong { program, limit });
        }
    }
    child
        .wait()
        .map_err(|source| ProgramError::Wait { program, source })
}

/// The same for a program that must end with success.
pub(super) fn succeed(command: &mut Command, limit: Duration) -> Result<(), ProgramError> {
    match run(command, limit)? {
        status if status.success() => Ok(()),
        status => Err(ProgramError::Failed {
            program: command.get_program().to_string_lossy().into_owned(),
            status,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut hanging = Command::new("/proc/self/exe");
        hanging.args(["--ignored", "--exact", "boot::program::tests::hang"]);
        let error = succeed(&mut hanging, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, ProgramError::TooLong { .. }), "{error}");
        let mut absent = Command::new("/no/such/program");
        let error = succeed(&mut absent, Duration::from_secs(1)).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("execute /no/such/program: "), "{error}");
    }

    #[test]
    #[ignore = "the program that a_program_that_hangs_is_ended executes"]
    fn hang() {
        std::thread::sleep(Duration::from_secs(60));
    }
}
