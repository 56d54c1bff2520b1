//! The OCI container runtime and the per-container shim.

fn main() {}
