//! The container engine: life cycle, shims, logs, events.
//!
//! An [`Engine`] keeps a directory per container. A container is described by a complete
//! [`ContainerSpec`](keelson_model::spec::ContainerSpec) in the engine's own terms, whoever the
//! caller is: it is checked ([`check()`]) and stored. From it an OCI specification is made for
//! every run, by pure code (`spec`), after `prepare` has examined the host. Each run has a shim
//! process that outlives the engine; the engine talks to it through `shim` and finds it again when
//! it is opened.
//!
//! The engine knows no client's words: what clients see of a container is stored beside its
//! specification ([`Shown`]) and never read here.
//!
//! In the order of a container's life:
//!
//! - `types`, `error`, `copy_error`: the types of the interface, and its errors.
//! - `engine`, `container`, `registry`, `names`: what all operations share; containers by identifier
//!   and name. `scoped`: [`ScopedEngine`], the view of one scope.
//! - `open`, `adopt`, `quarantine`: read, adopt or set aside what an earlier engine left.
//! - `create`, `document`, `old`: create and store a container. `update` changes it, `host` has the
//!   limits of what is possible.
//! - `machine`, `life`: its life as a table, and the driver that carries out what the table says.
//!   `refused` has the texts for refused requests.
//! - `start`, `prepare`, `spec`, `files`, `devices`, `disk_weights`, `cdi`, `propagation`, `user`, `rootfs`,
//!   `apparmor`, `cgroup_parent`, `init_program`: prepare and create a run. `order`: which container
//!   starts first; `donors`: namespaces of other containers that it joins.
//! - `volumes`, `copy_up`, `subpath`, `image_mounts`: find, fill and mount volumes and images, and
//!   hold them (`held`); `overlay` and `id_maps` make the mounts.
//! - `connected`, `connections`, `links`, `linkers`, `name_files`: its networks, and its /etc/hosts and
//!   /etc/resolv.conf.
//! - `shim`: the process that keeps the run.
//! - `lifecycle`, `remove`, `prune`, [`signal`]: stopping, signals, pausing, removal.
//! - `attach`, `logs`, `records`, `tag`, `forward`, `top`, `content`, `archive`: what clients see of a
//!   container; `gate` keeps writers of its files apart from its starts.
//! - `stats`: the resource usage of a container.
//! - `executions`, `exec`: additional processes in it.
//! - `health`, `checks`: its health checks.
//! - `flush`: synchronises written files a moment later.

mod adopt;
mod apparmor;
mod archive;
mod attach;
mod cdi;
mod cgroup_parent;
mod checks;
mod connected;
mod connections;
mod container;
mod content;
mod copy_error;
mod copy_up;
mod create;
mod devices;
mod disk_weights;
mod document;
mod donors;
mod engine;
mod error;
mod exec;
mod executions;
mod files;
mod flush;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod health;
mod held;
mod host;
mod id_maps;
mod image_mounts;
mod init_program;
mod life;
mod lifecycle;
mod linkers;
mod links;
mod logs;
mod machine;
mod name_files;
mod names;
mod old;
mod open;
mod order;
mod overlay;
mod prepare;
mod propagation;
mod prune;
mod quarantine;
mod records;
mod refused;
mod registry;
mod remove;
mod rootfs;
mod scoped;
mod shim;
pub mod signal;
mod spec;
mod start;
mod stats;
mod subpath;
mod tag;
mod top;
pub mod types;
mod update;
mod user;
mod volumes;

pub use keelson_cgroup::{Figures, figures};
pub use keelson_linux::net_dev::{Interface, Traffic};
pub use keelson_log::{Position as LogPosition, Stream};
pub use keelson_shim_protocol::INIT_NAME;

pub use apparmor::{AppArmorState, shown_profile, warning as apparmor_warning};
pub use archive::{ExtractOptions, PathArchive, PathStat};
pub use copy_error::CopyError;
pub use engine::{Engine, WaitFuture};
pub use error::EngineError;
pub use executions::{ExecRequest, ExecSnapshot, ExecState};
pub use host::{HostFacts, host_memory};
pub use logs::DirectoryWatch;
pub use old::{OldDocument, ReadOld};
pub use refused::Refused;
pub use scoped::ScopedEngine;
pub use signal::Signal;
pub use spec::available::check_host;
pub use spec::capabilities::{capabilities_in, is_capability};
pub use spec::check::{check, check_strings};
pub use spec::merge_environment;
pub use spec::mounts::usual_propagation;
pub use stats::{ContainerStats, Measured, StatsWatch};
pub use tag::{check_tag, tag_of};
pub use types::health::{CheckOutcome, CheckResult, Health, HealthStatus};
pub use types::{
    AttachOptions, Attached, CgroupParent, CommitRequest, ContainerAction, ContainerEvent,
    CreateRequest, Created, EngineOptions, Frame, LogPart, LogQuery, LogRecord, Logs, NewId,
    ProcessInfo, Pruned, Receiver, Scope, Shown, Snapshot, SpecChange, State, Status,
    WaitCondition, WaitResult,
};
