//! A service and what is known of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostd_containers::{HealthStatus, Snapshot};
use jiff::Timestamp;
use keelson_model::host::ServiceRestart;
use keelson_model::service::{ServiceState, ServiceStatus};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::definition::Definition;
use crate::streak::{SETTLED, Streak};

/// What those that wait for a service need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Up {
    /// Its first start is not decided yet.
    Undecided,
    /// It runs, and is healthy if that is checked.
    Yes,
    /// It could not be started, has ended, or is not to run.
    No,
}

/// A service.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) definition: Definition,
    /// Why it cannot start as it is configured.
    pub(crate) problem: Option<String>,
    pub(crate) up: watch::Sender<Up>,
    progress: Mutex<Progress>,
    /// Keeps it running.
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the supervisor knows about a service and the engine does not.
#[derive(Debug, Clone)]
struct Progress {
    /// Starting, running, waiting or stopped; failed and disabled never change.
    state: ServiceState,
    error: Option<String>,
    since: Timestamp,
    restarts: u32,
    streak: Streak,
}

/// How an attempt to run a service has ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It ran for this time. `None`: its container has gone.
    Ended { code: Option<i32>, ran: Duration },
    /// It was not started.
    NotStarted { error: String },
}

impl Entry {
    pub(crate) fn new(name: String, definition: Definition, problem: Option<String>) -> Self {
        let (state, up) = match (&problem, definition.config.is_enabled()) {
            (_, false) => (ServiceState::Disabled, Up::No),
            (Some(_), true) => (ServiceState::Failed, Up::No),
            (None, true) => (ServiceState::Starting, Up::Undecided),
        };
        Self {
            name,
            definition,
            up: watch::Sender::new(up),
            progress: Mutex::new(Progress {
                state,
                error: problem.clone(),
                since: Timestamp::now(),
                restarts: 0,
                streak: Streak::default(),
            }),
            problem,
            task: Mutex::new(None),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to run and can.
    pub(crate) fn can_run(&self) -> bool {
        self.problem.is_none() && self.definition.config.is_enabled()
    }

    /// Ends the task that keeps it running, and lets another one do that, if any.
    pub(crate) fn keep_by(&self, task: Option<JoinHandle<()>>) {
        let former = std::mem::replace(&mut *self.task(), task);
        if let Some(former) = former {
            former.abort();
        }
    }

    /// It is started anew, by a caller.
    pub(crate) fn starts(&self) {
        let mut progress = self.progress();
        progress.state = ServiceState::Starting;
        progress.error = None;
        progress.since = Timestamp::now();
        progress.streak = Streak::default();
        drop(progress);
        self.up.send_replace(Up::Undecided);
    }

    /// It waits for another service.
    pub(crate) fn waits_for(&self, other: &str) {
        self.progress().error = Some(format!("waits for service {other}"));
    }

    pub(crate) fn runs(&self) {
        let mut progress = self.progress();
        progress.state = ServiceState::Running;
        progress.error = None;
        progress.since = Timestamp::now();
    }

    /// It was stopped, by a caller or for good.
    pub(crate) fn stopped(&self) {
        let mut progress = self.progress();
        progress.state = ServiceState::Stopped;
        progress.error = None;
        progress.since = Timestamp::now();
        drop(progress);
        self.up.send_replace(Up::No);
    }

    /// Records how an attempt ended. Returns the pause before the next one; `None`: there is none.
    pub(crate) fn attempted(&self, attempt: &Attempt) -> Option<Duration> {
        let restart = self.definition.config.restart.unwrap_or_default();
        let (again, error) = match attempt {
            Attempt::NotStarted { error } => (true, Some(error.clone())),
            Attempt::Ended { code: None, .. } => (true, Some("its container has gone".to_owned())),
            Attempt::Ended {
                code: Some(code), ..
            } => {
                let again = match restart {
                    ServiceRestart::Always => true,
                    ServiceRestart::OnFailure => *code != 0,
                    ServiceRestart::Never => false,
                };
                (
                    again,
                    (*code != 0).then(|| format!("ended with exit code {code}")),
                )
            }
        };
        let mut progress = self.progress();
        progress.error = error;
        progress.since = Timestamp::now();
        if !again {
            progress.state = ServiceState::Stopped;
            return None;
        }
        progress.state = ServiceState::Waiting;
        progress.restarts = progress.restarts.saturating_add(1);
        let pause = match attempt {
            Attempt::NotStarted { .. } => progress.streak.not_started(),
            Attempt::Ended { ran, .. } => progress.streak.ended(*ran),
        };
        Some(pause)
    }

    /// What the supervisor and the engine know.
    pub(crate) fn status(&self, container: Option<&Snapshot>) -> ServiceStatus {
        let progress = self.progress().clone();
        let container = container.map(|container| (container, &container.state));
        let running = container.filter(|(_, state)| state.status.has_process());
        let started = running.and_then(|(_, state)| state.started_at);
        let lasts = started.map(|started| Timestamp::now().duration_since(started));
        let lasts = lasts.map(|lasts| Duration::try_from(lasts).unwrap_or(SETTLED));
        let settled = matches!(
            progress.state,
            ServiceState::Failed | ServiceState::Disabled | ServiceState::Stopped
        );
        let health = running.and_then(|(container, _)| container.health.as_ref());
        ServiceStatus {
            name: self.name.clone(),
            description: self
                .definition
                .config
                .description
                .clone()
                .unwrap_or_default(),
            state: match !settled && progress.streak.is_failing(lasts) {
                true => ServiceState::Failing,
                false => progress.state,
            },
            enabled: self.definition.config.is_enabled(),
            image: self.definition.image(),
            health: health.map(|health| {
                let word = match health.status {
                    HealthStatus::Starting => "starting",
                    HealthStatus::Healthy => "healthy",
                    HealthStatus::Unhealthy => "unhealthy",
                };
                word.to_owned()
            }),
            pid: running.map(|(_, state)| state.pid),
            restarts: progress.restarts,
            since: started.unwrap_or(progress.since).to_string(),
            exit_code: container
                .filter(|(_, state)| state.finished_at.is_some())
                .map(|(_, state)| state.exit_code),
            error: progress.error,
        }
    }
}
