//! The log file of `--log`, from which callers such as containerd read why a command failed.

use std::io::Write;

use super::manage::rfc3339;

/// Where errors are written besides standard error.
pub(crate) struct Log {
    path: Option<String>,
    json: bool,
}

impl Log {
    pub(crate) fn new(path: Option<String>, format: Option<String>) -> Self {
        Self {
            path,
            json: format.as_deref() == Some("json"),
        }
    }

    /// Writes an error. That the log can't be written is no reason to fail otherwise.
    pub(crate) fn error(&self, message: &str) {
        let Some(path) = &self.path else {
            return;
        };
        let seconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let time = rfc3339(seconds);
        let line = if self.json {
            serde_json::json!({"level": "error", "msg": message, "time": time}).to_string()
        } else {
            format!("time={time:?} level=error msg={message:?}")
        };
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{line}");
        }
    }
}
