//! The files of executions for a later engine: one document each, in the directory `execs` of their
//! container's run. They are removed with the run.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_model::limits;
use keelson_shim_protocol::{
    EXECUTIONS_FILE, EndedExecutions, Execution, ExecutionState, exit_code,
};
use keelson_store::document::Rest;
use keelson_store::{Document, Durability, Era, StoreError, document};
use serde::{Deserialize, Serialize};

use super::lifecycle::ExecState;
use super::request::ExecRequest;
use crate::{EngineError, Signal, names};

/// Name of the directory.
const DIRECTORY: &str = "execs";
/// The engine that reads them may be older than this one, at any time.
const ERA: Era = Era::Trial;
/// Behind the identifier.
const SUFFIX: &str = ".json";
/// An upper limit of a document's size in bytes; characters of a request may be escaped.
const MAX_BYTES: u64 = 8 * limits::CONFIGURATION as u64;

/// The document of an execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExecDocument {
    pub(crate) id: String,
    #[serde(with = "shared")]
    pub(crate) request: Arc<ExecRequest>,
    pub(crate) progress: Progress,
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

impl Document for ExecDocument {
    const VERSION: u32 = 1;
}

/// Its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Progress {
    /// It was not started.
    Created,
    /// Its shim was asked to start it, or was about to be. The shim knows the rest.
    Asked,
    /// It has ended.
    Ended {
        /// Exit code.
        code: i32,
        /// Process; 0 when it never ran.
        pid: i32,
    },
}

impl Progress {
    pub(crate) const fn of(state: ExecState) -> Self {
        match state {
            ExecState::Created => Self::Created,
            ExecState::Starting | ExecState::Running(_) => Self::Asked,
            ExecState::Ended { code, pid } => Self::Ended { code, pid },
        }
    }

    pub(crate) const fn state(self) -> ExecState {
        match self {
            Self::Created => ExecState::Created,
            Self::Asked => ExecState::Starting,
            Self::Ended { code, pid } => ExecState::Ended { code, pid },
        }
    }
}

/// The directory of the documents of a container's executions.
#[derive(Debug, Clone)]
pub(crate) struct Records(PathBuf);

impl Records {
    /// The records of a container's run.
    pub(crate) fn of(run: &Path) -> Self {
        Self(run.join(DIRECTORY))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}{SUFFIX}"))
    }

    /// Writes a document. It is not synchronised: it is in memory, and no execution survives a
    /// reboot.
    pub(crate) fn write(&self, document: &ExecDocument) -> Result<(), EngineError> {
        let path = self.path(&document.id);
        match document::write(&path, document, ERA, Durability::Relaxed) {
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            other => return Ok(other?),
        }
        // Creates `execs` for the container's first execution, but not the run directory: without
        // that, the run has ended.
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(EngineError::io("mkdir", &self.0)(error));
            }
            _ => {}
        }
        Ok(document::write(&path, document, ERA, Durability::Relaxed)?)
    }

    /// Removes the document of a forgotten execution. If that fails, it is removed with the run.
    pub(crate) fn remove(&self, id: &str) {
        let _ = fs::remove_file(self.path(id));
    }

    /// Reads at most this many, in no order. Unreadable files are reported and kept.
    pub(crate) fn read(&self, most: usize) -> Vec<ExecDocument> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %self.0.display(), %error, "executions not read");
                }
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            // Other names are left by interrupted writes.
            let Some(id) = id.filter(|id| names::is_id(id)) else {
                continue;
            };
            if found.len() == most {
                tracing::warn!(path = %self.0.display(), most, "there are more executions");
                break;
            }
            match read_one(&entry.path(), id) {
                Ok(document) => found.push(document),
                Err(error) => tracing::warn!(id, %error, "execution not restored"),
            }
        }
        found
    }
}

fn read_one(path: &Path, id: &str) -> Result<ExecDocument, EngineError> {
    let length = fs::metadata(path)
        .map_err(EngineError::io("stat", path))?
        .len();
    if length > MAX_BYTES {
        return Err(EngineError::LargeDocument {
            path: path.to_owned(),
            length,
        });
    }
    let missing = || EngineError::MissingDocument(path.to_owned());
    let document: ExecDocument = document::read(path)?.ok_or_else(missing)?;
    match document.id == id {
        true => Ok(document),
        false => Err(EngineError::ForeignExec {
            path: path.to_owned(),
            exec: document.id,
        }),
    }
}

/// How the executions ended of a container whose shim has ended, too.
pub(crate) struct Left {
    known: Vec<Execution>,
    others: i32,
}

