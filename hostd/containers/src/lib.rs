//! The container engine: life cycle, shims, logs, events.
//!
//! An [`Engine`] keeps a folder per container. What a client asked for is completed and checked
//! once, by pure code (`validate`), and kept; from that an OCI specification is made for every
//! run, again by pure code (`spec`), after `prepare` has looked at the host. Each run has a shim
//! process that outlives the engine; the engine talks to it through `shim` and finds it again
//! when it is opened.
//!
//! Anonymous volumes (`-v /path`, or `VOLUME` in an image) live and end with their container;
//! creating one says so in a warning. Everything that is not implemented and was asked for is
//! refused by name.

mod adopt;
mod attach;
mod container;
mod content;
mod create;
mod devices;
mod document;
mod ended;
mod engine;
mod error;
mod exec;
mod files;
mod flush;
mod host;
mod lifecycle;
mod logs;
mod names;
mod open;
mod prepare;
mod quarantine;
mod registry;
mod remove;
mod restart;
mod rootfs;
mod scoped;
mod shim;
pub mod signal;
mod spec;
mod start;
mod top;
pub mod types;
mod update;
mod user;
mod validate;

pub use engine::{Engine, WaitFuture};
pub use error::EngineError;
pub use exec::{ExecRequest, ExecSnapshot, ExecState};
pub use host::HostFacts;
pub use scoped::ScopedEngine;
pub use signal::Signal;
pub use types::{
    AttachOptions, Attached, CgroupParent, CommitRequest, ContainerEvent, CreateRequest, Created,
    EngineOptions, Frame, LogQuery, Logs, MountPoint, Receiver, RootSource, Scope, Snapshot, State,
    Status, Top, WaitCondition, WaitResult,
};
pub use validate::{LOG_DRIVER, RUNTIMES};
