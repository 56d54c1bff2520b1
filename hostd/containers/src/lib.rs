//! The container engine: life cycle, shims, logs, events.

mod engine;
mod error;
pub mod signal;
pub mod types;

pub use engine::{Engine, WaitFuture};
pub use error::EngineError;
pub use signal::Signal;
pub use types::{
    AttachOptions, Attached, ContainerEvent, CreateRequest, Created, EngineOptions, Frame,
    LogQuery, Logs, MountPoint, Receiver, RootSource, Scope, Snapshot, State, Status, Top,
    WaitCondition, WaitResult,
};
