//! The containers' name server, at 127.0.0.11 in each of them.
//!
//! hostd starts it, describes the containers, and passes it sockets opened in their network
//! namespaces ([`keelson_resolver_protocol`]). The resolver has no privileges, and continues to
//! answer when hostd is gone.
//!
//! In the order in which a query passes them:
//!
//! - [`query`]: parses a client's query.
//! - [`table`]: the names and addresses of all containers.
//! - [`answer`]: decides on a query by the table: an answer, or a query to name servers.
//! - `shared`: the table and other state of all containers; `places`: limits the open queries.
//! - `upstream`: asks a name server, from a container's network namespace or from the host's.
//! - `forward`: which name servers to ask, in which order, and for how long.
//! - `serve`: serves the sockets of one container.
//! - `server`: all containers.
//! - `control`: hostd's connection.
//! - `privileges`: drops privileges before serving.
//! - `run`: starts everything.
//!
//! Used by all of them: `limits`, the limits of memory and time; `random`, unpredictable numbers;
//! `watched`, descriptors in the event loop; `report`, the log.

mod control;
mod forward;
mod limits;
mod places;
mod privileges;
mod random;
mod report;
mod run;
mod serve;
mod server;
mod shared;
mod upstream;
mod watched;

pub mod answer;
pub mod query;
pub mod table;

pub use run::{Options, USAGE, run};
