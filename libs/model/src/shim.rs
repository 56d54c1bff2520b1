//! What hostd and a container's shim say to each other.
//!
//! hostd executes `keelson-runtime shim --stay --dir DIR`. The shim reads `DIR/shim.json`
//! ([`ShimSpec`]), makes the container up to the point where its process waits to be started,
//! listens on `DIR/shim.sock`, writes one [`Hello`] line to the descriptor named by `--ready-fd`
//! and goes on by itself: it is in a session of its own and outlives hostd. Without `--stay` the
//! process that was executed ends at once, and a copy of it is the shim.
//!
//! On `shim.sock` every message is a frame: a little-endian `u32` length, then that many bytes of
//! JSON. A client sends one [`Request`] and gets one [`Response`]; more requests may follow on the
//! same connection, except after [`Request::Attach`], which turns it into a stream (see there).
//!
//! When the container's first process has ended and all output is in the log, the shim writes
//! `DIR/exit.json` ([`Exit`]; temporary file, then rename), answers every waiting
//! [`Request::Wait`], closes the attached streams and ends. Whoever finds the socket dead reads
//! `exit.json`; when that does not exist either, the shim was killed, and the container's
//! processes with it (they carry PR_SET_PDEATHSIG, and the first of them is the init of its pid
//! namespace).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Name of the specification inside the shim's directory.
pub const SPEC_FILE: &str = "shim.json";
/// Name of the unix socket inside the shim's directory.
pub const SOCKET_FILE: &str = "shim.sock";
/// Name of the exit record inside the shim's directory.
pub const EXIT_FILE: &str = "exit.json";
/// Largest frame that either side accepts, in bytes.
pub const MAX_FRAME: u32 = 1 << 20;

/// What a shim is started with: `DIR/shim.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimSpec {
    /// Version of this format; 1.
    pub version: u32,
    /// The container's identifier (64 hexadecimal digits from hostd).
    pub id: String,
    /// OCI bundle: a folder with `config.json`. Terminal, process, namespaces, mounts, resources
    /// and cgroup path all come from there.
    pub bundle: PathBuf,
    /// How the root file system is put together. Replaces `root.path` of config.json.
    pub rootfs: Rootfs,
    /// Whether the process's standard input is a pipe (or the terminal) that attached clients
    /// may write to; otherwise it reads end of file.
    pub open_stdin: bool,
    /// Close standard input when the first attached client that wrote to it goes away.
    pub stdin_once: bool,
    /// Where output is recorded.
    pub log: LogSpec,
    /// cgroup v2 path, relative to the mount, for the shim itself (`/keelson/shim`); made when
    /// it does not exist. `None`: the shim stays where it was started.
    pub shim_cgroup: Option<String>,
}

/// The root file system of a container. The mounts are made inside the container's mount
/// namespace, so that nothing is left on the host whatever happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rootfs {
    /// overlayfs.
    Overlay {
        /// Lower folders, topmost first. They are mounted or unpacked already.
        lower: Vec<PathBuf>,
        /// Upper folder; absent for a read-only root.
        upper: Option<PathBuf>,
        /// Work folder of overlayfs, on the file system of `upper`.
        work: Option<PathBuf>,
    },
    /// A folder.
    Folder {
        /// The folder.
        path: PathBuf,
    },
}

/// Where and how the shim records output (format: crate `keelson-log`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpec {
    /// The current log file; rotated ones are beside it with `.1`, `.2`, … appended, newest first.
    pub path: PathBuf,
    /// Bytes after which the file is rotated.
    pub max_size: u64,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
}

/// The single JSON line on the `--ready-fd` descriptor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Hello {
    /// The container is made and waits for [`Request::Start`].
    Created {
        /// The shim's process identifier.
        shim_pid: i32,
        /// The container's first process, seen from the host.
        pid: i32,
    },
    /// The container could not be made; nothing of it is left.
    Failed {
        /// What failed and on which object.
        message: String,
        /// `not_found` (the command does not exist in the image; Docker's exit code 127),
        /// `not_executable` (126) or `internal`.
        reason: FailReason,
    },
}

