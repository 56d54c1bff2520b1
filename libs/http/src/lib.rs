//! What the machine's HTTP APIs share. It knows neither containers nor the words of any API.
//!
//! In the order in which a request meets it:
//!
//! - [`access`]: who is calling, and which role a route takes.
//! - [`route`]: the route table. A route states its access, and its handler is only handed out to
//!   callers that have it.
//! - [`audit`]: the record of what callers changed.
//! - [`places`]: how many long requests may go on at once.
//! - [`reply`]: reading bodies within limits of bytes and time, and making answers.
//! - [`hijack`]: taking a connection over for a raw stream.
//! - [`error`]: the one shape of a failure, and its status.

pub mod access;
pub mod audit;
pub mod error;
pub mod hijack;
pub mod places;
pub mod reply;
pub mod route;

pub use access::{Access, Caller};
pub use error::Failure;
