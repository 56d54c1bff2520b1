//! One container in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostd_images::{ImageLease, RootfsLayers};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::EngineError;
use crate::shim::Shim;
use crate::types::{AttachOptions, Scope, Snapshot, State, WaitCondition, WaitResult};

/// A container.
///
/// Two locks: `operation` is held by whoever changes the container's state, across awaits, and
/// never while waiting for its process to end; `live` protects the values and is held for
/// moments only.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) scope: Scope,
    /// What a reboot (or the end of a run) ends; also the shim's directory.
    pub(crate) run_folder: PathBuf,
    /// Its document can't be read: it is shown, and removed when asked for; nothing is written.
    pub(crate) unreadable: bool,
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// Whoever reads its output holds a receiver: a removed container's log is deleted only when
    /// they have read it (or take too long).
    pub(crate) readers: tokio::sync::watch::Sender<()>,
    live: Mutex<Live>,
}

/// What changes.
pub(crate) struct Live {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) waiters: Vec<(WaitCondition, oneshot::Sender<WaitResult>)>,
    /// Clients that attached before the start.
    pub(crate) pending: Vec<PendingAttach>,
    /// Keeps the image in the store; given up when the container is removed.
    pub(crate) image: Option<ImageLease>,
    /// Keeps the image's layers mounted.
    pub(crate) layers: Option<RootfsLayers>,
    /// The next end of the process was asked for: the restart policy does not apply.
    pub(crate) exit_asked: bool,
    /// It is being restarted by a caller: its end does not remove it.
    pub(crate) keep: bool,
    /// Pause before the last restart by policy.
    pub(crate) back_off: Option<Duration>,
    /// Counts starts and cancelled restarts, so that a restart that was due can tell that it is
    /// not wanted any more.
    pub(crate) generation: u64,
    /// Its shim was not asked yet, or does not answer: the state is the last one known.
    pub(crate) unknown: bool,
    /// The container is gone; whoever still holds it finds nothing.
    pub(crate) removed: bool,
}

/// A client that waits for the start.
pub(crate) struct PendingAttach {
    pub(crate) options: AttachOptions,
    pub(crate) connected: oneshot::Sender<UnixStream>,
}

impl Container {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self {
            id: snapshot.id.clone(),
            scope: snapshot.scope,
            run_folder: snapshot.run_folder.clone(),
            unreadable: false,
            operation: tokio::sync::Mutex::new(()),
            readers: tokio::sync::watch::Sender::new(()),
            live: Mutex::new(Live {
                snapshot: Arc::new(snapshot),
                waiters: Vec::new(),
                pending: Vec::new(),
                image: None,
                layers: None,
                exit_asked: false,
                keep: false,
                back_off: None,
                generation: 0,
                unknown: false,
                removed: false,
            }),
        }
    }

    /// Keeps its image until it is removed. The store asks by the lease whether it runs.
    pub(crate) fn hold(self: &Arc<Self>, lease: Option<ImageLease>) {
        if let Some(lease) = &lease {
            let this = Arc::downgrade(self);
            lease.ask(move || {
                this.upgrade()
                    .is_some_and(|this| this.snapshot().state.status.counts_as_running())
            });
        }
        self.live().image = lease;
    }

    /// The values. A panic elsewhere cannot leave them half-changed in a way that matters more
    /// than refusing every later call would.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.live().snapshot)
    }

    pub(crate) fn shim(&self) -> Shim {
        Shim::new(&self.id, &self.run_folder)
    }

    /// Takes the operation lock; fails when the container was removed in the meantime.
    pub(crate) async fn lock(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, EngineError> {
        let guard = self.operation.lock().await;
        if self.live().removed {
            return Err(EngineError::NoSuchContainer(self.id.clone()));
        }
        Ok(guard)
    }

    /// Changes the state.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) {
        self.live().update(change);
    }

    /// Registers a wait; `None` when its condition is met already.
    pub(crate) fn wait(
        &self,
        condition: WaitCondition,
    ) -> Result<oneshot::Receiver<WaitResult>, WaitResult> {
        let mut live = self.live();
        let state = &live.snapshot.state;
        if live.removed
            || (condition == WaitCondition::NotRunning && !state.status.counts_as_running())
        {
            return Err(WaitResult {
                exit_code: state.exit_code,
                error: None,
            });
        }
        let (sender, receiver) = oneshot::channel();
        // Clients that went away leave their half behind.
        live.waiters.retain(|(_, waiter)| !waiter.is_closed());
        live.waiters.push((condition, sender));
        Ok(receiver)
    }
}

impl Live {
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut State)) {
        change(&mut Arc::make_mut(&mut self.snapshot).state);
    }

    /// Answers the waits whose condition the predicate accepts.
    pub(crate) fn notify(&mut self, met: impl Fn(WaitCondition) -> bool) {
        let exit_code = self.snapshot.state.exit_code;
        for (condition, waiter) in std::mem::take(&mut self.waiters) {
            if met(condition) {
                // A client that went away is no error.
                let _ = waiter.send(WaitResult {
                    exit_code,
                    error: None,
                });
            } else {
                self.waiters.push((condition, waiter));
            }
        }
    }
}
