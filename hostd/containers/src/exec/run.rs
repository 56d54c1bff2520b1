//! Starts an execution, forwards its streams, and waits for its end.

use std::sync::Arc;
use std::time::Duration;

use keelson_blocking::blocking;
use keelson_shim_protocol::{Request, Response, exit_code};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::EngineError;
use crate::attach::{OUTPUT_BUFFER, input_pipe, pump};
use crate::container::Container;
use crate::engine::{Inner, off_workers};
use crate::executions::Exec;
use crate::executions::lifecycle::{ExecAction, ExecEvent, ExecState};
use crate::executions::record::Left;
use crate::shim::Connection;
use crate::types::{Attached, ContainerAction, Receiver};

/// Pause before a shim that does not answer is asked again. It doubles.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// The state of an execution, from the shim or from the files that it left.
enum End {
    /// It ended with this exit code.
    Code(i32),
    /// The shim doesn't know it.
    NotKnown,
}

impl Inner {
    /// Passes an event to an execution's life cycle, and carries out the actions. An event that
    /// comes twice or too late changes nothing.
    pub(super) fn exec_event(&self, exec: &Exec, container: &Container, event: ExecEvent) {
        for action in exec.apply(event).unwrap_or_default() {
            match action {
                ExecAction::Record => {
                    // The shim knows it, too, and the directory is removed with the run.
                    if let Err(error) = off_workers(|| exec.record()) {
                        tracing::debug!(id = exec.id, %error, "execution not recorded");
                    }
                }
                ExecAction::AnnounceStart => {
                    let action = ContainerAction::ExecStart {
                        exec: exec.id.clone(),
                        command: exec.command_line(),
                    };
                    self.emit(container, action);
                }
                ExecAction::AnnounceEnd => {
                    if let ExecState::Ended { code, .. } = exec.state() {
                        let exec = exec.id.clone();
                        self.emit(container, ContainerAction::ExecDie { exec, code });
                    }
                }
            }
        }
    }

    /// Makes the shim start an execution whose start was claimed.
    pub(super) async fn start_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        container: &Arc<Container>,
        detach: bool,
        console_size: Option<[u16; 2]>,
    ) -> Result<Attached, EngineError> {
        let (inner, of, in_container) = (Arc::clone(self), Arc::clone(exec), Arc::clone(container));
        let process = blocking(move || {
            let process = inner.exec_process(&of.request, &in_container, console_size)?;
            // From now on the shim knows its state.
            of.record().map(|()| process)
        })
        .await??;
        let request = &exec.request;
        let stdin = request.attach_stdin && !detach;
        let shim = container.shim();
        let mut control = shim.connect().await?;
        let made = control
            .request(&Request::Exec {
                exec: exec.id.clone(),
                process,
                open_stdin: stdin,
            })
            .await?;
        done(made)?;
        let (input, reader) = input_pipe(stdin);
        let (sender, output) = mpsc::channel(OUTPUT_BUFFER);
        let attached = match detach {
            true => None,
            false => {
                let connection = shim.connect().await?;
                let request = Request::Attach {
                    exec: Some(exec.id.clone()),
                    stdin,
                    stdout: request.attach_stdout,
                    stderr: request.attach_stderr,
                };
                Some(connection.attach(&request).await?)
            }
        };
        let start = Request::ExecStart {
            exec: exec.id.clone(),
        };
        let pid = started(control.request_unhurried(&start).await?)?;
        self.exec_event(exec, container, ExecEvent::Executed(pid));
        self.watch_exec(exec, container, Some(control));
        if let Some(stream) = attached {
            tokio::spawn(carry(Arc::clone(exec), stream, sender, reader));
        }
        Ok(Attached {
            input,
            output: Receiver(output),
            tty: exec.request.tty,
        })
    }

    /// Waits in the background for the end of an execution, first on the existing connection, if
    /// there is one.
    pub(super) fn watch_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        container: &Arc<Container>,
        connection: Option<Connection>,
    ) {
        let (inner, exec, container) = (Arc::clone(self), Arc::clone(exec), Arc::clone(container));
        tokio::spawn(async move {
            let event = match end_of(&exec, &container, connection).await {
                End::Code(code) => ExecEvent::Exited(code),
                End::NotKnown if exec.state() == ExecState::Starting => {
                    ExecEvent::NotExecuted(exit_code::NOT_STARTED)
                }
                End::NotKnown => ExecEvent::Exited(exit_code::UNKNOWN),
            };
            inner.exec_event(&exec, &container, event);
        });
    }
}

/// Waits for an execution's end. A broken connection does not mean the end: the shim is asked
/// again, and if it is gone, its files are read.
async fn end_of(exec: &Exec, container: &Container, mut connection: Option<Connection>) -> End {
    let shim = container.shim();
    let wait = Request::Wait {
        exec: Some(exec.id.clone()),
    };
    let mut pause = FIRST;
    loop {
        let connected = match connection.take() {
            Some(connection) => Ok(Some(connection)),
            None => shim.connect_if_alive().await,
        };
        let answer = match connected {
            Ok(Some(mut connection)) => connection.wait(&wait).await,
            Ok(None) => {
                let left = off_workers(|| {
                    let orderly = matches!(shim.exit_record(), Ok(Some(_)));
                    Left::read(&container.run_directory, orderly)
                });
                return End::Code(left.end_of(&exec.id).1);
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(Some(Response::Exited(exit))) => return End::Code(exit.code),
            Ok(Some(Response::Failed { .. })) => return End::NotKnown,
            Ok(other) => {
                tracing::debug!(id = exec.id, ?other, "asked again for an execution's end")
            }
            Err(error) => {
                tracing::debug!(id = exec.id, %error, "asked again for an execution's end")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

/// The process of a start that succeeded.
pub(super) fn started(response: Response) -> Result<i32, EngineError> {
    match response {
        Response::Started { pid } => Ok(pid),
        other => Err(unexpected(other)),
    }
}

fn done(response: Response) -> Result<(), EngineError> {
    match response {
        Response::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(response: Response) -> EngineError {
    match response {
        Response::Failed { message, reason } => EngineError::Exec { message, reason },
        other => EngineError::UnexpectedAnswer(Box::new(other)),
    }
}

/// The exit code that a failed start counts as.
pub(super) fn code_of(error: &EngineError) -> i32 {
    match error {
        EngineError::Exec { reason, .. } => reason.exit_code(),
        // For example, the user does not exist; the command was not tried.
        EngineError::Invalid(_) => exit_code::NOT_EXECUTABLE,
        _ => exit_code::NOT_STARTED,
    }
}

/// Forwards the streams, and closes them towards the client only when the exit code is known,
/// because clients ask for it next.
async fn carry(
    exec: Arc<Exec>,
    stream: UnixStream,
    sender: mpsc::Sender<crate::Frame>,
    reader: Option<tokio::io::DuplexStream>,
) {
    let (connected, later) = oneshot::channel();
    let _ = connected.send(stream);
    let held = sender.clone();
    pump(later, sender, reader).await;
    let mut states = exec.states();
    let ended = states.wait_for(|state| state.is_ended());
    tokio::select! {
        _ = ended => {}
        () = held.closed() => {}
    }
}
