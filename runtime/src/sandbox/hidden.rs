//! Masked and read-only paths.
//!
//! Both the source and the target of each mount are descriptors whose kind was checked. So neither
//! an image's symbolic links nor a concurrent rename can redirect a mount (the class of
//! CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keelson_sys::mount_attr;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::descriptors::put_off;
use super::mounts::attach;
use super::null::Cover;
use super::options::Attributes;
use super::tree::change;
use super::{direct, paths, procfs};
use crate::failure::{Failure, Step};

/// Hides parts of the container's root.
#[derive(Debug)]
pub(crate) struct Hider<'a> {
    root: BorrowedFd<'a>,
    /// The container's procfs and sysfs, if they were looked for already.
    proc: Option<Base<'a>>,
    sys: Option<Base<'a>>,
}

/// The file system at /proc or /sys.
#[derive(Debug)]
enum Base<'a> {
    Known(BorrowedFd<'a>),
    Found(OwnedFd),
    /// It is not the file system that belongs there.
    Other,
}

impl Base<'_> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Known(fd) => Some(*fd),
            Self::Found(fd) => Some(fd.as_fd()),
            Self::Other => None,
        }
    }
}

impl<'a> Hider<'a> {
    /// For a complete root. `proc` and `sys`: the mounts that are visible at /proc and /sys, if
    /// that is certain.
    pub(crate) fn new(
        root: BorrowedFd<'a>,
        proc: Option<BorrowedFd<'a>>,
        sys: Option<BorrowedFd<'a>>,
    ) -> Self {
        Self {
            root,
            proc: proc.map(Base::Known),
            sys: sys.map(Base::Known),
        }
    }

    /// Covers files with the null device and directories with an empty read-only file system. Paths
    /// that do not exist are skipped. `devices`: the container's own file system at /dev.
    pub(crate) fn mask(
        &mut self,
        masked: &[String],
        devices: Option<&OwnedFd>,
    ) -> Result<(), Failure> {
        if masked.is_empty() {
            return Ok(());
        }
        let null = Cover::new(devices)?;
        for path in masked {
            let step = || format!("mask {path}");
            let Some(target) = self.find(path)? else {
                continue;
            };
            let covered = match DIRECTORIES.contains(&path.as_str()) {
                true => direct::empty(&target),
                false => null.put_on(&target),
            };
            match covered {
                // It is the other kind.
                Err(Errno::NOTDIR) => null.put_on(&target).or_else(|_| direct::empty(&target)),
                other => other,
            }
            .step(step)?;
            put_off(target);
        }
        put_off(null.into_fd());
        Ok(())
    }

    /// Makes paths read-only, keeping the other attributes of the mount they are on.
    pub(crate) fn make_readonly(&mut self, paths: &[String]) -> Result<(), Failure> {
        for path in paths {
            let step = || format!("make {path} read-only");
            let Some(target) = self.find(path)? else {
                continue;
            };
            let tree = rustix::mount::open_tree(
                &target,
                "",
                OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC
                    | OpenTreeFlags::AT_EMPTY_PATH
                    | OpenTreeFlags::AT_RECURSIVE,
            )
            .step(step)?;
            let readonly = Attributes {
                set: mount_attr::RDONLY,
                clear: 0,
            };
            change(&tree, &readonly, true).step(step)?;
            attach(&tree, &target).step(step)?;
            put_off(tree);
            put_off(target);
        }
        Ok(())
    }

    /// Opens a path to cover, if it exists.
    fn find(&mut self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        let (base, rest) = if let Some(rest) = path.strip_prefix("/proc/") {
            let base = self
                .proc
                .get_or_insert_with(|| base(self.root, "/proc", procfs::MAGIC));
            (base, rest)
        } else if let Some(rest) = path.strip_prefix("/sys/") {
            let base = self
                .sys
                .get_or_insert_with(|| base(self.root, "/sys", SYSFS_MAGIC));
            (base, rest)
        } else {
            return find(self.root, path);
        };
        let Some(base) = base.fd().filter(|_| !rest.is_empty()) else {
            return find(self.root, path);
        };
        // The lookup stays on that very mount.
        match paths::openat2(base, rest, OFlags::PATH, Mode::empty(), WITHIN) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
            // A link, or a mount of config.json below.
            Err(_) => find(self.root, path),
        }
    }

    /// Must be called at the end, see [`put_off`].
    pub(crate) fn finish(self) {
        for base in [self.proc, self.sys].into_iter().flatten() {
            if let Base::Found(fd) = base {
                put_off(fd);
            }
        }
    }
}

/// The directories that engines mask, if they exist.
const DIRECTORIES: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const SYSFS_MAGIC: u64 = 0x6265_6572;
/// Stays in one mount and follows no link.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

fn base<'a>(root: BorrowedFd<'_>, place: &str, magic: u64) -> Base<'a> {
    match paths::find(root, place) {
        Ok(base)
            if rustix::fs::fstatfs(&base).is_ok_and(|status| status.f_type as u64 == magic) =>
        {
            Base::Found(base)
        }
        _ => Base::Other,
    }
}

/// Opens a path to cover. A path under /proc or /sys must be in that file system: an image must not
/// be able to redirect the mount by a symbolic link.
fn find(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, Failure> {
    let step = || format!("open {path} in the container");
    let target = match paths::find(root, path) {
        Ok(target) => target,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(None),
        Err(error) => return Err(error).step(step),
    };
    let expected = if path.starts_with("/proc/") {
        procfs::MAGIC
    } else if path.starts_with("/sys/") {
        SYSFS_MAGIC
    } else {
        return Ok(Some(target));
    };
    let magic_of = |fd: &OwnedFd| rustix::fs::fstatfs(fd).map(|status| status.f_type as u64);
    if magic_of(&target).step(step)? == expected {
        return Ok(Some(target));
    }
    let (place, rest) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((path, "."));
    let top = paths::find(root, place).step(step)?;
    // A container without a procfs or sysfs of its own has an ordinary directory there, and mounts
    // of config.json may lie below, such as /sys/fs/cgroup. But no path may lead elsewhere.
    let beneath = paths::openat2(
        &top,
        rest,
        OFlags::PATH,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    );
    if magic_of(&top).step(step)? == expected && beneath.is_err() {
        return Err(Failure::internal(format!(
            "{path} in the container leads out of /{place}"
        )));
    }
    Ok(Some(target))
}
