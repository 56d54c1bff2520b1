//! Copies a directory of the image into a tmpfs that covers it (`tmpcopyup`).
//!
//! Every file is reached from a descriptor, one name at a time and without following links. Names,
//! kinds, owners, modes and contents are kept. Hard links become separate files. Extended
//! attributes and times are not copied.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::paths;
use crate::failure::{Failure, Step};

/// The deepest level of directories that is copied.
const DEEPEST: usize = 64;

/// Copies the contents of a directory, and its mode and owner if `like` is set.
pub(super) fn copy(
    from: &OwnedFd,
    to: &OwnedFd,
    (mode, owner): (bool, bool),
) -> Result<(), Failure> {
    let step = || "copy the directory's own mode";
    // An O_PATH descriptor of a mount can't be written to.
    let to = open(to.as_fd(), c".", OFlags::RDONLY | OFlags::DIRECTORY).step(step)?;
    let status = rustix::fs::fstat(from).step(step)?;
    if owner {
        rustix::fs::fchown(
            &to,
            Some(Uid::from_raw(status.st_uid)),
            Some(Gid::from_raw(status.st_gid)),
        )
        .step(step)?;
    }
    if mode {
        rustix::fs::fchmod(&to, Mode::from_raw_mode(status.st_mode & 0o7777)).step(step)?;
    }
    directory(from.as_fd(), to.as_fd(), DEEPEST)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, left: usize) -> Result<(), Failure> {
    if left == 0 {
        return Err(Failure::invalid(format!(
            "there are more than {DEEPEST} directories in each other"
        )));
    }
    for entry in Dir::read_from(from).step(|| "read a directory")? {
        let entry = entry.step(|| "read a directory")?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, left).map_err(|failure| Failure {
                message: format!("{}: {}", name.to_string_lossy(), failure.message),
                ..failure
            })?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, left: usize) -> Result<(), Failure> {
    let step = || "copy";
    let status = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).step(step)?;
    let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode).step(step)?;
            let source = open(from, name, OFlags::RDONLY | OFlags::DIRECTORY).step(step)?;
            let copy = open(to, name, OFlags::RDONLY | OFlags::DIRECTORY).step(step)?;
            directory(source.as_fd(), copy.as_fd(), left - 1)?;
            own(&copy, &status).step(step)
        }
        FileType::RegularFile => {
            let source = open(from, name, OFlags::RDONLY | OFlags::NONBLOCK).step(step)?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(to, name, flags, mode).step(step)?;
            std::io::copy(
                &mut std::fs::File::from(source),
                &mut std::fs::File::from(copy.try_clone().step(step)?),
            )
            .step(step)?;
            own(&copy, &status).step(step)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new()).step(step)?;
            rustix::fs::symlinkat(target, to, name).step(step)?;
            let (user, group) = owner(&status);
            rustix::fs::chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW).step(step)
        }
        // Only a name and a device number are needed to make it.
        kind @ (FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice) => {
            rustix::fs::mknodat(to, name, kind, mode, status.st_rdev).step(step)?;
            let (user, group) = owner(&status);
            rustix::fs::chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW).step(step)
        }
        FileType::Unknown => Err(Failure::internal("is of an unknown kind")),
    }
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let name = Path::new(OsStr::from_bytes(name.to_bytes()));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    paths::openat2(
        directory,
        name,
        flags | OFlags::NOFOLLOW,
        Mode::empty(),
        resolve,
    )
}

fn owner(status: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(status.st_uid)),
        Some(Gid::from_raw(status.st_gid)),
    )
}

/// Owner first: a change of the owner clears the set-user-ID and set-group-ID bits.
fn own(copy: &OwnedFd, status: &Stat) -> Result<(), Errno> {
    let (user, group) = owner(status);
    rustix::fs::fchown(copy, user, group)?;
    rustix::fs::fchmod(copy, Mode::from_raw_mode(status.st_mode & 0o7777))
}
