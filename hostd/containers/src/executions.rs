//! The state of executions: additional processes in running containers (`docker exec`).
//! [`crate::exec`] has the operations on them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`request`] | a client's request, and its checks |
//! | [`lifecycle`] | the life of an execution, as a pure function |
//! | [`table`] | all of them, bounded in number and bytes |
//! | [`record`] | the files for a later engine |
//!
//! The life of an execution; an empty field means that nothing changes: the event came twice or too
//! late.
//!
//! | event | created | starting | running | ended |
//! |---|---|---|---|---|
//! | a client wants it started | **starting**; record | refused: is already running | refused: is already running | refused: has already run |
//! | its command was executed | | **running**; announce the start | | |
//! | after a restart, the shim says that it runs | | **running** | | |
//! | its command was not executed | | **ended**; record | | |
//! | its process ended | | **ended**; record, announce the end | **ended**; record, announce the end | |
//!
//! The process belongs to the container's shim, which makes it only when it is started. A client's
//! request is written to a file before the shim gets it. So an engine that is killed at any moment
//! leaves either an execution that was not started, or one that the shim knows. A start that had
//! not reached the shim ends with exit code 128. Ended executions are known for five minutes, as
//! long as the container exists. No file outlives the container's run
//! (docs/decisions/0023-executions-survive.md).

pub(crate) mod lifecycle;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod table;

use std::sync::Arc;

pub use lifecycle::ExecState;
pub use request::ExecRequest;
pub(crate) use table::{Exec, Executions};

/// An execution at one moment.
#[derive(Debug, Clone)]
pub struct ExecSnapshot {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The container's identifier.
    pub container: String,
    /// The request.
    pub request: Arc<ExecRequest>,
    /// Its progress.
    pub state: ExecState,
}
