//! Checks the health of containers: carries out [`Action::Check`](crate::machine::Action::Check)
//! and related actions. The machine (`machine/health.rs`) decides when to check, and what the
//! results mean.
//!
//! A check is one request to the container's shim, on one connection for all checks of a run. The
//! shim executes the command, keeps the first bytes of its output, and kills it when its time is
//! over or the connection ends. That includes a kill of this engine, so the next engine need not
//! look for running checks.
//!
//! The health is written to the directory of the run, which is in memory: checks don't wear a disk,
//! and the health from before a reboot is useless. Results that change nothing are written every ten
//! seconds only, because writing takes longer than the rest of the engine's part of a check.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keelson_model::limits;
use keelson_model::spec::HealthCheck;
use keelson_shim_protocol::{Request, Response};
use keelson_store::document::Rest;
use keelson_store::{Document, Durability, Era, document};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checks::{Check, CheckedRun};
use crate::container::Container;
use crate::engine::{Inner, off_workers};
use crate::executions::ExecRequest;
use crate::machine::{CheckNumber, Event};
use crate::shim::Connection;
use crate::types::ContainerAction;
use crate::types::health::{CheckOutcome, CheckResult, Health};
use crate::{EngineError, Signal, names};

/// How many bytes of a check's output are kept.
const OUTPUT: u32 = 4096;
/// The time that a check may take in addition to its limit, to create and to end its process.
const AROUND: Duration = Duration::from_secs(30);
/// Name of the document.
const FILE: &str = "health.json";
/// The engine that reads it may be older than this one, at any time.
const ERA: Era = Era::Trial;

/// `health.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct HealthDocument {
    #[serde(flatten)]
    health: Health,
    #[serde(flatten)]
    rest: Rest,
}

impl Document for HealthDocument {
    const VERSION: u32 = 1;
}

impl Inner {
    /// Checks a container's health in the background, and tells its machine.
    pub(crate) fn begin_check(self: &Arc<Self>, container: &Arc<Container>, number: CheckNumber) {
        let snapshot = container.snapshot();
        let Some(check) = snapshot.spec.health.clone() else {
            return;
        };
        let exec = names::new_id();
        let command = request(&check).command_line();
        self.emit(
            container,
            ContainerAction::ExecCreate {
                exec: exec.clone(),
                command: command.clone(),
            },
        );
        self.emit(
            container,
            ContainerAction::ExecStart {
                exec: exec.clone(),
                command,
            },
        );
        // The lock prevents the task from ending before it is recorded.
        let mut live = container.live();
        let (inner, checked, name) = (Arc::clone(self), Arc::clone(container), exec.clone());
        let pid = snapshot.state.pid;
        let task = tokio::spawn(async move {
            let result = inner.check(&checked, pid, &check, name).await;
            if inner.check_is_over(&checked, number, &result) {
                let event = Event::Checked(number, result);
                inner.handle(&checked, event, None).await;
            }
        });
        live.checks.current = Some(Check {
            number,
            exec,
            task: task.abort_handle(),
        });
    }

    /// Cancels a check whose result is not needed any more.
    pub(crate) fn end_check(&self, container: &Container, number: CheckNumber) {
        // Release the lock first: sending the event takes it, too.
        let over = container.live().checks.take(number);
        if let Some(check) = over {
            // The end of the task closes the connection, and that ends the process.
            check.task.abort();
            self.tell_end(container, check.exec, Signal::KILL.number() + 128);
        }
    }

    /// Reports the end of a check once. False if it was ended meanwhile.
    fn check_is_over(
        &self,
        container: &Container,
        number: CheckNumber,
        result: &CheckResult,
    ) -> bool {
        let over = container.live().checks.take(number);
        let Some(check) = over else {
            return false;
        };
        let code = match result.outcome {
            CheckOutcome::Exited { code } => Some(code),
            CheckOutcome::TimedOut => Some(Signal::KILL.number() + 128),
            // There was no process.
            CheckOutcome::NotExecuted => None,
        };
        if let Some(code) = code {
            self.tell_end(container, check.exec, code);
        }
        true
    }

    fn tell_end(&self, container: &Container, exec: String, code: i32) {
        self.emit(container, ContainerAction::ExecDie { exec, code });
    }

