//! DHCPv4: parsers and builders of packets, the checked lease, the client's state machine (all
//! without input and output), and the task that connects it with sockets.

pub mod arp;
mod client;
pub mod lease;
pub mod machine;
#[cfg(test)]
pub(crate) mod machine_tests;
pub mod message;
pub mod options;
mod output;
mod store;
pub mod udp;

pub(crate) use client::{Client, ClientEvent, ClientLink, ClientStatus, now};
pub(crate) use store::{LeaseStore, StoreError};
