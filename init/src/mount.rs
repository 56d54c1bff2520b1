//! mount(2) with errors that name what was to be mounted where.

use std::path::Path;

use nix::mount::MsFlags;

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {what}: {source}")]
pub(crate) struct MountError {
    operation: &'static str,
    what: String,
    source: nix::Error,
}

/// No setuid programs, device nodes or programs at all: for file systems that only the kernel
/// fills.
pub(crate) const DATA_ONLY: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// Mounts a new file system.
pub(crate) fn mount(
    kind: &str,
    source: &str,
    target: &Path,
    flags: MsFlags,
    options: &str,
) -> Result<(), MountError> {
    let options = (!options.is_empty()).then_some(options);
    nix::mount::mount(Some(source), target, Some(kind), flags, options).map_err(|error| {
        MountError {
            operation: "mount",
            what: format!("{kind} {source} on {}", target.display()),
            source: error,
        }
    })
}

/// Shows `source` at `target` too; with `read_only` nothing can be written through there.
pub(crate) fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), MountError> {
    let none: Option<&str> = None;
    let error = |operation| {
        move |source_error| MountError {
            operation,
            what: format!("{} on {}", source.display(), target.display()),
            source: source_error,
        }
    };
    nix::mount::mount(Some(source), target, none, MsFlags::MS_BIND, none).map_err(error("bind"))?;
    if read_only {
        // The kernel ignores MS_RDONLY when it makes a bind mount; it takes a second call.
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        nix::mount::mount(none, target, none, flags, none).map_err(error("make read-only"))?;
    }
    Ok(())
}

/// Makes an existing mount read-only for this mount point only.
pub(crate) fn seal(target: &Path) -> Result<(), MountError> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    nix::mount::mount(none, target, none, flags, none).map_err(|error| MountError {
        operation: "make read-only",
        what: target.display().to_string(),
        source: error,
    })
}

/// Moves a mount with everything below it.
pub(crate) fn relocate(source: &Path, target: &Path) -> Result<(), MountError> {
    let none: Option<&str> = None;
    nix::mount::mount(Some(source), target, none, MsFlags::MS_MOVE, none).map_err(|error| {
        MountError {
            operation: "move mount",
            what: format!("{} to {}", source.display(), target.display()),
            source: error,
        }
    })
}
