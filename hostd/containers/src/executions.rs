//! What is known of executions: further processes in running containers (`docker exec`). What is done
//! with them is in [`crate::exec`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`request`] | what a client asks for, and what of it is refused |
//! | [`lifecycle`] | the life of one, as a pure function |
//! | [`table`] | all of them, bounded in number and bytes |
//! | [`record`] | what is written for the engine after this one |
//!
//! The life of an execution; an empty field: nothing changes, the event came twice or too late.
//!
//! | event | created | starting | running | ended |
//! |---|---|---|---|---|
//! | a client wants it started | **starting**; record | refused: is already running | refused: is already running | refused: has already run |
//! | its command was executed | | **running**; announce the start | | |
//! | after a restart, the shim says that it runs | | **running** | | |
//! | its command was not executed | | **ended**; record | | |
//! | its process ended | | **ended**; record, announce the end | **ended**; record, announce the end | |
//!
//! The process belongs to the container's shim, which makes it only when it is started. What a
//! client asked for is written down before the shim is told, so an engine that is killed at any
//! moment leaves either an execution that was not started, or one that the shim is asked about. A
//! start that had not reached the shim ends with exit code 128. What has ended is known for five
//! minutes, as long as the container is there; of what was written nothing outlives the
//! container's run (docs/decisions/0023-executions-survive.md).

pub(crate) mod lifecycle;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod table;

use std::sync::Arc;

pub use lifecycle::ExecState;
pub use request::ExecRequest;
pub(crate) use table::{Exec, Executions};

/// One at a moment.
#[derive(Debug, Clone)]
pub struct ExecSnapshot {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The container's identifier.
    pub container: String,
    /// What was asked for.
    pub request: Arc<ExecRequest>,
    /// How far it is.
    pub state: ExecState,
}
