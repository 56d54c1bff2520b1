//! Why a call failed.

use std::io;

const ESRCH: i32 = 3;
const ENOENT: i32 = 2;
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket could be opened.
    #[error("open netlink socket: {0}")]
    Socket(io::Error),
    /// A network namespace could not be created or entered.
    #[error("{operation} network namespace: {source}")]
    Namespace {
        /// What was done with it.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("{operation}: {}", describe(.source))]
    Request {
        /// The operation and its object, such as `remove address 192.0.2.1/24`.
        operation: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A route or rule that mixes addresses of both families.
    #[error("{operation}: addresses of IPv4 and IPv6 are mixed")]
    MixedFamilies {
        /// The operation and its object.
        operation: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, when the kernel refused the request.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Request { source, .. } => errno(source),
            Self::Socket(source) | Self::Namespace { source, .. } => source.raw_os_error(),
            Self::MixedFamilies { .. } => None,
        }
    }

    /// Why it failed, without the operation.
    pub fn reason(&self) -> String {
        match self {
            Self::Request { source, .. } => describe(source),
            Self::Socket(source) | Self::Namespace { source, .. } => source.to_string(),
            Self::MixedFamilies { .. } => "addresses of IPv4 and IPv6 are mixed".to_owned(),
        }
    }

    /// Whether the object of the request does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        let missing = [ESRCH, ENOENT, ENODEV, EADDRNOTAVAIL];
        self.errno().is_some_and(|errno| missing.contains(&errno))
    }
}

/// The message of the system for the kernel's error, rather than the netlink crate's.
fn describe(error: &rtnetlink::Error) -> String {
    match errno(error) {
        Some(errno) => io::Error::from_raw_os_error(errno).to_string(),
        None => error.to_string(),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(message.raw_code().saturating_abs()),
        _ => None,
    }
}