impl Left {
    /// Reads the shim's file. `orderly`: the shim also left the record of its container's end, so
    /// the executions that still ran were killed with the container.
    pub(crate) fn read(run: &Path, orderly: bool) -> Self {
        let path = run.join(EXECUTIONS_FILE);
        let known = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<EndedExecutions>(&bytes)
                .inspect_err(|error| {
                    tracing::warn!(path = %path.display(), %error, "ends of executions not read");
                })
                .map(|ended| ended.executions)
                .unwrap_or_default(),
            Err(error) => {
                // A shim of an earlier version, or one that was killed, leaves no file.
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "ends of executions not read");
                }
                Vec::new()
            }
        };
        let others = match orderly {
            true => exit_code::killed_by(Signal::KILL.number()),
            false => exit_code::UNKNOWN,
        };
        Self { known, others }
    }

    /// The process and the exit code of an execution. The process may be unknown.
    pub(crate) fn end_of(&self, id: &str) -> (Option<i32>, i32) {
        let known = self.known.iter().rev().find(|known| known.exec == id);
        match known.map(|known| &known.state) {
            Some(ExecutionState::Ended { pid, exit }) => (Some(*pid), exit.code),
            _ => (None, self.others),
        }
    }
}

/// A request is shared in memory, and written as it is.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::executions::request::ExecRequest;

    pub(super) fn serialize<S: Serializer>(
        request: &Arc<ExecRequest>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        ExecRequest::serialize(request, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<ExecRequest>, D::Error> {
        ExecRequest::deserialize(deserializer).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(progress: Progress) -> ExecDocument {
        ExecDocument {
            id: "a".repeat(64),
            request: Arc::new(ExecRequest {
                args: vec!["true".to_owned()],
                ..ExecRequest::default()
            }),
            progress,
            rest: Rest::default(),
        }
    }

    #[test]
    fn what_is_written_is_found_and_the_rest_left_alone() {
        let run = tempfile::tempdir().unwrap();
        let records = Records::of(run.path());
        assert_eq!(records.read(9), []);
        let ended = document(Progress::Ended { code: 3, pid: 7 });
        records.write(&document(Progress::Created)).unwrap();
        records.write(&ended).unwrap();
        let directory = run.path().join(DIRECTORY);
        fs::write(directory.join(format!("{}.json", "b".repeat(64))), "{").unwrap();
        let foreign = directory.join(format!("{}.json", "c".repeat(64)));
        fs::copy(records.path(&ended.id), &foreign).unwrap();
        fs::write(directory.join(".new-x"), "{").unwrap();
        assert_eq!(records.read(9), std::slice::from_ref(&ended));
        assert_eq!(records.read(0), []);
        assert!(foreign.exists(), "what can't be read is not removed");
        records.remove(&ended.id);
        assert_eq!(records.read(9), []);
    }

    #[test]
    fn nothing_is_written_for_a_run_that_is_over() {
        let base = tempfile::tempdir().unwrap();
        let run = base.path().join("run");
        assert!(Records::of(&run).write(&document(Progress::Asked)).is_err());
        assert!(!run.exists());
    }

    /// One of each version, as it was written by the release that introduced it. Never changed.
    const GOLDEN: &[(u32, &str)] = &[(
        1,
        r#"{"version":1,"readable_from":1,"id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","request":{"args":["true"],"env":[],"user":"","working_dir":"","privileged":false,"tty":false,"attach_stdin":false,"attach_stdout":false,"attach_stderr":false,"detach_keys":"","console_size":[0,0]},"progress":{"state":"asked"}}"#,
    )];

    #[test]
    fn documents_of_every_version_are_read() {
        document::assert_goes_back::<ExecDocument>(GOLDEN);
        for (_, text) in GOLDEN {
            let read: ExecDocument = document::parse(Path::new("x"), text.as_bytes()).unwrap();
            assert_eq!(read, document(Progress::Asked));
        }
    }

    #[test]
    fn the_shims_last_word_counts() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Left::read(run.path(), true).end_of("a"), (None, 137));
        assert_eq!(Left::read(run.path(), false).end_of("a"), (None, 255));
        let text = r#"{"version":1,"executions":[{"exec":"a","state":"ended","pid":7,"exit":
            {"version":1,"code":3,"oom_killed":false,"started_at":1,"finished_at":2,"error":null}}]}"#;
        fs::write(run.path().join(EXECUTIONS_FILE), text).unwrap();
        let left = Left::read(run.path(), true);
        assert_eq!(left.end_of("a"), (Some(7), 3));
        assert_eq!(left.end_of("b"), (None, 137));
    }
}
