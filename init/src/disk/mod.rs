//! What stands on the disk that we boot from: partition table and file system.

pub(crate) mod ext4;
pub(crate) mod gpt;
pub(crate) mod grow;
