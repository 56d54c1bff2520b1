//! The null device as a container gets it: what covers masked files, and what its standard streams
//! are connected to.
//!
//! The mode, owner and attributes of a device's node belong to the node, so whoever gets hold of
//! the host's own node with the rights of its owner changes them for the whole machine. Hence a
//! container gets the node of its own /dev, and where it has none, the host's through a read-only
//! mount: reading and writing a device works through one, changing the node does not (EROFS).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use keelson_sys::sandbox;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::node::is_device;
use super::{direct, mounts, paths};
use crate::failure::{Failure, Step};

/// Major and minor number.
pub(super) const NUMBERS: (u32, u32) = (1, 3);
const HOST: &str = "/dev/null";

fn is_null(status: &Stat) -> bool {
    is_device(status, FileType::CharacterDevice, NUMBERS)
}

/// What masked files are covered with.
#[derive(Debug)]
pub(super) enum Cover {
    /// The node that was made in the container's own /dev.
    Own(OwnedFd),
    /// The host's node, to be shown read-only.
    Host(OwnedFd),
}

impl Cover {
    /// `devices`: the container's own file system at /dev, filled, if it has one.
    pub(super) fn new(devices: Option<&OwnedFd>) -> Result<Self, Failure> {
        // Something else may be mounted there, which need not be the container's.
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let own = devices.and_then(|devices| {
            let node = paths::openat2(devices, "null", OFlags::PATH, Mode::empty(), within).ok()?;
            rustix::fs::fstat(&node)
                .is_ok_and(|status| is_null(&status))
                .then_some(node)
        });
        match own {
            Some(node) => Ok(Self::Own(node)),
            None => Ok(Self::Host(host()?)),
        }
    }

    /// Covers a file. ENOTDIR: it is a directory.
    pub(super) fn put_on(&self, target: &OwnedFd) -> Result<(), Errno> {
        let node = match self {
            Self::Own(node) => return direct::bind(node, target),
            Self::Host(node) => node,
        };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(target)?.st_mode);
        if kind == FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        mounts::attach(readonly(node)?, target)
    }

    /// For whoever closes descriptors together.
    pub(super) fn into_fd(self) -> OwnedFd {
        match self {
            Self::Own(node) | Self::Host(node) => node,
        }
    }
}

/// A read-only mount of a node of the host's, attached nowhere yet.
pub(super) fn readonly(node: &OwnedFd) -> Result<OwnedFd, Errno> {
    let tree = mounts::copy_of(node)?;
    mounts::make_readonly(&tree, false)
        .map_err(|error| Errno::from_raw_os_error(error as i32))
        .map(|()| tree)
}

/// The host's null device, which must really be it.
fn host() -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open(HOST, flags, Mode::empty()).step(|| "open the host's /dev/null")?;
    let status = rustix::fs::fstat(&null).step(|| "examine the host's /dev/null")?;
    match is_null(&status) {
        true => Ok(null),
        false => Err(Failure::internal(
            "the host's /dev/null is not the null device",
        )),
    }
}

/// The standard streams of a process that are connected to the null device, by number.
#[derive(Debug)]
pub(crate) struct Streams(Vec<i32>);

impl Streams {
    /// Looks at the streams that a process will get: those that are given, or this process's own.
    pub(crate) fn find(given: Option<&[OwnedFd; 3]>) -> Option<Self> {
        use rustix::stdio::{stderr, stdin, stdout};
        let streams = match given {
            Some(given) => given.each_ref().map(AsFd::as_fd),
            None => [stdin(), stdout(), stderr()],
        };
        let is_null = |fd: &BorrowedFd<'_>| rustix::fs::fstat(fd).is_ok_and(|it| is_null(&it));
        let numbered = (0..).zip(streams).filter(|(_, fd)| is_null(fd));
        let numbers: Vec<i32> = numbered.map(|(number, _)| number).collect();
        (!numbers.is_empty()).then_some(Self(numbers))
    }

    /// Opens what they are connected to instead. While the host's files are in reach; `root` is the
    /// container's.
    pub(crate) fn open(self, root: impl AsFd) -> Result<Replacement, Failure> {
        let null = match of_container(root) {
            Some(null) => null,
            None => of_host()?,
        };
        let Self(numbers) = self;
        Ok(Replacement { null, numbers })
    }
}

/// What standard streams are connected to in place of the host's null device.
#[derive(Debug)]
pub(crate) struct Replacement {
    null: OwnedFd,
    numbers: Vec<i32>,
}

impl Replacement {
    /// Connects them, when the process has got its streams.
    pub(crate) fn connect(self) -> Result<(), Failure> {
        for number in self.numbers {
            sandbox::set_standard(&self.null, number)
                .step(|| "connect the standard streams to the null device")?;
        }
        Ok(())
    }
}

/// Opens the null device in the container, if it is one. The container may have put anything in its
/// place, so it is only opened when it was looked at.
fn of_container(root: impl AsFd) -> Option<OwnedFd> {
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let node = paths::openat2(root, "dev/null", OFlags::PATH, Mode::empty(), within).ok()?;
    let status = rustix::fs::fstat(&node).ok()?;
    match is_null(&status) {
        true => reopen(&node).ok(),
        false => None,
    }
}

/// The host's, so that its node can't be changed by it.
fn of_host() -> Result<OwnedFd, Failure> {
    let step = || "open the host's /dev/null read-only";
    let tree = readonly(&host()?).step(step)?;
    reopen(&tree).step(step)
}

/// Opens what a descriptor refers to, by the host's procfs.
fn reopen(node: &OwnedFd) -> Result<OwnedFd, Errno> {
    let link = format!("/proc/self/fd/{}", node.as_raw_fd());
    rustix::fs::open(link, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}
