//! Manifests: Docker's archive manifest, OCI manifest and index, and Docker schema 2, which is
//! read by the same types. Unknown members are ignored; members that are not needed may have any
//! value.

mod media_type;
mod read;

use std::collections::BTreeMap;

use keelson_model::json::JsonError;

use crate::digest::Digest;

pub use media_type::names_other_format;

/// Largest manifest or index that is read, in bytes (the limit that registries have).
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// Annotation of an index entry: the image's full name.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation of an index entry: the image's name, or just its tag.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of Keelson for the entry of a manifest of plain layers that is an image's original
/// one, and was not just made for an archive.
pub const ANNOTATION_ORIGINAL: &str = "io.keelson.manifest.original";
/// Annotation of an index entry that describes another entry and is not an image.
pub const ANNOTATION_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the configuration that an OCI manifest names.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an OCI layer without compression; `+gzip` and `+zstd` are appended for others.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of the configuration that Docker's manifest names.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Media type of Docker's layer without compression; `.gzip` is appended for the usual one.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// One image of `manifest.json` in a `docker save` archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveImage {
    /// Path of the configuration in the archive.
    pub config: String,
    /// Names with tag.
    pub repo_tags: Vec<String>,
    /// Paths of the layers in the archive, lowest first.
    pub layers: Vec<String>,
    /// The image in the same archive that it was made from.
    pub parent: Option<String>,
}

/// Describes a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The blob's media type; may be empty.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The image's platform. Also `None` if all its members are empty.
    pub platform: Option<Platform>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// The type of an artifact that is not an image.
    pub artifact_type: Option<String>,
}

/// The platform of an image, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v8`.
    pub variant: Option<String>,
}

/// The entries of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// The readable entries.
    pub entries: Vec<Descriptor>,
    /// Why other entries can't be read, as text for people; the first few.
    pub passed_over: Vec<String>,
}

/// A manifest or an index: see [`DocumentKind`].
#[derive(Debug)]
pub struct ManifestDocument;

/// The kind of a [`ManifestDocument`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentKind {
    /// One image: its configuration and its layers, lowest first.
    Manifest(Descriptor, Vec<Descriptor>),
    /// Several images to choose from.
    Index(Index),
}

/// Why a document is not a usable manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that the specification asks for.
    #[error("not valid JSON of a manifest: {0}")]
    Json(#[from] JsonError),
    /// Too large.
    #[error("{0} bytes, where at most {MAX_MANIFEST_SIZE} are accepted")]
    TooLarge(usize),
    /// Another version of the format.
    #[error(
        "schema version {0} is not supported, only 2 is; copy the image to a current registry, or \
         push it again with a current engine, which converts it"
    )]
    Schema(u32),
    /// Not the media type of an image.
    #[error("media type {0:?} is not that of a container image")]
    MediaType(String),
    /// Another kind of artifact in registries: a chart, a signature, ….
    #[error(
        "media type {0:?} is not that of a container image but of an artifact; a tool for such \
         artifacts can fetch it"
    )]
    Artifact(String),
    /// It has neither the members of an image nor those of an index.
    #[error("it has neither config and layers nor manifests, or not those of its media type")]
    Incomplete,
}

impl ManifestError {
    /// Whether the document is no image, so that an image store may skip it.
    pub fn is_other_kind(&self) -> bool {
        matches!(self, Self::MediaType(_) | Self::Artifact(_))
    }
}

impl Index {
    /// Why entries were skipped, to append to a message; empty when none were.
    pub fn remarks(&self) -> String {
        let remarks = self.passed_over.iter().map(|why| format!("; {why}"));
        remarks.collect()
    }
}

impl Descriptor {
    /// The annotation of this name.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether it describes an attestation about another manifest instead of an image.
    pub fn is_attestation(&self) -> bool {
        self.annotation(ANNOTATION_REFERENCE_TYPE).is_some()
    }

    /// Whether it describes something that is certainly no image: an artifact, a signature, an
    /// attestation.
    pub fn is_other_than_image(&self) -> bool {
        self.is_attestation()
            || self.artifact_type.is_some()
            || !(self.media_type.is_empty()
                || media_type::is_index(&self.media_type)
                || media_type::is_manifest(&self.media_type)
                || media_type::says_nothing(&self.media_type))
    }

    /// Whether the layer is a foreign one, which may have to be fetched from elsewhere.
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains("nondistributable") || self.media_type.contains("foreign")
    }

    /// Whether it is for this machine: Linux and this architecture. Without a platform it may be.
    pub fn fits(&self, architecture: &str) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
    }
}

/// The architecture that this program was built for, in Go's words.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests;
