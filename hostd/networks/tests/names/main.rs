//! The resolver's program with real sockets, in network namespaces of the tests' own.

mod answers;
mod speed;
mod survival;
mod upstreams;
mod world;
