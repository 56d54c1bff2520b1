//! PID 1 of a Keelson machine, in the initrd and in the deployment.

fn main() {}
