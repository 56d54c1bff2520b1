//! Why the kernel refused something, and what to do about it.

use std::io;
use std::path::PathBuf;

use keelson_netlink::NetlinkError;

/// Links, addresses or routes could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A request failed; it names its operation and object.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel does not support a kind of links.
    #[error("create link {link}: the kernel has no {kind}: load or build the module {module}")]
    NoKind {
        /// The link.
        link: String,
        /// The kind.
        kind: &'static str,
        /// Its module.
        module: &'static str,
    },
    /// The name is invalid for a link.
    #[error(
        "interface name {name:?} is invalid: it has 1 to 15 characters, without spaces, '/', ':' \
         and '%'"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Another link has the bridge's name.
    #[error(
        "link {link} exists and is not a bridge: give another name in the option \
         com.docker.network.bridge.name"
    )]
    NotABridge {
        /// The link.
        link: String,
    },
    /// The parent link does not exist.
    #[error("parent link {link} does not exist: name a link of the host in the option parent")]
    NoParent {
        /// The link.
        link: String,
    },
    /// The parent link is the loopback link.
    #[error("loopback interface is not a valid {driver} parent link")]
    LoopbackParent {
        /// `macvlan` or `ipvlan`.
        driver: &'static str,
    },
    /// The parent link can't have one more link.
    #[error(
        "parent link {link} is taken: a link of macvlan mode passthru shares its parent with no other, \
         and a parent that is a bridge's port, or has links of the other of the drivers macvlan and \
         ipvlan, has no room: name another one in the option parent"
    )]
    ParentTaken {
        /// The parent.
        link: String,
    },
    /// An interface is not where it was made, since something removed it.
    #[error("interface {interface} vanished while it was set up")]
    Vanished {
        /// The interface.
        interface: String,
    },
    /// A kernel parameter could not be set.
    #[error("set {name} to {value:?}: {source}")]
    Setting {
        /// Its name with dots.
        name: String,
        /// The value.
        value: String,
        /// Why it was refused.
        source: io::Error,
    },
    /// A kernel parameter of an endpoint that does not belong to its interface.
    #[error(
        "endpoint sysctl {name:?} does not belong to an interface: write it as net.ipv4.conf.IFNAME.NAME"
    )]
    NotOfInterface {
        /// Its name with dots.
        name: String,
    },
    /// The container's network namespace can't be opened.
    #[error("open network namespace {}: {source}", path.display())]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
