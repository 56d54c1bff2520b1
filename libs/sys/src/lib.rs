//! Every unsafe wrapper around the Linux kernel that Keelson needs.
