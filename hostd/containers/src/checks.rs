//! The check of a container's health that is under way.

use std::sync::Arc;

use serde_json::Value;
use tokio::task::AbortHandle;

use crate::machine::CheckNumber;

/// How the health of one container is found out.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) current: Option<Check>,
    /// The OCI process object of the checks of the run with this first process. All are alike, and
    /// are made often.
    pub(crate) process: Option<(i32, Arc<Value>)>,
}

/// A check under way.
pub(crate) struct Check {
    pub(crate) number: CheckNumber,
    /// As an execution.
    pub(crate) exec: String,
    pub(crate) task: AbortHandle,
}

impl Checks {
    /// Takes a check out, if it is still the one under way.
    pub(crate) fn take(&mut self, number: CheckNumber) -> Option<Check> {
        self.current.take_if(|check| check.number == number)
    }
}
