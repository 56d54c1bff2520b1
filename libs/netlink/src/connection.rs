//! Connections.

use std::os::fd::BorrowedFd;

use rtnetlink::{Handle, MulticastGroup};
use tokio::runtime;

use crate::namespace::run_in;
use crate::{Monitor, NetlinkError};

/// A connection to the kernel in one network namespace. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(crate) handle: Handle,
}

/// What [`Monitor`] reports.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
];

impl Netlink {
    /// Connects in the network namespace of the calling thread. Must be called inside a tokio
    /// runtime, which drives the connection until the last clone is dropped.
    ///
    /// # Errors
    /// No socket could be opened.
    pub fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Connects in another network namespace. A socket stays in the namespace in which it was
    /// opened, so only the opening runs there. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The caller may not enter the namespace, or no socket could be opened.
    pub fn connect_in(namespace: BorrowedFd<'_>) -> Result<Self, NetlinkError> {
        let runtime = runtime::Handle::current();
        run_in(namespace, || {
            let _runtime = runtime.enter();
            Self::connect()
        })?
    }

    /// Starts to report changes in the network namespace of the calling thread. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// No socket could be opened.
    pub fn monitor() -> Result<Monitor, NetlinkError> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        Ok(Monitor { messages })
    }

    /// Starts to report changes in another network namespace. See [`Netlink::connect_in`].
    ///
    /// # Errors
    /// The caller may not enter the namespace, or no socket could be opened.
    pub fn monitor_in(namespace: BorrowedFd<'_>) -> Result<Monitor, NetlinkError> {
        let runtime = runtime::Handle::current();
        run_in(namespace, || {
            let _runtime = runtime.enter();
            Self::monitor()
        })?
    }
}
