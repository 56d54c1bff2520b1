//! Layers on disk.
//!
//! `layers/<diff-id>/` holds `layer.json` ([`LayerRecord`]), `layer.tar` (the uncompressed archive,
//! byte for byte, so that its digest stays the same), `layer.blob` (the original compressed blob,
//! if that is kept) and what a [`LayerBackend`] made from it for mounting.

pub(crate) mod directory;
mod directory_check;
pub(crate) mod erofs;
pub(crate) mod ingest;

use std::fmt::Debug;
use std::fs::File;
use std::path::Path;

use keelson_oci::compression::Compression;
use keelson_oci::digest::Digest;
use keelson_oci::layer::{LayerLimits, Tree};
use keelson_store::{Document, Era, Rest};
use serde::{Deserialize, Serialize};

use crate::error::{Flaw, ImageError};

/// Name of the uncompressed archive.
pub(crate) const TAR: &str = "layer.tar";
/// Name of the layer's original compressed blob.
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
    #[serde(rename = "folder")]
    Directory,
}

impl LayerForm {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Directory => "directory",
        }
    }

    pub(crate) fn backend(self) -> &'static dyn LayerBackend {
        match self {
            Self::Erofs => &erofs::Erofs,
            Self::Directory => &directory::Unpacked,
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
    /// Its backend.
    pub form: LayerForm,
    /// The compressed blob beside the archive, if it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed: Option<CompressedBlob>,
    /// Members that a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Settings for new layers.
#[derive(Debug, Clone)]
pub(crate) struct LayerOptions {
    /// Their backend.
    pub form: LayerForm,
    /// Limits of their contents.
    pub limits: LayerLimits,
    /// Whether their compressed blobs are kept.
    pub keep_compressed: bool,
    /// The release that their records are written for.
    pub era: Era,
}

/// The original blob of a layer.
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
    /// The compression in which a blob can be kept. `None` for plain archives, which are their own
    /// blob.
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
    /// Bytes that the layer's archives occupy on the disk.
    pub(crate) fn stored(&self) -> u64 {
        self.size + self.compressed.map_or(0, |blob| blob.size)
    }
}

impl Document for LayerRecord {
    const VERSION: u32 = 1;
}

/// A way to make a layer mountable.
pub(crate) trait LayerBackend: Debug + Sync {
    /// Makes the files for mounting in the layer's (staged) directory. Nothing is synchronised.
    fn prepare(&self, directory: &Path, tree: &Tree, tar: &File) -> Result<(), ImageError>;

    /// Compares the files that [`Self::prepare`] made with those that it would make now.
    fn check(&self, directory: &Path, tree: &Tree, tar: &File) -> Result<(), Flaw>;

    /// The name of the file or directory that [`Self::prepare`] makes.
    fn made(&self) -> &'static str;

    /// Mounts the layer of this directory at `target`, if it needs a mount.
    fn mount(&self, directory: &Path, target: &Path) -> Result<(), ImageError>;

    /// The subdirectory of the layer's directory that can be used without a mount.
    fn direct(&self) -> Option<&'static str>;
}
