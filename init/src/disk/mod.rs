//! The contents of the boot disk: partition table and file system.

pub(crate) mod ext4;
pub(crate) mod gpt;
pub(crate) mod grow;
