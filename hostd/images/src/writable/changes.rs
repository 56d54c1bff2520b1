//! `docker diff`: Docker's comparison of two trees. It only examines objects in the upper
//! directory, because everything else is the same.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Stat};

use super::object::{Found, Object, lookup, names};
use super::{Change, ChangeKind, WritableLayer, at, is_mount_point, join};
use crate::error::ImageError;

pub(super) fn list(layer: &WritableLayer) -> Result<Vec<Change>, ImageError> {
    let mut walk = Walk {
        layer,
        changes: Vec::new(),
    };
    let (upper, lower) = (layer.open_upper()?, layer.open_lower()?);
    walk.directory(b"", &upper, &lower, false)?;
    let mut changes = walk.changes;
    let slash = |byte: &u8| *byte == b'/';
    changes.sort_by(|a, b| a.path.split(slash).cmp(b.path.split(slash)));
    Ok(changes)
}

struct Walk<'a> {
    layer: &'a WritableLayer,
    changes: Vec<Change>,
}

impl Walk<'_> {
    fn add(&mut self, path: &[u8], kind: ChangeKind) {
        self.changes.push(Change {
            path: path.to_vec(),
            kind,
        });
    }

    /// Compares a directory of the upper layer with the directories below it. If it is opaque,
    /// those are ignored.
    fn directory(
        &mut self,
        path: &[u8],
        upper: &OwnedFd,
        lower: &[OwnedFd],
        opaque: bool,
    ) -> Result<(), ImageError> {
        let mut own = names(upper).map_err(at(path))?;
        own.sort_unstable();
        for name in &own {
            let path = join(path, name)?;
            if let Some(object) = Object::open(upper.as_fd(), name).map_err(at(&path))? {
                let old = lookup(lower, name).map_err(at(&path))?;
                self.object(&path, &object, old)?;
            }
        }
        if !opaque {
            return Ok(());
        }
        let mut hidden = BTreeSet::new();
        for directory in lower {
            hidden.extend(names(directory).map_err(at(path))?);
        }
        for name in hidden {
            let path = join(path, &name)?;
            if own.binary_search(&name).is_err()
                && !matches!(lookup(lower, &name).map_err(at(&path))?, Found::Absent)
            {
                self.add(&path, ChangeKind::Deleted);
            }
        }
        Ok(())
    }

    fn object(&mut self, path: &[u8], new: &Object, old: Found) -> Result<(), ImageError> {
        let (old, lower) = match old {
            Found::Absent if new.is_whiteout() => return Ok(()),
            Found::Absent => return self.added(path, new),
            Found::Directory(old, lower) => (old, Some(lower)),
            Found::Other(old) => (old, None),
        };
        if new.is_whiteout() {
            self.add(path, ChangeKind::Deleted);
            return Ok(());
        }
        let begin = self.changes.len();
        let reported = differ(&old.stat, &new.stat)
            || old.capabilities().map_err(at(path))? != new.capabilities().map_err(at(path))?;
        if reported {
            self.add(path, ChangeKind::Modified);
        }
        if new.is_directory() && !self.layer.is_volume(path) {
            let opened = new.directory().map_err(at(path))?;
            let opaque = new.is_opaque().map_err(at(path))?;
            self.directory(path, &opened, lower.as_deref().unwrap_or_default(), opaque)?;
            if !reported && self.changes.len() > begin {
                self.add(path, ChangeKind::Modified);
            }
        }
        Ok(())
    }

    fn added(&mut self, path: &[u8], new: &Object) -> Result<(), ImageError> {
        let hidden = is_mount_point(path);
        if !new.is_directory() {
            let empty = new.kind() == FileType::RegularFile && new.stat.st_size == 0;
            if !(hidden && empty) {
                self.add(path, ChangeKind::Added);
            }
            return Ok(());
        }
        let begin = self.changes.len();
        self.add(path, ChangeKind::Added);
        if !self.layer.is_volume(path) {
            let opened = new.directory().map_err(at(path))?;
            self.directory(path, &opened, &[], false)?;
        }
        if hidden && self.changes.len() == begin + 1 {
            self.changes.truncate(begin);
        }
        Ok(())
    }
}

/// Docker's test: size and time of a directory are ignored, and times are compared in whole
/// seconds, as archives have them.
fn differ(old: &Stat, new: &Stat) -> bool {
    let directory = FileType::from_raw_mode(new.st_mode) == FileType::Directory;
    let same_time = old.st_mtime == new.st_mtime
        && (old.st_mtime_nsec == new.st_mtime_nsec
            || old.st_mtime_nsec == 0
            || new.st_mtime_nsec == 0);
    old.st_mode != new.st_mode
        || old.st_uid != new.st_uid
        || old.st_gid != new.st_gid
        || old.st_rdev != new.st_rdev
        || (!directory && (!same_time || old.st_size != new.st_size))
}
