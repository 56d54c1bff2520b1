//! The messages: requests to a shim and its answers.

use serde::{Deserialize, Serialize};

/// How much output of a [`Request::Probe`] a shim keeps at most, in bytes.
pub const MAX_PROBE_OUTPUT: u32 = 64 * 1024;

/// The single JSON line on the `--ready-fd` descriptor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Hello {
    /// The container is made and waits for [`Request::Start`].
    Created {
        /// The shim's process identifier.
        shim_pid: i32,
        /// The number of the container's first process on the host.
        pid: i32,
    },
    /// The container could not be made; nothing of it is left.
    Failed {
        /// The operation that failed and its object.
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

/// The status of a container, in the words of the OCI runtime specification, and `paused`, which
/// `runc` adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OciStatus {
    /// It is being made.
    Creating,
    /// It is made, and its command is not executed yet.
    Created,
    /// Its command was executed and has not ended.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl OciStatus {
    /// The specification's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for OciStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
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
    /// Attach to the process's streams. After [`Response::Done`] the connection carries, from the
    /// shim: frames of one byte stream number (1 standard output or terminal, 2 standard error),
    /// three zero bytes, a big-endian `u32` length and the data ([`crate::stream`]); towards the
    /// shim: raw bytes for standard input, where shutting down the writing side means end of file.
    /// The shim ends the connection after the last output. A client that does not read never blocks
    /// the container, and loses nothing that is still in the log.
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
    /// Make an exec session. It waits until [`Request::ExecStart`]. If very many wait, the oldest
    /// is forgotten.
    Exec {
        /// Identifier chosen by hostd, not empty.
        exec: String,
        /// OCI process object (terminal, user, args, env, cwd, capabilities, …).
        process: serde_json::Value,
        /// Whether standard input is open.
        open_stdin: bool,
    },
    /// Run a session made by [`Request::Exec`]. Answer: [`Response::Started`] or
    /// [`Response::Failed`]. If it is asked again while it starts, both get the same answer.
    ExecStart {
        /// The session.
        exec: String,
    },
    /// Run a session to its end and report its result: a health check. Its standard input is empty.
    /// It is killed, with the processes in its session, when its time is over or the connection is
    /// closed. Answer: [`Response::Probed`] when it has ended, or [`Response::Failed`] when its
    /// command was not executed, or the last probe has not ended yet. Shims of the second version
    /// do not know this request.
    Probe {
        /// Identifier chosen by hostd, not empty.
        exec: String,
        /// OCI process object.
        process: serde_json::Value,
        /// Milliseconds from the execution of its command.
        limit: u64,
        /// How many bytes from the beginning of the output are kept; at most [`MAX_PROBE_OUTPUT`].
        output: u32,
    },
    /// Report the state of all sessions. Answer: [`Response::Executions`]. Ended sessions may be
    /// missing in it after a while: 64 that were reported to a client and 1024 in all are kept.
    /// Shims of the first version do not know this request.
    Executions,
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
        /// The container's status. A shim is never asked while it is [`OciStatus::Creating`].
        status: OciStatus,
        /// The first process.
        pid: i32,
        /// How it ended, if it has.
        exit: Option<Exit>,
    },
    /// The answer to [`Request::Executions`].
    Executions {
        /// Ended ones first, oldest first.
        executions: Vec<Execution>,
    },
    /// The answer to [`Request::Probe`].
    Probed {
        /// Exit code; `None` if its time limit has passed.
        code: Option<i32>,
        /// The beginning of its standard output and standard error, in the order of arrival. Bytes
        /// that are not UTF-8 are replaced.
        output: String,
    },
    /// A process ended.
    Exited(Exit),
    /// The request could not be carried out.
    Failed {
        /// The operation that failed and its object.
        message: String,
        /// For start requests: which exit code Docker clients expect.
        reason: FailReason,
    },
}

