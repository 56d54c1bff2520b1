//! The running health check of a container.

use std::sync::Arc;

use serde_json::Value;
use tokio::task::AbortHandle;

use crate::machine::CheckNumber;

/// The state of one container's health checks.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) current: Option<Check>,
    /// The OCI process object for the checks of the run with this first process. It is cached,
    /// because all checks are alike and frequent.
    pub(crate) process: Option<(i32, Arc<Value>)>,
}

/// A running check.
pub(crate) struct Check {
    pub(crate) number: CheckNumber,
    /// The check's execution, as clients see it.
    pub(crate) exec: String,
    pub(crate) task: AbortHandle,
}

impl Checks {
    /// Removes a check, if it is still the running one.
    pub(crate) fn take(&mut self, number: CheckNumber) -> Option<Check> {
        self.current.take_if(|check| check.number == number)
    }
}
