//! The image store.

mod error;
mod mounts;
mod types;

use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::{broadcast, mpsc};

pub use error::ImageError;
pub use keelson_oci::config::{ContainerDefaults, History, ImageConfig};
pub use keelson_oci::digest::Digest;
pub use types::{
    DiskUsage, Image, ImageAction, ImageEvent, ImageId, ImageLayer, ImageUser, ImportOptions,
    Loaded, Progress, Pruned, Removed, RootfsLayers,
};

/// The image store. Clones share it.
#[derive(Debug, Clone)]
pub struct ImageStore {
    events: broadcast::Sender<ImageEvent>,
}

fn not_yet<T>(what: &str) -> Result<T, ImageError> {
    Err(ImageError::NotImplemented(format!(
        "image {what} is not there yet"
    )))
}

impl ImageStore {
    /// Opens the store under `root` (ROOT/engine); layers are mounted under `run`/layers.
    /// What was never committed is swept away.
    pub fn open(_root: &Path, _run: &Path) -> Result<Self, ImageError> {
        Ok(Self {
            events: broadcast::channel(256).0,
        })
    }

    /// Loads the images of a docker-archive or OCI-layout tar (plain, gzip or zstd). Either all of
    /// them are visible afterwards, or nothing is.
    pub async fn load<R: AsyncRead + Unpin + Send>(
        &self,
        _archive: R,
        _progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Loaded>, ImageError> {
        not_yet("load")
    }

    /// Makes an image of one layer from a root file system's tar (plain, gzip or zstd).
    pub async fn import<R: AsyncRead + Unpin + Send>(
        &self,
        _archive: R,
        _options: ImportOptions,
    ) -> Result<ImageId, ImageError> {
        not_yet("import")
    }

    /// All images, newest first.
    pub fn list(&self) -> Vec<Arc<Image>> {
        Vec::new()
    }

    /// Finds an image by tag, repository@digest, identifier or unique beginning of one.
    pub fn resolve(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        Err(ImageError::NotFound(name.to_owned()))
    }

    /// Gives an image another name.
    pub fn tag(&self, _name: &str, _reference: &str) -> Result<(), ImageError> {
        not_yet("tag")
    }

    /// Removes a name or an image by Docker's rules. `users` are all containers, of both scopes.
    pub fn remove(
        &self,
        _name: &str,
        _force: bool,
        _no_prune: bool,
        _users: &[ImageUser],
    ) -> Result<Vec<Removed>, ImageError> {
        not_yet("removal")
    }

    /// Removes images that no container uses: those without a name, or with `all` every one.
    pub fn prune(&self, _all: bool, _users: &[ImageUser]) -> Result<Pruned, ImageError> {
        not_yet("prune")
    }

    /// Frees what forced removals had to leave because these containers used it.
    pub fn release_unused(&self, _users: &[ImageUser]) {}

    /// How much disk the images use.
    pub fn disk_usage(&self) -> DiskUsage {
        DiskUsage::default()
    }

    /// Name of the way layers are kept: `erofs` or `folder`.
    pub fn backend(&self) -> &'static str {
        "folder"
    }

    /// Mounts the layers of an image. Works also for an image that was removed by force while a
    /// stopped container used it.
    pub fn mount(&self, _id: &ImageId) -> Result<RootfsLayers, ImageError> {
        not_yet("mount")
    }

    /// Mounts a ready EROFS file as the single layer of a root file system.
    pub fn system_image(&self, _erofs: &Path, _name: &str) -> Result<RootfsLayers, ImageError> {
        not_yet("system mount")
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ImageEvent> {
        self.events.subscribe()
    }

    /// Unmounts all layers; the store's last call.
    pub fn shutdown(&self) {}
}
