//! Reaching and making files under the container's root, and nowhere else.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::failure::{Failure, Step};

/// Symbolic links are followed as the container would see them; magic links of procfs never.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a path under a root as a mere reference (O_PATH).
pub(crate) fn find(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    openat2(root, path, OFlags::PATH, Mode::empty(), INSIDE)
}

/// openat2(2), repeated while the kernel can't rule out a race with a rename (EAGAIN).
pub(crate) fn openat2(
    root: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    let mut attempts = 0;
    loop {
        match rustix::fs::openat2(root, path.as_ref(), flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempts < 128 => attempts += 1,
            other => return other,
        }
    }
}

/// Whether a descriptor refers to a folder.
pub(crate) fn is_folder(fd: impl AsFd) -> Result<bool, Errno> {
    let status = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(status.st_mode) == FileType::Directory)
}

/// Opens a folder under the root; makes it, and those above it, when they do not exist.
pub(crate) fn make_folder(root: impl AsFd, path: &str) -> Result<OwnedFd, Failure> {
    let root = root.as_fd();
    match openat2(
        root,
        path,
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
        INSIDE,
    ) {
        Err(Errno::NOENT) => {}
        other => return other.step(|| format!("open {path} in the container")),
    }
    if Path::new(path)
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return Err(Failure::invalid(format!(
            "{path}: a path in the container must not contain \"..\""
        )));
    }
    // As far down as there are folders, then one by one.
    let clean: PathBuf = Path::new(path).components().collect();
    let path = clean.to_str().unwrap_or(path);
    let (parent, name) = split(root, path)?;
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        other => other,
    }
    .and_then(|()| {
        openat2(
            root,
            path,
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
            INSIDE,
        )
    })
    .step(|| format!("make folder {path} in the container"))
}

/// Opens a file under the root as a mere reference; makes an empty one when it does not exist.
pub(crate) fn make_file(root: impl AsFd, path: &str) -> Result<OwnedFd, Failure> {
    let root = root.as_fd();
    match find(root, path) {
        Err(Errno::NOENT) => {}
        other => return other.step(|| format!("open {path} in the container")),
    }
    let (folder, name) = split(root, path)?;
    openat2(
        &folder,
        name,
        OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY,
        Mode::from_raw_mode(0o644),
        ResolveFlags::BENEATH,
    )
    .step(|| format!("make file {path} in the container"))?;
    find(root, path).step(|| format!("open {path} in the container"))
}

/// The folder of a path, made when it does not exist, and the last part of its name.
pub(crate) fn split(root: impl AsFd, path: &str) -> Result<(OwnedFd, &str), Failure> {
    let (parent, name) = path
        .trim_end_matches('/')
        .rsplit_once('/')
        .unwrap_or(("", path));
    if name.is_empty() || name == ".." || name == "." {
        return Err(Failure::invalid(format!("{path:?} does not name a file")));
    }
    let parent = if parent.is_empty() { "/" } else { parent };
    Ok((make_folder(root, parent)?, name))
}
