//! Opens and makes files under the container's root, and nowhere else.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::failure::{Failure, Step};

/// Symbolic links are followed as the container would see them; magic links of procfs never.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a path under a root as a mere reference (O_PATH).
pub(crate) fn find(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    openat2(root, path, OFlags::PATH, Mode::empty(), INSIDE)
}

/// The same for a path on the root's own mount. `None` if it is on another mount or does not exist.
pub(crate) fn find_in_mount(root: impl AsFd, path: &str, directory: bool) -> Option<OwnedFd> {
    let mut flags = OFlags::PATH;
    flags.set(OFlags::DIRECTORY, directory);
    let within = INSIDE | ResolveFlags::NO_XDEV;
    openat2(root, path, flags, Mode::empty(), within).ok()
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

/// How many links to missing files are followed.
const MOST_LINKS: usize = 16;

/// Opens a directory under the root. Makes it, and its parents, if they do not exist.
pub(crate) fn make_directory(root: impl AsFd, path: &str) -> Result<OwnedFd, Failure> {
    directory(root.as_fd(), path, MOST_LINKS)
}

fn directory(root: BorrowedFd<'_>, path: &str, links: usize) -> Result<OwnedFd, Failure> {
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        openat2(root, path, flags, Mode::empty(), INSIDE)
    };
    match open() {
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
    // Opens the existing part of the path first, then makes the missing directories one by one.
    let clean: PathBuf = Path::new(path).components().collect();
    let path = clean.to_str().unwrap_or(path);
    let (parent, name) = split_at(root, path, links)?;
    let step = || format!("make directory {path} in the container");
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => open().step(step),
        Err(Errno::EXIST) => match behind_link(&parent, path, name, links)? {
            Some(target) => directory(root, &target, links - 1),
            None => open().step(step),
        },
        Err(error) => Err(error).step(step),
    }
}

/// Opens a file under the root as a mere reference (O_PATH). Makes an empty file if it does not
/// exist.
pub(crate) fn make_file(root: impl AsFd, path: &str) -> Result<OwnedFd, Failure> {
    file(root.as_fd(), path, MOST_LINKS)
}

fn file(root: BorrowedFd<'_>, path: &str, links: usize) -> Result<OwnedFd, Failure> {
    match find(root, path) {
        Err(Errno::NOENT) => {}
        other => return other.step(|| format!("open {path} in the container")),
    }
    let (parent, name) = split_at(root, path, links)?;
    let made = openat2(
        &parent,
        name,
        OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY,
        Mode::from_raw_mode(0o644),
        ResolveFlags::BENEATH,
    );
    if made.as_ref().err() == Some(&Errno::EXIST)
        && let Some(target) = behind_link(&parent, path, name, links)?
    {
        return file(root, &target, links - 1);
    }
    made.step(|| format!("make file {path} in the container"))?;
    find(root, path).step(|| format!("open {path} in the container"))
}

/// The target of a link whose target does not exist. Images have such links, for files that are
/// made at run time. The result is always a path from the root. It is opened under the root again,
/// so a link that changes meanwhile can't lead outside. `None`: it is no link.
fn behind_link(
    parent: &OwnedFd,
    path: &str,
    name: &str,
    links: usize,
) -> Result<Option<String>, Failure> {
    let Ok(target) = rustix::fs::readlinkat(parent, name, Vec::new()) else {
        return Ok(None);
    };
    if links == 0 {
        return Err(Errno::LOOP).step(|| format!("follow links from {path} in the container"));
    }
    let directory = Path::new(path).parent().unwrap_or(Path::new("/"));
    let target = directory.join(OsStr::from_bytes(target.to_bytes()));
    let mut clean = PathBuf::from("/");
    for part in target.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    Ok(Some(clean.to_string_lossy().into_owned()))
}

/// The parent directory of a path, made if it does not exist, and the last component of the path.
pub(crate) fn split(root: impl AsFd, path: &str) -> Result<(OwnedFd, &str), Failure> {
    split_at(root.as_fd(), path, MOST_LINKS)
}

fn split_at<'a>(
    root: BorrowedFd<'_>,
    path: &'a str,
    links: usize,
) -> Result<(OwnedFd, &'a str), Failure> {
    let (parent, name) = path
        .trim_end_matches('/')
        .rsplit_once('/')
        .unwrap_or(("", path));
    if name.is_empty() || name == ".." || name == "." {
        return Err(Failure::invalid(format!("{path:?} does not name a file")));
    }
    let parent = if parent.is_empty() { "/" } else { parent };
    Ok((directory(root, parent, links)?, name))
}
