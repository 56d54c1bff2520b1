//! Executions after a restart of the engine: the records of the earlier engine, and the report of
//! the shim.

use std::collections::HashMap;
use std::sync::Arc;

use keelson_shim_protocol::{ExecutionState, Request, Response, exit_code};

use super::run::{code_of, started};
use crate::EngineError;
use crate::adopt::Fate;
use crate::container::Container;
use crate::engine::{Inner, off_workers};
use crate::executions::lifecycle::{ExecEvent, ExecState};
use crate::executions::record::{Left, Records};
use crate::executions::table::{Exec, MAX_KEPT};
use crate::shim::Shim;

/// The records of the earlier engine about a container's executions.
pub(crate) struct FoundExecutions(Vec<Arc<Exec>>);

impl Inner {
    /// Reads the records of a container's executions. Ended ones are complete; the others count as
    /// starting until [`Inner::adopt_executions`].
    pub(crate) fn find_executions(&self, container: &Container) -> FoundExecutions {
        let records = Records::of(&container.run_directory);
        let documents = off_workers(|| records.read(MAX_KEPT));
        let found = documents.into_iter().filter_map(|document| {
            let exec = Arc::new(Exec::restored(
                document,
                container.scope,
                container.id.clone(),
                records.clone(),
            ));
            match self.executions.insert(Arc::clone(&exec)) {
                Ok(()) => Some(exec),
                Err(error) => {
                    tracing::warn!(id = exec.id, %error, "execution not restored");
                    None
                }
            }
        });
        FoundExecutions(found.collect())
    }

    /// Updates them by the state of the container's shim.
    pub(crate) async fn adopt_executions(
        self: &Arc<Self>,
        container: &Arc<Container>,
        found: FoundExecutions,
        fate: &Fate,
    ) {
        let asked = |exec: &Arc<Exec>| exec.state() == ExecState::Starting;
        let open: Vec<_> = found.0.into_iter().filter(asked).collect();
        if open.is_empty() {
            return;
        }
        match fate {
            Fate::Gone(record) => {
                let left = off_workers(|| Left::read(&container.run_directory, record.is_some()));
                for exec in open {
                    let (pid, code) = left.end_of(&exec.id);
                    if let Some(pid) = pid {
                        self.exec_event(&exec, container, ExecEvent::Found(pid));
                    }
                    self.exec_event(&exec, container, ExecEvent::Exited(code));
                }
            }
            Fate::Lives(..) => match known_to_shim(&container.shim()).await {
                Some(mut known) => {
                    for exec in open {
                        let state = known.remove(&exec.id);
                        self.adopt_execution(&exec, container, state);
                    }
                }
                // The shim also reports executions that have ended.
                None => {
                    for exec in open {
                        self.watch_exec(&exec, container, None);
                    }
                }
            },
        }
    }

    fn adopt_execution(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        container: &Arc<Container>,
        state: Option<ExecutionState>,
    ) {
        match state {
            // The engine before this one was killed before the shim was asked to start it. It is
            // unknown whether its client still wants it.
            None | Some(ExecutionState::Made) => {
                tracing::warn!(
                    id = exec.id,
                    "execution was not started: the engine was killed"
                );
                self.exec_event(
                    exec,
                    container,
                    ExecEvent::NotExecuted(exit_code::NOT_STARTED),
                );
            }
            Some(ExecutionState::Starting { .. }) => {
                let (inner, exec, container) =
                    (Arc::clone(self), Arc::clone(exec), Arc::clone(container));
                tokio::spawn(async move { inner.adopt_starting(&exec, &container).await });
            }
            Some(ExecutionState::Running { pid }) => self.adopt_running(exec, container, pid),
            Some(ExecutionState::Ended { pid, exit }) => {
                self.exec_event(exec, container, ExecEvent::Found(pid));
                self.exec_event(exec, container, ExecEvent::Exited(exit.code));
            }
        }
    }
}

impl Inner {
    /// Finds out the result of a start that was running a moment ago.
    async fn adopt_starting(self: &Arc<Self>, exec: &Arc<Exec>, container: &Arc<Container>) {
        let error = match await_start(exec, container).await {
            Ok(pid) => return self.adopt_running(exec, container, pid),
            Err(error) => error,
        };
        // It has failed, or had ended before the question.
        match known_to_shim(&container.shim()).await {
            Some(mut known) => match (known.remove(&exec.id), error) {
                (None | Some(ExecutionState::Made), error) => {
                    tracing::debug!(id = exec.id, %error, "execution was not started");
                    self.exec_event(exec, container, ExecEvent::NotExecuted(code_of(&error)));
                }
                (state, _) => self.adopt_execution(exec, container, state),
            },
            // The next steps ask until the state is known.
            None => self.watch_exec(exec, container, None),
        }
    }

    fn adopt_running(self: &Arc<Self>, exec: &Arc<Exec>, container: &Arc<Container>, pid: i32) {
        self.exec_event(exec, container, ExecEvent::Found(pid));
        self.watch_exec(exec, container, None);
    }
}

/// A shim's report about its executions. `None`: it has none, because it is of an earlier version.
async fn known_to_shim(shim: &Shim) -> Option<HashMap<String, ExecutionState>> {
    match shim.request(&Request::Executions).await {
        Ok(Response::Executions { executions }) => {
            let states = executions.into_iter();
            Some(states.map(|known| (known.exec, known.state)).collect())
        }
        Ok(other) => {
            tracing::debug!(id = shim.id(), ?other, "shim does not tell its executions");
            None
        }
        Err(error) => {
            tracing::warn!(id = shim.id(), %error, "executions are not known");
            None
        }
    }
}

/// A running start is answered to every client that asks for it.
async fn await_start(exec: &Exec, container: &Container) -> Result<i32, EngineError> {
    let start = Request::ExecStart {
        exec: exec.id.clone(),
    };
    let mut connection = container.shim().connect().await?;
    started(connection.request_unhurried(&start).await?)
}

#[cfg(test)]
mod tests {
    use keelson_shim_protocol::{Decoder, SOCKET_FILE, encode};
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// Asks a shim that gives this answer.
    async fn ask(answer: Value) -> Option<HashMap<String, ExecutionState>> {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join(SOCKET_FILE)).unwrap();
        let shim = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut decoder = Decoder::new();
            while !decoder.is_ready() {
                let mut bytes = vec![0; decoder.missing()];
                stream.read_exact(&mut bytes).await.unwrap();
                decoder.feed(&bytes);
            }
            assert_eq!(decoder.take().unwrap().ok(), Some(Request::Executions));
            let mut frame = Vec::new();
            encode(&answer, &mut frame).unwrap();
            stream.write_all(&frame).await.unwrap();
        });
        let known = known_to_shim(&Shim::new("x", directory.path())).await;
        shim.await.unwrap();
        known
    }

    #[tokio::test]
    async fn shims_of_the_first_version_do_not_know_the_question() {
        // The text of earlier shims' decoder, which refuses unknown members.
        let message = "request: unknown variant `executions`, expected one of `start`, `state`";
        let refused = json!({"result": "failed", "message": message, "reason": "internal"});
        assert_eq!(ask(refused).await, None);
        let execution = json!({"exec": "a", "state": "running", "pid": 7, "later": true});
        let told = json!({"result": "executions", "executions": [execution]});
        let known = ask(told).await.unwrap();
        assert_eq!(known.get("a"), Some(&ExecutionState::Running { pid: 7 }));
    }
}