/// An additional process in the container, as its shim knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Its identifier, chosen by hostd.
    pub exec: String,
    /// Its state.
    #[serde(flatten)]
    pub state: ExecutionState,
}

/// The state of an additional process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ExecutionState {
    /// It waits for [`Request::ExecStart`].
    Made,
    /// It is starting, and has not executed its command yet.
    Starting {
        /// Its number on the host.
        pid: i32,
    },
    /// Its command was executed.
    Running {
        /// Its number on the host.
        pid: i32,
    },
    /// It has ended.
    Ended {
        /// Its number on the host, as it was.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
}

/// The ends of the executions of a container whose first process has ended: `executions.json`,
/// written before `exit.json`. Executions that are missing there were killed with the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedExecutions {
    /// Version of this format; 1.
    pub version: u32,
    /// The executions, oldest first.
    pub executions: Vec<Execution>,
}

/// How a process ended. For a container's first process this is `exit.json`.
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
    /// Why the command could not be executed, if it ended that way.
    pub error: Option<String>,
    /// How many bytes of output could not be recorded in the log, for example because its disk was
    /// full. The log shows where they are missing, if it could be written later.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_lost: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The messages between shims and hostds of any version. A line here is never changed.
    #[test]
    fn the_words_on_the_wire_stay() {
        for (request, words) in [
            (Request::Start, json!({"op": "start"})),
            (Request::State, json!({"op": "state"})),
            (
                Request::Kill {
                    signal: 9,
                    all: true,
                },
                json!({"op": "kill", "signal": 9, "all": true}),
            ),
            (
                Request::Wait { exec: None },
                json!({"op": "wait", "exec": null}),
            ),
            (
                Request::ExecStart {
                    exec: "a".to_owned(),
                },
                json!({"op": "exec_start", "exec": "a"}),
            ),
            (Request::Pause, json!({"op": "pause"})),
            (Request::Resume, json!({"op": "resume"})),
            (Request::Executions, json!({"op": "executions"})),
            (
                Request::Probe {
                    exec: "a".to_owned(),
                    process: json!({}),
                    limit: 30_000,
                    output: 4096,
                },
                json!({"op": "probe", "exec": "a", "process": {}, "limit": 30_000, "output": 4096}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&request).unwrap(), words);
            assert_eq!(serde_json::from_value::<Request>(words).unwrap(), request);
        }
        for (status, word) in [
            (OciStatus::Created, "created"),
            (OciStatus::Running, "running"),
            (OciStatus::Paused, "paused"),
            (OciStatus::Stopped, "stopped"),
        ] {
            let words = json!({"result": "state", "status": word, "pid": 7, "exit": null});
            let exit = None;
            let state = Response::State {
                status,
                pid: 7,
                exit,
            };
            assert_eq!(serde_json::to_value(&state).unwrap(), words);
            assert_eq!(serde_json::from_value::<Response>(words).unwrap(), state);
            assert_eq!(status.to_string(), word);
        }
        let failed = Response::Failed {
            message: "no".to_owned(),
            reason: FailReason::NotExecutable,
        };
        let words = json!({"result": "failed", "message": "no", "reason": "not_executable"});
        assert_eq!(serde_json::to_value(&failed).unwrap(), words);
    }

    /// Clients ignore members that a newer shim adds to an answer. A shim refuses members that a
    /// newer client adds to a request.
    #[test]
    fn members_that_are_not_known() {
        let state =
            json!({"result": "state", "status": "running", "pid": 7, "exit": null, "new": 1});
        assert!(serde_json::from_value::<Response>(state).is_ok());
        let exit = json!({"version": 1, "code": 3, "oom_killed": false, "started_at": 1,
            "finished_at": 2, "error": null, "new": []});
        assert!(serde_json::from_value::<Exit>(exit).is_ok());
        for request in [
            json!({"op": "kill", "signal": 9, "all": true, "new": 1}),
            json!({"op": "new"}),
        ] {
            assert!(serde_json::from_value::<Request>(request).is_err());
        }
    }
}
