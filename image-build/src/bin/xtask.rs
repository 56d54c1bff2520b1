//! cargo xtask: builds the binaries, the OS image and its disks, runs and tests them.

fn main() {}
