//! What the image store takes and gives.

use std::path::PathBuf;
use std::sync::Arc;

use keelson_oci::config::{ContainerDefaults, ImageConfig};
use keelson_oci::digest::Digest;

/// An image's identifier: the digest of its configuration. Shown as `sha256:<hex>`.
pub type ImageId = Digest;

/// An image as it stands in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The image that this one was built upon, when it was built here.
    pub parent: Option<ImageId>,
    /// When the image was made, seconds since 1970; 0 when its configuration does not say.
    pub created: i64,
    /// Bytes of all layers' uncompressed archives.
    pub size: u64,
    /// Familiar names with tag: `busybox:latest`.
    pub repo_tags: Vec<String>,
    /// Familiar names with digest: `busybox@sha256:…`.
    pub repo_digests: Vec<String>,
    /// When a name was last given to the image: RFC 3339.
    pub last_tagged: Option<String>,
    /// The configuration.
    pub config: Arc<ImageConfig>,
    /// The configuration, byte for byte as its digest covers it.
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

/// The manifest that an image is given away with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSummary {
    /// Of the manifest.
    pub media_type: String,
    /// Of the manifest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// Bytes of the manifest and of everything that it names.
    pub content: u64,
    /// Bytes of the layers' uncompressed archives.
    pub unpacked: u64,
}

/// A step of a load, pull or import, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which object: the first 12 digits of a layer's digest, or the entry's name in the archive.
    pub id: String,
    /// What happens to it.
    pub step: Step,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all, when known.
    pub total: Option<u64>,
}

/// What happens to an object on its way, or to all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A pull begins, of this repository (its path in the registry).
    PullingFrom(String),
    /// A layer that is pulled is here already.
    AlreadyExists,
    /// A layer is to be pulled.
    PullingLayer,
    /// A layer waits for others.
    Waiting,
    /// A layer comes; [`Progress`] says how much of it has.
    Downloading,
    /// All of a layer has come.
    Downloaded,
    /// A layer is pulled.
    PullComplete,
    /// What the name stands for in the registry.
    Digest(Digest),
    /// A pull has ended.
    Pulled {
        /// Familiar name.
        reference: String,
        /// Whether it stands for something new.
        updated: bool,
    },
    /// A push begins, to this repository.
    PushingTo(String),
    /// A layer is to be pushed.
    Preparing,
    /// A layer that is pushed or loaded is there already.
    LayerExists,
    /// A layer was taken from another repository of the same registry.
    MountedFrom(String),
    /// A layer goes; [`Progress`] says how much of it has.
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
    /// A layer comes by an archive; [`Progress`] says how much of it has.
    Loading,
    /// An archive is fetched from this address.
    DownloadingFrom(String),
    /// An archive comes; [`Progress`] says how much of it has.
    Importing,
}

/// An image that a load brought or a commit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// Familiar names that it got.
    pub references: Vec<String>,
    /// Those of them that another image had until then, and which.
    pub replaced: Vec<(String, ImageId)>,
}

/// How an archive of a root file system becomes an image.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name that the image gets: `repository[:tag]`.
    pub reference: Option<String>,
    /// Commit message.
    pub message: String,
    /// Dockerfile instructions that set the configuration: `CMD ["sh"]`, `ENV A=b`, ….
    pub changes: Vec<String>,
    /// `os[/architecture[/variant]]`; the machine's own when absent.
    pub platform: Option<String>,
}

/// How a container becomes an image.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// The image that the container was made from.
    pub parent: ImageId,
    /// Name that the image gets: `repository[:tag]`.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// Why.
    pub comment: String,
    /// The container's command, for the image's history.
    pub command: String,
    /// What the image's containers run; where it says nothing, the container's own counts.
    pub defaults: ContainerDefaults,
    /// Dockerfile instructions that change the defaults.
    pub changes: Vec<String>,
    /// What the container runs.
    pub container: ContainerDefaults,
}

/// One line of the answer to a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken away: familiar reference.
    Untagged(String),
    /// An image or a layer is gone: `sha256:…`.
    Deleted(String),
}

/// What [`crate::ImageStore::prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names and objects.
    pub removed: Vec<Removed>,
    /// Bytes of disk that are free again.
    pub reclaimed: u64,
}

/// How much disk the images use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once.
    pub layers: u64,
    /// For each image the bytes of those of its layers that other images have, too.
    pub shared: Vec<(ImageId, u64)>,
}

/// What happened to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageAction {
    /// Came by an archive.
    Load,
    /// Came from a registry.
    Pull,
    /// Went to a registry.
    Push,
    /// Was made of a root file system's archive.
    Import,
    /// Was made of a container. Docker tells this of the container, so the store does not tell it.
    Commit,
    /// Went to an archive.
    Save,
    /// Those without use were removed. Concerns no image of its own.
    Prune,
    /// Got a name.
    Tag,
    /// Lost a name.
    Untag,
    /// Is gone.
    Delete,
}

impl ImageAction {
    /// Docker's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Import => "import",
            Self::Commit => "commit",
            Self::Save => "save",
            Self::Prune => "prune",
            Self::Tag => "tag",
            Self::Untag => "untag",
            Self::Delete => "delete",
        }
    }
}

/// An event of the store.
#[derive(Debug, Clone)]
pub struct ImageEvent {
    /// What happened.
    pub action: ImageAction,
    /// To which image; `None` when it concerns no single one.
    pub id: Option<ImageId>,
    /// The attribute `name` of Docker's event: a familiar reference, or the identifier.
    pub name: String,
    /// Bytes of disk that became free by it.
    pub reclaimed: Option<u64>,
    /// Labels of the image, which Docker's event carries as attributes.
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
    /// Keeps the mounts.
    #[allow(dead_code, reason = "held for its Drop")]
    pub(crate) hold: Arc<crate::mounts::Hold>,
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Unpack new layers to directories even where the kernel can mount EROFS from a file.
    pub directories: bool,
    /// How much a layer may hold.
    pub limits: keelson_oci::layer::Limits,
    /// How registries are spoken to.
    pub registries: keelson_registry::RegistryOptions,
    /// Keep the compressed blobs of pulled and loaded layers beside their archives, so that they
    /// can be given back with the digests that they came with.
    pub keep_compressed: bool,
    /// Whether the running release may still be taken back.
    pub era: keelson_store::Era,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            directories: false,
            limits: keelson_oci::layer::Limits::default(),
            registries: keelson_registry::RegistryOptions::default(),
            keep_compressed: true,
            era: keelson_store::Era::default(),
        }
    }
}
