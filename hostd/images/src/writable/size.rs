//! The size of a writable layer.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::FileType;

use super::object::{Object, names};
use super::{WritableLayer, at, deep, join, open};
use crate::error::ImageError;

pub(super) fn of(layer: &WritableLayer) -> Result<u64, ImageError> {
    let mut links = HashSet::new();
    directory(b"", &layer.open_upper()?, &mut links)
}

/// Bytes of the files in a directory and below it. Files with several names count once. Blocks.
///
/// # Errors
/// It can't be read.
pub fn tree_bytes(path: &Path) -> Result<u64, ImageError> {
    let opened = open(path)?;
    deep(|| directory(b"", &opened, &mut HashSet::new()))
}

/// Bytes of the files in a directory. Files with several names count once.
fn directory(
    path: &[u8],
    opened: &OwnedFd,
    links: &mut HashSet<(u64, u64)>,
) -> Result<u64, ImageError> {
    let mut bytes = 0;
    for name in names(opened).map_err(at(path))? {
        let path = join(path, &name)?;
        let Some(object) = Object::open(opened.as_fd(), &name).map_err(at(&path))? else {
            continue;
        };
        let stat = &object.stat;
        match object.kind() {
            FileType::Directory => {
                let opened = object.directory().map_err(at(&path))?;
                bytes += directory(&path, &opened, links)?;
            }
            FileType::RegularFile
                if stat.st_nlink == 1 || links.insert((stat.st_dev, stat.st_ino)) =>
            {
                bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(bytes)
}
