//! The tree that a layer's archive describes.
//!
//! The rules are those of the OCI image specification (layer.md) as Docker applies them:
//! * Paths are relative to the root, whether they begin with a slash or not; one that climbs out
//!   of it is refused. Symbolic links inside the layer are followed for the folders of a path, and
//!   a link that points above the root ends at the root, as in a chroot.
//! * A later entry of the same path replaces the earlier one, except that a folder stays and
//!   takes the new attributes. Folders without an entry of their own belong to root, mode 0755.
//! * `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` hides all that they have in its
//!   folder. They never hide what the same layer brings. Other names that begin with `.wh..wh.`
//!   are aufs's own and dropped.
//! * `trusted.overlay.*` attributes are dropped: they would steer overlayfs, not the container.

use std::collections::{BTreeMap, VecDeque};

use crate::archive::{ArchiveError, Entry, EntryKind, MAX_PATH, SparsePart};

/// Index of a node in [`Tree::nodes`].
pub type NodeId = u32;

/// The root folder.
pub const ROOT: NodeId = 0;

const MAX_NAME: usize = 255;
/// Folders inside one another; whoever walks the tree may hold a descriptor for each.
const MAX_DEPTH: usize = 256;
/// As many as Linux follows in one path.
const MAX_LINKS: u32 = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";
/// What an inode of EROFS, and the kernel's system call, can hold of one attribute.
const MAX_XATTR_VALUE: usize = 65_535;
/// Sum of names and values of one file.
const MAX_XATTRS: usize = 128 << 10;

/// How much a layer may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Bytes of names, link targets and attributes, which are held in memory.
    pub metadata: u64,
    /// Bytes of one file, with its holes.
    pub file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            bytes: 256 << 30,
            metadata: 512 << 20,
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
    /// An entry cannot be.
    #[error("layer entry {path:?}: {reason}")]
    Entry {
        /// Path as in the archive.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// More than [`Limits`] allow.
    #[error("the layer has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
}

/// A file, folder or other object of a layer.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
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
    /// How many names it has (folders: 1).
    pub names: u32,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A folder.
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
        /// The parts with data when it has holes; their data follow one another from `offset`.
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
    /// All nodes; those that were replaced have no names and are in no folder.
    pub nodes: Vec<Node>,
}

impl Tree {
    /// The node with this index.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }
}

/// Builds a [`Tree`] entry by entry.
#[derive(Debug)]
pub struct TreeBuilder {
    nodes: Vec<Node>,
    limits: Limits,
    entries: u64,
    metadata: u64,
}

impl TreeBuilder {
    /// An empty root folder.
    pub fn new(limits: Limits) -> Self {
        Self {
            nodes: vec![implied_directory(false)],
            limits,
            entries: 0,
            metadata: 0,
        }
    }

    /// The finished tree.
    pub fn finish(self) -> Tree {
        Tree { nodes: self.nodes }
    }

