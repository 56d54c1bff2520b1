//! Mounts of layers, with a count of their holders.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::doomed::Doomed;
use crate::error::ImageError;

/// All mounts of the store.
#[derive(Debug)]
pub(crate) struct Mounts {
    directory: PathBuf,
    /// By name of the mount point.
    held: Mutex<HashMap<String, Held>>,
    /// Called when a hold ends.
    doomed: Arc<Doomed>,
}

/// The use of a mount point.
#[derive(Debug, Default)]
struct Held {
    count: usize,
    /// The files behind it were replaced: for the next user the new ones are mounted on top.
    outdated: bool,
}

/// Keeps layers mounted, and on disk, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    mounts: Arc<Mounts>,
    names: Vec<String>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.mounts.release(&self.names);
        self.mounts.doomed.poke();
    }
}

impl Mounts {
    /// Mounts are made below `run`/layers. Mounts of an earlier process are detached there: running
    /// containers have their own references, and all others ask again.
    pub(crate) fn open(run: &Path, doomed: Arc<Doomed>) -> Result<Arc<Self>, ImageError> {
        let directory = run.join("layers");
        fs::create_dir_all(&directory).map_err(ImageError::io("create directory", &directory))?;
        // Because mountinfo shows paths without symbolic links.
        let directory = directory
            .canonicalize()
            .map_err(ImageError::io("find", &directory))?;
        let mounts = Self {
            directory,
            held: Mutex::default(),
            doomed,
        };
        mounts.clear();
        Ok(Arc::new(mounts))
    }

    /// Detaches everything and removes the mount points.
    pub(crate) fn clear(&self) {
        let mut held = self.lock();
        held.clear();
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            // After a crash between the mount and its record, several mounts may be stacked.
            while is_mount_point(&path) && detach(&path) {}
            if let Err(error) = fs::remove_dir(&path) {
                tracing::warn!(path = %path.display(), %error, "a mount point is left");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody holds this name.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Makes the next user of this name mount the files that are on disk then.
    pub(crate) fn renew(&self, name: &str) {
        if let Some(held) = self.lock().get_mut(name) {
            held.outdated = true;
        }
    }

    /// Takes a hold on each named object. `mount` mounts those that are not mounted yet; it gets
    /// the mount point. Returns the mount points in the same order.
    pub(crate) fn hold(
        self: &Arc<Self>,
        wanted: &[(String, MountCall<'_>)],
    ) -> Result<(Vec<PathBuf>, Hold), ImageError> {
        let mut held = self.lock();
        let mut hold = Hold {
            mounts: Arc::clone(self),
            names: Vec::new(),
        };
        let mut points = Vec::new();
        let mut failed = None;
        for (name, mount) in wanted {
            let point = self.directory.join(name);
            let used = held.entry(name.clone()).or_default();
            if (used.count == 0 || used.outdated)
                && let Some(mount) = mount
                && let Err(error) = mount_at(&point, mount)
            {
                if used.count == 0 {
                    held.remove(name);
                }
                failed = Some(error);
                break;
            }
            used.outdated = false;
            used.count += 1;
            hold.names.push(name.clone());
            points.push(point);
        }
        // Dropping the hold takes the lock again.
        drop(held);
        match failed {
            Some(error) => Err(error),
            None => Ok((points, hold)),
        }
    }

    fn release(&self, names: &[String]) {
        let mut held = self.lock();
        for name in names {
            let Some(used) = held.get_mut(name) else {
                continue;
            };
            used.count = used.count.saturating_sub(1);
            if used.count == 0 {
                held.remove(name);
                let point = self.directory.join(name);
                if point.exists() {
                    while is_mount_point(&point) && detach(&point) {}
                    let _ = fs::remove_dir(&point);
                }
            }
        }
    }
}

/// Mounts an object at a path. `None` for an object that needs no mount and is only counted.
pub(crate) type MountCall<'a> = Option<Box<dyn Fn(&Path) -> Result<(), ImageError> + 'a>>;

fn mount_at(
    point: &Path,
    mount: &dyn Fn(&Path) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    fs::create_dir_all(point).map_err(ImageError::io("create mount point", point))?;
    mount(point).inspect_err(|_| {
        let _ = fs::remove_dir(point);
    })
}

fn detach(point: &Path) -> bool {
    match unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => true,
        Err(rustix::io::Errno::INVAL) => false,
        Err(error) => {
            tracing::warn!(path = %point.display(), %error, "a layer could not be unmounted");
            false
        }
    }
}

/// Whether the path is a mount point: its parent directory is on another mount.
fn is_mount_point(path: &Path) -> bool {
    let id = |path: &Path| {
        rustix::fs::statx(
            rustix::fs::CWD,
            path,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            rustix::fs::StatxFlags::MNT_ID,
        )
        .map(|status| status.stx_mnt_id)
    };
    match (id(path), path.parent().map(id)) {
        (Ok(own), Some(Ok(parent))) => own != parent,
        // If the backing file of a mount is gone, even statx fails.
        (Err(_), _) => true,
        _ => false,
    }
}

/// Mounts an EROFS file, read-only, at a directory. `device` is the file with its data, if that is
/// another file. No loop device is made.
pub(crate) fn mount_erofs(
    image: &Path,
    device: Option<&Path>,
    point: &Path,
) -> Result<(), ImageError> {
    let mount = detached_erofs(image, device)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", rustix::fs::CWD, point, flags)
        .map_err(|error| ImageError::io("mount with EROFS", image)(error.into()))
}

/// As [`mount_erofs`], but not attached anywhere: the mount ends with the descriptor of its root,
/// or with this process.
pub(crate) fn detached_erofs(image: &Path, device: Option<&Path>) -> Result<OwnedFd, ImageError> {
    let attempt = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", image)?;
        if let Some(device) = device {
            fsconfig_set_string(&context, "device", device)?;
        }
        fsconfig_set_flag(&context, "ro")?;
        fsconfig_create(&context)?;
        fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )
    };
    attempt().map_err(|error| ImageError::io("mount with EROFS", image)(error.into()))
}
