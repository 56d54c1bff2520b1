//! Finding out what became of containers while no engine watched them.
//!
//! Only two answers of the kernel mean that a shim is gone: there is no socket, or nobody listens
//! on it. Everything else (no answer, too many open files, a full queue) says nothing about the
//! container: its state stays as it was written, marked as unknown, and the shim is asked again
//! until it answers.

use std::sync::Arc;
use std::time::Duration;

use keelson_shim_protocol::{Exit, OciStatus, Request, Response};
use keelson_store::objects::remove_tree;

use crate::EngineError;
use crate::container::Container;
use crate::document::StateDocument;
use crate::ended::lost_exit;
use crate::engine::{Inner, timestamp};
use crate::restart::{self, Occasion};
use crate::shim::Connection;
use crate::start::Starter;
use crate::types::{Scope, Status};

/// Pause before a shim is asked again; it doubles.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);
/// How often an exit record that can't be read is tried before the container counts as ended in an
/// unknown way.
const RECORD_ATTEMPTS: u32 = 8;
/// What a container's `State.Error` says meanwhile.
const UNKNOWN: &str = "the container's shim does not answer; the state is the last one known";

/// The state that was read, or why it could not be.
pub(crate) type Found = Result<StateDocument, EngineError>;

/// What became of a shim.
pub(crate) enum Fate {
    /// It lives; the connection will tell the end of its container.
    Lives(Connection, Lives),
    /// It is gone, and left this record.
    Gone(Option<Exit>),
}

/// What a living shim says of its container.
pub(crate) struct Lives {
    status: Status,
    pid: i32,
    exit: Option<Exit>,
}

impl Inner {
    /// Finds out what became of a container since its state was written, records it, and starts
    /// the container again when its restart policy says so.
    pub(crate) async fn settle(self: &Arc<Self>, container: &Arc<Container>, found: &Found) {
        let executions = self.find_executions(container);
        let fate = self.find_out(container).await;
        self.adopt_executions(container, executions, &fate).await;
        let _guard = container.operation.lock().await;
        if container.live().removed {
            return;
        }
        let restart = match (fate, found) {
            (Fate::Lives(wait, lives), _) => {
                self.adopt(container, &lives);
                self.watch(container, wait);
                false
            }
            (Fate::Gone(exit), Ok(found)) => self.settle_ended(container, found, exit).await,
            (Fate::Gone(_), Err(error)) => {
                tracing::error!(id = container.id, %error, "container not restored");
                container.update(|state| {
                    state.status = Status::Dead;
                    state.error = format!("the container's state can't be read: {error}");
                });
                false
            }
        };
        if restart {
            let (inner, container) = (Arc::clone(self), Arc::clone(container));
            tokio::spawn(async move {
                if let Ok(_guard) = container.lock().await
                    && let Err(error) = inner.start(&container, Starter::Policy).await
                {
                    tracing::warn!(id = container.id, %error, "restart policy");
                }
            });
        }
    }

    /// Says of the containers that are not settled yet that their state is not known.
    pub(crate) fn tell_unknown(&self) {
        for scope in [Scope::User, Scope::System] {
            let containers = self.with(scope, |registry| {
                registry.values().cloned().collect::<Vec<_>>()
            });
            for container in containers {
                let mut live = container.live();
                if live.unknown {
                    tracing::warn!(id = container.id, "shim does not answer; it is asked again");
                    live.update(|state| UNKNOWN.clone_into(&mut state.error));
                }
            }
        }
    }

    /// Asks a container's shim until it is known what became of it.
    pub(crate) async fn find_out(&self, container: &Container) -> Fate {
        let mut pause = FIRST;
        let mut unreadable = 0;
        let fate = loop {
            let error = match ask(container).await {
                Ok(Some((wait, lives))) => break Fate::Lives(wait, lives),
                Ok(None) => match container.shim().exit_record() {
                    Ok(record) => break Fate::Gone(record),
                    Err(error) if unreadable >= RECORD_ATTEMPTS => {
                        let reason = format!("the record of the end can't be read: {error}");
                        break Fate::Gone(Some(lost_exit(&reason)));
                    }
                    Err(error) => {
                        unreadable += 1;
                        error
                    }
                },
                Err(error) => error,
            };
            tracing::debug!(id = container.id, %error, "what became of a container is not known");
            container.live().unknown = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        };
        container.live().unknown = false;
        fate
    }

