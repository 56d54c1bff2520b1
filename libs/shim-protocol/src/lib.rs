//! The protocol between hostd and the shim of a container: the messages and their framing. This
//! crate does no I/O.
//!
//! | module | what it holds |
//! |---|---|
//! | [`spec`] | what a shim is started with, and the names of its files |
//! | [`message`] | requests, answers, the record of an end |
//! | [`frame`] | a message as bytes and back |
//! | [`stream`] | the output of an attached stream as bytes and back |
//! | [`exit_code`] | the exit code of each kind of end |
//!
//! hostd executes `keelson-runtime shim --stay --dir DIR`. The shim reads `DIR/shim.json`
//! ([`ShimSpec`]), makes the container up to the point where its process waits to be started,
//! listens on `DIR/shim.sock`, writes one [`Hello`] line to the descriptor named by `--ready-fd`
//! and runs on by itself: it is in a session of its own and outlives hostd. Without `--stay` the
//! process that was executed ends at once, and a copy of it is the shim.
//!
//! On `shim.sock` every message is a frame. A client sends one [`Request`] and gets one
//! [`Response`]; more requests may follow on the same connection, except after
//! [`Request::Attach`], which turns it into a stream.
//!
//! When the container's first process has ended and all output is in the log, the shim writes
//! `DIR/exit.json` ([`Exit`]; temporary file, then rename), answers every waiting
//! [`Request::Wait`], closes the attached streams and ends. A client that finds the socket dead
//! reads `exit.json`; when that does not exist either, the shim was killed, and the container's
//! processes with it (they carry PR_SET_PDEATHSIG, and the first of them is the init of its pid
//! namespace).
//!
//! # Compatibility
//!
//! A shim lives as long as its container, so a hostd that was replaced in the meantime, by a newer
//! or by an older one, talks to shims that were made by another version. Therefore:
//!
//! 1. **Requests and answers keep their words and their meaning.** A member is never removed or
//!    given another meaning. A shim refuses a request with a member that it does not know.
//! 2. **A new member of a request is optional**, is left out where it has its old meaning, and is
//!    sent only where the request may be refused without harm.
//! 3. **A new request is asked only where an answer is not needed.** A shim that does not know it
//!    answers [`Response::Failed`] and keeps the connection, as after any request that
//!    it can't read. hostd understands this as "this shim does not support it".
//! 4. **A new answer comes only after a new request**, or in a new member that older clients
//!    ignore: clients do not refuse unknown members.
//! 5. **Words of [`FailReason`] and [`OciStatus`] are not added to**, because older clients refuse
//!    the whole answer then.

pub mod exit_code;
pub mod frame;
pub mod message;
pub mod spec;
pub mod stream;

/// The name of the small init of containers. The runtime's program acts as one when it is called so.
pub const INIT_NAME: &str = "docker-init";
/// Where the small init is in a container.
pub const INIT_PATH: &str = "/sbin/docker-init";

pub use frame::{DecodeError, Decoder, EncodeError, MAX_FRAME, encode};
pub use message::{
    EndedExecutions, Execution, ExecutionState, Exit, FailReason, Hello, MAX_PROBE_OUTPUT,
    OciStatus, Request, Response,
};
pub use spec::{
    EXECUTIONS_FILE, EXIT_FILE, LogFiles, OtherRuntime, Rootfs, SOCKET_FILE, SPEC_FILE, ShimSpec,
};
