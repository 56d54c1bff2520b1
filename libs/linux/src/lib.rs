//! Linux's names and text formats, each in one place.
//!
//! - [`mountinfo`]: the mounts that a process sees, from `/proc/<pid>/mountinfo`.

pub mod mountinfo;
