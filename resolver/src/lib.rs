//! The name server of containers at 127.0.0.11 in each of them.
//!
//! hostd starts it, says which containers there are, and hands it sockets that were opened in their
//! network namespaces ([`keelson_resolver_protocol`]). It has no rights of its own, and goes on to answer
//! when hostd is gone.
//!
//! In the order of a question's way:
//!
//! - [`query`]: a packet of a client's, as far as it must be understood.
//! - [`table`]: which container has which names and addresses.
//! - [`answer`]: what follows from both: an answer, or that others must be asked.
//! - `shared`: the table, and what else all containers share; `places`: how many questions each may ask.
//! - `upstream`: asking others, over the sockets in a container's namespace or in the host's.
//! - `forward`: whom to ask, in which order, for how long.
//! - `serve`: the sockets of one container.
//! - `server`: all containers.
//! - `control`: hostd's connection.
//! - `privileges`: what the process gives up before it serves.
//! - `run`: puts them together.
//!
//! Beside it: `limits`, the bounds of everything; `random`, numbers that can't be guessed;
//! `watched`, descriptors in the event loop; `report`, the
//! few lines that it writes to its log.

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
