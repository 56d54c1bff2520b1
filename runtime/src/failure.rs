//! How a step of creating a container fails: in the parent, and in the child, which reports to its
//! parent.

use std::sync::OnceLock;

use keelson_model::error::ErrorKind;
use keelson_shim_protocol::FailReason;
use nix::errno::Errno;

/// A step that failed, with its object, in words for the caller who asked for the container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// Which exit code Docker clients expect.
    pub(crate) reason: FailReason,
    /// What the caller can do about it.
    pub(crate) kind: ErrorKind,
    /// Like `mount tmpfs on /dev/shm: EINVAL: Invalid argument`.
    pub(crate) message: String,
    /// The kernel's answer, where the step was a system call.
    pub(crate) cause: Option<Errno>,
}

impl Failure {
    /// Something on the machine failed.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(FailReason::Internal, ErrorKind::Internal, message)
    }

    /// The specification or the command line asks for something impossible.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailReason::Internal, ErrorKind::InvalidInput, message)
    }

    /// The container's present state forbids it, or it exists already.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(FailReason::Internal, ErrorKind::Conflict, message)
    }

    /// There is no such container.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailReason::Internal, ErrorKind::NotFound, message)
    }

    /// The program does not support it yet.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(FailReason::Internal, ErrorKind::NotImplemented, message)
    }

    /// A failure of the container's command.
    pub(crate) fn command(reason: FailReason, message: impl Into<String>) -> Self {
        Self::new(reason, ErrorKind::InvalidInput, message)
    }

    /// A system call's failure.
    fn of_call(step: impl Into<String>, errno: Errno) -> Self {
        Self {
            cause: Some(errno),
            ..Self::internal(format!("{}: {errno:?}: {}", step.into(), errno.desc()))
        }
    }

    /// The exit code of a process that fails before it executes its command. The codes are those of
    /// shells.
    pub(crate) fn exit_code(&self) -> i32 {
        self.reason.exit_code()
    }

    /// The exit code that engines get, as Docker decides it: anything that does not exist counts as
    /// a missing command, and anything that is not permitted counts as a command that can't be
    /// executed. This also holds for the working directory and the source of a mount.
    pub(crate) fn told_reason(&self) -> FailReason {
        match (self.reason, self.cause) {
            (FailReason::Internal, Some(Errno::EACCES | Errno::EISDIR)) => {
                FailReason::NotExecutable
            }
            (FailReason::Internal, Some(Errno::ENOENT | Errno::ENOTDIR)) => FailReason::NotFound,
            (reason, _) => reason,
        }
    }

    fn new(reason: FailReason, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            reason,
            kind,
            message: message.into(),
            cause: None,
        }
    }
}

/// Where warnings go, if not to standard error.
static WARNINGS: OnceLock<fn(&str)> = OnceLock::new();

/// Sets where warnings go. Only the first call counts.
pub(crate) fn tell_warnings(to: fn(&str)) {
    let _ = WARNINGS.set(to);
}

/// Reports failures that no longer change anything.
pub(crate) fn warn(failures: &[Failure]) {
    failures.iter().for_each(warning);
}

/// Reports a warning to the caller.
pub(crate) fn warning(message: impl std::fmt::Display) {
    match WARNINGS.get() {
        Some(tell) => tell(&message.to_string()),
        None => eprintln!("keelson-runtime: warning: {message}"),
    }
}

/// Adds the name of the step to a system call's failure.
pub(crate) trait Step<T> {
    /// `step` is evaluated only when there is a failure: `format!("mount {kind} on {path}")`.
    fn step<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|errno| Failure::of_call(step(), errno))
    }
}

impl<T> Step<T> for Result<T, rustix::io::Errno> {
    fn step<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|error| Errno::from_raw(error.raw_os_error()))
            .step(step)
    }
}

impl<T> Step<T> for Result<T, std::io::Error> {
    fn step<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|error| match error.raw_os_error() {
            Some(number) => Failure::of_call(step(), Errno::from_raw(number)),
            None => Failure::internal(format!("{}: {error}", step().into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answer_tells_the_exit_code() {
        let failed = |errno: Errno| Err::<(), _>(errno).step(|| "mount /a").unwrap_err();
        for (errno, code) in [
            (Errno::ENOENT, 127),
            (Errno::ENOTDIR, 127),
            (Errno::EACCES, 126),
            (Errno::EISDIR, 126),
            (Errno::EPERM, 128),
            (Errno::ENOMEM, 128),
        ] {
            let failure = failed(errno);
            assert_eq!(failure.cause, Some(errno));
            assert_eq!(failure.told_reason().exit_code(), code, "{failure}");
            assert_eq!(failure.exit_code(), 128);
        }
        // A kind that the step sets itself has priority.
        let said = Failure {
            cause: Some(Errno::EACCES),
            ..Failure::command(FailReason::NotFound, "exec")
        };
        assert_eq!(said.told_reason(), FailReason::NotFound);
    }
}
