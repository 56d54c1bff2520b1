//! Mounts through sys-mount, with errors that name source and target.

use std::io;
use std::path::Path;

use sys_mount::{Mount, MountFlags};

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {what}: {source}")]
pub(crate) struct MountError {
    operation: &'static str,
    what: String,
    source: io::Error,
}

/// No setuid programs, device nodes or programs at all: for file systems that only the kernel
/// fills.
pub(crate) const DATA_ONLY: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Options of the API file systems that are made in the initrd and kept. File systems in memory are
/// limited, so that a program that fills them leaves the machine enough memory to work. `nr_inodes`
/// limits the memory for empty files.
pub(crate) const DEV_OPTIONS: &str = "mode=0755,size=4m,nr_inodes=64k";
/// As [`DEV_OPTIONS`], for /run: sockets, shims' directories, status files.
pub(crate) const RUN_OPTIONS: &str = "mode=0755,size=20%,nr_inodes=800k";

/// The type for changes of existing mounts. The kernel ignores it, but without a type sys-mount
/// would try each one that the kernel has.
const NO_KIND: &str = "none";

/// Mounts a new file system.
pub(crate) fn mount(
    kind: &str,
    source: &str,
    target: &Path,
    flags: MountFlags,
    options: &str,
) -> Result<(), MountError> {
    let mut builder = Mount::builder().fstype(kind).flags(flags);
    if !options.is_empty() {
        builder = builder.data(options);
    }
    // The handle is only for unmounting; dropping it does not change the mount.
    builder
        .mount(source, target)
        .map(drop)
        .map_err(|error| MountError {
            operation: "mount",
            what: format!("{kind} {source} on {}", target.display()),
            source: error,
        })
}

/// Bind mounts `source` at `target`. With `read_only` nothing can be written through it.
pub(crate) fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), MountError> {
    change("bind", source, target, MountFlags::BIND)?;
    if read_only {
        // The kernel ignores MS_RDONLY when it makes a bind mount, so a second call is needed.
        seal(target)?;
    }
    Ok(())
}

/// Makes an existing mount read-only for this mount point only.
pub(crate) fn seal(target: &Path) -> Result<(), MountError> {
    let flags = MountFlags::BIND | MountFlags::REMOUNT | MountFlags::RDONLY;
    change("make read-only", Path::new(""), target, flags)
}

/// Moves a mount with everything below it.
pub(crate) fn relocate(source: &Path, target: &Path) -> Result<(), MountError> {
    change("move mount", source, target, MountFlags::MOVE)
}

fn change(
    operation: &'static str,
    source: &Path,
    target: &Path,
    flags: MountFlags,
) -> Result<(), MountError> {
    Mount::builder()
        .fstype(NO_KIND)
        .flags(flags)
        .mount(source, target)
        .map(drop)
        .map_err(|error| MountError {
            operation,
            what: match source.as_os_str().is_empty() {
                true => target.display().to_string(),
                false => format!("{} on {}", source.display(), target.display()),
            },
            source: error,
        })
}
