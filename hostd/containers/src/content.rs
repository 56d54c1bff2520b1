//! The contents of a container's root file system: its changes, its archive, its size, and the
//! image that is made from it.

use std::sync::Arc;

use bytes::Bytes;
use hostd_images::{Change, CommitOptions, ImageId, WritableLayer};
use keelson_model::limits;
use tokio::sync::mpsc;

use crate::container::Container;
use crate::engine::Inner;
use crate::machine::{Ask, Freezer};
use crate::types::{CommitRequest, ContainerAction, Receiver, Scope, Snapshot, Status};
use crate::{Engine, EngineError};

/// How many pieces of an archive wait for a slow client.
const EXPORT_DEPTH: usize = 2;

impl Engine {
    /// The differences between a container's root file system and its image.
    ///
    /// # Errors
    /// No such container, or one that is being removed.
    pub async fn changes(&self, scope: Scope, name: &str) -> Result<Vec<Change>, EngineError> {
        let (inner, container) = self.readable(scope, name, "diff")?;
        blocking(move || {
            let layer = inner.writable(&container)?;
            let changes = layer.changes();
            check_whole(&container)?;
            Ok(changes?)
        })
        .await
    }

    /// The root file system as a tar archive, in pieces; ends after an error. `held` is kept until
    /// nothing works on it any more.
    ///
    /// # Errors
    /// No such container, or one that is being removed.
    pub async fn export(
        &self,
        scope: Scope,
        name: &str,
        held: Box<dyn Send>,
    ) -> Result<Receiver<Result<Bytes, EngineError>>, EngineError> {
        let (inner, container) = self.readable(scope, name, "export")?;
        let (work, of) = (Arc::clone(&inner), Arc::clone(&container));
        let layer = blocking(move || work.writable(&of)).await?;
        inner.emit(&container, ContainerAction::Export);
        let (sender, pieces) = mpsc::channel(EXPORT_DEPTH);
        // A separate thread, because a slow client decides how long it runs, and the shared threads
        // are for starts.
        let work = move || {
            let _held = held;
            let mut send = |piece| sender.blocking_send(Ok(piece)).is_ok();
            let result = layer.export(&mut send).map_err(EngineError::from);
            // Files that were removed meanwhile are missing in the archive.
            if let Err(error) = result.and_then(|()| check_whole(&container)) {
                // There may be no reader any more.
                let _ = sender.blocking_send(Err(error));
            }
        };
        std::thread::Builder::new()
            .name("export".to_owned())
            .spawn(work)
            .map_err(EngineError::NoThread)?;
        Ok(Receiver(pieces))
    }

    /// Bytes in a container's writable layer.
    ///
    /// # Errors
    /// No such container.
    pub async fn written_bytes(&self, scope: Scope, name: &str) -> Result<u64, EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        blocking(move || inner.measure(&container)).await
    }

    /// Creates an image from a container.
    ///
    /// # Errors
    /// No such container, one that is being removed, or a bad reference or change.
    pub async fn commit(
        &self,
        scope: Scope,
        name: &str,
        request: CommitRequest,
    ) -> Result<ImageId, EngineError> {
        let (inner, container) = self.readable(scope, name, "commit")?;
        Self::whole(async move { inner.commit(&container, request).await }).await
    }

    fn readable(
        &self,
        scope: Scope,
        name: &str,
        operation: &str,
    ) -> Result<(Arc<Inner>, Arc<Container>), EngineError> {
        let container = self.inner.resolve(scope, name)?;
        let state = match container.snapshot().state.status {
            Status::Dead => "Dead",
            Status::Removing => "being removed",
            _ => return Ok((Arc::clone(&self.inner), container)),
        };
        Err(EngineError::Conflict(format!(
            "You cannot {operation} container {} which is {state}",
            container.id
        )))
    }
}

/// Works on files outside the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    keelson_blocking::blocking(work).await?
}

/// If a container is gone by now, files may be missing in the result. Its files are deleted only
/// after it is marked as removed.
fn check_whole(container: &Container) -> Result<(), EngineError> {
    match container.is_gone() {
        true => Err(EngineError::NoSuchContainer(container.id.clone())),
        false => Ok(()),
    }
}

impl Inner {
    /// Bytes in a container's writable layer. Blocks.
    pub(crate) fn measure(&self, container: &Container) -> Result<u64, EngineError> {
        let size = self.writable(container)?.size();
        check_whole(container)?;
        Ok(size?)
    }

    fn writable(&self, container: &Container) -> Result<WritableLayer, EngineError> {
        let snapshot = container.snapshot();
        Ok(WritableLayer {
            upper: snapshot.directory.join("upper"),
            lower: self.layers(container, &snapshot)?,
            volumes: snapshot
                .spec
                .anonymous_volumes
                .iter()
                .chain(snapshot.spec.volumes.iter().map(|mount| &mount.target))
                .map(|path| path.to_string_lossy().into_owned())
                .collect(),
        })
    }

    async fn commit(
        self: &Arc<Self>,
        container: &Arc<Container>,
        request: CommitRequest,
    ) -> Result<ImageId, EngineError> {
        let paused = request.pause && self.pause_for_reading(container).await?;
        let (inner, of) = (Arc::clone(self), Arc::clone(container));
        let comment = request.comment.clone();
        let result = blocking(move || {
            let layer = inner.writable(&of)?;
            let options = options(&of.snapshot(), request)?;
            let is_whole = || check_whole(&of).is_ok();
            Ok(inner.images.commit(&layer, options, &is_whole)?)
        })
        .await;
        if paused {
            match self.ask(container, Ask::Unpause(Freezer::Commit)).await {
                // It was thawed, or has ended meanwhile.
                Ok(()) | Err(EngineError::Refused(_)) => {}
                Err(error) => {
                    tracing::warn!(id = container.id, %error, "not unpaused after a commit");
                }
            }
        }
        // If the container was removed meanwhile, that is the reason, whatever file was missing
        // first.
        let made = match result {
            Err(_) if container.is_gone() => {
                return Err(EngineError::NoSuchContainer(container.id.clone()));
            }
            other => other?,
        };
        let action = ContainerAction::Commit {
            comment: limits::shortened(&comment, limits::EVENT),
            image: made.id.to_string(),
            reference: made.references.concat(),
        };
        self.emit(container, action);
        Ok(made.id)
    }

    /// Freezes a running container; false if there is nothing to freeze.
    async fn pause_for_reading(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<bool, EngineError> {
        match self.ask(container, Ask::Pause(Freezer::Commit)).await {
            Ok(()) => Ok(true),
            Err(EngineError::Refused(refused)) if !refused.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn options(snapshot: &Snapshot, request: CommitRequest) -> Result<CommitOptions, EngineError> {
    let image = snapshot.image_id();
    let parent = image
        .parse()
        .map_err(EngineError::image_id(&snapshot.id, image))?;
    Ok(CommitOptions {
        parent,
        reference: request.reference,
        author: request.author,
        comment: request.comment,
        command: request.command,
        defaults: request.defaults,
        changes: request.changes,
        container: request.container,
    })
}
