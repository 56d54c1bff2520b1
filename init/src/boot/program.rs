//! Runs programs of the boot to their ends, within a limit: the boot never waits for ever.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Most bytes of problems that are kept.
const MOST_TEXT: usize = 16 << 10;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
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

/// Runs a program that prints its problems, one a line. One that takes too long goes on alone: what it
/// does may still succeed.
pub(super) fn problems(
    command: &mut Command,
    limit: Duration,
) -> Result<Vec<String>, ProgramError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(source) => return Err(ProgramError::Execute { program, source }),
    };
    let mut text = Vec::new();
    let deadline = Instant::now() + limit;
    if let Some(mut output) = child.stdout.take() {
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if matches!(poll(&mut descriptors, timeout), Ok(0)) {
                return Err(ProgramError::TooLong { program, limit });
            }
            match output.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) if text.len() < MOST_TEXT => {
                    text.extend_from_slice(buffer.get(..length).unwrap_or_default());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ProgramError::Wait { program, source }),
            }
        }
    }
    let status = child.wait().map_err(|source| ProgramError::Wait {
        program: program.clone(),
        source,
    })?;
    let text = String::from_utf8_lossy(&text);
    let problems: Vec<String> = text.lines().map(str::to_owned).collect();
    match status.success() || !problems.is_empty() {
        true => Ok(problems),
        false => Err(ProgramError::Failed { program, status }),
    }
}

/// The same for a program that must end with success.
pub(crate) fn succeed(command: &mut Command, limit: Duration) -> Result<(), ProgramError> {
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
    fn problems_are_read_while_the_program_runs() {
        let mut list = Command::new("/proc/self/exe");
        list.args(["--list", "boot::program::tests::hang"]);
        let lines = problems(&mut list, Duration::from_secs(60)).unwrap();
        assert!(lines.iter().any(|line| line.contains("hang")), "{lines:?}");
        let mut wrong = Command::new("/proc/self/exe");
        wrong.arg("--no-such-argument").stderr(Stdio::null());
        let error = problems(&mut wrong, Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, ProgramError::Failed { .. }), "{error}");
    }

    #[test]
    #[ignore = "the program that a_program_that_hangs_is_ended executes"]
    fn hang() {
        std::thread::sleep(Duration::from_secs(60));
    }
}
