//! The packet filter's tests.

mod changes;
mod packets;
mod plan;
mod routing;
mod world;
