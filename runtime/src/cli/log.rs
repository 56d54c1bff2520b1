//! The log of `--log`, from which callers such as containerd read why a command failed, and with
//! `--debug` its steps.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::time::rfc3339;
use crate::failure;

/// Where this command's messages go besides standard error.
#[derive(Debug)]
pub(super) struct Log {
    /// The file, if there is one.
    pub(super) path: Option<String>,
    /// Whether its lines are JSON.
    pub(super) json: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();
static STEPS: AtomicBool = AtomicBool::new(false);

/// Sets where messages go. Only the first call counts.
pub(super) fn open(log: Log) {
    let _ = LOG.set(log);
    failure::tell_warnings(warning);
}

/// Whether steps are reported, too.
pub(super) fn tell_steps(wanted: bool) {
    STEPS.store(wanted, Ordering::Relaxed);
}

/// Reports an error. On standard error it is a line of the log, which callers parse; when the log
/// is a file, it is plain text. If the error can't be written, the command does not fail in another
/// way.
pub(super) fn error(message: &str) {
    match LOG.get() {
        Some(log) => log.tell("error", message),
        None => eprintln!("{message}"),
    }
}

/// Reports a warning in the same way.
pub(super) fn warning(message: &str) {
    match LOG.get() {
        Some(log) => log.tell("warning", message),
        None => eprintln!("{message}"),
    }
}

/// Reports a step, with `--debug` only. `message` is not evaluated otherwise.
pub(super) fn debug<S: AsRef<str>>(message: impl FnOnce() -> S) {
    if !STEPS.load(Ordering::Relaxed) {
        return;
    }
    if let Some(log) = LOG.get() {
        let line = log.line("debug", message().as_ref());
        match log.path {
            Some(_) => log.append(|| line),
            // As runc.
            None => eprintln!("{line}"),
        }
    }
}

impl Log {
    fn tell(&self, level: &str, message: &str) {
        let line = self.line(level, message);
        match self.path {
            Some(_) => {
                self.append(|| line);
                eprintln!("{message}");
            }
            None => eprintln!("{line}"),
        }
    }

    fn line(&self, level: &str, message: &str) -> String {
        let seconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let time = rfc3339(seconds);
        if self.json {
            serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
        } else {
            format!("time={time:?} level={level} msg={message:?}")
        }
    }

    fn append(&self, line: impl FnOnce() -> String) {
        let Some(path) = &self.path else {
            return;
        };
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{}", line());
        }
    }
}
