//! The types of the image store's interface.

use std::path::PathBuf;
use std::sync::Arc;

use keelson_oci::config::{ContainerDefaults, ImageConfig};
use keelson_oci::digest::Digest;

/// An image's identifier: the digest of its configuration. Shown as `sha256:<hex>`.
pub type ImageId = Digest;

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The image that this one was built from, if it was built here.
    pub parent: Option<ImageId>,
    /// When the image was made, in seconds since 1970. 0 if its configuration does not say.
    pub created: i64,
    /// Bytes of all layers' uncompressed archives.
    pub size: u64,
    /// Familiar names with tag: `busybox:latest`.
    pub repo_tags: Vec<String>,
    /// Familiar names with digest: `busybox@sha256:…`.
    pub repo_digests: Vec<String>,
    /// When the image last got a name: RFC 3339.
    pub last_tagged: Option<String>,
    /// The configuration.
    pub config: Arc<ImageConfig>,
    /// The configuration's bytes, which the digest covers.
    pub raw_config: Arc<[u8]>,
    /// Layers, lowest first.
    pub layers: Vec<ImageLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub size: u64,
}

/// The manifest that a save or a push uses for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSummary {
    /// Digest of the manifest.
    pub media_type: String,
    /// Media type of the manifest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// Size in bytes of the manifest and everything that it names.
    pub content: u64,
    /// Bytes of the layers' uncompressed archives.
    pub unpacked: u64,
}

/// A step of a load, pull or import, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The object: the first 12 digits of a layer's digest, or the entry's name in the archive.
    pub id: String,
    /// The step.
    pub step: Step,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all, when known.
    pub total: Option<u64>,
}

/// A step of a transfer, of one object or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A pull begins. The repository's path in the registry.
    PullingFrom(String),
    /// A layer to pull exists here already.
    AlreadyExists,
    /// A layer will be pulled.
    PullingLayer,
    /// A layer waits for others.
    Waiting,
    /// A layer is downloaded; [`Progress`] has the bytes.
    Downloading,
    /// A layer is downloaded completely.
    Downloaded,
    /// A layer is pulled.
    PullComplete,
    /// The digest that the name refers to in the registry.
    Digest(Digest),
    /// A pull has ended.
    Pulled {
        /// Familiar name.
        reference: String,
        /// Whether the name refers to something new.
        updated: bool,
    },
    /// A push to this repository begins.
    PushingTo(String),
    /// A layer will be pushed.
    Preparing,
    /// A layer to push or load exists there already.
    LayerExists,
    /// A layer was taken from another repository of the same registry.
    MountedFrom(String),
    /// A layer is uploaded; [`Progress`] has the bytes.
    Pushing,
    /// A layer is pushed.
    Pushed,
    /// A tag is pushed.
    TagPushed {
        /// The tag.
        tag: String,
        /// Digest of its manifest.
        digest: Digest,
        /// Bytes of its manifest.
        size: u64,
    },
    /// A layer is read from an archive; [`Progress`] has the bytes.
    Loading,
    /// An archive is fetched from this address.
    DownloadingFrom(String),
    /// An archive is downloaded; [`Progress`] has the bytes.
    Importing,
}

/// An image that a load or a commit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The familiar names that it got.
    pub references: Vec<String>,
    /// The names that another image had until then, with that image.
    pub replaced: Vec<(String, ImageId)>,
}

/// Options of an import: a root file system's archive becomes an image.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The image's name: `repository[:tag]`.
    pub reference: Option<String>,
    /// Commit message.
    pub message: String,
    /// Dockerfile instructions that set the configuration: `CMD ["sh"]`, `ENV A=b`, ….
    pub changes: Vec<String>,
    /// `os[/architecture[/variant]]`; the machine's own when absent.
    pub platform: Option<String>,
}

/// Options of a commit: a container becomes an image.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// The container's image.
    pub parent: ImageId,
    /// The image's name: `repository[:tag]`.
    pub reference: Option<String>,
    /// The author.
    pub author: String,
    /// The commit message.
    pub comment: String,
    /// The container's command, for the image's history.
    pub command: String,
    /// The command and other defaults of the image. Unset members are taken from the container.
    pub defaults: ContainerDefaults,
    /// Dockerfile instructions that change the defaults.
    pub changes: Vec<String>,
    /// The container's own values.
    pub container: ContainerDefaults,
}

/// One line of the answer to a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name was removed: familiar reference.
    Untagged(String),
    /// An image or a layer was deleted: `sha256:…`.
    Deleted(String),
}

/// The result of [`crate::ImageStore::prune`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedImages {
    /// The removed names and objects.
    pub removed: Vec<Removed>,
    /// Freed bytes on the disk.
    pub reclaimed: u64,
}

/// How much disk the images use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once.
    pub layers: u64,
    /// For each image: the bytes of its layers that other images share.
    pub shared: Vec<(ImageId, u64)>,
}

/// The kind of an event about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageAction {
    /// Loaded from an archive.
    Load,
    /// Pulled from a registry.
    Pull,
    /// Pushed to a registry.
    Push,
    /// Imported from a root file system's archive.
    Import,
    /// Made from a container. That is an event of the container, so the store does not send it.
    Commit,
    /// Saved to an archive.
    Save,
    /// Unused images were removed. The event belongs to no single image.
    Prune,
    /// Got a name.
    Tag,
    /// Lost a name.
    Untag,
    /// Is gone.
    Delete,
}

/// An event of the store.
#[derive(Debug, Clone)]
pub struct ImageEvent {
    /// The kind of event.
    pub action: ImageAction,
    /// The image. `None` if the event belongs to no single image.
    pub id: Option<ImageId>,
    /// What the image was called by: a familiar reference, or the identifier.
    pub name: String,
    /// Bytes of disk that were freed.
    pub reclaimed: Option<u64>,
    /// Labels of the image, as far as they fit in a queue.
    pub labels: Vec<(String, String)>,
    /// Nanoseconds since 1970 (CLOCK_REALTIME).
    pub time: i64,
}

/// The mounted layers of an image. They stay mounted while this value or a clone of it lives;
/// containers that run on them keep working after that, because overlayfs holds its lower layers.
#[derive(Debug, Clone)]
pub struct RootfsLayers {
    /// Directories for overlayfs, topmost first; never empty.
    pub lower: Vec<PathBuf>,
    /// Keeps the mounts alive.
    #[allow(dead_code, reason = "held for its Drop")]
    pub(crate) hold: Arc<crate::mounts::Hold>,
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct ImageStoreOptions {
    /// Unpack new layers to directories even where the kernel can mount EROFS from a file.
    pub directories: bool,
    /// Limits of a layer's contents.
    pub limits: keelson_oci::layer::LayerLimits,
    /// Settings for the connection to registries.
    pub registries: keelson_registry::RegistryOptions,
    /// Keep the compressed blobs of pulled and loaded layers beside their archives, so that saves
    /// and pushes have the original digests.
    pub keep_compressed: bool,
    /// Whether the running release may still be rolled back.
    pub era: keelson_store::Era,
}

impl Default for ImageStoreOptions {
    fn default() -> Self {
        Self {
            directories: false,
            limits: keelson_oci::layer::LayerLimits::default(),
            registries: keelson_registry::RegistryOptions::default(),
            keep_compressed: true,
            era: keelson_store::Era::default(),
        }
    }
}
