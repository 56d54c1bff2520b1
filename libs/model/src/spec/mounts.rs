//! Mounts of a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;

/// A mount to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Clean absolute path in the container, never `/`.
    pub target: PathBuf,
    /// What is mounted.
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
    /// The volume. Empty in a request for an anonymous one; the engine gives it a name.
    pub name: String,
    /// Whether it was made for this container, without a name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub anonymous: bool,
    /// Nothing may be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// It is not filled with what the image has at the target.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// Only what this relative path in the volume leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<PathBuf>,
    /// Driver of a volume that has to be made; empty for the usual one. Not kept.
    #[serde(skip)]
    pub driver: String,
    /// Options of a volume that has to be made. Not kept.
    #[serde(skip)]
    pub options: BTreeMap<String, String>,
    /// Labels of a volume that has to be made. Not kept.
    #[serde(skip)]
    pub labels: BTreeMap<String, String>,
}

/// The files of an image to mount. Nothing can be written to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Clean absolute path in the container, never `/`.
    pub target: PathBuf,
    /// The image as it was named.
    pub name: String,
    /// `sha256:…`. Empty in a request; the engine finds it.
    pub id: String,
    /// Only what this relative path in the image leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<PathBuf>,
}

/// A directory or file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Make a directory when there is nothing at `source`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub create_source: bool,
    /// Bind what is mounted below the source, too.
    pub recursive: bool,
    /// What may be written.
    pub read_only: ReadOnly,
    /// Whether later mounts and unmounts pass from or to the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub propagation: Propagation,
    /// In a container with users of its own, files belong to those that the disk says, seen from
    /// inside: it is the engine's own directory. Otherwise the disk says users of the host. Not kept:
    /// the engine knows what is its own.
    #[serde(skip)]
    pub mapped: bool,
}

/// What of a bind mount is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadOnly {
    /// Nothing.
    No,
    /// The mount itself; what is mounted below it stays as it is.
    Top,
    /// Everything below it too, as far as the kernel can.
    Recursive,
    /// Everything below it too, or the container does not start.
    ForceRecursive,
}

/// Whether mounts and unmounts pass between the host and a mount (mount_namespaces(7)).
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

    /// The mount option that asks for it: `rprivate`, ….
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
    /// Mount options, each judged: `nosuid`, `size=64m`, ….
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: Vec<String>,
    /// Nothing may be written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
}
