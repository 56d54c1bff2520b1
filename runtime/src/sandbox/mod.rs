//! The set-up that the container's first process does before it becomes the container's command:
//! namespaces, the root file system, mounts, devices, hidden paths.
//!
//! Everything here runs in the child, in its own mount namespace or in another ([`shared`]). Files
//! inside the container's root are reached only through descriptors opened with openat2(2) under
//! that root, and mounts are made on descriptors, so that no symbolic link of an image and no race
//! can redirect them.

mod copy_tree;
pub(crate) mod descriptors;
pub(crate) mod devices;
mod direct;
pub(crate) mod executable;
mod filesystem;
pub(crate) mod hidden;
pub(crate) mod layers;
mod machine;
pub(crate) mod mounts;
pub(crate) mod namespaces;
mod node;
pub(crate) mod null;
pub(crate) mod options;
pub(crate) mod paths;
pub(crate) mod procfs;
pub(crate) mod root;
pub(crate) mod shared;
mod tree;
pub(crate) mod userns;
