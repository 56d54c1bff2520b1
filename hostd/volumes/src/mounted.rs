//! What is mounted for volumes, who uses them, and how much is in them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::VolumeError;
use crate::options::{self, Wanted};

/// Which containers use which volumes now.
#[derive(Debug, Default)]
pub(crate) struct Usage(pub(crate) Mutex<BTreeMap<String, BTreeSet<String>>>);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Mounts what a volume's options ask for.
pub(crate) fn mount(wanted: &Wanted, path: &Path) -> Result<(), VolumeError> {
    let failed = |source: std::io::Error| VolumeError::Mount {
        path: path.to_owned(),
        device: wanted.device.clone(),
        flags: wanted.flags.bits(),
        data: options::without_secrets(&wanted.data),
        source,
    };
    let data = options::resolved(wanted).map_err(failed)?;
    let data = CString::new(data).map_err(|error| failed(error.into()))?;
    rustix::mount::mount(
        wanted.device.as_str(),
        path,
        wanted.kind.as_str(),
        wanted.flags,
        Some(data.as_c_str()),
    )
    .map_err(|error| failed(error.into()))
}

/// Whether something is mounted at a path.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
    statx(CWD, path, flags, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Unmounts what is mounted at a path, if anything.
pub(crate) fn unmount(path: &Path) -> Result<(), VolumeError> {
    while is_mounted(path) {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(error) => return Err(VolumeError::io("unmount", path)(error.into())),
        }
    }
    Ok(())
}

/// Bytes of a directory's files on the disk; a file with several names counts once.
pub(crate) fn bytes(directory: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut todo = vec![directory.to_owned()];
    let mut sum = 0;
    while let Some(path) = todo.pop() {
        // What is removed meanwhile takes no room.
        let Ok(entries) = fs::read_dir(&path) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.is_dir() {
                todo.push(entry.path());
            } else if found.nlink() == 1 || seen.insert((found.dev(), found.ino())) {
                sum += found.size();
            }
        }
    }
    sum
}
