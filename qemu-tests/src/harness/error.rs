//! Errors of virtual machines. Every message names the machine or the object, and ends with the
//! last lines of the console if they help.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::http::HttpError;
use super::qmp::QmpError;

/// A failure of the harness or of the machine that it watches.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation: `read`, `create`, ….
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something that must be installed or built first is missing.
    #[error("{object} not found: {remedy}")]
    Missing {
        /// A program or a file.
        object: String,
        /// What to do about it.
        remedy: String,
    },
    /// QEMU ended while the caller waited for something else.
    #[error("machine {machine}: QEMU ended ({status}) while waiting for {awaited}\n{details}")]
    Ended {
        /// The machine's name.
        machine: String,
        /// Exit status.
        status: String,
        /// What was waited for.
        awaited: String,
        /// QEMU's own messages and the end of the console.
        details: String,
    },
    /// A deadline passed.
    #[error("machine {machine}: no {awaited} within {} s\n{details}", limit.as_secs())]
    Timeout {
        /// The machine's name.
        machine: String,
        /// What was waited for.
        awaited: String,
        /// The time limit.
        limit: Duration,
        /// The end of the console.
        details: String,
    },
    /// The monitor failed or refused a command.
    #[error("machine {machine}: {source}")]
    Qmp {
        /// The machine's name.
        machine: String,
        /// What happened.
        source: QmpError,
    },
    /// The provisioning line or its certificates can't be used.
    #[error("provisioning: {0}")]
    Provision(String),
    /// An API call failed before an answer came.
    #[error("{method} {path}: {source}")]
    Http {
        /// Method.
        method: String,
        /// Path.
        path: String,
        /// What happened.
        source: HttpError,
    },
    /// A command could not be run, ended badly or took too long.
    #[error("{command}: {problem}")]
    Command {
        /// The command line.
        command: String,
        /// What happened, with its output.
        problem: String,
    },
    /// A disk image is wrong.
    #[error("disk {}: {problem}", path.display())]
    Disk {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl HarnessError {
    /// Names the file and operation of an I/O failure.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}
