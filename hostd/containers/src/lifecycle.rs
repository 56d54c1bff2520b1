//! Stopping, signalling, pausing and resizing.

use std::sync::Arc;
use std::time::Duration;

use keelson_model::spec::Patience;
use keelson_shim_protocol::Request;

use crate::container::Container;
use crate::engine::{Inner, not_running, require_process};
use crate::start::Starter;
use crate::types::{Scope, Status, WaitCondition};
use crate::{Engine, EngineError, Signal};

/// How long processes may take to end after SIGKILL. More means that they hang in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Engine {
    /// Sends the stop signal, and SIGKILL after `timeout` seconds (-1: never); `None` is the
    /// container's own signal or time, then the engine's.
    ///
    /// # Errors
    /// [`EngineError::NotModified`] when it does not run.
    pub async fn stop(
        &self,
        scope: Scope,
        name: &str,
        signal: Option<Signal>,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move { inner.stop(&container, signal, timeout, true).await }).await
    }

    /// Stops a container when it runs, and starts it.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`].
    pub async fn restart(
        &self,
        scope: Scope,
        name: &str,
        signal: Option<Signal>,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move {
            // A container that is removed when it ends is not removed here.
            container.live().keep = true;
            let stopped = inner.stop(&container, signal, timeout, true).await;
            let guard = container.lock().await;
            container.live().keep = false;
            match stopped {
                Ok(()) | Err(EngineError::NotModified(_)) => {}
                Err(error) => return Err(error),
            }
            let _guard = guard?;
            match inner.start(&container, Starter::Caller).await {
                // Somebody else started it in between, which is what was asked for.
                Ok(()) | Err(EngineError::NotModified(_)) => {}
                Err(error) => return Err(error),
            }
            inner.emit(&container, "restart", &[]);
            Ok(())
        })
        .await
    }

    /// Sends a signal to the first process. SIGKILL goes to all, and the call returns when they
    /// have ended.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run.
    pub async fn kill(&self, scope: Scope, name: &str, signal: Signal) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move {
            let ended = container.wait(WaitCondition::NextExit);
            inner.kill(&container, signal, true).await?;
            if signal == Signal::KILL
                && let Ok(ended) = ended
                && tokio::time::timeout(KILL_TIMEOUT, ended).await.is_err()
            {
                return Err(EngineError::Internal(format!(
                    "container {} did not end {} s after SIGKILL",
                    container.id,
                    KILL_TIMEOUT.as_secs()
                )));
            }
            Ok(())
        })
        .await
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run or is frozen already.
    pub async fn pause(&self, scope: Scope, name: &str) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move {
            let _guard = container.lock().await?;
            if require_process(&container)? == Status::Paused {
                return Err(EngineError::Conflict(format!(
                    "container {} is already paused",
                    container.id
                )));
            }
            inner.pause(&container).await
        })
        .await
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it is not frozen.
    pub async fn unpause(&self, scope: Scope, name: &str) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move {
            let _guard = container.lock().await?;
            if container.snapshot().state.status != Status::Paused {
                return Err(EngineError::Conflict(format!(
                    "container {} is not paused",
                    container.id
                )));
            }
            inner.unpause(&container).await
        })
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
        // Without a terminal there is nothing to resize, and nothing wrong either.
        if container.snapshot().spec.process.terminal.is_some() {
            container.shim().command("resize", &request).await?;
        }
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.inner.emit(&container, "resize", &size);
        Ok(())
    }
}

