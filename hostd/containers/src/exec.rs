//! Executes additional processes in running containers for clients. Their state is in
//! [`crate::executions`], with the table of their life.
//!
//! | module | what it holds |
//! |---|---|
//! | [`process`] | the OCI process object |
//! | [`run`] | start, streams, end |
//! | [`adopt`] | records and shims after a restart of the engine |

mod adopt;
mod process;
mod run;

use std::sync::Arc;
use std::time::Duration;

use keelson_shim_protocol::Request;

use crate::container::Container;
use crate::engine::{Inner, not_running, off_workers};
use crate::executions::lifecycle::ExecEvent;
use crate::executions::record::Records;
use crate::executions::{Exec, ExecRequest, ExecSnapshot, ExecState};
use crate::types::{Attached, ContainerAction, Scope, Status};
use crate::{Engine, EngineError, names};

/// How long a resize waits for a running start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl Engine {
    /// Records a process to execute in a running container.
    ///
    /// # Errors
    /// When there is no such container, it does not run, or the request is wrong.
    pub fn exec_create(
        &self,
        scope: Scope,
        name: &str,
        request: ExecRequest,
    ) -> Result<String, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        require_active(&container)?;
        request.check()?;
        // Refuse an unknown user now, as Docker does. It is resolved again at the start, since the
        // container's files may change.
        if !request.user.is_empty() {
            off_workers(|| self.inner.exec_user(&request.user, &container))?;
        }
        let exec = Arc::new(Exec::new(
            names::new_id(),
            scope,
            container.id.clone(),
            Arc::new(request),
            Records::of(&container.run_directory),
            ExecState::Created,
        ));
        let id = exec.id.clone();
        let action = ContainerAction::ExecCreate {
            exec: id.clone(),
            command: exec.command_line(),
        };
        self.inner.executions.insert(Arc::clone(&exec))?;
        if let Err(error) = off_workers(|| exec.record()) {
            self.inner.executions.remove(&id);
            return Err(error);
        }
        self.inner.emit(&container, action);
        Ok(id)
    }

    /// One exec.
    ///
    /// # Errors
    /// [`EngineError::NoSuchExec`].
    pub fn exec_inspect(&self, scope: Scope, id: &str) -> Result<ExecSnapshot, EngineError> {
        let (exec, container) = self.inner.find_exec(scope, id)?;
        Ok(ExecSnapshot {
            id: exec.id.clone(),
            container: container.id.clone(),
            request: Arc::clone(&exec.request),
            state: exec.state(),
        })
    }

    /// Identifiers of a container's executions that have not ended.
    pub fn exec_ids(&self, container: &str) -> Vec<String> {
        let own = self.inner.executions.of(container).into_iter();
        let mut ids: Vec<String> = own
            .filter(|exec| !exec.state().is_ended())
            .map(|exec| exec.id.clone())
            .collect();
        ids.sort();
        ids
    }

    /// Whether an execution can be started now.
    ///
    /// # Errors
    /// As [`Engine::exec_start`], before anything is done.
    pub fn exec_check(&self, scope: Scope, id: &str) -> Result<ExecSnapshot, EngineError> {
        let (exec, container) = self.inner.find_exec(scope, id)?;
        require_active(&container)?;
        exec.may_start()?;
        self.exec_inspect(scope, id)
    }

    /// Starts an execution; with `detach` its streams lead nowhere. Returns when its command was
    /// executed. The output ends only after the exit code is known.
    ///
    /// # Errors
    /// [`EngineError::Exec`] when its command cannot be executed, and others.
    pub async fn exec_start(
        &self,
        scope: Scope,
        id: &str,
        detach: bool,
        console_size: Option<[u16; 2]>,
    ) -> Result<Attached, EngineError> {
        let inner = Arc::clone(&self.inner);
        let (exec, container) = inner.find_exec(scope, id)?;
        require_active(&container)?;
        exec.apply(ExecEvent::Start)
            .map_err(|refused| exec.refusal(refused))?;
        Self::whole(async move {
            let started = inner
                .start_exec(&exec, &container, detach, console_size)
                .await;
            if let Err(error) = &started {
                let event = ExecEvent::NotExecuted(run::code_of(error));
                inner.exec_event(&exec, &container, event);
            }
            started
        })
        .await
    }

    /// Sets the size of an execution's terminal, in characters. Waits for a running start.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when nobody has started it, [`EngineError::Conflict`] when it does
    /// not run.
    pub async fn exec_resize(
        &self,
        scope: Scope,
        id: &str,
        rows: u16,
        columns: u16,
    ) -> Result<(), EngineError> {
        let (exec, container) = self.inner.find_exec(scope, id)?;
        require_active(&container)?;
        if exec.state() == ExecState::Created {
            return Err(EngineError::Invalid(
                "exec process is not started".to_owned(),
            ));
        }
        let mut states = exec.states();
        let started = states.wait_for(|state| *state != ExecState::Starting);
        let running = match tokio::time::timeout(START_TIMEOUT, started).await {
            Ok(Ok(state)) => matches!(*state, ExecState::Running(_)),
            _ => {
                return Err(EngineError::Conflict(
                    "timeout waiting for exec session ready".to_owned(),
                ));
            }
        };
        if !running {
            return Err(EngineError::Conflict(format!(
                "exec process {id} is not running"
            )));
        }
        if !exec.request.tty {
            return Ok(());
        }
        let request = Request::Resize {
            exec: Some(exec.id.clone()),
            rows,
            columns,
        };
        container.shim().command("resize", &request).await
    }

    /// Records that a client has detached by the key sequence.
    pub fn exec_detached(&self, scope: Scope, id: &str) {
        if let Ok((exec, container)) = self.inner.find_exec(scope, id) {
            let exec = exec.id.clone();
            self.inner
                .emit(&container, ContainerAction::ExecDetach { exec });
        }
    }
}

/// Checks that a process may be started in the container, with Docker's error texts.
fn require_active(container: &Container) -> Result<(), EngineError> {
    match container.snapshot().state.status {
        Status::Running => Ok(()),
        Status::Paused => Err(EngineError::Conflict(format!(
            "container {} is paused, unpause the container before exec",
            container.id
        ))),
        Status::Restarting => Err(EngineError::Conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(not_running(container)),
    }
}

impl Inner {
    fn find_exec(
        &self,
        scope: Scope,
        id: &str,
    ) -> Result<(Arc<Exec>, Arc<Container>), EngineError> {
        let unknown = || EngineError::NoSuchExec(id.to_owned());
        let exec = self.executions.get(id).ok_or_else(unknown)?;
        if exec.scope != scope {
            return Err(unknown());
        }
        let container = self
            .resolve(scope, &exec.container)
            .map_err(|_| unknown())?;
        Ok((exec, container))
    }
}