/// Why a container or its command could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailReason {
    /// The command does not exist (exit code 127).
    NotFound,
    /// The command exists but can't be executed (exit code 126).
    NotExecutable,
    /// Anything else (exit code 128).
    Internal,
}

/// A request to a shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Let the waiting process execute the container's command.
    /// Answer: [`Response::Started`] after execve succeeded, or [`Response::Failed`].
    Start,
    /// Answer: [`Response::State`].
    State,
    /// Send a signal. Answer: [`Response::Done`].
    Kill {
        /// Signal number.
        signal: i32,
        /// To every process of the container instead of the first one only.
        all: bool,
    },
    /// Set the terminal's size. Answer: [`Response::Done`].
    Resize {
        /// Which exec session; `None` is the container's first process.
        exec: Option<String>,
        /// Rows of characters.
        rows: u16,
        /// Columns of characters.
        columns: u16,
    },
    /// Answered by [`Response::Exited`] when the process has ended and its output is in the log.
    Wait {
        /// Which exec session; `None` is the container's first process.
        exec: Option<String>,
    },
    /// Attach to the process's streams. After [`Response::Done`] the connection carries, from
    /// the shim: frames of one byte stream number (1 standard output or terminal, 2 standard
    /// error), three zero bytes, a big-endian `u32` length and the data (Docker's framing, also
    /// with a terminal); towards the shim: raw bytes for standard input, where shutting down the
    /// writing side means end of file. The shim ends the connection after the last output. A
    /// client that does not read never holds the container up and loses nothing that is still
    /// in the log.
    Attach {
        /// Which exec session; `None` is the container's first process.
        exec: Option<String>,
        /// Send bytes to standard input.
        stdin: bool,
        /// Receive standard output.
        stdout: bool,
        /// Receive standard error.
        stderr: bool,
    },
    /// Make an exec session. It waits until [`Request::ExecStart`]; with very many that wait, the
    /// oldest is forgotten.
    Exec {
        /// Identifier chosen by hostd, not empty.
        exec: String,
        /// OCI process object (terminal, user, args, env, cwd, capabilities, …).
        process: serde_json::Value,
        /// Whether standard input is open.
        open_stdin: bool,
    },
    /// Run a session made by [`Request::Exec`]. Answer: [`Response::Started`] or
    /// [`Response::Failed`].
    ExecStart {
        /// The session.
        exec: String,
    },
    /// Freeze all processes (cgroup v2). Answer: [`Response::Done`].
    Pause,
    /// Thaw all processes. Answer: [`Response::Done`].
    Resume,
    /// Change limits. Answer: [`Response::Done`].
    Update {
        /// OCI `linux.resources` object with the members to change.
        resources: serde_json::Value,
    },
}

/// A shim's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    /// The request was carried out.
    Done,
    /// The process runs.
    Started {
        /// Its identifier on the host.
        pid: i32,
    },
    /// The answer to [`Request::State`].
    State {
        /// OCI status: `created`, `running`, `paused` or `stopped`.
        status: String,
        /// The first process.
        pid: i32,
        /// How it ended, when it has.
        exit: Option<Exit>,
    },
    /// A process ended.
    Exited(Exit),
    /// The request could not be carried out.
    Failed {
        /// What failed and on which object.
        message: String,
        /// For start requests: which exit code Docker clients expect.
        reason: FailReason,
    },
}

/// How a container's first process ended: `exit.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Version of this format; 1.
    pub version: u32,
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// Whether the kernel's OOM killer struck inside the container's cgroup.
    pub oom_killed: bool,
    /// When execve of the command succeeded: nanoseconds since 1970 (CLOCK_REALTIME); 0 when it
    /// was never started.
    pub started_at: u64,
    /// When it ended: nanoseconds since 1970 (CLOCK_REALTIME).
    pub finished_at: u64,
    /// Why the command could not be executed, when that is how it ended.
    pub error: Option<String>,
    /// Bytes of output that could not be recorded in the log, because its disk was full for instance.
    /// The log says where they are missing, if it could be written later on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_lost: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
