//! The types of the engine's interface.

mod event;
pub(crate) mod health;
mod process;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hostd_images::{ContainerDefaults, ImageLease, ImageStore};
use jiff::Timestamp;
use keelson_log::shape::{Piece, PieceHeader};
use keelson_model::host::EngineConfig;
use keelson_model::spec::{ContainerSpec, RootSpec};
use keelson_store::document::Rest;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

pub use crate::cgroup_parent::CgroupParent;
use crate::old::ReadOld;
use crate::{EngineError, files, names};
pub use event::{ContainerAction, ContainerEvent};
pub use process::ProcessInfo;

/// Whose container it is. The two never see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Made by a Docker client.
    User,
    /// A service of the machine.
    System,
}

impl Scope {
    /// `user` or `system`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
        }
    }
}

/// Settings of an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The engine's identifier, which is the same after a restart.
    pub id: String,
    /// The directory of containers (ROOT; the engine uses ROOT/engine/containers).
    pub root: PathBuf,
    /// The directory for files that do not survive a reboot (RUN; the engine uses RUN/containers).
    pub run: PathBuf,
    /// The `keelson-runtime` executable.
    pub runtime: PathBuf,
    /// The image store.
    pub images: ImageStore,
    /// Defaults for values that clients do not set.
    pub defaults: EngineConfig,
    /// The directories that are searched for volume plugins.
    pub plugins: Vec<PathBuf>,
    /// The `keelson-resolver` executable.
    pub resolver: PathBuf,
    /// Parent of all containers' cgroups, a directory directly below the cgroup v2 mount.
    pub cgroup_parent: CgroupParent,
    /// Reads containers that were stored only in a client's words.
    pub read_old: ReadOld,
}

/// The identifier of a new container: 64 hexadecimal digits that no other container has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewId(String);

impl NewId {
    /// Makes one at random.
    #[must_use]
    pub fn generate() -> Self {
        Self(names::new_id())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A container as clients see it: their request, in their own words. The engine stores it beside
/// the specification and never reads it.
///
/// It has two parts, because older engines find them like this in `container.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What runs in the container: a JSON object as text.
    pub config: Box<str>,
    /// How it runs on this host: a JSON object as text.
    pub host: Box<str>,
}

/// What to create.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The identifier that it gets.
    pub id: NewId,
    /// What it is.
    pub spec: ContainerSpec,
    /// What clients are shown of it; `None` when none is.
    pub shown: Option<Shown>,
    /// The lease on its image, if it is held already: then nobody can have removed the image since
    /// it was found. Without one, the image is searched again.
    pub lease: Option<ImageLease>,
}

impl CreateRequest {
    /// A container that no client is shown.
    #[must_use]
    pub fn new(spec: ContainerSpec) -> Self {
        Self {
            id: NewId::generate(),
            spec,
            shown: None,
            lease: None,
        }
    }
}

/// How to change a container.
#[derive(Debug, Clone)]
pub struct SpecChange {
    /// The new specification.
    pub spec: ContainerSpec,
    /// What clients see of it afterwards.
    pub shown: Option<Shown>,
    /// Whether limits were changed that also apply to running processes.
    pub limits: bool,
}

/// Options of a commit: the image to create from a container.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// The image's name: `repository[:tag]`.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// Why.
    pub comment: String,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// The container's command, for the image's history.
    pub command: String,
    /// The command and other defaults of the image. Unset members are taken from the container.
    pub defaults: ContainerDefaults,
    /// The container's own values.
    pub container: ContainerDefaults,
    /// Freeze the container meanwhile, if it runs.
    pub pause: bool,
}

/// The result of a prune.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Identifiers of the containers.
    pub removed: Vec<String>,
    /// Bytes that were in their writable layers.
    pub reclaimed: u64,
}

/// The result of a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// 64 hexadecimal digits.
    pub id: String,
}

/// The state of a container, as documents name it and clients see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its first process runs.
    Running,
    /// Frozen.
    Paused,
    /// Waits to be started again by its restart policy.
    Restarting,
    /// Its first process has ended.
    Exited,
    /// It is being removed.
    Removing,
    /// Its removal failed half-way. It can only be removed.
    Dead,
}

impl Status {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether a first process exists now.
    pub const fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether it counts as running, which includes a pending restart.
    pub const fn counts_as_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What changes while a container lives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The state.
    pub status: Status,
    /// First process, seen from the host; 0 when there is none.
    pub pid: i32,
    /// Exit code of the last run; 0 before.
    pub exit_code: i32,
    /// Why the last start failed, or what ended the last run; empty when nothing did.
    pub error: String,
    /// Whether the OOM killer struck in the last run.
    pub oom_killed: bool,
    /// When the last run began.
    pub started_at: Option<Timestamp>,
    /// When the last run ended.
    pub finished_at: Option<Timestamp>,
    /// How often the restart policy started it again since the last start by a caller.
    pub restart_count: u32,
    /// Whether a caller stopped it: `unless-stopped` then leaves it stopped at boot.
    pub stopped_by_caller: bool,
    /// Members that a newer release wrote and this one does not know.
    #[serde(flatten)]
    pub(crate) rest: Rest,
    /// The same for the document that contains the state.
    #[serde(skip)]
    pub(crate) document_rest: Rest,
}

