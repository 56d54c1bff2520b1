//! Names of containers: what hostd sends to the resolver, and files in containers' `/etc`.
//!
//! - [`resolv_conf`]: the host's resolv.conf, and those of containers.
//! - [`hosts`]: the lines of a container's hosts file.
//! - `records`: derives what the resolver must know of a container from its connections.
//! - `sockets`: the sockets in a container's network namespace.
//! - `program`: starts the resolver, or finds a running one.
//! - `client`: a connection to the resolver.
//! - `watch`: notices changes of the host's resolv.conf.
//! - `state`: the desired state of the resolver.
//! - `session`: brings a resolver to the desired state.
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
