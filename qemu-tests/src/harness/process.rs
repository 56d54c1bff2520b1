//! Running commands with a deadline.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::HarnessError;
use super::provision::Credentials;

/// The results of a command that ended by itself.
#[derive(Debug, Clone)]
pub struct CommandOutput {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl CommandOutput {
    /// The standard output, without white space at its ends, of a command that ended with 0.
    ///
    /// # Errors
    /// Another exit code.
    pub fn success(&self) -> Result<&str, HarnessError> {
        if self.code == Some(0) {
            return Ok(self.stdout.trim());
        }
        Err(HarnessError::Command {
            command: self.command.clone(),
            problem: self.to_string(),
        })
    }
}

impl std::fmt::Display for CommandOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "exit code {code}")?,
            None => write!(f, "ended by a signal")?,
        }
        write!(f, "; stdout: {:?}; stderr: {:?}", self.stdout, self.stderr)
    }
}

/// Runs `command` to its end, with `input` as its standard input.
///
/// # Errors
/// The command can't be started, or did not end within `limit` (it is killed then).
pub fn run(
    command: &mut Command,
    input: Option<Vec<u8>>,
    limit: Duration,
) -> Result<CommandOutput, HarnessError> {
    let line = describe(command);
    let fail = |problem: String| HarnessError::Command {
        command: line.clone(),
        problem,
    };
    let start = Instant::now();
    let mut child = command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| fail(format!("cannot be started: {e}")))?;
    let stdout = child.stdout.take().map(read_in_thread);
    let stderr = child.stderr.take().map(read_in_thread);
    if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
        // It is not an error when the command does not read its whole input.
        std::thread::spawn(move || drop(pipe.write_all(&bytes)));
    }
    let ended = wait_pid(child.id(), limit);
    if !ended {
        child.kill().ok();
    }
    let status = child.wait().map_err(|e| fail(format!("wait: {e}")))?;
    let output = CommandOutput {
        command: line.clone(),
        code: status.code(),
        stdout: stdout.map(collect).unwrap_or_default(),
        stderr: stderr.map(collect).unwrap_or_default(),
        took: start.elapsed(),
    };
    if ended {
        Ok(output)
    } else {
        Err(fail(format!(
            "did not end within {} s; stdout: {:?}; stderr: {:?}",
            limit.as_secs(),
            output.stdout,
            output.stderr
        )))
    }
}

fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

type Reader = std::thread::JoinHandle<Vec<u8>>;

fn read_in_thread(mut pipe: impl Read + Send + 'static) -> Reader {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Output that was read before an error is still shown.
        pipe.read_to_end(&mut bytes).ok();
        bytes
    })
}

fn collect(reader: Reader) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

/// Waits until process `pid`, a child or not, has ended; whether it did within `limit`.
pub(crate) fn wait_pid(pid: u32, limit: Duration) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return true;
    };
    // A child that ended but was not waited for can still be opened, and polls as readable.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    wait_readable(&process, limit)
}

/// Waits until the descriptor is readable; whether that happened within `limit`.
pub(crate) fn wait_readable(descriptor: &impl std::os::fd::AsFd, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// The docker command (`KEELSON_DOCKER`, else `docker` from the path), set up for a machine.
/// Its own configuration is beside the credentials, so that the user's is not touched.
#[must_use]
pub fn docker_command(credentials: &Credentials, port: u16) -> Command {
    let program = std::env::var_os("KEELSON_DOCKER").map_or_else(|| "docker".into(), PathBuf::from);
    let mut command = Command::new(program);
    for variable in ["DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS"] {
        command.env_remove(variable);
    }
    command
        .env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}"))
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", &credentials.dir)
        .env("DOCKER_CONFIG", credentials.dir.join("docker"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_with_input_and_reports_the_exit_code() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat; echo problem >&2; exit 3"]);
        let output = run(
            &mut command,
            Some(b"hello".to_vec()),
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(output.code, Some(3));
        assert_eq!(output.stdout, "hello");
        assert_eq!(output.stderr, "problem\n");
        let message = output.success().unwrap_err().to_string();
        assert!(
            message.contains("exit code 3") && message.contains("problem"),
            "{message}"
        );
    }

    #[test]
    fn kills_what_takes_too_long() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let error = run(&mut command, None, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }

    #[test]
    fn names_a_program_that_is_not_there() {
        let mut command = Command::new("/nonexistent/program");
        let error = run(&mut command, None, Duration::from_secs(1)).unwrap_err();
        assert!(
            error.to_string().starts_with("/nonexistent/program: "),
            "{error}"
        );
    }
}
