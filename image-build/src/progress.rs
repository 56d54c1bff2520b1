//! Shows progress, and runs programs so that their output is shown if they fail.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How often a line says that a step is still running when there is no terminal.
const REMINDER: Duration = Duration::from_secs(20);
/// How much of a failed program's output is shown.
const SHOWN_LINES: usize = 60;

/// Whether progress may redraw a line.
#[must_use]
pub fn interactive() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("CI").is_none()
}

/// Prints one line of information. Continues if nobody reads standard error any more: `eprintln`
/// would end this program and leave its virtual machine behind.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// A step that takes time: a spinner with the elapsed time on a terminal, otherwise a line at
/// the start, one every 20 seconds, and one at the end.
#[derive(Debug)]
pub struct Step {
    title: String,
    started: Instant,
    reminded: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Begins a step.
    #[must_use]
    pub fn begin(title: impl Into<String>) -> Self {
        let title = title.into();
        let bar = interactive().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            say(&format!("   … {title}"));
        }
        Self {
            title,
            started: Instant::now(),
            reminded: Instant::now(),
            bar,
        }
    }

    /// Shows what happens right now: beside the spinner, or now and then as a line.
    pub fn detail(&mut self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
        } else if self.reminded.elapsed() >= REMINDER {
            self.reminded = Instant::now();
            say(&format!(
                "   … {} ({:.0} s): {message}",
                self.title,
                self.started.elapsed().as_secs_f64()
            ));
        }
    }

    /// Ends the step, and prints its duration.
    pub fn done(self, result: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let separator = if result.is_empty() { "" } else { ": " };
        say(&format!(
            "   ✓ {}{separator}{result} ({seconds:.1} s)",
            self.title
        ));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A command line for messages.
#[must_use]
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs a program to its end without input, its output going to `log`, and shows the output's
/// end when it fails.
///
/// # Errors
/// The program cannot be started or fails; the message names the log file.
pub fn run(step: &mut Step, command: &mut Command, log: &Path) -> Result<()> {
    let status = run_to_log(step, command, log)?;
    if status.success() {
        return Ok(());
    }
    bail!(failure(command, status, log));
}

fn failure(command: &Command, status: ExitStatus, log: &Path) -> String {
    format!(
        "{} failed ({status}). The end of its output, all of which is in {}:\n{}",
        command.get_program().to_string_lossy(),
        log.display(),
        tail(log, SHOWN_LINES)
    )
}

fn run_to_log(step: &mut Step, command: &mut Command, log: &Path) -> Result<ExitStatus> {
    let mut file = create_log(log)?;
    writeln!(file, "$ {}", shown(command))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    // Polling costs at most one interval per program, so it starts short.
    let mut interval = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(interval);
        interval = (interval * 2).min(Duration::from_millis(200));
        if interval >= Duration::from_millis(200) {
            step.detail(&last_line(log));
        }
    }
}

fn create_log(log: &Path) -> Result<File> {
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .read(true)
        .open(log)
        .with_context(|| format!("create {}", log.display()))
}

/// Runs a program whose own progress output is useful: it reaches the terminal unchanged. Without a
/// terminal it is copied to standard error and to `log`.
///
/// # Errors
/// The program cannot be started or fails.
pub fn run_shown(command: &mut Command, log: &Path) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    if interactive() {
        let status = command
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("start {name}"))?;
        if !status.success() {
            bail!("{} failed ({status})", shown(command));
        }
        return Ok(());
    }
    let mut file = create_log(log)?;
    writeln!(file, "$ {}", shown(command))?;
    let (reader, writer) = std::io::pipe().context("create a pipe")?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    // The command keeps the pipe's writing end; without it the reader sees the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        file.write_all(&line)?;
        let _ = std::io::stderr().write_all(&line);
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() {
        bail!(
            "{} failed ({status}); its output is in {}",
            shown(command),
            log.display()
        );
    }
    Ok(())
}

/// Runs a short program and returns its output, without the final line end.
///
/// # Errors
/// The program can't be started, fails (the message contains its output), or its output is not
/// UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    if !result.status.success() {
        bail!(
            "{} failed ({}): {}",
            shown(command),
            result.status,
            String::from_utf8_lossy(&result.stderr).trim()
        );
    }
    let text = String::from_utf8(result.stdout)
        .with_context(|| format!("output of {}", shown(command)))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// The last line of a growing file, cut to a screen's width.
fn last_line(path: &Path) -> String {
    let text = tail(path, 1);
    text.trim().chars().take(100).collect()
}

/// The last lines of a file; empty when it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    const ENOUGH: u64 = 64 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
        let mut bytes = Vec::new();
        file.take(ENOUGH).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The log file `name` in the log directory.
#[must_use]
pub fn log_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}

/// A size for people: `12.3 MB`.
#[must_use]
pub fn megabytes(bytes: u64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "shown with one digit after the point"
    )]
    let value = bytes as f64 / 1_000_000.0;
    format!("{value:.1} MB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_shows_its_output() {
        let directory = std::env::temp_dir().join(format!("xtask-progress-{}", std::process::id()));
        let log = log_file(&directory, "failing");
        let mut step = Step::begin("failing");
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason >&2; exit 3"]);
        let error = run(&mut step, &mut command, &log).unwrap_err().to_string();
        assert!(error.contains("the reason"), "{error}");
        assert!(error.contains("failing.log"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn output_returns_what_was_printed() {
        assert_eq!(output(Command::new("echo").arg("a b")).unwrap(), "a b");
        assert!(output(&mut Command::new("false")).is_err());
    }

    #[test]
    fn the_tail_of_a_file_is_its_last_lines() {
        let path = std::env::temp_dir().join(format!("xtask-tail-{}", std::process::id()));
        fs::write(&path, "one\ntwo\n\nthree\n").unwrap();
        assert_eq!(tail(&path, 2), "two\nthree");
        fs::remove_file(&path).unwrap();
        assert_eq!(tail(&path, 2), "");
    }
}
