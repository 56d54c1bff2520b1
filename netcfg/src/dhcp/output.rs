//! The types between the state machine and its caller.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::arp::{ArpPacket, Mac};
use super::lease::{Lease, LeaseError, LeftOut};

/// Time since an arbitrary beginning. It also advances while the machine is suspended
/// (CLOCK_BOOTTIME).
pub type Time = Duration;

/// An action for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send to all servers of the link.
    Broadcast {
        /// Address to send from; 0.0.0.0 while there is none.
        source: Ipv4Addr,
        /// The message.
        payload: Vec<u8>,
    },
    /// Send to one server.
    Unicast {
        /// Address to send from.
        source: Ipv4Addr,
        /// Address of the server.
        server: Ipv4Addr,
        /// The message.
        payload: Vec<u8>,
    },
    /// Send to all machines of the link.
    Arp(ArpPacket),
    /// Use this lease instead of an earlier one.
    Bound {
        /// The lease.
        lease: Lease,
        /// When it began.
        granted: Time,
    },
    /// Stop using the lease.
    Unbound,
    /// Report this to the operator.
    Notice(Notice),
}

/// A notice for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// No server has answered.
    NoServer {
        /// Seconds since the client began to look.
        seconds: u64,
    },
    /// A server offered something unusable.
    Rejected(LeaseError),
    /// Some options of the lease are ignored.
    LeftOut(Vec<LeftOut>),
    /// A server refused the address.
    Refused {
        /// The server's words.
        message: Option<String>,
    },
    /// Another machine uses the address that the server gave.
    Conflict {
        /// The address.
        address: Ipv4Addr,
        /// The other machine.
        mac: Mac,
    },
    /// The server does not renew the lease; other servers are asked now.
    NotRenewed {
        /// Seconds until the lease ends.
        seconds_left: u64,
    },
    /// The lease ended without being renewed.
    Expired,
}

/// The name of a state, for the status file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateName {
    /// The link has no carrier.
    Down,
    /// A pause after a refusal or a conflict.
    Waiting,
    /// Looking for servers.
    Selecting,
    /// An offer was accepted, but the server has not confirmed it yet.
    Requesting,
    /// Asking whether a remembered lease is still valid.
    Rebooting,
    /// Checking whether another machine uses the address.
    Probing,
    /// The lease is in use.
    Bound,
    /// Asking the server for more time.
    Renewing,
    /// Asking any server for more time.
    Rebinding,
}

/// A lease from before this process started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The lease.
    pub lease: Lease,
    /// When it began. `None` if it is unknown.
    pub granted: Option<Time>,
    /// Whether the link has the address now.
    pub in_use: bool,
}
