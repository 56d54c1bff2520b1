//! Mount trees that are not attached yet: their attributes and propagation.

use std::os::fd::{AsFd, OwnedFd};

use keelson_sys::mount_attr::{self, MountAttributes};

use super::options::Attributes;

/// Changes a tree's attributes.
pub(crate) fn change(
    tree: &OwnedFd,
    attributes: &Attributes,
    recursive: bool,
) -> Result<(), nix::errno::Errno> {
    let attributes = MountAttributes {
        set: attributes.set,
        clear: attributes.clear,
        ..MountAttributes::default()
    };
    mount_attr::mount_setattr(tree.as_fd(), c"", recursive, &attributes)
}

/// Changes the propagation of a tree (`MS_SHARED` and its like).
pub(super) fn change_propagation(
    tree: &OwnedFd,
    propagation: u64,
    recursive: bool,
) -> Result<(), nix::errno::Errno> {
    let attributes = MountAttributes {
        propagation,
        ..MountAttributes::default()
    };
    mount_attr::mount_setattr(tree.as_fd(), c"", recursive, &attributes)
}
