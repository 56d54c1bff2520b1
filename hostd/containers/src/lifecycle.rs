//! Stops, signals, pauses and resizes containers by requests to their machines.

use std::sync::Arc;
use std::time::Duration;

use keelson_model::spec::Patience;
use keelson_shim_protocol::Request;

use crate::engine::{Inner, require_process};
use crate::machine::{Ask, Freezer, Stopper};
use crate::types::{ContainerAction, Scope, Snapshot};
use crate::{Engine, EngineError, Signal};

impl Engine {
    /// Sends the stop signal, and SIGKILL after `timeout` seconds (-1: never); `None` is the
    /// container's own signal or time, then the engine's.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when it does not run.
    pub async fn stop(
        &self,
        scope: Scope,
        name: &str,
        signal: Option<Signal>,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        self.ask(scope, name, move |inner, container| Ask::Stop {
            by: Stopper::Caller,
            signal: stop_signal(container, signal),
            patience: inner.patience_of(container, timeout),
        })
        .await
    }

    /// Stops a container if it runs, and starts it.
    ///
    /// # Errors
    /// As [`Engine::start`], and when it does not end.
    pub async fn restart(
        &self,
        scope: Scope,
        name: &str,
        signal: Option<Signal>,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        self.ask(scope, name, move |inner, container| Ask::Restart {
            signal: stop_signal(container, signal),
            patience: inner.patience_of(container, timeout),
        })
        .await
    }

    /// Sends a signal to the first process. SIGKILL goes to all, and the call returns when they
    /// have ended.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when it does not run.
    pub async fn kill(&self, scope: Scope, name: &str, signal: Signal) -> Result<(), EngineError> {
        self.ask(scope, name, move |_, _| Ask::Kill(signal)).await
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when it does not run or is frozen already.
    pub async fn pause(&self, scope: Scope, name: &str) -> Result<(), EngineError> {
        self.ask(scope, name, |_, _| Ask::Pause(Freezer::Caller))
            .await
    }

    /// Thaws frozen processes.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when it is not frozen.
    pub async fn unpause(&self, scope: Scope, name: &str) -> Result<(), EngineError> {
        self.ask(scope, name, |_, _| Ask::Unpause(Freezer::Caller))
            .await
    }

    /// Sets the size of a container's terminal, in characters.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run.
    pub async fn resize(
        &self,
        scope: Scope,
        name: &str,
        rows: u16,
        columns: u16,
    ) -> Result<(), EngineError> {
        let container = self.inner.resolve(scope, name)?;
        require_process(&container)?;
        let request = Request::Resize {
            exec: None,
            rows,
            columns,
        };
        // Without a terminal there is nothing to resize, which is no error.
        if container.snapshot().spec.process.terminal.is_some() {
            container.shim().command("resize", &request).await?;
        }
        let action = ContainerAction::Resize { rows, columns };
        self.inner.emit(&container, action);
        Ok(())
    }

    /// Sends a request and waits for its result, even if the caller stops waiting.
    async fn ask(
        &self,
        scope: Scope,
        name: &str,
        what: impl FnOnce(&Inner, &Snapshot) -> Ask,
    ) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        let ask = what(&inner, &container.snapshot());
        Self::whole(async move { inner.ask(&container, ask).await }).await
    }
}

/// The signal that asks a container to end.
pub(crate) fn stop_signal(container: &Snapshot, wanted: Option<Signal>) -> Signal {
    let own = container.spec.stop.signal;
    let own = own.and_then(|number| Signal::try_from(number).ok());
    wanted.or(own).unwrap_or(Signal::TERM)
}

impl Inner {
    /// How long a container has between the stop signal and SIGKILL; `None` is forever.
    pub(crate) fn patience_of(
        &self,
        container: &Snapshot,
        seconds: Option<i64>,
    ) -> Option<Duration> {
        match (seconds, container.spec.stop.patience) {
            // A negative time means forever.
            (Some(seconds), _) => u64::try_from(seconds).ok().map(Duration::from_secs),
            (None, Patience::OfHost) => {
                Some(Duration::from_secs(self.defaults.stop_timeout.into()))
            }
            (None, Patience::For(time)) => Some(time),
            (None, Patience::Forever) => None,
        }
    }
}
