//! The tree that a layer's archive describes.
//!
//! The rules are those of the OCI image specification (layer.md) as Docker applies them:
//! * Paths are relative to the root, whether they begin with a slash or not; one that climbs out
//!   of it is refused. Symbolic links inside the layer are followed for the directories of a path, and
//!   a link that points above the root ends at the root, as in a chroot.
//! * A later entry of the same path replaces the earlier one, except that a directory stays and
//!   takes the new attributes. Directories without an entry of their own belong to root, mode 0755.
//! * `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` hides all that they have in its
//!   directory. They never hide objects of the same layer. Other names that begin with `.wh..wh.`
//!   belong to aufs and are dropped. Hard links to files below `.wh..wh.plnk/`, where aufs keeps
//!   files with several names, are followed.
//! * `trusted.overlay.*` attributes are dropped: they would steer overlayfs, not the container.
//!   A character device 0/0 is overlayfs's whiteout, and counts as one.
//! * Attributes that Linux does not have for objects of a kind are dropped, as engines do:
//!   `user.*` of links, devices and pipes, default ACLs of files.

mod build;
mod name;
mod path;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::archive::{ArchiveError, SparsePart};

pub use build::TreeBuilder;
pub use name::{OPAQUE, WHITEOUT};

/// Index of a node in [`Tree::nodes`].
pub type NodeId = u32;

/// The root directory.
pub const ROOT: NodeId = 0;

/// Limits of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerLimits {
    /// Entries of the archive, and directories on their paths. A million of them need about 300 MB
    /// of memory until the layer is indexed.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Bytes of names, link targets and attributes, which are held in memory.
    pub metadata: u64,
    /// Bytes of one file, with its holes.
    pub file: u64,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 256 << 30,
            metadata: 256 << 20,
            file: 8 << 40,
        }
    }
}

/// Why a layer is refused.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The archive itself cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An entry can't be accepted.
    #[error("layer entry {path:?}: {reason}")]
    Entry {
        /// Path as in the archive.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// More than [`LayerLimits`] allow.
    #[error("the layer has more than {limit} {what}")]
    Limit {
        /// The limited quantity.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// Why an entry is refused, as the end of a sentence that names the entry.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(Cow<'static, str>);

impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// A file, directory or other object of a layer.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its kind.
    pub kind: NodeKind,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the time.
    pub mtime_nsec: u32,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How many names it has (directories: 1).
    pub names: u32,
}

/// The kind of a node.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A directory.
    Directory {
        /// Its entries by name.
        children: BTreeMap<Box<[u8]>, NodeId>,
        /// Hides the contents that lower layers have there.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Where in the layer's uncompressed archive its data begin.
        offset: u64,
        /// The parts with data, if it has holes. Their data is stored one after another from
        /// `offset` on.
        sparse: Option<Vec<SparsePart>>,
    },
    /// A symbolic link.
    Symlink {
        /// Target as written.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Hides the object of this name that lower layers have.
    Whiteout,
}

/// A layer's contents.
#[derive(Debug, Clone)]
pub struct Tree {
    /// All nodes. Replaced ones have no names and are in no directory.
    pub nodes: Vec<Node>,
}

impl Tree {
    /// The node with this index.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }
}
