//! Finds out what happened to containers while no engine watched them.
//!
//! Only two answers of the kernel mean that a shim is gone: there is no socket, or nobody listens
//! on it. Everything else (no answer, too many open files, a full queue) says nothing about the
//! container: its state stays as it was written, marked as unknown, and the shim is asked again
//! until it answers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keelson_shim_protocol::{Exit, OciStatus, Request, Response};

use crate::EngineError;
use crate::container::Container;
use crate::engine::Inner;
use crate::machine::{Alive, Boot, Event, lost_exit};
use crate::shim::Connection;
use crate::types::Scope;

/// Pause before a shim is asked again; it doubles.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);
/// How often an exit record that can't be read is tried before the container counts as ended in an
/// unknown way.
const RECORD_ATTEMPTS: u32 = 8;

/// The state of a shim.
pub(crate) enum Fate {
    /// It runs; the connection will report the end of its container.
    Lives(Connection, Alive),
    /// It is gone, and left this record.
    Gone(Option<Exit>),
}

impl Inner {
    /// Finds out the state of a container of an earlier engine and of its executions, and reports
    /// it to the machine. `boot`: the boot in which its shim was started.
    pub(crate) async fn settle(self: &Arc<Self>, container: &Arc<Container>, boot: Boot) {
        let executions = self.find_executions(container);
        let fate = self.find_out(container).await;
        self.adopt_executions(container, executions, &fate).await;
        self.report(container, fate, boot).await;
    }

    /// Finds out the state of a container whose shim has closed the connection.
    pub(crate) async fn settle_again(self: &Arc<Self>, container: &Arc<Container>) {
        let fate = self.find_out(container).await;
        self.report(container, fate, Boot::This).await;
    }

    async fn report(self: &Arc<Self>, container: &Arc<Container>, fate: Fate, boot: Boot) {
        let (event, wait) = match fate {
            Fate::Lives(wait, alive) => {
                self.plug_in_again(&container.snapshot(), alive.pid).await;
                (Event::FoundAlive(alive), Some(wait))
            }
            Fate::Gone(record) => (Event::FoundGone { record, boot }, None),
        };
        self.handle(container, event, wait).await;
    }

    /// Marks the containers whose state is not found out yet, so that clients see it.
    pub(crate) fn tell_unknown(&self) {
        for scope in [Scope::User, Scope::System] {
            let containers = self.with(scope, |registry| {
                registry.values().cloned().collect::<Vec<_>>()
            });
            for container in containers {
                let mut live = container.live();
                if live.machine.is_unknown() {
                    tracing::warn!(id = container.id, "shim does not answer; it is asked again");
                    // This only marks the state and causes no action.
                    live.step(Event::NoAnswer, self.now());
                }
            }
        }
    }

    /// Asks a container's shim until its state is known.
    async fn find_out(self: &Arc<Self>, container: &Arc<Container>) -> Fate {
        let mut pause = FIRST;
        let mut unreadable = 0;
        loop {
            let error = match ask(container).await {
                Ok(Some((wait, alive))) => return Fate::Lives(wait, alive),
                Ok(None) => match container.shim().exit_record() {
                    Ok(record) => return Fate::Gone(record),
                    Err(error) if unreadable >= RECORD_ATTEMPTS => {
                        let reason = format!("the record of the end can't be read: {error}");
                        return Fate::Gone(Some(lost_exit(&reason)));
                    }
                    Err(error) => {
                        unreadable += 1;
                        error
                    }
                },
                Err(error) => error,
            };
            tracing::debug!(id = container.id, %error, "the state of a container is unknown");
            self.handle(container, Event::NoAnswer, None).await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}

/// Asks a shim for its container's state, and registers for its end on the same connection. Waits
/// without a limit: a stopped shim answers as soon as it continues. `None`: the shim is gone, or
/// was ended because its container was never started.
async fn ask(container: &Container) -> Result<Option<(Connection, Alive)>, EngineError> {
    let shim = container.shim();
    let Some(mut connection) = shim.connect_if_alive().await? else {
        return Ok(None);
    };
    let answer = connection.request_unhurried(&Request::State).await?;
    let Response::State { status, pid, exit } = answer else {
        return Err(EngineError::Shim {
            id: container.id.clone(),
            operation: "ask for the state",
            reason: format!("unexpected answer {answer:?}"),
        });
    };
    let paused = match status {
        OciStatus::Paused => true,
        // A stopped container has ended, and its shim will soon write the record.
        OciStatus::Running | OciStatus::Stopped => false,
        OciStatus::Creating | OciStatus::Created => {
            shim.end().await;
            return Ok(None);
        }
    };
    connection.send(&Request::Wait { exec: None }).await?;
    let started = exit.map(|exit| i128::from(exit.started_at));
    let started = started.filter(|started| *started > 0);
    let alive = Alive {
        pid,
        paused,
        started_at: started.and_then(|started| Timestamp::from_nanosecond(started).ok()),
    };
    Ok(Some((connection, alive)))
}
