//! Every unsafe wrapper around the Linux kernel that Keelson needs.
//!
//! For programs of the machine in general:
//!
//! - [`entry`]: the start of a program without the standard library's start-up code.
//! - [`allocator`]: a memory allocator that returns memory in large pieces.
//! - [`open_files`]: the limit of open files.
//! - [`idle`]: waiting for hours with little memory.
//! - [`child`], [`spawn`], [`service_process`]: starting programs and waiting for them.
//! - [`socket`], [`packet`]: sockets, and packets of Ethernet links.
//! - [`calendar`]: dates of points in time.
//! - [`rtc`], [`watchdog`], [`swap`]: hardware clocks, hardware watchdogs, swap areas.
//! - [`kexec`]: another kernel without the firmware.
//!
//! For containers and their shims, in the order of a start:
//!
//! - [`clone`]: new processes in new namespaces and cgroups.
//! - [`userns`]: user namespaces.
//! - [`mount_attr`]: attributes of mounts.
//! - [`bpf`]: the device filter of a cgroup.
//! - [`sandbox`]: capabilities, limits and other properties of the calling process.
//! - [`scheduling`], [`seccomp`]: scheduling and the system call filter.
//!
//! For disks, images and tests:
//!
//! - [`blkpg`]: partitions of a disk in use.
//! - [`filesystem`], [`writeback`], [`verity`]: whole file systems, writing back, fs-verity.
//! - [`kvm`]: whether hardware virtualisation works.

pub mod blkpg;
pub mod service_process;

pub mod calendar;
pub mod child;
pub mod kexec;
pub mod kvm;
pub mod packet;
pub mod rtc;
pub mod swap;
pub mod watchdog;

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
pub mod userns;

// The image store.
pub mod filesystem;
pub mod verity;
pub mod writeback;