    async fn check(
        self: &Arc<Self>,
        container: &Arc<Container>,
        pid: i32,
        check: &HealthCheck,
        exec: String,
    ) -> CheckResult {
        let start = Timestamp::now();
        let whole = check.timeout.saturating_add(AROUND);
        let probe = self.probe(container, pid, check, exec);
        let (outcome, output) = match tokio::time::timeout(whole, probe).await {
            Ok(Ok((Some(code), output))) => (CheckOutcome::Exited { code }, output),
            Ok(Ok((None, output))) => (CheckOutcome::TimedOut, output),
            Ok(Err(error)) => {
                let text = limits::shortened(&error.to_string(), OUTPUT as usize);
                (CheckOutcome::NotExecuted, text)
            }
            Err(_) => (CheckOutcome::TimedOut, String::new()),
        };
        CheckResult {
            start,
            end: Timestamp::now(),
            outcome,
            output,
        }
    }

    /// Makes the shim execute a check's command. Returns its output, and its exit code if it ended
    /// in time.
    async fn probe(
        self: &Arc<Self>,
        container: &Arc<Container>,
        pid: i32,
        check: &HealthCheck,
        exec: String,
    ) -> Result<(Option<i32>, String), EngineError> {
        let (process, kept) = self.checked_run(container, pid, check)?;
        let request = Request::Probe {
            exec,
            process: (*process).clone(),
            limit: u64::try_from(check.timeout.as_millis()).unwrap_or(u64::MAX),
            output: OUTPUT,
        };
        let mut connection = match kept {
            Some(kept) => kept,
            None => container.shim().connect().await?,
        };
        let answer = connection.request_unhurried(&request).await?;
        container.live().checks.keep(pid, connection);
        match answer {
            Response::Probed { code, output } => Ok((code, output)),
            Response::Failed { message, reason } => Err(EngineError::Exec { message, reason }),
            other => Err(EngineError::Shim {
                id: container.id.clone(),
                operation: "check the health",
                reason: format!("unexpected answer {other:?}"),
            }),
        }
    }

    /// The process of a run's checks, and the connection of the last one.
    fn checked_run(
        &self,
        container: &Container,
        pid: i32,
        check: &HealthCheck,
    ) -> Result<(Arc<Value>, Option<Connection>), EngineError> {
        if let Some(run) = &mut container.live().checks.run
            && run.pid == pid
        {
            return Ok((Arc::clone(&run.process), run.connection.take()));
        }
        let process = off_workers(|| self.exec_process(&request(check), container, None))?;
        let process = Arc::new(process);
        container.live().checks.run = Some(CheckedRun {
            pid,
            process: Arc::clone(&process),
            connection: None,
        });
        Ok((process, None))
    }

    /// Stores a container's health for the next engine.
    pub(crate) fn keep_health(&self, container: &Container) {
        let snapshot = container.snapshot();
        let Some(health) = &snapshot.health else {
            return;
        };
        let kept = HealthDocument {
            health: (**health).clone(),
            rest: Rest::default(),
        };
        let path = snapshot.run_directory.join(FILE);
        if let Err(error) = off_workers(|| document::write(&path, &kept, ERA, Durability::Relaxed))
        {
            tracing::warn!(id = container.id, %error, "health not kept");
        }
    }
}

impl Container {
    /// Reads the health that an earlier engine has stored.
    pub(crate) fn restore_health(&self) {
        if self.snapshot().spec.health.is_some() {
            let kept = read(&self.run_directory, &self.id);
            self.live().restore_health(kept);
        }
    }
}

/// A check as an execution.
fn request(check: &HealthCheck) -> ExecRequest {
    ExecRequest {
        args: check.command.clone(),
        ..ExecRequest::default()
    }
}

/// The stored health of a run. An unreadable file is reported and kept.
fn read(run: &Path, id: &str) -> Option<Health> {
    match document::read::<HealthDocument>(&run.join(FILE)) {
        Ok(kept) => kept.map(|kept| kept.health),
        Err(error) => {
            tracing::warn!(id, %error, "earlier health is unknown");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each version, as it was written by the release that introduced it. Never changed.
    const GOLDEN: &[(u32, &str)] = &[(
        1,
        r#"{"version":1,"readable_from":1,"status":"unhealthy","failing_streak":3,"log":[{"start":"2026-01-02T03:04:05Z","end":"2026-01-02T03:04:06Z","outcome":{"how":"exited","code":1},"output":"no"}]}"#,
    )];

    #[test]
    fn documents_of_every_version_are_read() {
        document::assert_goes_back::<HealthDocument>(GOLDEN);
        let (_, text) = GOLDEN[0];
        let kept: HealthDocument = document::parse(Path::new("x"), text.as_bytes()).unwrap();
        assert_eq!(kept.health.log[0].outcome, CheckOutcome::Exited { code: 1 });
    }

    #[test]
    fn unreadable_health_is_ignored_and_kept() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(read(run.path(), "x"), None);
        std::fs::write(run.path().join(FILE), "{").unwrap();
        assert_eq!(read(run.path(), "x"), None);
        assert!(run.path().join(FILE).exists());
    }
}
