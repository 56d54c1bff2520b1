//! Host networking through netlink.

fn main() {}
