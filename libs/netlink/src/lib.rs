//! The kernel's network configuration: links, addresses, routes, rules and neighbours, in any
//! network namespace.
//!
//! This is the only crate that uses `rtnetlink` and `netlink-packet-route`, whose interfaces change
//! often; a test in image-build/tests/architecture holds that.
//!
//! In the order in which a caller needs them:
//!
//! - [`Namespace`]: create or open a network namespace, and run code in it.
//! - [`Netlink`]: a connection to the kernel in one namespace, with a call for each operation
//!   (`requests`; `convert`: the kernel's messages as our types).
//! - [`Batches`]: a connection that sends many [`Request`]s at once, for code where each
//!   microsecond counts. Requests are plain values.
//! - [`Worker`]: a thread with such a connection, which also visits other namespaces.
//! - [`Link`], [`Address`], [`Route`], [`Rule`], [`Neighbour`]: what the calls take and return.
//! - [`Monitor`]: reports that something changed. [`Removals`]: reports which links are gone.
//! - [`NetlinkError`]: why a call failed.

mod batch;
mod connection;
mod convert;
mod error;
mod monitor;
mod namespace;
mod removals;
mod requests;
mod types;
mod worker;

pub use batch::{
    Batches, BridgePort, Ipvlan, IpvlanIsolation, LinkChange, LinkId, Macvlan, NewAddress, Request,
    VirtualKind, VirtualLink,
};
pub use connection::Netlink;
pub use error::NetlinkError;
pub use keelson_model::ip::IpPrefix;
pub use monitor::Monitor;
pub use namespace::Namespace;
pub use removals::{Removals, Removed};
pub use types::{
    Address, Link, LinkKind, Mac, Neighbour, NewLink, Route, RouteProtocol, Rule, TABLE_MAIN,
};
pub use worker::{Site, Worker};
