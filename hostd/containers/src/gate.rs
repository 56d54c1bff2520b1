//! Coordinates writers of a container's files from outside with operations that need them to stop.
//!
//! A container that starts mounts its writable layer, which must not be mounted twice; one that is
//! removed deletes it. Both have priority: writers are stopped, however slowly their client sends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard, watch};

/// How long the last write may take after writers were told to stop.
const STOP_TIME: Duration = Duration::from_secs(30);

/// The gate of one container.
#[derive(Debug)]
pub(crate) struct Gate {
    open: Arc<RwLock<()>>,
    wanted: watch::Sender<usize>,
}

/// A writer's permission. It is held until the view of the container is dropped.
pub(crate) struct Pass {
    _guard: OwnedRwLockReadGuard<()>,
}

/// Keeps writers away.
pub(crate) struct Closed<'a> {
    _guard: RwLockWriteGuard<'a, ()>,
    _wish: Wish<'a>,
}

/// Stops writers while it exists.
struct Wish<'a>(&'a watch::Sender<usize>);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            open: Arc::default(),
            wanted: watch::Sender::new(0),
        }
    }
}

impl Gate {
    /// Waits until writers are allowed. The second value ends when writers must stop.
    pub(crate) async fn enter(&self) -> (Pass, impl Future<Output = ()> + Send + 'static) {
        let mut wanted = self.wanted.subscribe();
        let guard = Arc::clone(&self.open).read_owned().await;
        let stop = async move {
            // Fails if the container is gone.
            let _ = wanted.wait_for(|count| *count > 0).await;
        };
        (Pass { _guard: guard }, stop)
    }

    /// Stops writers and blocks new ones. `None`: one of them does not stop.
    pub(crate) async fn close(&self) -> Option<Closed<'_>> {
        self.wanted.send_modify(|count| *count += 1);
        let wish = Wish(&self.wanted);
        let guard = tokio::time::timeout(STOP_TIME, self.open.write())
            .await
            .ok()?;
        Some(Closed {
            _guard: guard,
            _wish: wish,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_closes_goes_first() {
        let gate = Arc::new(Gate::default());
        let (pass, stop) = gate.enter().await;
        let (other, _) = gate.enter().await;
        drop(other);
        let closing = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                let closed = gate.close().await;
                assert!(closed.is_some());
            })
        };
        stop.await;
        assert!(!closing.is_finished());
        drop(pass);
        closing.await.unwrap();
        let (_pass, stop) = gate.enter().await;
        let stopped = tokio::time::timeout(Duration::from_millis(10), stop).await;
        assert!(stopped.is_err(), "nobody wants it any more");
    }
}
