//! Every unsafe wrapper around the Linux kernel that Keelson needs.

pub mod blkpg;
pub mod service_process;

pub mod child;
pub mod kvm;
pub mod packet;

// Containers and their shims.
pub mod allocator;
pub mod bpf;
pub mod clone;
pub mod entry;
pub mod idle;
pub mod mount_attr;
pub mod open_files;
pub mod sandbox;
pub mod scheduling;
pub mod seccomp;
pub mod socket;
pub mod spawn;

// The image store.
pub mod filesystem;
pub mod verity;
pub mod writeback;