    /// Takes the next entry.
    pub fn add(&mut self, entry: Entry) -> Result<(), TreeError> {
        self.count(&entry)?;
        let refuse = |reason: &str| TreeError::Entry {
            path: entry.name(),
            reason: reason.to_owned(),
        };
        let components = components(&entry.path).map_err(refuse)?;
        let Some((name, folders)) = components.split_last() else {
            return match entry.kind {
                EntryKind::Directory => self.apply(ROOT, entry),
                _ => Err(refuse("the root must be a folder")),
            };
        };
        let is_aufs = |name: &[u8]| name.starts_with(AUFS);
        if folders.iter().any(|folder| is_aufs(folder)) || (is_aufs(name) && *name != OPAQUE) {
            return Ok(());
        }
        if folders.iter().any(|folder| folder.starts_with(WHITEOUT)) {
            return Err(refuse("a whiteout cannot have contents"));
        }
        let parent = self.folder(folders).map_err(refuse)?;
        if *name == OPAQUE {
            self.set_opaque(parent);
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if hidden.is_empty() || hidden == b"." || hidden == b".." {
                return Err(refuse("the whiteout names nothing"));
            }
            return self.whiteout(parent, hidden).map_err(refuse);
        }
        let name: Box<[u8]> = Box::from(*name);
        let existing = self.child(parent, &name);
        let mut hides_lower = false;
        if let Some(existing) = existing {
            match self.nodes.get(existing as usize).map(|node| &node.kind) {
                Some(NodeKind::Directory { .. }) if entry.kind == EntryKind::Directory => {
                    return self.apply(existing, entry);
                }
                Some(NodeKind::Whiteout) => hides_lower = true,
                _ => {}
            }
        }
        let id = match entry.kind {
            EntryKind::HardLink => self.link_target(&entry.link).map_err(|reason| {
                refuse(&format!(
                    "hard link to {:?}: {reason}",
                    String::from_utf8_lossy(&entry.link)
                ))
            })?,
            _ => {
                let kind = node_kind(&entry, hides_lower).map_err(|reason| refuse(&reason))?;
                let id = self.push(Node {
                    kind,
                    mode: 0,
                    uid: 0,
                    gid: 0,
                    mtime: 0,
                    mtime_nsec: 0,
                    xattrs: BTreeMap::new(),
                    names: 0,
                })?;
                self.apply(id, entry)?;
                id
            }
        };
        if existing != Some(id) {
            self.attach(parent, name, id);
        }
        Ok(())
    }

    /// Counts against the limits.
    fn count(&mut self, entry: &Entry) -> Result<(), TreeError> {
        self.entries += 1;
        // The constant stands for the node itself and its place in the folder.
        let held: usize = entry.path.len()
            + entry.link.len()
            + entry.sparse.as_ref().map_or(0, |parts| parts.len() * 16)
            + entry
                .xattrs
                .iter()
                .map(|(name, value)| name.len() + value.len() + 64)
                .sum::<usize>();
        self.metadata += held as u64;
        let over = |what, value, limit| {
            if value > limit {
                return Err(TreeError::Limit { what, limit });
            }
            Ok(())
        };
        over("entries", self.entries, self.limits.entries)?;
        over("bytes of names", self.metadata, self.limits.metadata)?;
        over("bytes in one file", entry.size, self.limits.file)?;
        let end = entry.data_offset.saturating_add(entry.stored);
        over("bytes", end, self.limits.bytes)
    }

    fn push(&mut self, node: Node) -> Result<NodeId, TreeError> {
        let limit = u64::from(NodeId::MAX);
        let id = NodeId::try_from(self.nodes.len()).map_err(|_| TreeError::Limit {
            what: "objects",
            limit,
        })?;
        self.nodes.push(node);
        Ok(id)
    }

