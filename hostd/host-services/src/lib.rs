//! System services: containers that belong to the machine.
//!
//! The configuration says what they are (`[services.NAME]`); the OS's own are one of its layers. A
//! broken service is reported and does not stop the others. In the order in which a service passes
//! through:
//!
//! - [`definition`]: a service as it is configured, and where each of its values stands.
//! - [`plan`]: in which order services start, and which cannot. Pure.
//! - [`image`]: finds a service's root file system, or pulls it.
//! - [`request`]: the container that a service becomes. Pure.
//! - [`streak`]: how long to pause before a service is started again, and whether it loops. Pure.
//! - `entry`: a service and what is known of it.
//! - `supervise`: keeps one service running.
//! - `services`: all of them: applies a configuration, and carries out requests.
//! - `error`: what can fail.

pub mod definition;
mod entry;
mod error;
pub mod image;
pub mod plan;
pub mod request;
mod services;
pub mod streak;
mod supervise;

pub use error::ServicesError;
pub use services::{Services, ServicesOptions};
