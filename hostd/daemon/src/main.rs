//! The Keelson engine daemon.

fn main() {}