/// A container at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// Whose it is.
    pub scope: Scope,
    /// When it was made.
    pub created: Timestamp,
    /// What it is.
    pub spec: Arc<ContainerSpec>,
    /// What clients are shown of it; `None` when none is.
    pub shown: Option<Arc<Shown>>,
    /// Members of its document that a newer release has written and this one does not know.
    pub(crate) rest: Rest,
    /// What changes.
    pub state: State,
    /// Its health; `None` when it is not checked, or never ran.
    pub health: Option<Arc<health::Health>>,
    /// Its directory on the host, which survives a reboot: `log/`, `upper/`, ….
    pub directory: PathBuf,
    /// Its directory for the time of a run: the shim's.
    pub run_directory: PathBuf,
    /// Its log on the host.
    pub log_path: PathBuf,
    /// Its cgroup, relative to the cgroup v2 mount.
    pub cgroup: String,
}

impl Snapshot {
    /// Identifier of its image: `sha256:…`; empty for a system container, and when it is not known.
    pub fn image_id(&self) -> &str {
        match &self.spec.root {
            RootSpec::Image { id, .. } => id,
            RootSpec::System { .. } => "",
        }
    }

    /// The image as it was named, or the topmost EROFS file of a system container.
    pub fn image(&self) -> Cow<'_, str> {
        match &self.spec.root {
            RootSpec::Image { name, .. } => Cow::Borrowed(name),
            RootSpec::System { path, .. } => path.to_string_lossy(),
        }
    }

    /// What `hostname` and `$HOSTNAME` say in it.
    #[must_use]
    pub fn host_name(&self) -> String {
        files::host_name(&self.spec.names, &self.id)
    }

    /// The directory of `hostname`, `hosts` and `resolv.conf`. The container may write to them, so
    /// they are beside its writable layer and use its part of the disk.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.directory.join("etc")
    }
}

/// The event that a wait waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Until it does not run; at once if it does not run now.
    #[default]
    NotRunning,
    /// Until it ends the next time.
    NextExit,
    /// Until it is removed.
    Removed,
}

/// The result of a wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitResult {
    /// Exit code of the last run.
    pub exit_code: i32,
    /// What went wrong apart from the exit code, for example in the removal.
    pub error: Option<String>,
}

/// Which streams an attached client wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Write to standard input.
    pub stdin: bool,
    /// Read standard output (or the terminal).
    pub stdout: bool,
    /// Read standard error.
    pub stderr: bool,
    /// Continue with new output from now on.
    pub stream: bool,
    /// Begin with the output in the log.
    pub logs: bool,
}

/// Bytes of one of a container's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// 1 standard output or terminal, 2 standard error.
    pub stream: u8,
    /// The bytes.
    pub bytes: Bytes,
}

/// A client's connection to a container's streams.
pub struct Attached {
    /// Standard input: shutting it down means end of file.
    pub input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Output; ends when the container's run ends.
    pub output: Receiver<Frame>,
    /// Whether the container has a terminal (then no framing towards the client).
    pub tty: bool,
}

/// Which part of a log to read.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Go on until the container ends.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Nothing older than this, in nanoseconds since 1970.
    pub since: Option<u64>,
    /// Nothing newer than this, in nanoseconds since 1970.
    pub until: Option<u64>,
    /// Put the time (RFC 3339 with nanoseconds, UTC) and a space before each line.
    pub timestamps: bool,
    /// Only this many of the last lines.
    pub tail: Option<u64>,
    /// Put before each line, after the time.
    pub prefix: String,
    /// Written before each line, or piece of a long one; then their positions are not listed.
    pub header: Option<PieceHeader>,
    /// Whether a piece may contain several lines of one stream, for clients that do not need them
    /// separately.
    pub joined: bool,
}

/// Lines of a log, and pieces of long ones.
#[derive(Debug, Clone, Default)]
pub struct LogPart {
    /// All of them, with the headers of the query.
    pub bytes: Bytes,
    pub(crate) pieces: Vec<Piece>,
}

impl LogPart {
    /// Single lines, each with a header if the query asks for one.
    pub fn frames(&self) -> impl Iterator<Item = Frame> {
        self.pieces.iter().map(|piece| Frame {
            stream: piece.stream as u8,
            bytes: self.bytes.slice(piece.range.clone()),
        })
    }
}

/// A part of a log.
pub struct Logs {
    /// The lines in order, many at once. Ends after an error.
    pub records: Receiver<Result<LogPart, EngineError>>,
}

/// A record of a log: a line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// The line continues in the next record of this stream.
    pub partial: bool,
    /// Where the process wrote it.
    pub stream: keelson_log::Stream,
    /// The bytes, with the newline when the line has one.
    pub payload: Vec<u8>,
    /// Where the log goes on after it.
    pub end: keelson_log::Position,
}

/// A stream of items that another task makes.
#[derive(Debug)]
pub struct Receiver<T>(pub(crate) mpsc::Receiver<T>);

impl<T> Receiver<T> {
    /// The next item; `None` at the end.
    pub async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }
}

impl<T> futures::Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
