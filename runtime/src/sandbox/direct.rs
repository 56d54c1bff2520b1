//! Mounts by mount(2), which is one system call where the new mount API needs up to nine. The
//! targets are still descriptors, named by their links in the host's procfs, which can be reached
//! until the container's root is entered. So nothing can redirect a mount.
//!
//! It is used only where the result is the same: no attributes that mount(2) would apply to the
//! file system instead of the mount. If it fails, the caller uses the new mount API, through which
//! the kernel explains the error.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd};

use keelson_sys::mount_attr as attr;
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::options::{Attributes, Options};

/// The procfs link of a descriptor.
fn link(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Whether a new file system with these options can be mounted this way.
pub(crate) fn suits(kind: &str, options: &Options) -> bool {
    let plain = |text: &str| !text.contains([',', '\0']);
    let data_is_plain = options
        .data
        .iter()
        .all(|(key, value)| plain(key) && value.as_deref().is_none_or(plain));
    ["tmpfs", "devpts", "mqueue"].contains(&kind)
        && flags(options.own).is_some()
        && options.all.is_empty()
        && options.bind.is_none()
        && options.propagation.is_none()
        && !options.copy_up
        && data_is_plain
}

/// Mounts a new file system on an entry of a directory. The name must not be a link.
pub(crate) fn file_system(
    directory: impl AsFd,
    name: &str,
    kind: &str,
    source: &str,
    options: &Options,
) -> Result<(), Errno> {
    let mut data = String::new();
    for (key, value) in &options.data {
        let comma = if data.is_empty() { "" } else { "," };
        let _ = match value {
            Some(value) => write!(data, "{comma}{key}={value}"),
            None => write!(data, "{comma}{key}"),
        };
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let flags = flags(options.own).ok_or(Errno::INVAL)?;
    let target = format!("{}/{name}", link(directory));
    rustix::mount::mount(source, target, kind, flags, data.as_c_str())
}

/// Covers a directory with an empty file system that nothing can be written to.
pub(crate) fn empty(target: impl AsFd) -> Result<(), Errno> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", link(target), "tmpfs", flags, c"nr_inodes=1")
}

/// Mounts a file over another.
pub(crate) fn bind(source: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    rustix::mount::mount_bind(link(source), link(target))
}

/// The attributes as flags of mount(2), if they have the same meaning there.
fn flags(attributes: Attributes) -> Option<MountFlags> {
    const KNOWN: [(u64, MountFlags); 5] = [
        (attr::NOSUID, MountFlags::NOSUID),
        (attr::NODEV, MountFlags::NODEV),
        (attr::NOEXEC, MountFlags::NOEXEC),
        (attr::NOATIME, MountFlags::NOATIME),
        (attr::STRICTATIME, MountFlags::STRICTATIME),
    ];
    let mut left = attributes.set;
    let mut flags = MountFlags::empty();
    for (attribute, flag) in KNOWN {
        if left & attribute != 0 {
            left &= !attribute;
            flags |= flag;
        }
    }
    (left == 0).then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::options::parse;

    fn suits_with(kind: &str, list: &[&str]) -> bool {
        let list: Vec<String> = list.iter().map(|option| (*option).to_owned()).collect();
        suits(kind, &parse(&list).unwrap())
    }

    #[test]
    fn only_what_means_the_same_is_mounted_directly() {
        assert!(suits_with("tmpfs", &["nosuid", "strictatime", "size=64k"]));
        assert!(suits_with("devpts", &["newinstance", "mode=0620"]));
        // mount(2) would make the file system read-only, also for its other mounts.
        assert!(!suits_with("tmpfs", &["ro"]));
        assert!(!suits_with("tmpfs", &["rro"]));
        assert!(!suits_with("tmpfs", &["rprivate"]));
        assert!(!suits_with("tmpfs", &["tmpcopyup"]));
        // The comma would make two options of one.
        assert!(!suits_with("tmpfs", &["size=1,mode=777"]));
        assert!(!suits_with("proc", &["nosuid"]));
        assert!(!suits_with("none", &["rbind"]));
    }
}
