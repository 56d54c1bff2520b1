//! Starting containers.

use std::sync::Arc;

use jiff::Timestamp;
use keelson_shim_protocol::{Request, exit_code};
use keelson_store::objects::remove_tree;

use crate::adopt::Fate;
use crate::container::{Container, PendingAttach};
use crate::engine::Inner;
use crate::shim::{Connection, Shim};
use crate::types::{AttachOptions, Scope, Status};
use crate::{Engine, EngineError};

/// Who starts a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starter {
    Caller,
    /// The restart policy.
    Policy,
}

impl Engine {
    /// Starts a container and returns when its command was executed.
    ///
    /// # Errors
    /// [`EngineError::NotModified`] when it runs, [`EngineError::Start`] when its command cannot
    /// be executed, and others.
    pub async fn start(&self, scope: Scope, name: &str) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move {
            let _guard = container.lock().await?;
            inner.start(&container, Starter::Caller).await
        })
        .await
    }
}

impl Inner {
    /// Starts a container. The caller holds the operation lock.
    pub(crate) async fn start(
        self: &Arc<Self>,
        container: &Arc<Container>,
        starter: Starter,
    ) -> Result<(), EngineError> {
        let status = container.snapshot().state.status;
        match status {
            Status::Paused => {
                return Err(EngineError::Conflict(
                    "cannot start a paused container, try unpause instead".to_owned(),
                ));
            }
            Status::Restarting if starter == Starter::Policy => {}
            _ if status.counts_as_running() => {
                return Err(EngineError::NotModified(container.id.clone()));
            }
            _ if !status.can_start() => {
                return Err(EngineError::Conflict(
                    "container is marked for removal and cannot be started".to_owned(),
                ));
            }
            _ => {}
        }
        if container.live().unknown {
            return Err(EngineError::Conflict(format!(
                "container {} cannot be started: its shim does not answer, so it may run; try again, or remove it with force",
                container.id
            )));
        }
        if self.is_shutting_down() {
            return Err(EngineError::Conflict(
                "the engine is shutting down".to_owned(),
            ));
        }
        container.live().generation += 1;
        match self.run(container).await {
            Ok(running) => {
                self.started(container, starter, running);
                Ok(())
            }
            Err(error) => {
                self.start_failed(container, &error).await;
                Err(error)
            }
        }
    }

    async fn run(self: &Arc<Self>, container: &Arc<Container>) -> Result<Running, EngineError> {
        let (inner, prepared) = (Arc::clone(self), Arc::clone(container));
        tokio::task::spawn_blocking(move || inner.prepare(&prepared))
            .await
            .map_err(|error| EngineError::Internal(format!("task failed: {error}")))??;
        let shim = container.shim();
        shim.spawn(&self.runtime).await?;
        match connect_and_start(&shim, container).await {
            Ok(running) => Ok(running),
            Err(error) => {
                shim.end().await;
                Err(error)
            }
        }
    }

    fn started(self: &Arc<Self>, container: &Arc<Container>, starter: Starter, running: Running) {
        {
            let mut live = container.live();
            live.exit_asked = false;
            if starter == Starter::Caller {
                live.back_off = None;
            }
            live.update(|state| {
                state.status = Status::Running;
                state.pid = running.pid;
                state.exit_code = 0;
                state.error.clear();
                state.oom_killed = false;
                state.started_at = Some(Timestamp::now());
                match starter {
                    Starter::Caller => {
                        state.restart_count = 0;
                        state.stopped_by_caller = false;
                    }
                    Starter::Policy => state.restart_count += 1,
                }
            });
        }
        self.persist(container);
        self.emit(container, "start", &[]);
        self.watch(container, running.wait);
    }

    /// Waits in the background for a container's end.
    pub(crate) fn watch(self: &Arc<Self>, container: &Arc<Container>, mut wait: Connection) {
        let inner = Arc::clone(self);
        let container = Arc::clone(container);
        tokio::spawn(async move {
            let exit = loop {
                match wait.receive().await {
                    Ok(Some(keelson_shim_protocol::Response::Exited(exit))) => break Some(exit),
                    Ok(Some(_)) => {}
                    // The shim has ended and left a record, or was killed, or only this connection
                    // broke.
                    Ok(None) | Err(_) => match inner.find_out(&container).await {
                        Fate::Lives(again, _) => wait = again,
                        Fate::Gone(exit) => break exit,
                    },
                }
            };
            inner.ended(&container, exit).await;
        });
    }

    async fn start_failed(self: &Arc<Self>, container: &Container, error: &EngineError) {
        let code = match error {
            EngineError::Start { reason, .. } => reason.exit_code(),
            _ => exit_code::NOT_STARTED,
        };
        tracing::warn!(id = container.id, %error, "container not started");
        if let Err(error) = remove_tree(&container.run_folder) {
            tracing::warn!(id = container.id, %error, "run folder not removed");
        }
        let auto_remove = {
            let mut live = container.live();
            // They would wait for a start that was tried and is over.
            live.pending.clear();
            live.update(|state| {
                state.pid = 0;
                state.exit_code = code;
                state.error = error.to_string();
                if state.status == Status::Restarting {
                    state.status = Status::Exited;
                }
            });
            live.notify(|condition| condition == crate::WaitCondition::NotRunning);
            live.snapshot.spec.auto_remove
        };
        self.persist(container);
        if auto_remove && let Err(error) = self.remove_now(container) {
            tracing::error!(id = container.id, %error, "container not removed");
        }
    }
}

struct Running {
    pid: i32,
    wait: Connection,
}

/// Registers the wait and connects all clients that attached before, and only then lets the
/// command run: nothing of it is missed.
async fn connect_and_start(shim: &Shim, container: &Container) -> Result<Running, EngineError> {
    let mut wait = shim.connect().await?;
    wait.send(&Request::Wait { exec: None }).await?;
    let pending = std::mem::take(&mut container.live().pending);
    for PendingAttach { options, connected } in pending {
        if connected.is_closed() {
            continue;
        }
        let connection = shim.connect().await?;
        match connection.attach(&attach_request(options)).await {
            // The client may have gone away meanwhile.
            Ok(stream) => drop(connected.send(stream)),
            // Only this client misses the output; it sees the end of its stream.
            Err(error) => tracing::warn!(id = container.id, %error, "client not attached"),
        }
    }
    let pid = shim.connect().await?.start().await?;
    Ok(Running { pid, wait })
}

pub(crate) fn attach_request(options: AttachOptions) -> Request {
    Request::Attach {
        exec: None,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    }
}
