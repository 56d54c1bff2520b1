//! From the mounted root file system to the deployment as `/`.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::deployment::{self, Deployment};
use crate::mount::{self, MountError};

/// Where the new root is assembled.
const NEW_ROOT: &str = "/newroot";
/// The program that continues in the deployment.
const NEXT: &str = "/usr/sbin/init";

/// A failed step of the switch to the deployment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwitchError {
    /// A mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Any other call on a path.
    #[error("{operation} {}: {source}", path.display())]
    Path {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

fn path_error(
    operation: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> SwitchError {
    let path = path.into();
    move |source| SwitchError::Path {
        operation,
        path,
        source,
    }
}

/// Mounts the deployment below /newroot. Everything is read-only, except /etc, which belongs to the
/// deployment, and /var, which all deployments share. /usr needs no separate mount, because it is
/// read-only with the root. The root file system itself is mounted at /sysroot and its /boot at
/// /boot, both read-only: only the updater writes there, in its own mount namespace.
pub(crate) fn prepare(sysroot: &Path, deployment: &Deployment) -> Result<(), SwitchError> {
    let new = Path::new(NEW_ROOT);
    fs::create_dir_all(new).map_err(path_error("create", new))?;
    mount::bind(&deployment.path, new, false)?;
    let etc = new.join("etc");
    mount::bind(&etc, &etc, false)?;
    fs::create_dir_all(&deployment.var).map_err(path_error("create", &deployment.var))?;
    mount::bind(&deployment.var, &new.join("var"), false)?;
    mount::seal(new)?;
    let boot = sysroot.join("boot");
    if boot.is_dir() && new.join("boot").is_dir() {
        mount::bind(&boot, &new.join("boot"), true)?;
    }
    let program = new.join(NEXT.trim_start_matches('/'));
    let metadata = fs::metadata(&program).map_err(path_error("find", &program))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        return Err(path_error("execute", &program)(refused));
    }
    let marker = deployment::booted_marker(&deployment.path)
        .map_err(path_error("stat", &deployment.path))?;
    fs::write("/run/ostree-booted", marker).map_err(path_error("write", "/run/ostree-booted"))
}

/// Moves the API file systems along, frees the initramfs's memory, makes the new root `/` and
/// executes stage 2. Returns only with an error.
pub(crate) fn switch(sysroot: &Path) -> Result<Infallible, SwitchError> {
    let new = Path::new(NEW_ROOT);
    for name in ["dev", "proc", "sys", "run"] {
        mount::relocate(&Path::new("/").join(name), &new.join(name))?;
    }
    mount::relocate(sysroot, &new.join("sysroot"))?;
    mount::seal(&new.join("sysroot"))?;
    std::env::set_current_dir(new).map_err(path_error("change to", new))?;
    empty_initramfs();
    mount::relocate(Path::new("."), Path::new("/"))?;
    nix::unistd::chroot(".").map_err(|error| path_error("chroot to", new)(error.into()))?;
    std::env::set_current_dir("/").map_err(path_error("change to", "/"))?;
    let program = CString::new(NEXT).unwrap_or_default();
    let Err(error) = nix::unistd::execv(&program, &[&program]);
    Err(path_error("execute", NEXT)(error.into()))
}

/// Deletes the files of the initramfs itself, never those of file systems mounted over it. The
/// memory of an initramfs can't be freed in another way.
fn empty_initramfs() {
    let Ok(root) = fs::symlink_metadata("/") else {
        return;
    };
    // Only on a RAM file system: this must never delete files on a disk, whatever went wrong.
    let is_memory = nix::sys::statfs::statfs("/").is_ok_and(|found| {
        let kind = found.filesystem_type();
        kind == nix::sys::statfs::TMPFS_MAGIC || kind == RAMFS_MAGIC
    });
    if is_memory {
        remove_within(Path::new("/"), root.dev());
    }
}

/// `RAMFS_MAGIC` of linux/magic.h.
const RAMFS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x8584_58f6);

fn remove_within(directory: &Path, device: u64) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.dev() != device {
            continue;
        }
        // A file that can't be removed only costs memory.
        let _ = if metadata.is_dir() {
            remove_within(&path, device);
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
    }
}
