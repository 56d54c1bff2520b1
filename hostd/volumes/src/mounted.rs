//! The mounts of volumes, and the users of the volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::VolumeError;
use crate::lock::lock;
use crate::options::{self, MountOptions};

/// The containers that use a volume now. Locked while it is mounted, unmounted or filled, which may
/// take long. So each volume has its own lock, and no other volume waits for it.
pub(crate) type Users = Arc<Mutex<BTreeSet<String>>>;

/// The current uses of all volumes. A volume that was never used has no entry.
#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<BTreeMap<String, Users>>);

impl Usage {
    /// The users of a volume.
    pub(crate) fn of(&self, volume: &str) -> Users {
        let mut all = lock(&self.0);
        Arc::clone(all.entry(volume.to_owned()).or_default())
    }

    /// Forgets a volume that was removed.
    pub(crate) fn forget(&self, volume: &str) {
        lock(&self.0).remove(volume);
    }
}

/// Makes the mount that a volume's options ask for.
pub(crate) fn mount(wanted: &MountOptions, path: &Path) -> Result<(), VolumeError> {
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
///
/// # Errors
/// This can't be found out, for example because a server does not answer. Callers must
/// then treat it as mounted, because the files below may belong to another machine.
pub(crate) fn is_mounted(path: &Path) -> Result<bool, VolumeError> {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
    match statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(VolumeError::io("look at", path)(error.into())),
    }
}

/// Unmounts a path, if something is mounted there.
pub(crate) fn unmount(path: &Path) -> Result<(), VolumeError> {
    // A mount whose server does not answer can still be unmounted.
    while is_mounted(path).unwrap_or(true) {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there any more.
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(error) => return Err(VolumeError::io("unmount", path)(error.into())),
        }
    }
    Ok(())
}