    /// Gives a node the attributes of an entry.
    fn apply(&mut self, id: NodeId, entry: Entry) -> Result<(), TreeError> {
        let refuse = |reason: String| TreeError::Entry {
            path: entry.name(),
            reason,
        };
        let mut xattrs = BTreeMap::new();
        let mut total = 0;
        for (name, value) in &entry.xattrs {
            if !is_kept_xattr(name) {
                continue;
            }
            total += name.len() + value.len();
            if name.len() > MAX_NAME || value.len() > MAX_XATTR_VALUE || total > MAX_XATTRS {
                return Err(refuse(format!(
                    "the extended attribute {:?} is too large",
                    String::from_utf8_lossy(name)
                )));
            }
            xattrs.insert(name.clone(), value.clone());
        }
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.mode = entry.mode;
            node.uid = entry.uid;
            node.gid = entry.gid;
            node.mtime = entry.mtime;
            node.mtime_nsec = entry.mtime_nsec;
            node.xattrs = xattrs;
        }
        Ok(())
    }

    fn child(&self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.nodes.get(folder as usize)?.kind {
            NodeKind::Directory { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    /// Puts a node into a folder in place of what is there.
    fn attach(&mut self, folder: NodeId, name: Box<[u8]>, id: NodeId) {
        let mut replaced = None;
        if let Some(node) = self.nodes.get_mut(folder as usize)
            && let NodeKind::Directory { children, .. } = &mut node.kind
        {
            replaced = children.insert(name, id);
        }
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.names += 1;
        }
        if let Some(replaced) = replaced {
            self.forget(replaced);
        }
    }

    /// Takes a name away from a node and, when it was the last, from all that is inside.
    fn forget(&mut self, id: NodeId) {
        let mut forgotten = vec![id];
        while let Some(id) = forgotten.pop() {
            let Some(node) = self.nodes.get_mut(id as usize) else {
                continue;
            };
            node.names = node.names.saturating_sub(1);
            if let NodeKind::Directory { children, .. } = &mut node.kind {
                forgotten.extend(std::mem::take(children).into_values());
            }
        }
    }

    fn set_opaque(&mut self, folder: NodeId) {
        if let Some(node) = self.nodes.get_mut(folder as usize)
            && let NodeKind::Directory { opaque, .. } = &mut node.kind
        {
            *opaque = true;
        }
    }

    fn whiteout(&mut self, parent: NodeId, hidden: &[u8]) -> Result<(), &'static str> {
        match self.child(parent, hidden) {
            // A folder of the same layer stays, and the lower ones do not shine through it;
            // anything else covers what is below anyway.
            Some(existing) => self.set_opaque(existing),
            None => {
                let mut node = implied_directory(false);
                node.kind = NodeKind::Whiteout;
                node.mode = 0;
                let id = self.push(node).map_err(|_| "too many objects")?;
                self.attach(parent, Box::from(hidden), id);
            }
        }
        Ok(())
    }

    /// Finds the folder, following symbolic links, and makes what is missing.
    fn folder(&mut self, path: &[&[u8]]) -> Result<NodeId, &'static str> {
        // The usual case: folders all the way.
        let mut at = ROOT;
        for name in path {
            match self.child(at, name) {
                Some(id) if self.is_directory(id) => at = id,
                _ => return self.folder_by_links(path),
            }
        }
        Ok(at)
    }

    fn is_directory(&self, id: NodeId) -> bool {
        matches!(
            self.nodes.get(id as usize).map(|node| &node.kind),
            Some(NodeKind::Directory { .. })
        )
    }

    fn folder_by_links(&mut self, path: &[&[u8]]) -> Result<NodeId, &'static str> {
        let mut left: VecDeque<Box<[u8]>> = path.iter().map(|name| Box::from(*name)).collect();
        let mut above = Vec::new();
        let mut at = ROOT;
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if above.len() >= MAX_DEPTH {
                return Err("its path has too many folders");
            }
            if *name == *b".." {
                at = above.pop().unwrap_or(ROOT);
                continue;
            }
            let found = self.child(at, &name);
            let kind = found.and_then(|id| self.nodes.get(id as usize).map(|node| &node.kind));
            match (found, kind) {
                (Some(id), Some(NodeKind::Directory { .. })) => {
                    above.push(at);
                    at = id;
                }
                (Some(_), Some(NodeKind::Symlink { target })) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("too many symbolic links in its path");
                    }
                    if target.starts_with(b"/") {
                        above.clear();
                        at = ROOT;
                    }
                    for part in target.split(|byte| *byte == b'/').rev() {
                        if part.len() > MAX_NAME {
                            return Err("a symbolic link in its path has too long a name");
                        }
                        if !part.is_empty() && part != b"." {
                            left.push_front(Box::from(part));
                        }
                    }
                    if left.len() > MAX_PATH {
                        return Err("its path is too long");
                    }
                }
                (Some(_), Some(kind)) if !matches!(kind, NodeKind::Whiteout) => {
                    return Err("its path leads through something that is not a folder");
                }
                (hidden, _) => {
                    if name.starts_with(WHITEOUT) {
                        return Err("its path leads through a whiteout");
                    }
                    self.metadata += name.len() as u64 + 64;
                    if self.metadata > self.limits.metadata {
                        return Err("the layer has too many folders");
                    }
                    let id = self
                        .push(implied_directory(hidden.is_some()))
                        .map_err(|_| "too many objects")?;
                    self.attach(at, name, id);
                    above.push(at);
                    at = id;
                }
            }
        }
        Ok(at)
    }

    fn link_target(&mut self, link: &[u8]) -> Result<NodeId, String> {
        let components = components(link)?;
        let (name, folders) = components
            .split_last()
            .ok_or_else(|| "it names no file".to_owned())?;
        let missing = "there is no such file in this layer";
        // Looked up without making anything: a folder that does not exist holds no target.
        let before = self.nodes.len();
        let parent = self.folder(folders)?;
        if self.nodes.len() != before {
            return Err(missing.to_owned());
        }
        let id = self.child(parent, name).ok_or(missing)?;
        match self.nodes.get(id as usize).map(|node| &node.kind) {
            None | Some(NodeKind::Whiteout) => Err(missing.to_owned()),
            Some(NodeKind::Directory { .. }) => Err("that is a folder".to_owned()),
            Some(_) => Ok(id),
        }
    }
}

