//! Removes all containers that do not run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keelson_blocking::blocking;

use crate::engine::Inner;
use crate::machine::Ask;
use crate::types::{Pruned, Scope, Snapshot};
use crate::{Engine, EngineError};

/// Prevents a second prune while it exists.
struct Turn(Arc<Inner>);

impl Turn {
    fn take(inner: &Arc<Inner>) -> Result<Self, EngineError> {
        match inner.pruning.swap(true, Ordering::AcqRel) {
            true => Err(EngineError::Conflict(
                "a prune operation is already running".to_owned(),
            )),
            false => Ok(Self(Arc::clone(inner))),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.pruning.store(false, Ordering::Release);
    }
}

impl Engine {
    /// Removes the stopped containers that `fits` accepts. A container stays if it can't be removed
    /// or is started meanwhile.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] while another prune runs.
    pub async fn prune(
        &self,
        scope: Scope,
        fits: impl Fn(&Snapshot) -> bool + Send + 'static,
    ) -> Result<Pruned, EngineError> {
        let turn = Turn::take(&self.inner)?;
        let (engine, inner) = (self.clone(), Arc::clone(&self.inner));
        Self::whole(async move {
            let _turn = turn;
            let mut pruned = Pruned::default();
            for snapshot in engine.list(scope) {
                if snapshot.state.status.counts_as_running() || !fits(&snapshot) {
                    continue;
                }
                let Ok(container) = inner.resolve(scope, &snapshot.id) else {
                    continue;
                };
                // A container that can't be measured can still be removed.
                let (of, measured) = (Arc::clone(&inner), Arc::clone(&container));
                let size = blocking(move || of.measure(&measured)).await?.unwrap_or(0);
                match inner.ask(&container, Ask::Remove { force: false }).await {
                    Ok(()) => {
                        pruned.removed.push(container.id.clone());
                        pruned.reclaimed += size;
                    }
                    Err(error) => {
                        tracing::warn!(id = container.id, %error, "container not pruned");
                    }
                }
            }
            inner.emit_prune(scope, pruned.reclaimed);
            Ok(pruned)
        })
        .await
    }
}