impl Inner {
    /// Stops a container; `by_caller` is false when the machine goes down, which is no reason
    /// not to start it again.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<Signal>,
        timeout: Option<i64>,
        by_caller: bool,
    ) -> Result<(), EngineError> {
        let snapshot = container.snapshot();
        let ended = {
            let _guard = container.lock().await?;
            match container.snapshot().state.status {
                Status::Restarting => {
                    self.cancel_restart(container, by_caller);
                    return Ok(());
                }
                status if !status.has_process() => {
                    return Err(EngineError::NotModified(container.id.clone()));
                }
                _ => {}
            }
            let Ok(ended) = container.wait(WaitCondition::NextExit) else {
                return Err(EngineError::NotModified(container.id.clone()));
            };
            let mut live = container.live();
            live.exit_asked = true;
            if by_caller {
                live.update(|state| state.stopped_by_caller = true);
            }
            ended
        };
        let stop = &snapshot.spec.stop;
        let signal = match (signal, stop.signal) {
            (Some(signal), _) => signal,
            (None, Some(number)) => Signal::try_from(number)?,
            (None, None) => Signal::TERM,
        };
        let patience = match timeout {
            // A negative time means for ever.
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
            None => self.patience(stop.patience),
        };
        let mut ended = ended;
        match self.kill(container, signal, by_caller).await {
            Ok(()) => {}
            // It ended by itself in this very moment.
            Err(EngineError::Conflict(_)) => {}
            Err(error) => tracing::warn!(id = container.id, %error, "stop signal not sent"),
        }
        let in_time = match patience {
            Some(limit) => tokio::time::timeout(limit, &mut ended).await.is_ok(),
            None => {
                let _ = (&mut ended).await;
                true
            }
        };
        if !in_time {
            match self.kill(container, Signal::KILL, by_caller).await {
                Ok(()) | Err(EngineError::Conflict(_)) => {}
                Err(error) => {
                    tracing::warn!(id = container.id, %error, "shim does not answer");
                    self.kill_leftovers(container).await;
                }
            }
            if tokio::time::timeout(KILL_TIMEOUT, ended).await.is_err() {
                return Err(EngineError::Internal(format!(
                    "container {} did not end {} s after SIGKILL",
                    container.id,
                    KILL_TIMEOUT.as_secs()
                )));
            }
        }
        self.emit(container, "stop", &[]);
        Ok(())
    }

    /// How long a container has between the stop signal and SIGKILL; `None` is for ever.
    pub(crate) fn patience(&self, patience: Patience) -> Option<Duration> {
        match patience {
            Patience::OfHost => Some(Duration::from_secs(self.defaults.stop_timeout.into())),
            Patience::For(time) => Some(time),
            Patience::Forever => None,
        }
    }

    /// Sends a signal.
    pub(crate) async fn kill(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Signal,
        by_caller: bool,
    ) -> Result<(), EngineError> {
        let _guard = container.lock().await?;
        let snapshot = container.snapshot();
        let status = snapshot.state.status;
        if status == Status::Restarting {
            self.cancel_restart(container, by_caller);
            return Ok(());
        }
        if !status.has_process() {
            return Err(match not_running(container) {
                EngineError::Conflict(reason) => EngineError::Conflict(format!(
                    "cannot kill container: {}: {reason}",
                    snapshot.name
                )),
                other => other,
            });
        }
        let stop_signal = snapshot.spec.stop.signal;
        let ends = signal == Signal::KILL || stop_signal.is_none_or(|stop| stop == signal.number());
        let before = {
            let mut live = container.live();
            let before = live.exit_asked;
            live.exit_asked = before || ends;
            if by_caller && ends {
                live.update(|state| state.stopped_by_caller = true);
            }
            before
        };
        let request = Request::Kill {
            signal: signal.number(),
            all: signal == Signal::KILL,
        };
        let sent = container.shim().command("kill", &request).await;
        if let Err(error) = sent {
            container.live().exit_asked = before;
            // It ended by itself in this very moment, and its end waits to be recorded.
            return Err(match container.shim().exit_record() {
                Ok(Some(_)) => not_running(container),
                _ => error,
            });
        }
        // Frozen processes could not act upon it.
        if status == Status::Paused && ends && signal != Signal::KILL {
            self.unpause(container).await?;
        }
        self.persist(container);
        self.emit(container, "kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    /// Freezes all processes. The caller holds the operation lock.
    pub(crate) async fn pause(&self, container: &Container) -> Result<(), EngineError> {
        container.shim().command("pause", &Request::Pause).await?;
        container.update(|state| state.status = Status::Paused);
        self.persist(container);
        self.emit(container, "pause", &[]);
        Ok(())
    }

    /// Lets frozen processes go on. The caller holds the operation lock.
    pub(crate) async fn unpause(&self, container: &Container) -> Result<(), EngineError> {
        container
            .shim()
            .command("unpause", &Request::Resume)
            .await?;
        container.update(|state| state.status = Status::Running);
        self.persist(container);
        self.emit(container, "unpause", &[]);
        Ok(())
    }

    /// Takes back a restart that is due. The caller holds the operation lock.
    pub(crate) fn cancel_restart(&self, container: &Container, by_caller: bool) {
        {
            let mut live = container.live();
            live.generation += 1;
            live.update(|state| {
                state.status = Status::Exited;
                state.stopped_by_caller = state.stopped_by_caller || by_caller;
            });
            live.notify(|condition| condition != WaitCondition::Removed);
        }
        self.persist(container);
        self.emit(container, "stop", &[]);
    }
}
