//! The visible contents of a tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hostd_images::Digest;

/// All properties of a file, except numbers without meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    owner: (u32, u32),
    pub(crate) links: u64,
    pub(crate) time: (i64, i64),
    size: u64,
    device: u64,
    pub(crate) target: Option<PathBuf>,
    pub(crate) content: Option<Digest>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (String::from_utf8(name.to_vec()).unwrap(), value)
        })
        .collect()
}

/// Everything below a directory. Names without an object are skipped: overlayfs lists whiteouts if
/// no lower layer has the directory.
pub(crate) fn see(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let status = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            status => status.unwrap(),
        };
        let kind = status.file_type();
        if kind.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let entry = Seen {
            mode: status.mode(),
            owner: (status.uid(), status.gid()),
            links: status.nlink(),
            time: (status.mtime(), status.mtime_nsec()),
            size: if kind.is_dir() { 0 } else { status.size() },
            device: status.rdev(),
            target: kind.is_symlink().then(|| fs::read_link(&path).unwrap()),
            content: kind
                .is_file()
                .then(|| Digest::of(&fs::read(&path).unwrap())),
            xattrs: xattrs(&path),
        };
        seen.insert(path.strip_prefix(root).unwrap().to_owned(), entry);
    }
    seen
}
