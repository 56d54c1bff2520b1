//! The image store: images, their layers and their names on disk, and the mounts that containers
//! run on.
//!
//! ```text
//! ROOT/staging/<n>/          what is being made; swept at start
//! ROOT/layers/<diff-id>/     layer.json, layer.tar, layer.blob, and what makes it mountable
//! ROOT/blobs/<digest>        configurations and manifests, byte for byte
//! ROOT/images/<id>.json      an image whose parts are complete
//! ROOT/repositories.json     names
//! ROOT/unreadable/           layers that could not be read, moved aside for others of the same name
//! ROOT/reserve               room for removing things from a full disk
//! RUN/layers/<diff-id>/      mounted layers
//! ```
//!
//! Objects become visible by renames, after all of them were synchronised, in the order in which
//! they refer to each other: layers, blobs, image record, names. They are removed in the opposite
//! order. So every image in the list is complete, whenever the process or the machine stopped. The
//! next start removes objects that nothing refers to. Unreadable objects are kept, listed and
//! reported, and nothing that they may refer to counts as unused.
//!
//! In the order of an image's life:
//!
//! - `types`, `error`: the types of the interface, and its errors.
//! - `store`, `state`: what all operations share, commits, and the state in memory.
//! - `disk`, `records`, `durable`: the files, the documents, and their way to the disk.
//! - `unreadable`, `reread`: objects that start-up could not read, and the second try.
//! - `registry`: pulls and pushes.
//! - `load`, `contents`, `archive_path`: images from an archive.
//! - `import`, `fetch`, `commit`, `changes`: images from a root file system or a container.
//! - [`pipe`], `threads`: bytes and work between tasks and threads.
//! - `layer`, `seal`: layers on disk, and their protection by fs-verity.
//! - `mounts`, `lease`: mounted layers, and the holders of images.
//! - [`overlay`], `writable`: what stacked layers show, and a container's changes.
//! - `owners`: owners of files in a container with a user namespace.
//! - `save`, `original`, `gzip`: archives of images, byte for byte if possible.
//! - `doomed`, `reaper`, `reserve`: removal of objects that are held, in the background, or on a
//!   full disk.

mod archive_path;
mod changes;
mod commit;
mod contents;
mod disk;
mod doomed;
mod durable;
mod error;
mod fetch;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod golden_tests;
mod gzip;
mod import;
mod layer;
mod lease;
mod load;
mod mounts;
mod original;
pub mod overlay;
mod owners;
pub mod pipe;
mod reaper;
mod records;
mod registry;
mod reread;
mod reserve;
mod save;
mod seal;
mod state;
mod store;
mod threads;
mod types;
mod unreadable;
mod writable;

use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::{broadcast, mpsc};

pub use error::ImageError;
pub use keelson_model::verify::{Damage, VerifyLine};
pub use keelson_oci::config::{ContainerDefaults, History, ImageConfig};
pub use keelson_oci::digest::Digest;
pub use keelson_oci::layer::LayerLimits;
pub use keelson_registry::{
    Credentials, Deadlines, HostRule, Mirror, Proxies, RegistryError, RegistryOptions, SearchResult,
};
pub use keelson_store::Era;
pub use lease::{Holder, ImageLease};
pub use owners::Owners;
pub use registry::{Distribution, PullOptions, Pulled, Pushed};
pub use save::SavedImages;
pub use types::{
    CommitOptions, DiskUsage, Image, ImageAction, ImageEvent, ImageId, ImageLayer,
    ImageStoreOptions, ImportOptions, Loaded, ManifestSummary, Progress, PrunedImages, Removed,
    RootfsLayers, Step,
};
pub use writable::{Change, ChangeKind, WritableLayer, is_of_kernel, pack_tree, tree_bytes};

use crate::store::Store;

/// The image store. Clones share it. One process at a time may have it open.
#[derive(Debug, Clone)]
pub struct ImageStore {
    store: Arc<Store>,
    registries: registry::Registries,
}

impl ImageStore {
    /// Opens the store under `root` (ROOT/engine); layers are mounted under `run`/layers. Objects
    /// that were never committed are deleted.
    pub fn open(root: &Path, run: &Path) -> Result<Self, ImageError> {
        Self::open_with(root, run, ImageStoreOptions::default())
    }

