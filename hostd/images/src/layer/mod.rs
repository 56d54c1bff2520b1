//! Layers on disk.
//!
//! `layers/<diff-id>/` holds `layer.json` ([`LayerRecord`]), `layer.tar` (the uncompressed
//! archive, byte for byte, so that it can be given back with the same digest), `layer.blob` (the
//! compressed blob that it came as, when that is kept) and what a [`LayerBackend`] made of it for
//! mounting.

pub(crate) mod directory;
mod directory_check;
pub(crate) mod erofs;
pub(crate) mod ingest;

use std::fmt::Debug;
use std::fs::File;
use std::path::Path;

use keelson_oci::compression::Compression;
use keelson_oci::digest::Digest;
use keelson_oci::layer::{Limits, Tree};
use keelson_store::{Document, Era, Rest};
use serde::{Deserialize, Serialize};

use crate::error::ImageError;

/// Name of the uncompressed archive.
pub(crate) const TAR: &str = "layer.tar";
/// Name of the compressed blob that the layer came as.
pub(crate) const BLOB: &str = "layer.blob";
/// Name of the record.
pub(crate) const RECORD: &str = "layer.json";

/// How a layer is made mountable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerForm {
    /// An EROFS index over the archive, mounted file-backed.
    Erofs,
    /// A directory with everything unpacked.
    Folder,
}

impl LayerForm {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Folder => "folder",
        }
    }

    pub(crate) fn backend(self) -> &'static dyn LayerBackend {
        match self {
            Self::Erofs => &erofs::Erofs,
            Self::Folder => &directory::Folder,
        }
    }
}

/// `layer.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Digest of the archive.
    pub diff_id: Digest,
    /// Bytes of the archive.
    pub size: u64,
    /// How it is made mountable.
    pub form: LayerForm,
    /// The compressed blob beside the archive, when it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed: Option<CompressedBlob>,
    /// What a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How new layers are made.
#[derive(Debug, Clone)]
pub(crate) struct LayerOptions {
    /// How they are made mountable.
    pub form: LayerForm,
    /// How much one may hold.
    pub limits: Limits,
    /// Whether their compressed blobs are kept.
    pub keep_compressed: bool,
    /// For whom their records are written.
    pub era: Era,
}

/// The blob that a layer came as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompressedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// How it is compressed.
    pub format: BlobFormat,
}

/// The compressions that blobs are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BlobFormat {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl BlobFormat {
    /// The form in which a blob can be kept; `None` for plain archives, which are their own blob.
    pub(crate) const fn of(compression: Compression) -> Option<Self> {
        match compression {
            // Registries have no media types for the last two.
            Compression::Plain | Compression::Bzip2 | Compression::Xz => None,
            Compression::Gzip => Some(Self::Gzip),
            Compression::Zstd => Some(Self::Zstd),
        }
    }
}

impl LayerRecord {
    /// Bytes that the layer's archives take on the disk.
    pub(crate) fn stored(&self) -> u64 {
        self.size + self.compressed.map_or(0, |blob| blob.size)
    }
}

impl Document for LayerRecord {
    const VERSION: u32 = 1;
}

/// A way to make a layer mountable.
pub(crate) trait LayerBackend: Debug + Sync {
    /// Makes what is needed for mounting in the layer's (staged) directory. Nothing is synced to disk.
    fn prepare(&self, directory: &Path, tree: &Tree, tar: &File) -> Result<(), ImageError>;

    /// Compares what [`Self::prepare`] made with what it would make now; the error says what
    /// differs.
    fn check(&self, directory: &Path, tree: &Tree, tar: &File) -> Result<(), String>;

    /// Name of the file or directory that [`Self::prepare`] makes.
    fn made(&self) -> &'static str;

    /// Shows the layer of this directory at `target`, when it needs a mount.
    fn mount(&self, directory: &Path, target: &Path) -> Result<(), ImageError>;

    /// The sub-directory of the layer's directory that can be used as it is, without a mount.
    fn direct(&self) -> Option<&'static str>;
}
