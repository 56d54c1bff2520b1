//! Layers unpacked to a directory, for kernels that cannot mount EROFS from a file.
//!
//! No path of the tree leads outside. Every name is made relative to the open descriptor of its
//! directory, which we made, and never through a symbolic link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use keelson_oci::archive::SparsePart;
use keelson_oci::layer::Tree;
use keelson_oci::layer::tree::{Node, NodeId, NodeKind, ROOT};
use rustix::fs::{self as fs, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::LayerBackend;
use crate::error::{Flaw, ImageError};
use crate::overlay;

/// Name of the unpacked root directory.
const ROOT_DIRECTORY: &str = "root";
const COPY_BUFFER: usize = 256 << 10;

/// The backend.
#[derive(Debug)]
pub(crate) struct Unpacked;

impl LayerBackend for Unpacked {
    fn prepare(&self, directory: &Path, tree: &Tree, tar: &File) -> Result<(), ImageError> {
        let root = directory.join(ROOT_DIRECTORY);
        std::fs::create_dir(&root).map_err(ImageError::io("create directory", &root))?;
        let directory = fs::open(&root, directory_flags(), Mode::empty())
            .map_err(|error| ImageError::io("open", &root)(error.into()))?;
        let mut unpack = Unpack {
            tree,
            tar,
            linked: vec![None; tree.nodes.len()],
            path: Vec::new(),
            buffer: vec![0; COPY_BUFFER],
        };
        unpack.run(directory).map_err(|error| {
            let path = String::from_utf8_lossy(&unpack.path.join(&b'/')).into_owned();
            ImageError::io("unpack", &root.join(path))(error)
        })
    }

    fn check(&self, directory: &Path, tree: &Tree, tar: &File) -> Result<(), Flaw> {
        super::directory_check::check(&directory.join(ROOT_DIRECTORY), tree, tar)
    }

    fn made(&self) -> &'static str {
        ROOT_DIRECTORY
    }

    fn mount(&self, _directory: &Path, _target: &Path) -> Result<(), ImageError> {
        Ok(())
    }

    fn direct(&self) -> Option<&'static str> {
        Some(ROOT_DIRECTORY)
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

struct Unpack<'a> {
    tree: &'a Tree,
    tar: &'a File,
    /// First path of each node with several names, for linkat.
    linked: Vec<Option<Vec<u8>>>,
    /// Names of the open directories and of the current object.
    path: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

/// A directory that is being filled. Its attributes are set at the end, because filling changes its
/// time.
struct Level<'a> {
    fd: OwnedFd,
    node: &'a Node,
    children: std::collections::btree_map::Iter<'a, Box<[u8]>, NodeId>,
}

impl<'a> Unpack<'a> {
    fn run(&mut self, root: OwnedFd) -> io::Result<()> {
        let tree = self.tree;
        let top = root.try_clone()?;
        let mut levels = vec![level(tree, ROOT, root)?];
        while let Some(at) = levels.last_mut() {
            let Some((name, id)) = at.children.next() else {
                if let Some(done) = levels.pop() {
                    attributes_of_directory(&done)?;
                }
                self.path.pop();
                continue;
            };
            self.path.push(name.to_vec());
            let node = tree.node(*id).ok_or_else(inconsistent)?;
            if let NodeKind::Directory { .. } = node.kind {
                fs::mkdirat(&at.fd, &**name, Mode::from_raw_mode(0o700))?;
                let fd = fs::openat(&at.fd, &**name, directory_flags(), Mode::empty())?;
                levels.push(level(tree, *id, fd)?);
                continue;
            }
            if node.names > 1 {
                let slot = self.linked.get_mut(*id as usize).ok_or_else(inconsistent)?;
                match slot {
                    Some(first) => {
                        link(top.as_fd(), first, at.fd.as_fd(), name)?;
                        self.path.pop();
                        continue;
                    }
                    None => *slot = Some(self.path.join(&b'/')),
                }
            }
            self.make(at.fd.as_fd(), name, node)?;
            self.path.pop();
        }
        Ok(())
    }

