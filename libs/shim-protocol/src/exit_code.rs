//! The exit codes with which Docker's clients, shells and `runc` report how a process ended, or why
//! it was never executed. They are defined only here: the runtime, the shim and the engine use
//! them.

use crate::FailReason;

/// The engine or the runtime failed before there was a process.
pub const RUNTIME_FAILED: i32 = 125;
/// The command exists but can't be executed.
pub const NOT_EXECUTABLE: i32 = 126;
/// The command does not exist.
pub const NOT_FOUND: i32 = 127;
/// The process was not started, for any other reason.
pub const NOT_STARTED: i32 = 128;
/// Nobody knows how the process ended: its shim was killed, for instance.
pub const UNKNOWN: i32 = 255;

/// The exit code of a process that was killed by a signal.
#[must_use]
pub const fn killed_by(signal: i32) -> i32 {
    128 + signal
}

impl FailReason {
    /// The exit code of a process that was not executed for this reason.
    #[must_use]
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::NotFound => NOT_FOUND,
            Self::NotExecutable => NOT_EXECUTABLE,
            Self::Internal => NOT_STARTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_docker() {
        assert_eq!(FailReason::NotFound.exit_code(), 127);
        assert_eq!(FailReason::NotExecutable.exit_code(), 126);
        assert_eq!(FailReason::Internal.exit_code(), 128);
        assert_eq!(killed_by(9), 137);
    }
}
