//! What an engine reports about its containers.

use std::collections::BTreeMap;

use super::Scope;
use super::health::HealthStatus;
use crate::signal::Signal;

/// An event of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Whose container.
    pub scope: Scope,
    /// What happened.
    pub action: ContainerAction,
    /// Which container; empty for a prune.
    pub id: String,
    /// Its name; empty for a prune.
    pub name: String,
    /// Its image, as its creator named it; empty for a prune.
    pub image: String,
    /// Its labels, as far as they fit in a queue.
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub time: i64,
}

/// What happened to a container. Executions are named by their identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerAction {
    /// It was created.
    Create,
    /// Its command was executed.
    Start,
    /// A caller had it stopped and started.
    Restart,
    /// The OOM killer struck.
    OutOfMemory,
    /// Its first process ended.
    Die {
        /// Exit code.
        code: i32,
        /// How long it ran.
        seconds: i64,
    },
    /// A signal was sent to it.
    Kill(Signal),
    /// A caller's stop has ended.
    Stop,
    /// It was frozen.
    Pause,
    /// It was thawed.
    Unpause,
    /// It is gone.
    Destroy,
    /// Its health has changed.
    Health(HealthStatus),
    /// It has another name.
    Rename {
        /// The name before.
        former: String,
    },
    /// The size of its terminal was set.
    Resize {
        /// In characters.
        rows: u16,
        /// In characters.
        columns: u16,
    },
    /// Its limits or its restart policy were changed.
    Update,
    /// A client was connected to its streams.
    Attach,
    /// Its file system is being read.
    Export,
    /// An image was made from it.
    Commit {
        /// The caller's comment.
        comment: String,
        /// Identifier of the image.
        image: String,
        /// Name of the image; empty when it has none.
        reference: String,
    },
    /// Files are being copied out of it.
    CopyOut,
    /// Files were copied into it.
    CopyIn,
    /// An execution was created.
    ExecCreate {
        /// Its identifier.
        exec: String,
        /// Its command and arguments, separated by spaces.
        command: String,
    },
    /// An execution's command was executed.
    ExecStart {
        /// Its identifier.
        exec: String,
        /// Its command and arguments, separated by spaces.
        command: String,
    },
    /// An execution's process ended.
    ExecDie {
        /// Its identifier.
        exec: String,
        /// Exit code.
        code: i32,
    },
    /// A client left an execution that goes on.
    ExecDetach {
        /// Its identifier.
        exec: String,
    },
    /// Stopped containers were removed.
    Prune {
        /// Freed bytes of disk.
        reclaimed: u64,
    },
}