    fn make(&mut self, parent: BorrowedFd<'_>, name: &[u8], node: &Node) -> io::Result<()> {
        let device = |kind, major, minor| {
            fs::mknodat(
                parent,
                name,
                kind,
                Mode::from_raw_mode(0o600),
                fs::makedev(major, minor),
            )
        };
        match &node.kind {
            NodeKind::Directory { .. } => return Err(inconsistent()),
            NodeKind::File {
                size,
                offset,
                sparse,
            } => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
                let file = File::from(file);
                match sparse {
                    None => self.copy(&file, *offset, 0, *size)?,
                    Some(parts) => self.copy_sparse(&file, *offset, parts, *size)?,
                }
                // Owner first: a change of the owner clears set-user-ID bits and file capabilities.
                fs::fchown(&file, owner(node.uid), group(node.gid))?;
                fs::fchmod(&file, Mode::from_raw_mode(node.mode))?;
                for (name, value) in &node.xattrs {
                    fs::fsetxattr(&file, &name[..], value, fs::XattrFlags::empty())?;
                }
                return Ok(fs::futimens(&file, &times(node))?);
            }
            NodeKind::Symlink { target } => fs::symlinkat(&target[..], parent, name)?,
            NodeKind::CharDevice { major, minor } => {
                device(FileType::CharacterDevice, *major, *minor)?;
            }
            NodeKind::BlockDevice { major, minor } => {
                device(FileType::BlockDevice, *major, *minor)?;
            }
            NodeKind::Fifo => device(FileType::Fifo, 0, 0)?,
            // The form that overlayfs uses.
            NodeKind::Whiteout => return Ok(device(FileType::CharacterDevice, 0, 0)?),
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        fs::chownat(parent, name, owner(node.uid), group(node.gid), flags)?;
        if !matches!(node.kind, NodeKind::Symlink { .. }) {
            // Cannot be a symbolic link: mknodat made it a moment ago in our own directory.
            fs::chmodat(
                parent,
                name,
                Mode::from_raw_mode(node.mode),
                AtFlags::empty(),
            )?;
        }
        if !node.xattrs.is_empty() {
            let path = format!(
                "/proc/self/fd/{}/",
                std::os::fd::AsRawFd::as_raw_fd(&parent)
            );
            let mut path = path.into_bytes();
            path.extend_from_slice(name);
            for (name, value) in &node.xattrs {
                fs::lsetxattr(&path[..], &name[..], value, fs::XattrFlags::empty())?;
            }
        }
        Ok(fs::utimensat(parent, name, &times(node), flags)?)
    }

    /// Copies `length` bytes of the archive to the file.
    fn copy(&mut self, file: &File, from: u64, to: u64, length: u64) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let size = usize::try_from(length - done)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let piece = self.buffer.get_mut(..size).ok_or_else(inconsistent)?;
            self.tar.read_exact_at(piece, from + done)?;
            file.write_all_at(piece, to + done)?;
            done += size as u64;
        }
        Ok(())
    }

    fn copy_sparse(
        &mut self,
        file: &File,
        mut from: u64,
        parts: &[SparsePart],
        size: u64,
    ) -> io::Result<()> {
        file.set_len(size)?;
        for part in parts {
            self.copy(file, from, part.offset, part.length)?;
            from += part.length;
        }
        Ok(())
    }
}

fn level(tree: &Tree, id: NodeId, fd: OwnedFd) -> io::Result<Level<'_>> {
    let node = tree.node(id).ok_or_else(inconsistent)?;
    match &node.kind {
        NodeKind::Directory { children, .. } => Ok(Level {
            fd,
            node,
            children: children.iter(),
        }),
        _ => Err(inconsistent()),
    }
}

fn attributes_of_directory(level: &Level<'_>) -> io::Result<()> {
    let (fd, node) = (&level.fd, level.node);
    fs::fchown(fd, owner(node.uid), group(node.gid))?;
    fs::fchmod(fd, Mode::from_raw_mode(node.mode))?;
    for (name, value) in &node.xattrs {
        fs::fsetxattr(fd, &name[..], value, fs::XattrFlags::empty())?;
    }
    if matches!(node.kind, NodeKind::Directory { opaque: true, .. }) {
        fs::fsetxattr(fd, overlay::OPAQUE, b"y", fs::XattrFlags::empty())?;
    }
    Ok(fs::futimens(fd, &times(node))?)
}

/// Gives an object another name. No symbolic link is on the way to either name: we made the
/// directories, and the first path was walked directory by directory.
fn link(top: BorrowedFd<'_>, first: &[u8], parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(fs::linkat(top, first, parent, name, AtFlags::empty())?)
}

fn owner(uid: u32) -> Option<Uid> {
    Some(Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<Gid> {
    Some(Gid::from_raw(gid))
}

fn times(node: &Node) -> Timestamps {
    let time = Timespec {
        tv_sec: node.mtime,
        tv_nsec: node.mtime_nsec.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn inconsistent() -> io::Error {
    io::Error::other("the layer's tree is inconsistent")
}
