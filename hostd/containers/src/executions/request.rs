//! A client's request to execute a process, and its checks.

use keelson_model::limits;
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::spec::check::check_strings;

/// Longest command in an event, in bytes.
const IN_EVENT: usize = 1 << 10;

/// The process to execute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecRequest {
    /// Command and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, added to the container's; `NAME` alone removes.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, …; empty: the container's.
    pub user: String,
    /// Absolute; empty: the container's.
    pub working_dir: String,
    /// With all capabilities.
    pub privileged: bool,
    /// With a terminal.
    pub tty: bool,
    /// Whether the client that starts it sends standard input.
    pub attach_stdin: bool,
    /// Whether it receives standard output.
    pub attach_stdout: bool,
    /// Whether it receives standard error.
    pub attach_stderr: bool,
    /// The key sequence for detaching; empty: the default one.
    pub detach_keys: String,
    /// Rows and columns of the terminal; zero: not given.
    pub console_size: [u16; 2],
}

impl ExecRequest {
    /// Its approximate size in bytes.
    pub(crate) fn size(&self) -> usize {
        let strings = self.args.iter().chain(&self.env);
        let others = [&self.user, &self.working_dir, &self.detach_keys];
        strings.chain(others).map(|text| text.len() + 32).sum()
    }

    /// The command for events.
    pub(crate) fn command_line(&self) -> String {
        limits::shortened(&self.args.join(" "), IN_EVENT)
    }

    /// Refuses an impossible request.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(EngineError::Invalid("No exec command specified".to_owned()));
        }
        if !self.working_dir.is_empty() && !self.working_dir.starts_with('/') {
            return Err(EngineError::Invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                self.working_dir
            )));
        }
        check_strings("Cmd", &self.args)?;
        check_strings("Env", &self.env)?;
        if self.size() > limits::CONFIGURATION {
            return Err(EngineError::Invalid(format!(
                "the exec's configuration has {} bytes, at most {} are allowed: shorten Cmd or Env",
                self.size(),
                limits::CONFIGURATION
            )));
        }
        if let Some(entry) = self.env.iter().find(|entry| entry.starts_with('=')) {
            return Err(EngineError::Invalid(format!(
                "invalid environment variable: {entry}"
            )));
        }
        let strings = self.args.iter().chain(&self.env);
        if strings
            .chain([&self.working_dir, &self.user])
            .any(|text| text.contains('\0'))
        {
            return Err(EngineError::Invalid(
                "exec: a string contains a zero byte".to_owned(),
            ));
        }
        Ok(())
    }
}
