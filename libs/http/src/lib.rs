//! What the machine's HTTP APIs share. Nothing here knows containers or the words of one API.
//!
//! In the order in which a request meets it:
//!
//! - [`access`]: the caller, and the role that a route requires.
//! - [`route`]: the route table. Every route states its access. Only a caller with a sufficient role
//!   gets the handler.
//! - [`audit`]: the record of what callers changed.
//! - [`places`]: how many long requests may run at once.
//! - [`reply`]: reads bodies within limits of bytes and time, and makes answers.
//! - [`hijack`]: takes a connection over for a raw stream.
//! - [`error`]: the one type of a failure, with its kind and message.

pub mod access;
pub mod audit;
pub mod error;
pub mod hijack;
pub mod places;
pub mod reply;
pub mod route;

pub use access::{Access, Caller};
pub use error::Failure;
