//! The contents of the boot disk: partition table and file system.

pub(crate) mod check;
pub(crate) mod ext4;
pub(crate) mod gpt;
pub(crate) mod grow;
pub(crate) mod mend;
pub(crate) mod volume;
