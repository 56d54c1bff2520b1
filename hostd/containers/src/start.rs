//! Starts containers: the effect that starts a shim and the command.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keelson_blocking::blocking;
use keelson_shim_protocol::{Request, Response};

use crate::attach::attach_request;
use crate::container::{Container, PendingAttach};
use crate::engine::Inner;
use crate::machine::{Ask, Event};
use crate::shim::{Connection, Shim};
use crate::types::Scope;
use crate::{Engine, EngineError, forward};

/// How long the report of an end waits for attached clients to receive the output. Some clients
/// stop reading when they learn of the end.
const OUTPUT_TIME: Duration = Duration::from_millis(500);

impl Engine {
    /// Starts a container and returns when its command was executed.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when it runs or can't be started, [`EngineError::Start`] when its
    /// command cannot be executed, and others.
    pub async fn start(&self, scope: Scope, name: &str) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move { inner.ask(&container, Ask::Start).await }).await
    }
}

/// A command that was executed.
pub(crate) struct Running {
    pub(crate) pid: i32,
    /// A time before its execution.
    pub(crate) at: Timestamp,
    pub(crate) wait: Connection,
}

impl Inner {
    /// Creates a run. A failure leaves no shim, and nothing in networks.
    pub(crate) async fn run(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<Running, EngineError> {
        self.await_turn(container).await;
        // Only one run at a time may mount the writable layer.
        let Some(_closed) = container.gate.close().await else {
            return Err(EngineError::Conflict(format!(
                "container {}: files are being copied into it; start it again when that has ended",
                container.id
            )));
        };
        let running = self.make_run(container).await;
        if running.is_err() {
            self.unplug(&container.id).await;
        }
        running
    }

    async fn make_run(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<Running, EngineError> {
        // Held until the container is created.
        let joined = Arc::new(self.join_donors(container).await?);
        self.reserve_networks(&container.snapshot()).await?;
        let (inner, prepared) = (Arc::clone(self), Arc::clone(container));
        let joining = Arc::clone(&joined);
        blocking(move || inner.prepare(&prepared, &joining)).await??;
        forward::check_server(container).await?;
        let shim = container.shim();
        let running = match shim.spawn(&self.runtime).await {
            Ok(pid) => match self.plug_in(&container.snapshot(), pid).await {
                Ok(()) => connect_and_start(&shim, container).await,
                Err(error) => Err(error),
            },
            // The shim has reported this, and has ended.
            Err(error @ EngineError::Start { .. }) => return Err(error),
            Err(error) => Err(error),
        };
        drop(joined);
        if running.is_err() {
            shim.end().await;
        }
        running
    }

    /// Waits in the background for the end of a run, and reports it.
    pub(crate) fn watch(
        self: &Arc<Self>,
        container: &Arc<Container>,
        pid: i32,
        mut wait: Connection,
    ) {
        forward::start(container, self.images.era());
        let (inner, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move {
            loop {
                match wait.receive().await {
                    Ok(Some(Response::Exited(exit))) => {
                        let taken = container.carriers.closed();
                        if tokio::time::timeout(OUTPUT_TIME, taken).await.is_err() {
                            tracing::debug!(id = container.id, "an attached client does not read");
                        }
                        container.live().checks.run = None;
                        let ended = Event::Exited { pid, exit };
                        return inner.handle(&container, ended, None).await;
                    }
                    Ok(Some(_)) => {}
                    // The shim has ended and left a record, or was killed, or only this connection
                    // broke.
                    Ok(None) | Err(_) => {
                        container.live().checks.run = None;
                        return inner.settle_again(&container).await;
                    }
                }
            }
        });
    }
}

/// Registers the wait, connects all clients that attached before, and only then starts the command,
/// so that no output is missed.
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
    let mut control = shim.connect().await?;
    // Before the command, so that its first output is not older than the run.
    let at = Timestamp::now();
    let pid = control.start().await?;
    Ok(Running { pid, at, wait })
}
