//! Names of containers: what hostd tells the resolver, and the files in `/etc` of containers.
//!
//! - [`resolv_conf`]: the host's resolv.conf, and those of containers.
//! - [`hosts`]: the lines of a container's hosts file.
//! - `records`: what the resolver must know of a container, out of its connections.
//! - `sockets`: the sockets in a container's network namespace.
//! - `program`: starting the resolver, and finding one that runs.
//! - `client`: a connection to it.
//! - `watch`: changes of the host's resolv.conf.
//! - `state`: what is wanted.
//! - `session`: a resolver that is told that.
//! - `keeper`: keeps a resolver running.

mod client;
mod keeper;
mod program;
mod records;
mod session;
mod sockets;
mod state;
mod watch;

pub mod hosts;
pub mod resolv_conf;

pub use keeper::{Names, NamesOptions};
pub use records::{ContainerNames, NetworkNames, names_in};
pub use sockets::{ADDRESS, open_sockets, ports, serve_here};
pub use state::{NamesError, Reopen};
