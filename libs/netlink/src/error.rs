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
    /// The kernel refused a request of a batch.
    #[error("{operation}: {}", explain(.source, .detail))]
    Refused {
        /// The operation and its object, such as `create veth link v0`.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
        /// The kernel's explanation, often empty.
        detail: String,
    },
    /// The thread of a [`crate::Worker`] ended before the job was done.
    #[error("the thread for network namespaces has ended")]
    Worker,
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
            Self::Socket(source)
            | Self::Namespace { source, .. }
            | Self::Refused { source, .. } => source.raw_os_error(),
            Self::MixedFamilies { .. } | Self::Worker => None,
        }
    }

    /// Why it failed, without the operation.
    pub fn reason(&self) -> String {
        match self {
            Self::Request { source, .. } => describe(source),
            Self::Socket(source) | Self::Namespace { source, .. } => source.to_string(),
            Self::Refused { source, detail, .. } => explain(source, detail),
            Self::MixedFamilies { .. } => "addresses of IPv4 and IPv6 are mixed".to_owned(),
            Self::Worker => self.to_string(),
        }
    }

    /// Whether the object of the request does not exist.
    pub fn is_not_found(&self) -> bool {
        let missing = [ESRCH, ENOENT, ENODEV, EADDRNOTAVAIL];
        self.errno().is_some_and(|errno| missing.contains(&errno))
    }
}

/// The system's message for the error number, rather than that of the netlink crate.
fn describe(error: &rtnetlink::Error) -> String {
    match errno(error) {
        Some(errno) => io::Error::from_raw_os_error(errno).to_string(),
        None => error.to_string(),
    }
}

/// The system's message, with the kernel's explanation if there is one.
fn explain(source: &io::Error, detail: &str) -> String {
    match detail {
        "" => source.to_string(),
        detail => format!("{source}: {detail}"),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(message.raw_code().saturating_abs()),
        _ => None,
    }
}
