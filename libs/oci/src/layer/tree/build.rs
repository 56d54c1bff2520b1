//! Builds nodes from entries.

use std::collections::BTreeMap;

use super::name::{MAX_NAME, OPAQUE, WHITEOUT, components};
use super::{LayerLimits, Node, NodeId, NodeKind, ROOT, Reason, Tree, TreeError};
use crate::archive::{Entry, EntryKind, MAX_PATH};
use crate::tar_entry::{MAX_XATTR_VALUE, MAX_XATTRS};

const AUFS: &[u8] = b".wh..wh.";
/// The directory in which aufs keeps files with several names. All their names are hard links to
/// files in it.
const AUFS_LINKS: &[u8] = b".wh..wh.plnk";
const CAPABILITY: &[u8] = b"security.capability";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Builds a [`Tree`] entry by entry.
#[derive(Debug)]
pub struct TreeBuilder {
    pub(super) nodes: Vec<Node>,
    pub(super) limits: LayerLimits,
    pub(super) entries: u64,
    pub(super) metadata: u64,
    /// The files in [`AUFS_LINKS`], by name. They are not part of the image, but links lead there.
    aufs_links: BTreeMap<Box<[u8]>, NodeId>,
}

impl TreeBuilder {
    /// An empty root directory.
    pub fn new(limits: LayerLimits) -> Self {
        Self {
            nodes: vec![implied_directory(false)],
            limits,
            entries: 0,
            metadata: 0,
            aufs_links: BTreeMap::new(),
        }
    }

    /// The finished tree.
    pub fn finish(mut self) -> Tree {
        let is_whiteout: Vec<bool> = self
            .nodes
            .iter()
            .map(|node| matches!(node.kind, NodeKind::Whiteout))
            .collect();
        let is_whiteout = |id: &NodeId| is_whiteout.get(*id as usize) == Some(&true);
        for node in &mut self.nodes {
            // The lowest layer has nothing to hide. Overlayfs does not expect whiteouts there, and
            // would list them as files that do not exist.
            if let NodeKind::Directory {
                children,
                opaque: true,
            } = &mut node.kind
            {
                children.retain(|_, id| !is_whiteout(id));
            }
        }
        Tree { nodes: self.nodes }
    }

