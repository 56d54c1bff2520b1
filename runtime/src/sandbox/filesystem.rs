//! New instances of file systems, and the kernel's message when it refuses one.

use std::os::fd::OwnedFd;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::descriptors::put_off;
use super::options::Attributes;
use crate::failure::{Failure, Step};

/// Makes a file system instance that is not attached anywhere yet.
pub(crate) fn new_filesystem(
    kind: &str,
    source: Option<&str>,
    data: &[(String, Option<String>)],
    attributes: Attributes,
) -> Result<OwnedFd, DetailedErrno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let explain = |error| detailed(&context, error);
    if let Some(source) = source.filter(|source| !source.is_empty()) {
        rustix::mount::fsconfig_set_string(&context, "source", source).map_err(explain)?;
    }
    configure(&context, data)?;
    rustix::mount::fsconfig_create(&context).map_err(explain)?;
    let flags = mount_attributes(attributes.set);
    let tree =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(explain)?;
    put_off(context);
    Ok(tree)
}

/// Passes options on to a file system.
pub(super) fn configure(
    context: &OwnedFd,
    data: &[(String, Option<String>)],
) -> Result<(), DetailedErrno> {
    for (key, value) in data {
        match value {
            Some(value) => {
                rustix::mount::fsconfig_set_string(context, key.as_str(), value.as_str())
            }
            None => rustix::mount::fsconfig_set_flag(context, key.as_str()),
        }
        .map_err(|error| detailed(context, error))?;
    }
    Ok(())
}

/// Attributes in the form of fsmount(2).
pub(crate) fn mount_attributes(set: u64) -> MountAttrFlags {
    MountAttrFlags::from_bits_retain(set as u32)
}

/// A system call's error with the kernel's messages from the file system context.
pub(crate) struct DetailedErrno {
    /// The error itself.
    pub(super) errno: rustix::io::Errno,
    text: String,
}

impl From<rustix::io::Errno> for DetailedErrno {
    fn from(errno: rustix::io::Errno) -> Self {
        let text = String::new();
        Self { errno, text }
    }
}

impl<T> Step<T> for Result<T, DetailedErrno> {
    fn step<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, Failure> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(error.errno).step(|| format!("{}{}", step().into(), error.text)),
        }
    }
}

/// Adds the kernel's messages to an error.
pub(crate) fn detailed(context: &OwnedFd, errno: rustix::io::Errno) -> DetailedErrno {
    DetailedErrno {
        errno,
        text: kernel_messages(context),
    }
}

/// The kernel's messages in a file system context: ` (…)`, or nothing.
pub(crate) fn kernel_messages(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut buffer = [0; 512];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        // Every message starts with its class: `e `, `w ` or `i `.
        let message = message.get(2..).unwrap_or_default().trim_end().to_owned();
        text.push_str(&format!(" ({message})"));
        if length == 0 || text.len() > 2048 {
            break;
        }
    }
    text
}
