//! Resolves paths inside a layer.

use std::collections::VecDeque;

use super::build::{TreeBuilder, implied_directory};
use super::name::{MAX_DEPTH, MAX_NAME, WHITEOUT, components};
use super::{NodeId, NodeKind, ROOT, Reason};
use crate::archive::MAX_PATH;

/// How many links are followed in one path: as many as Linux follows.
const MAX_LINKS: u32 = 40;

impl TreeBuilder {
    /// Finds a directory, follows symbolic links, and makes missing directories.
    pub(super) fn directory(&mut self, path: &[&[u8]]) -> Result<NodeId, &'static str> {
        // The usual case: directories all the way.
        let mut at = ROOT;
        for name in path {
            match self.child(at, name) {
                Some(id) if self.is_directory(id) => at = id,
                _ => return self.directory_by_links(path),
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

    fn directory_by_links(&mut self, path: &[&[u8]]) -> Result<NodeId, &'static str> {
        let mut left: VecDeque<Box<[u8]>> = path.iter().map(|name| Box::from(*name)).collect();
        let mut above = Vec::new();
        let mut at = ROOT;
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if above.len() >= MAX_DEPTH {
                return Err("its path has too many directories");
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
                    return Err("its path leads through something that is not a directory");
                }
                (hidden, _) => {
                    if name.starts_with(WHITEOUT) {
                        return Err("its path leads through a whiteout");
                    }
                    self.metadata += name.len() as u64 + 64;
                    self.entries += 1;
                    let limits = &self.limits;
                    if self.metadata > limits.metadata || self.entries > limits.entries {
                        return Err("the layer has too many directories");
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

    pub(super) fn link_target(&mut self, link: &[u8]) -> Result<NodeId, Reason> {
        let components = components(link)?;
        let (name, directories) = components.split_last().ok_or("it names no file")?;
        let missing = "there is no such file in this layer";
        // Nothing is made: if a directory does not exist, there is no target in it.
        let before = self.nodes.len();
        let parent = self.directory(directories)?;
        if self.nodes.len() != before {
            return Err(missing.into());
        }
        let id = self.child(parent, name).ok_or(missing)?;
        match self.nodes.get(id as usize).map(|node| &node.kind) {
            None | Some(NodeKind::Whiteout) => Err(missing.into()),
            Some(NodeKind::Directory { .. }) => Err("that is a directory".into()),
            Some(_) => Ok(id),
        }
    }
}
