//! Runs a program to its end, with a time limit.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Longest time that a call may take, in seconds.
static DEADLINE: AtomicU64 = AtomicU64::new(10);

/// Sets the longest time that a call may take.
pub(crate) fn set_deadline(deadline: Duration) {
    DEADLINE.store(deadline.as_secs(), Ordering::Relaxed);
}

/// Longest time that a call may take.
pub(crate) fn deadline() -> Duration {
    Duration::from_secs(DEADLINE.load(Ordering::Relaxed))
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The exit code. -1 if a signal ended it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Requires success, and returns standard output without white space around it.
    pub(crate) fn output(self) -> Result<String> {
        ensure!(self.status.success(), "{self}");
        Ok(self.stdout.trim().to_owned())
    }

    /// Requires a failure that is an answer and not a crash, and returns its message.
    pub(crate) fn failure(self) -> Result<String> {
        ensure!(!self.status.success(), "it succeeded where it must fail");
        ensure!(self.status.signal().is_none(), "it crashed: {self}");
        Ok(self.stderr)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        write!(formatter, "{}: {}", self.status, text.trim())
    }
}

/// Runs a program. Its output goes to files: a container that outlives the program keeps its output
/// open, so a pipe would never end.
pub(crate) fn run(command: &mut Command) -> Result<Ended> {
    let mut stdout = tempfile::tempfile().context("make a file for standard output")?;
    let mut stderr = tempfile::tempfile().context("make a file for standard error")?;
    command
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    run_shown(command, &mut stdout, &mut stderr)
}

/// Runs a program whose standard output and error were set to these files.
fn run_shown(command: &mut Command, stdout: &mut File, stderr: &mut File) -> Result<Ended> {
    let mut child = command
        .spawn()
        .with_context(|| format!("execute {}", shown(command)))?;
    let status = wait(&mut child).with_context(|| shown(command))?;
    Ok(Ended {
        status,
        stdout: contents(stdout)?,
        stderr: contents(stderr)?,
    })
}

/// Waits for the end of a program, and kills it if it takes too long.
pub(crate) fn wait(child: &mut Child) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > deadline() {
            child.kill()?;
            child.wait()?;
            bail!("not ended after {} s", deadline().as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn contents(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < deadline(), "not within time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A program without input.
pub(crate) fn quiet(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}
