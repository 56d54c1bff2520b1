//! The kernel's network configuration: links, addresses, routes, rules and neighbours, in any
//! network namespace.
//!
//! This is the only crate that uses `rtnetlink` and `netlink-packet-route`, whose interfaces change
//! often; a test in image-build/tests/architecture holds that.
//!
//! In the order in which a caller meets them:
//!
//! - [`Namespace`]: create or open a network namespace, and run code in it.
//! - [`Netlink`]: a connection to the kernel in one namespace, with a call for each operation.
//! - [`Link`], [`Address`], [`Route`], [`Rule`], [`Neighbour`]: what the calls take and return.
//! - [`Monitor`]: reports that something changed.
//! - [`NetlinkError`]: why a call failed.

mod connection;
mod convert;
mod error;
mod monitor;
mod namespace;
mod requests;
mod types;

pub use connection::Netlink;
pub use error::NetlinkError;
pub use keelson_model::ip::IpPrefix;
pub use monitor::Monitor;
pub use namespace::Namespace;
pub use types::{
    Address, Link, LinkKind, Mac, Neighbour, NewLink, Route, RouteProtocol, Rule, TABLE_MAIN,
};
