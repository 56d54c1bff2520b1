//! Tests against the kernel, in network namespaces of their own: one is the host, others are
//! containers and neighbours. They need root, and are skipped without.

mod bench;
mod bridges;
mod host_links;
mod lab;
mod life;
mod parents;
