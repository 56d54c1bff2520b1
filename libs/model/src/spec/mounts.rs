//! Mounts of a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;

/// A mount to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Normalised absolute path in the container, never `/`.
    pub target: PathBuf,
    /// The source.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MountKind {
    /// A directory or file of the host.
    Bind(BindMount),
    /// A temporary file system.
    Tmpfs(TmpfsMount),
}

/// A volume to mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Clean absolute path in the container, never `/`.
    pub target: PathBuf,
    /// The volume's name. Empty in a request for an anonymous one; the engine generates a name.
    pub name: String,
    /// Whether it is anonymous and was created for this container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub anonymous: bool,
    /// Nothing may be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// It is not filled with the image's files at the target.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// Only this relative path in the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<PathBuf>,
    /// Driver of a new volume; empty for the default one. Not stored.
    #[serde(skip)]
    pub driver: String,
    /// Options of a new volume. Not stored.
    #[serde(skip)]
    pub options: BTreeMap<String, String>,
    /// Labels of a new volume. Not stored.
    #[serde(skip)]
    pub labels: BTreeMap<String, String>,
}

/// The files of an image to mount. Nothing can be written to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Clean absolute path in the container, never `/`.
    pub target: PathBuf,
    /// The image's name in the request.
    pub name: String,
    /// `sha256:…`. Empty in a request; the engine finds it.
    pub id: String,
    /// Only this relative path in the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<PathBuf>,
}

/// A directory or file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Make a directory if `source` does not exist.
    #[serde(default, skip_serializing_if = "is_default")]
    pub create_source: bool,
    /// Include the mounts below the source.
    pub recursive: bool,
    /// Which parts are read-only.
    pub read_only: ReadOnly,
    /// Whether later mounts and unmounts propagate from or to the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub propagation: Propagation,
    /// In a container with a user namespace: whether the owners on the disk are the container's
    /// ids, because it is the engine's own directory. Otherwise they are the host's ids. Not
    /// stored: the engine knows its own directories.
    #[serde(skip)]
    pub mapped: bool,
}

/// Which parts of a bind mount are read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadOnly {
    /// Nothing.
    No,
    /// The mount itself; mounts below it are unchanged.
    Top,
    /// Mounts below it too, if the kernel supports it.
    Recursive,
    /// Mounts below it too; otherwise the container does not start.
    ForceRecursive,
}

/// Whether mounts and unmounts propagate between the host and a mount (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// Neither way, for the whole tree.
    #[default]
    RecursivePrivate,
    /// Neither way.
    Private,
    /// Both ways, for the whole tree.
    RecursiveShared,
    /// Both ways.
    Shared,
    /// From the host only, for the whole tree.
    RecursiveSlave,
    /// From the host only.
    Slave,
}

impl Propagation {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::RecursivePrivate,
        Self::Private,
        Self::RecursiveShared,
        Self::Shared,
        Self::RecursiveSlave,
        Self::Slave,
    ];

    /// Its mount option: `rprivate`, ….
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RecursivePrivate => "rprivate",
            Self::Private => "private",
            Self::RecursiveShared => "rshared",
            Self::Shared => "shared",
            Self::RecursiveSlave => "rslave",
            Self::Slave => "slave",
        }
    }
}

/// A temporary file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    /// Mount options, all checked: `nosuid`, `size=64m`, ….
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: Vec<String>,
    /// Nothing may be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
}
