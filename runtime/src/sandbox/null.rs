//! The null device of a container. It covers masked files, and standard streams are connected to
//! it.
//!
//! Mode, owner and attributes belong to the device node. A process that reaches the host's node
//! with the rights of its owner can change them for the whole machine. So a container gets the node
//! of its own /dev. If it has none, it gets the host's node through a read-only mount: through
//! that, a device can be read and written, but its node can't be changed (EROFS).

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

/// The device that covers masked files.
#[derive(Debug)]
pub(super) enum Cover {
    /// The node that was made in the container's own /dev.
    Own(OwnedFd),
    /// The host's node, for a read-only mount.
    Host(OwnedFd),
}

impl Cover {
    /// `devices`: the container's own file system at /dev with its nodes, if it has one.
    pub(super) fn new(devices: Option<&OwnedFd>) -> Result<Self, Failure> {
        // Another mount may be there, which need not belong to the container.
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

    /// For a caller that closes many descriptors together.
    pub(super) fn into_fd(self) -> OwnedFd {
        match self {
            Self::Own(node) | Self::Host(node) => node,
        }
    }
}

/// A read-only mount of a host node, not attached anywhere yet.
pub(super) fn readonly(node: &OwnedFd) -> Result<OwnedFd, Errno> {
    let tree = mounts::copy_of(node)?;
    mounts::make_readonly(&tree, false)
        .map_err(|error| Errno::from_raw_os_error(error as i32))
        .map(|()| tree)
}

/// Opens the host's null device, and checks that it is the null device.
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

/// The numbers of a process's standard streams that are connected to the null device.
#[derive(Debug)]
pub(crate) struct NullStreams(Vec<i32>);

impl NullStreams {
    /// Examines the streams that a process will get: the given ones, or this process's own.
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

    /// Opens the replacement for them. Works only while the host's files can be reached. `root` is
    /// the container's root.
    pub(crate) fn open(self, root: impl AsFd) -> Result<Replacement, Failure> {
        let null = match of_container(root) {
            Some(null) => null,
            None => of_host()?,
        };
        let Self(numbers) = self;
        Ok(Replacement { null, numbers })
    }
}

/// The replacement for the host's null device in standard streams.
#[derive(Debug)]
pub(crate) struct Replacement {
    null: OwnedFd,
    numbers: Vec<i32>,
}

impl Replacement {
    /// Connects the streams to it. Call it when the process has its streams.
    pub(crate) fn connect(self) -> Result<(), Failure> {
        for number in self.numbers {
            sandbox::set_standard(&self.null, number)
                .step(|| "connect the standard streams to the null device")?;
        }
        Ok(())
    }
}

/// Opens the null device in the container, if it is one. The container may have replaced it by any
/// file, so the file is checked before it is opened.
fn of_container(root: impl AsFd) -> Option<OwnedFd> {
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let node = paths::openat2(root, "dev/null", OFlags::PATH, Mode::empty(), within).ok()?;
    let status = rustix::fs::fstat(&node).ok()?;
    match is_null(&status) {
        true => reopen(&node).ok(),
        false => None,
    }
}

/// The host's null device, opened so that its node can't be changed.
fn of_host() -> Result<OwnedFd, Failure> {
    let step = || "open the host's /dev/null read-only";
    let tree = readonly(&host()?).step(step)?;
    reopen(&tree).step(step)
}

/// Opens the file of an O_PATH descriptor through the host's procfs.
fn reopen(node: &OwnedFd) -> Result<OwnedFd, Errno> {
    let link = format!("/proc/self/fd/{}", node.as_raw_fd());
    rustix::fs::open(link, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}