    /// Like [`Self::open`], with settings other than the defaults.
    pub fn open_with(
        root: &Path,
        run: &Path,
        options: ImageStoreOptions,
    ) -> Result<Self, ImageError> {
        let store = Arc::new(Store::open(root, run, &options)?);
        store.release_by_itself();
        let registries = registry::Registries::new(options.registries);
        Ok(Self { store, registries })
    }

    /// Loads the images of a docker-archive or OCI-layout tar, compressed or not. Afterwards either
    /// all of them are visible, or none.
    pub async fn load<R: AsyncRead + Unpin + Send>(
        &self,
        archive: R,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Loaded>, ImageError> {
        self.load_for(archive, None, progress).await
    }

    /// Like [`Self::load`], but only for the images of a platform (`os[/architecture[/variant]]`).
    pub async fn load_for<R: AsyncRead + Unpin + Send>(
        &self,
        archive: R,
        platform: Option<&str>,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let wanted = registry::WantedPlatform::parse(platform)?;
        let store = Arc::clone(&self.store);
        let job = move |reader| load::load(&store, reader, &wanted, &progress);
        self.stream(archive, job).await
    }

    /// Makes an image of one layer from a root file system's tar, compressed or not.
    pub async fn import<R: AsyncRead + Unpin + Send>(
        &self,
        archive: R,
        options: ImportOptions,
    ) -> Result<ImageId, ImageError> {
        let options = import::check(&options)?;
        let store = Arc::clone(&self.store);
        let job = move |reader| import::import(&store, reader, options);
        self.stream(archive, job).await
    }

    /// Like [`Self::import`], but for an archive at an address (`http://…`, `https://…`). Closing
    /// `progress` cancels the import.
    pub async fn import_from(
        &self,
        address: &str,
        options: ImportOptions,
        progress: mpsc::Sender<Progress>,
    ) -> Result<ImageId, ImageError> {
        fetch::import(
            &self.store,
            &self.registries.client,
            address,
            &options,
            &progress,
        )
        .await
    }

    /// Makes an image from a container's writable layer. After all of it was read, `wanted` says
    /// whether it was complete until then. Blocks.
    pub fn commit(
        &self,
        layer: &WritableLayer,
        options: CommitOptions,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Loaded, ImageError> {
        commit::commit(&self.store, layer, commit::check(options)?, wanted)
    }

    /// Finds the images that [`SavedImages::write_to`] will write to an archive. A repository
    /// without a tag means all its tags.
    pub fn save(&self, names: &[String]) -> Result<SavedImages, ImageError> {
        save::prepare(&self.store, names)
    }

    /// Pulls an image from its registry. Closing `progress` cancels the pull. If it is cancelled or
    /// fails, nothing of it is left.
    pub async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Pulled, ImageError> {
        registry::pull(&self.store, &self.registries, reference, options, &progress).await
    }

    /// The tags of a repository in its registry, as references.
    pub async fn remote_tags(
        &self,
        repository: &str,
        credentials: Option<Credentials>,
    ) -> Result<Vec<String>, ImageError> {
        registry::tags(&self.registries.client, repository, credentials).await
    }

    /// Resolves a reference in its registry.
    pub async fn distribution(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
    ) -> Result<Distribution, ImageError> {
        registry::inspect(&self.registries.client, reference, credentials).await
    }

    /// Pushes a tag, or all tags of a repository if no tag is named. Closing `progress` cancels the
    /// push.
    pub async fn push(
        &self,
        name: &str,
        credentials: Option<Credentials>,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Pushed>, ImageError> {
        registry::push(
            &self.store,
            &self.registries.client,
            name,
            credentials,
            &progress,
        )
        .await
    }

    /// Searches a registry (`docker.io`, `host[:port]`) for repositories.
    pub async fn search(
        &self,
        domain: &str,
        term: &str,
        limit: u32,
        credentials: Option<Credentials>,
    ) -> Result<Vec<SearchResult>, RegistryError> {
        let registries = &self.registries.client;
        registries.search(domain, term, limit, credentials).await
    }

    /// Checks credentials with a registry (`docker.io`, `host[:port]`).
    pub async fn login(&self, domain: &str, credentials: Credentials) -> Result<(), RegistryError> {
        registry::login(&self.registries.client, domain, credentials).await
    }

    /// The settings for the connection to registries.
    pub fn registry_options(&self) -> &RegistryOptions {
        self.registries.client.options()
    }

    /// Runs a job on a thread while the archive is sent to it.
    async fn stream<R, T>(
        &self,
        archive: R,
        job: impl FnOnce(pipe::PipeReader) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError>
    where
        R: AsyncRead + Unpin + Send,
        T: Send + 'static,
    {
        let (sender, reader) = pipe::pipe();
        let job = threads::begin("archive", move || job(reader));
        pipe::feed(archive, sender).await;
        job.end().await
    }

    /// All images, newest first.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.store.list()
    }

    /// Finds an image by tag, repository@digest, identifier or unique prefix of an identifier.
    pub fn resolve(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        self.store.resolve(name)
    }

    /// The manifest that a save or a push of the image would use now.
    pub fn manifest(&self, id: &ImageId) -> Result<ManifestSummary, ImageError> {
        save::describe(&self.store, id)
    }

    /// Gives an image another name.
    pub fn tag(&self, name: &str, reference: &str) -> Result<(), ImageError> {
        self.store.tag(name, reference)
    }

    /// Finds an image as [`Self::resolve`] does and holds it, in one step. From then on no removal
    /// or prune deletes it, until the lease is dropped.
    pub fn lease(
        &self,
        name: &str,
        holder: Holder,
    ) -> Result<(ImageLease, Arc<Image>), ImageError> {
        self.store.lease(name, holder)
    }

    /// Holds an image by its identifier, whether it exists or not: for a container that has used it
    /// before. Without an identifier every image is held, because it may be any.
    pub fn lease_again(&self, id: Option<ImageId>, holder: Holder) -> ImageLease {
        self.store.lease_again(id, holder)
    }

    /// The identifiers of the containers that hold an image.
    pub fn containers(&self, id: &ImageId) -> Vec<String> {
        self.store.containers(id)
    }

    /// Removes a name or an image by Docker's rules. A held image stays: the conflict error names
    /// its holder. With `force` the image loses its names, and is deleted after its last holder.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<Removed>, ImageError> {
        self.store.remove(name, force, no_prune)
    }

    /// Removes images that nobody holds and that `fits` accepts: those without a name, or
    /// with `all` every one.
    pub fn prune(
        &self,
        all: bool,
        fits: &dyn Fn(&Image) -> bool,
    ) -> Result<PrunedImages, ImageError> {
        self.store.prune(all, fits)
    }

    /// Reads all objects of images again and compares them with what was stored. `names` selects
    /// images; an empty list means all. Sends its findings to `lines`, and returns the number of
    /// damaged objects. Closing `lines` ends the check.
    pub async fn verify(
        &self,
        names: Vec<String>,
        lines: mpsc::Sender<VerifyLine>,
    ) -> Result<u64, ImageError> {
        let store = Arc::clone(&self.store);
        let job = move || store::verify(&store, &names, &lines);
        threads::begin("verify", job).end().await
    }

    /// How much disk the images use.
    pub fn disk_usage(&self) -> DiskUsage {
        self.store.disk_usage()
    }

    /// The release that documents are written for.
    pub fn era(&self) -> Era {
        self.store.layers.era
    }

    /// The name of the backend for new layers: `erofs` or `directory`.
    pub fn backend(&self) -> &'static str {
        self.store.layers.form.as_str()
    }

    /// Mounts the layers of an image. Works also for an image that was removed by force while a
    /// stopped container used it.
    pub fn mount(&self, id: &ImageId) -> Result<RootfsLayers, ImageError> {
        self.store.mount(id)
    }

    /// Mounts existing EROFS files as the layers of a root file system, topmost first. A file is
    /// mounted once, however many containers have it.
    pub fn system_image(&self, files: &[&Path]) -> Result<RootfsLayers, ImageError> {
        self.store.system_image(files)
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ImageEvent> {
        self.store.subscribe()
    }

    /// Unmounts all layers; the store's last call. Containers that still run keep theirs.
    pub fn shutdown(&self) {
        self.store.shutdown();
    }
}