    /// Takes over what a living shim says.
    fn adopt(&self, container: &Container, lives: &Lives) {
        container.update(|state| {
            state.status = lives.status;
            state.pid = lives.pid;
            state.error.clear();
            if let Some(started) = lives
                .exit
                .as_ref()
                .and_then(|exit| timestamp(exit.started_at))
            {
                state.started_at = Some(started);
            }
            if state.started_at.is_none() {
                state.started_at = Some(jiff::Timestamp::now());
            }
        });
        self.persist(container);
    }

    /// Records the end of a container whose shim is gone. Tells whether its restart policy starts
    /// it now.
    async fn settle_ended(
        self: &Arc<Self>,
        container: &Arc<Container>,
        found: &StateDocument,
        record: Option<Exit>,
    ) -> bool {
        container.update(|state| state.error.clone_from(&found.state.error));
        let status = found.state.status;
        if status.has_process() {
            let exit = match record {
                Some(exit) => exit,
                None if found.boot != self.boot => lost_exit("the machine went down"),
                None => {
                    self.kill_leftovers(container).await;
                    lost_exit("the container's shim was killed")
                }
            };
            self.clean_run(container);
            let (restart, auto_remove) = self.record_exit(container, &exit, Some(Occasion::Open));
            return self.after_end(container, restart.is_some(), auto_remove);
        }
        self.clean_run(container);
        let snapshot = container.snapshot();
        // It waited for a restart, or was about to be removed.
        if matches!(status, Status::Restarting | Status::Removing) {
            container.update(|state| state.status = Status::Exited);
        }
        let removing =
            status == Status::Removing || (status == Status::Exited && snapshot.spec.auto_remove);
        let restart = !removing
            && restart::should_restart(
                snapshot.spec.restart,
                &container.snapshot().state,
                Occasion::Open,
            );
        self.after_end(container, restart, removing)
    }

    fn after_end(self: &Arc<Self>, container: &Container, restart: bool, remove: bool) -> bool {
        // Services may have changed with the OS: whoever manages them starts them.
        let restart = restart && container.scope == Scope::User;
        if !restart && container.snapshot().state.status == Status::Restarting {
            container.update(|state| state.status = Status::Exited);
        }
        if remove && let Err(error) = self.remove_now(container) {
            tracing::error!(id = container.id, %error, "container not removed");
        }
        if restart && !remove {
            container.update(|state| state.status = Status::Restarting);
        }
        restart && !remove
    }

    fn clean_run(&self, container: &Container) {
        if let Err(error) = remove_tree(&container.run_folder) {
            tracing::warn!(id = container.id, %error, "run folder not removed");
        }
    }
}

/// Asks a shim for its container's state, and registers for its end on the same connection. However
/// long it takes: a stopped shim answers as soon as it goes on. `None`: the shim is gone, or was
/// ended because its container never got as far as to be started.
async fn ask(container: &Container) -> Result<Option<(Connection, Lives)>, EngineError> {
    let shim = container.shim();
    let Some(mut connection) = shim.connect_if_alive().await? else {
        return Ok(None);
    };
    let answer = connection.request_unhurried(&Request::State).await?;
    let Response::State { status, pid, exit } = answer else {
        return Err(EngineError::Internal(format!(
            "the shim of container {} does not tell its state: {answer:?}",
            container.id
        )));
    };
    let status = match status {
        OciStatus::Paused => Status::Paused,
        // A stopped one has ended and is about to leave its record.
        OciStatus::Running | OciStatus::Stopped => Status::Running,
        OciStatus::Creating | OciStatus::Created => {
            shim.end().await;
            return Ok(None);
        }
    };
    connection.send(&Request::Wait { exec: None }).await?;
    Ok(Some((connection, Lives { status, pid, exit })))
}
