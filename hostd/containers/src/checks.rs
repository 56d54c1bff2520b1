//! The running health check of a container.

use std::sync::Arc;

use serde_json::Value;
use tokio::task::AbortHandle;

use crate::machine::CheckNumber;
use crate::shim::Connection;

/// The state of one container's health checks.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) current: Option<Check>,
    pub(crate) run: Option<CheckedRun>,
}

/// What all checks of one run share, because they are alike and frequent.
pub(crate) struct CheckedRun {
    /// The first process of the run.
    pub(crate) pid: i32,
    /// The OCI process object.
    pub(crate) process: Arc<Value>,
    /// A connection to the shim; the running check has taken it. If it is cancelled, the connection
    /// closes, and that ends the process.
    pub(crate) connection: Option<Connection>,
}

/// A running check.
pub(crate) struct Check {
    pub(crate) number: CheckNumber,
    /// The check's execution, as clients see it.
    pub(crate) exec: String,
    pub(crate) task: AbortHandle,
}

impl Checks {
    /// Keeps a connection for the next check of the same run.
    pub(crate) fn keep(&mut self, pid: i32, connection: Connection) {
        if let Some(run) = self.run.as_mut().filter(|run| run.pid == pid) {
            run.connection = Some(connection);
        }
    }

    /// Removes a check, if it is still the running one.
    pub(crate) fn take(&mut self, number: CheckNumber) -> Option<Check> {
        self.current.take_if(|check| check.number == number)
    }
}