    /// Adds the next entry.
    pub fn add(&mut self, entry: Entry) -> Result<(), TreeError> {
        self.count(&entry)?;
        let refuse = |reason: &str| TreeError::Entry {
            path: entry.name(),
            reason: reason.to_owned(),
        };
        let components = components(&entry.path).map_err(refuse)?;
        let Some((name, directories)) = components.split_last() else {
            return match entry.kind {
                EntryKind::Directory => self.apply(ROOT, entry),
                _ => Err(refuse("the root must be a directory")),
            };
        };
        if let [AUFS_LINKS] = directories {
            return self.add_aufs_link(Box::from(*name), entry);
        }
        let is_aufs = |name: &[u8]| name.starts_with(AUFS);
        if directories.iter().any(|directory| is_aufs(directory))
            || (is_aufs(name) && *name != OPAQUE)
        {
            return Ok(());
        }
        if directories
            .iter()
            .any(|directory| directory.starts_with(WHITEOUT))
        {
            return Err(refuse("a whiteout cannot have contents"));
        }
        let parent = self.directory(directories).map_err(refuse)?;
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
            EntryKind::HardLink => self.linked(&entry.link).map_err(|reason| {
                refuse(&format!(
                    "hard link to {:?}: {reason}",
                    String::from_utf8_lossy(&entry.link)
                ))
            })?,
            _ => self.make(entry, hides_lower)?,
        };
        if existing != Some(id) {
            self.attach(parent, name, id);
        }
        Ok(())
    }

    /// Makes a node without a name.
    fn make(&mut self, entry: Entry, hides_lower: bool) -> Result<NodeId, TreeError> {
        let kind = node_kind(&entry, hides_lower).map_err(|reason| TreeError::Entry {
            path: entry.name(),
            reason: reason.to_string(),
        })?;
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
        Ok(id)
    }

    /// Remembers a file that aufs keeps for its links.
    fn add_aufs_link(&mut self, name: Box<[u8]>, entry: Entry) -> Result<(), TreeError> {
        if entry.kind == EntryKind::File {
            let id = self.make(entry, false)?;
            self.aufs_links.insert(name, id);
        }
        Ok(())
    }

    /// The target of a hard link.
    fn linked(&mut self, link: &[u8]) -> Result<NodeId, Reason> {
        match components(link)?.as_slice() {
            [AUFS_LINKS, name] => {
                let found = self.aufs_links.get(*name).copied();
                found.ok_or_else(|| "there is no such file in this layer".into())
            }
            _ => self.link_target(link),
        }
    }

    /// Counts against the limits.
    fn count(&mut self, entry: &Entry) -> Result<(), TreeError> {
        self.entries += 1;
        // The constant counts the node itself and its entry in the directory.
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

    pub(super) fn push(&mut self, node: Node) -> Result<NodeId, TreeError> {
        let limit = u64::from(NodeId::MAX);
        let id = NodeId::try_from(self.nodes.len()).map_err(|_| TreeError::Limit {
            what: "objects",
            limit,
        })?;
        self.nodes.push(node);
        Ok(id)
    }

    /// Sets a node's attributes from an entry.
    fn apply(&mut self, id: NodeId, entry: Entry) -> Result<(), TreeError> {
        let refuse = |reason: String| TreeError::Entry {
            path: entry.name(),
            reason,
        };
        let mut xattrs = BTreeMap::new();
        let mut total = 0;
        for (name, value) in &entry.xattrs {
            if !is_kept_xattr(name, entry.kind) {
                continue;
            }
            if name == CAPABILITY && !is_capability(value) {
                return Err(refuse("its file capabilities are malformed".to_owned()));
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

    pub(super) fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.nodes.get(directory as usize)?.kind {
            NodeKind::Directory { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    /// Puts a node into a directory, and replaces an earlier one.
    pub(super) fn attach(&mut self, directory: NodeId, name: Box<[u8]>, id: NodeId) {
        let mut replaced = None;
        if let Some(node) = self.nodes.get_mut(directory as usize)
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

    /// Removes a name of a node. If it was the last name, the names inside the node are removed,
    /// too.
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

    fn set_opaque(&mut self, directory: NodeId) {
        if let Some(node) = self.nodes.get_mut(directory as usize)
            && let NodeKind::Directory { opaque, .. } = &mut node.kind
        {
            *opaque = true;
        }
    }

    fn whiteout(&mut self, parent: NodeId, hidden: &[u8]) -> Result<(), &'static str> {
        match self.child(parent, hidden) {
            // A directory of the same layer stays, and hides the contents of lower ones. Any other
            // object hides what is below anyway.
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
}

pub(super) fn implied_directory(opaque: bool) -> Node {
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

fn node_kind(entry: &Entry, hides_lower: bool) -> Result<NodeKind, Reason> {
    let (major, minor) = (entry.major, entry.minor);
    if major > 0xfff || minor > 0xf_ffff {
        return Err(format!("device number {major}:{minor} is out of range").into());
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
            0 => return Err("the symbolic link has no target".into()),
            length if length > MAX_PATH => return Err("the link's target is too long".into()),
            _ if entry.link.contains(&0) => return Err("the target has a zero byte".into()),
            _ => NodeKind::Symlink {
                target: entry.link.clone(),
            },
        },
        EntryKind::CharDevice if (major, minor) == (0, 0) => NodeKind::Whiteout,
        EntryKind::CharDevice => NodeKind::CharDevice { major, minor },
        EntryKind::BlockDevice => NodeKind::BlockDevice { major, minor },
        EntryKind::Fifo => NodeKind::Fifo,
        EntryKind::HardLink => return Err("unexpected hard link".into()),
        EntryKind::Other(flag) => {
            let flag = char::from(flag);
            return Err(format!("entries of type {flag:?} are not supported").into());
        }
    })
}

/// Whether Linux has such an attribute for objects of this kind, and it is not one of overlayfs.
/// Engines skip the others.
fn is_kept_xattr(name: &[u8], kind: EntryKind) -> bool {
    let in_space = |space: &[u8]| name.starts_with(space) && name.len() > space.len();
    let known = match kind {
        EntryKind::Directory => in_space(b"user.") || name == ACL_ACCESS || name == ACL_DEFAULT,
        EntryKind::File => in_space(b"user.") || name == ACL_ACCESS,
        EntryKind::Symlink => false,
        _ => name == ACL_ACCESS,
    };
    (known || in_space(b"trusted.") || in_space(b"security."))
        && !name.starts_with(b"trusted.overlay.")
        && !name.contains(&0)
}

/// Whether the kernel accepts the value of `security.capability` (`struct vfs_cap_data`). With
/// another value nobody could execute the file.
fn is_capability(value: &[u8]) -> bool {
    let revision = value
        .first_chunk()
        .map(|magic| u32::from_le_bytes(*magic) >> 24);
    matches!((revision, value.len()), (Some(2), 20) | (Some(3), 24))
}
