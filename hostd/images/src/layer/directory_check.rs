//! Compares an unpacked layer with its archive.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use keelson_oci::layer::Tree;
use keelson_oci::layer::tree::{Node, NodeKind, ROOT};

use crate::error::Flaw;
use crate::overlay::OPAQUE;

const BUFFER: usize = 256 << 10;

/// Compares the directory with the tree. The error names the first path that differs.
pub(super) fn check(root: &Path, tree: &Tree, tar: &File) -> Result<(), Flaw> {
    let mut left = vec![(PathBuf::new(), ROOT)];
    while let Some((path, id)) = left.pop() {
        let node = tree.node(id).ok_or_else(inconsistent)?;
        let full = root.join(&path);
        let differs =
            |what| Flaw::Differs(format!("{what} of {path:?} differs from the archive's"));
        let unreadable = |error| Flaw::Differs(format!("{path:?} cannot be read: {error}"));
        if let Some(what) = differing(&full, node, tar).map_err(unreadable)? {
            return Err(differs(what));
        }
        if let NodeKind::Directory { children, .. } = &node.kind {
            for entry in fs::read_dir(&full).map_err(unreadable)? {
                let name = entry.map_err(unreadable)?.file_name();
                if !children.contains_key(name.as_bytes()) {
                    let path = path.join(name);
                    return Err(Flaw::Differs(format!("{path:?} is not in the archive")));
                }
            }
            for (name, child) in children {
                let name = std::ffi::OsString::from_vec(name.to_vec());
                left.push((path.join(name), *child));
            }
        }
    }
    Ok(())
}

fn inconsistent() -> Flaw {
    Flaw::Differs("the layer's tree is inconsistent".to_owned())
}

/// The difference between an object and its node.
fn differing(path: &Path, node: &Node, tar: &File) -> io::Result<Option<&'static str>> {
    let status = fs::symlink_metadata(path)?;
    let kind = status.mode() & 0o170_000;
    let device = |major: u32, minor: u32| rustix::fs::makedev(major, minor) == status.rdev();
    let same_kind = match &node.kind {
        NodeKind::Directory { .. } => kind == 0o040_000,
        NodeKind::File { .. } => kind == 0o100_000,
        NodeKind::Symlink { .. } => kind == 0o120_000,
        NodeKind::CharDevice { major, minor } => kind == 0o020_000 && device(*major, *minor),
        NodeKind::BlockDevice { major, minor } => kind == 0o060_000 && device(*major, *minor),
        NodeKind::Fifo => kind == 0o010_000,
        // Attributes of a whiteout have no meaning.
        NodeKind::Whiteout if kind == 0o020_000 && status.rdev() == 0 => return Ok(None),
        NodeKind::Whiteout => false,
    };
    if !same_kind {
        return Ok(Some("the type"));
    }
    if (status.uid(), status.gid()) != (node.uid, node.gid) {
        return Ok(Some("the owner"));
    }
    let is_link = matches!(node.kind, NodeKind::Symlink { .. });
    if !is_link && status.mode() & 0o7777 != node.mode & 0o7777 {
        return Ok(Some("the mode"));
    }
    if (status.mtime(), status.mtime_nsec()) != (node.mtime, node.mtime_nsec.into()) {
        return Ok(Some("the time"));
    }
    if attributes(path)? != expected_attributes(node) {
        return Ok(Some("an extended attribute"));
    }
    match &node.kind {
        NodeKind::Symlink { target } if fs::read_link(path)?.as_os_str().as_bytes() != target => {
            Ok(Some("the target"))
        }
        NodeKind::File { .. } => {
            Ok((!same_content(path, &status, node, tar)?).then_some("the data"))
        }
        _ => Ok(None),
    }
}

fn expected_attributes(node: &Node) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut attributes = node.xattrs.clone();
    if matches!(node.kind, NodeKind::Directory { opaque: true, .. }) {
        attributes.insert(OPAQUE.to_vec(), b"y".to_vec());
    }
    attributes
}

fn attributes(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    names.truncate(length);
    let mut attributes = BTreeMap::new();
    let mut value = vec![0; 64 << 10];
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        let value = value.get(..length).unwrap_or_default();
        attributes.insert(name.to_vec(), value.to_vec());
    }
    Ok(attributes)
}

fn same_content(path: &Path, status: &Metadata, node: &Node, tar: &File) -> io::Result<bool> {
    let NodeKind::File {
        size,
        offset,
        sparse,
    } = &node.kind
    else {
        return Ok(true);
    };
    if status.size() != *size {
        return Ok(false);
    }
    let file = File::open(path)?;
    let mut done = 0;
    match sparse {
        None => same_bytes(&file, 0, tar, Some(*offset), *size),
        Some(parts) => {
            let mut from = *offset;
            for part in parts {
                let hole = part.offset.saturating_sub(done);
                if !same_bytes(&file, done, tar, None, hole)?
                    || !same_bytes(&file, part.offset, tar, Some(from), part.length)?
                {
                    return Ok(false);
                }
                from += part.length;
                done = part.offset + part.length;
            }
            same_bytes(&file, done, tar, None, size.saturating_sub(done))
        }
    }
}

/// Compares a part of a file with a part of the archive, or with zeros.
fn same_bytes(
    file: &File,
    at: u64,
    tar: &File,
    from: Option<u64>,
    length: u64,
) -> io::Result<bool> {
    let mut found = vec![0; BUFFER];
    let mut expected = vec![0; BUFFER];
    let mut done = 0;
    while done < length {
        let size = usize::try_from(length - done)
            .unwrap_or(usize::MAX)
            .min(BUFFER);
        found.resize(size, 0);
        expected.resize(size, 0);
        file.read_exact_at(&mut found, at + done)?;
        if let Some(from) = from {
            tar.read_exact_at(&mut expected, from + done)?;
        }
        if found != expected {
            return Ok(false);
        }
        done += size as u64;
    }
    Ok(true)
}
