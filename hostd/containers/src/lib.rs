//! The container engine: life cycle, shims, logs, events.

mod devices;
mod engine;
mod error;
mod files;
mod host;
mod names;
mod rootfs;
pub mod signal;
mod spec;
pub mod types;
mod user;
mod validate;

pub use engine::{Engine, WaitFuture};
pub use error::EngineError;
pub use host::HostFacts;
pub use signal::Signal;
pub use types::{
    AttachOptions, Attached, ContainerEvent, CreateRequest, Created, EngineOptions, Frame,
    LogQuery, Logs, MountPoint, Receiver, RootSource, Scope, Snapshot, State, Status, Top,
    WaitCondition, WaitResult,
};
