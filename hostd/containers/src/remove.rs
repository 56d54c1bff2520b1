//! Removing containers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keelson_shim_protocol::Request;
use keelson_store::objects::remove_tree;

use crate::container::Container;
use crate::engine::{Inner, off_workers};
use crate::types::{Scope, Status, WaitCondition};
use crate::{Engine, EngineError};

/// How long processes may take to end after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the output of a removed container is kept for those who read it. A reader that takes
/// nothing for ten seconds is given up by the shim before; its bytes are bounded by the log's size.
const READERS_TIME: Duration = Duration::from_secs(300);

impl Engine {
    /// Removes a container; with `force` also a running one. Its anonymous volumes live and end
    /// with it, so `volumes` makes no difference yet.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it runs and `force` is not given.
    pub async fn remove(
        &self,
        scope: Scope,
        name: &str,
        force: bool,
        volumes: bool,
    ) -> Result<(), EngineError> {
        let _ = volumes;
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move { inner.remove(&container, force).await }).await
    }
}

fn delete(id: &str, path: &Path) {
    if let Err(error) = remove_tree(path) {
        tracing::warn!(id, %error, "files of a removed container not deleted");
    }
}

impl Inner {
    pub(crate) async fn remove(
        self: &Arc<Self>,
        container: &Arc<Container>,
        force: bool,
    ) -> Result<(), EngineError> {
        loop {
            let guard = container.lock().await?;
            let snapshot = container.snapshot();
            let status = snapshot.state.status;
            if container.unreadable || (status.can_remove() && container.live().unknown) {
                if !container.unreadable && !force {
                    return Err(EngineError::Conflict(format!(
                        "cannot remove container \"/{}\": its shim does not answer, so it may run; try again, or force remove",
                        snapshot.name
                    )));
                }
                // Nobody knows whether it runs.
                container.shim().end().await;
                self.kill_leftovers(container).await;
            }
            if status.can_remove() {
                return self.remove_now(container);
            }
            if !force {
                let what = match status {
                    Status::Paused => "container is paused and must be unpaused first".to_owned(),
                    _ => format!(
                        "container is {status}: stop the container before removing or force remove"
                    ),
                };
                return Err(EngineError::Conflict(format!(
                    "cannot remove container \"{}\": {what}",
                    snapshot.name
                )));
            }
            if status == Status::Restarting {
                self.cancel_restart(container, true);
                continue;
            }
            let ended = container.wait(WaitCondition::NextExit);
            container.live().exit_asked = true;
            let request = Request::Kill {
                signal: crate::Signal::KILL.number(),
                all: true,
            };
            let sent = container.shim().command("kill", &request).await;
            // The end is recorded under the lock.
            drop(guard);
            if let Err(error) = sent {
                tracing::warn!(id = container.id, %error, "shim does not answer");
                self.kill_leftovers(container).await;
            }
            if let Ok(ended) = ended
                && tokio::time::timeout(KILL_TIMEOUT, ended).await.is_err()
            {
                return Err(EngineError::Internal(format!(
                    "could not kill container {}: it did not end {} s after SIGKILL",
                    container.id,
                    KILL_TIMEOUT.as_secs()
                )));
            }
            if snapshot.spec.auto_remove {
                // Its end removes it; whoever is first does it, and both mean the same.
                let _guard = container.operation.lock().await;
                if container.live().removed {
                    return Ok(());
                }
            }
        }
    }

    /// Removes a container that does not run. The caller holds the operation lock. After the
    /// rename into the trash it is gone for good; its files are deleted in the background.
    pub(crate) fn remove_now(self: &Arc<Self>, container: &Container) -> Result<(), EngineError> {
        let name = container.snapshot().name.clone();
        container.update(|state| state.status = Status::Removing);
        let trash = match off_workers(|| self.objects.discard(&container.id)) {
            Ok(trash) => trash,
            Err(error) => {
                container.update(|state| {
                    state.status = Status::Dead;
                    state.error = error.to_string();
                });
                return Err(error.into());
            }
        };
        self.with_mut(container.scope, |registry| {
            registry.remove(&container.id);
            registry.release(&name);
        });
        self.executions.forget(&container.id);
        self.emit(container, "destroy", &[]);
        let (layers, image) = {
            let mut live = container.live();
            live.removed = true;
            live.pending.clear();
            live.notify(|_| true);
            (live.layers.take(), live.image.take())
        };
        // Before the answer: the image may be removed by the next request.
        drop(image);
        let (run, id) = (container.run_folder.clone(), container.id.clone());
        let readers = container.readers.clone();
        tokio::spawn(async move {
            let deleting = tokio::task::spawn_blocking(move || {
                delete(&id, &run);
                // May unmount the image's layers.
                drop(layers);
                (id, trash)
            });
            let Ok((id, Some(trash))) = deleting.await else {
                return;
            };
            // The log is in it.
            if tokio::time::timeout(READERS_TIME, readers.closed())
                .await
                .is_err()
            {
                tracing::warn!(id, "output of a removed container was not read in time");
            }
            let _ = tokio::task::spawn_blocking(move || delete(&id, &trash)).await;
        });
        Ok(())
    }
}