fn implied_directory(opaque: bool) -> Node {
    Node {
        kind: NodeKind::Directory {
            children: BTreeMap::new(),
            opaque,
        },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nsec: 0,
        xattrs: BTreeMap::new(),
        names: 0,
    }
}

fn node_kind(entry: &Entry, hides_lower: bool) -> Result<NodeKind, String> {
    let (major, minor) = (entry.major, entry.minor);
    if major > 0xfff || minor > 0xf_ffff {
        return Err(format!("device number {major}:{minor} is out of range"));
    }
    Ok(match entry.kind {
        EntryKind::Directory => NodeKind::Directory {
            children: BTreeMap::new(),
            opaque: hides_lower,
        },
        EntryKind::File => NodeKind::File {
            size: entry.size,
            offset: entry.data_offset,
            sparse: entry.sparse.clone(),
        },
        EntryKind::Symlink => match entry.link.len() {
            0 => return Err("the symbolic link has no target".to_owned()),
            length if length > MAX_PATH => return Err("the link's target is too long".to_owned()),
            _ if entry.link.contains(&0) => return Err("the target has a zero byte".to_owned()),
            _ => NodeKind::Symlink {
                target: entry.link.clone(),
            },
        },
        EntryKind::CharDevice => NodeKind::CharDevice { major, minor },
        EntryKind::BlockDevice => NodeKind::BlockDevice { major, minor },
        EntryKind::Fifo => NodeKind::Fifo,
        EntryKind::HardLink => return Err("unexpected hard link".to_owned()),
        EntryKind::Other(flag) => {
            return Err(format!(
                "entries of type {:?} are not supported",
                char::from(flag)
            ));
        }
    })
}

/// The namespaces that Linux file systems know, without overlayfs's own.
fn is_kept_xattr(name: &[u8]) -> bool {
    let known: [&[u8]; 5] = [
        b"user.",
        b"trusted.",
        b"security.",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
    ];
    known
        .iter()
        .any(|prefix| name.starts_with(prefix) && (name.len() > prefix.len() || prefix.len() > 9))
        && !name.starts_with(b"trusted.overlay.")
        && !name.contains(&0)
}

/// The names of a path, without `.` and `..`.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.len() > MAX_PATH {
        return Err("its path is too long");
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                if names.pop().is_none() {
                    return Err("its path leads out of the root");
                }
            }
            _ if name.len() > MAX_NAME => return Err("a name in its path is too long"),
            _ if name.contains(&0) => return Err("its path has a zero byte"),
            _ if names.len() >= MAX_DEPTH => return Err("its path has too many folders"),
            _ => names.push(name),
        }
    }
    Ok(names)
}
