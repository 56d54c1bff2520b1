//! Why an operation on a cgroup failed.

use std::io;

/// An operation on a cgroup that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct CgroupError {
    /// The operation and its object, such as `create cgroup /sys/fs/cgroup/a`.
    pub step: String,
    /// The kernel's answer. [`io::ErrorKind::TimedOut`] when a wait took too long.
    pub source: io::Error,
}

impl CgroupError {
    /// The kind of the kernel's answer.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Names the operation of a system call that failed.
pub(crate) trait Step<T> {
    /// `step` runs only when the call failed.
    fn step(self, step: impl FnOnce() -> String) -> Result<T, CgroupError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, CgroupError> {
        self.map_err(|error| CgroupError {
            step: step(),
            source: error.into(),
        })
    }
}
