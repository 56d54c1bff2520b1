//! Further processes in running containers.
//!
//! What a client asked for is kept in memory until the process was started, and how it ended for
//! a while after that; none of it outlives the engine. The process itself belongs to the
//! container's shim, which makes it only when it is started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keelson_model::limits;
use keelson_model::spec::{CapabilitySet, ProcessSpec, TerminalSpec};
use keelson_shim_protocol::{Request, Response, exit_code};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::attach::{OUTPUT_BUFFER, input_pipe, pump};
use crate::container::Container;
use crate::engine::{Inner, not_running};
use crate::shim::{Connection, judge};
use crate::spec::check::check_strings;
use crate::spec::{capabilities, environment, merge_environment, set_member};
use crate::types::{Attached, Receiver, Scope, Status};
use crate::{Engine, EngineError, names};

/// Ended ones are forgotten after this time.
const KEPT: Duration = Duration::from_secs(300);
/// More than this are not kept: of those that do not run the oldest is forgotten.
const MAX_KEPT: usize = 4096;
/// Nor more bytes of requests than these.
const MAX_KEPT_BYTES: usize = 8 << 20;
/// Bytes of a command that an event tells.
const TOLD: usize = 1 << 10;
/// How long a resize waits for a start that is under way.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What to execute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Command and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, added to the container's; `NAME` alone removes.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, …; empty: the container's.
    pub user: String,
    /// Absolute; empty: the container's.
    pub working_dir: String,
    /// With all capabilities.
    pub privileged: bool,
    /// With a terminal.
    pub tty: bool,
    /// Whether the client that starts it sends standard input.
    pub attach_stdin: bool,
    /// Whether it receives standard output.
    pub attach_stdout: bool,
    /// Whether it receives standard error.
    pub attach_stderr: bool,
    /// The key sequence to leave with; empty: the default one.
    pub detach_keys: String,
    /// Rows and columns of the terminal; zero: not given.
    pub console_size: [u16; 2],
}

impl ExecRequest {
    /// Bytes that it has, about.
    fn size(&self) -> usize {
        let strings = self.args.iter().chain(&self.env);
        let others = [&self.user, &self.working_dir, &self.detach_keys];
        strings.chain(others).map(|text| text.len() + 32).sum()
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecState {
    /// Not started.
    Created,
    /// About to run.
    Starting,
    /// Runs, as this process on the host.
    Running(i32),
    /// Ended with this exit code, as this process; 0 when it never ran.
    Ended {
        /// Exit code.
        code: i32,
        /// Process.
        pid: i32,
    },
}

/// One at a moment.
#[derive(Debug, Clone)]
pub struct ExecSnapshot {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The container's identifier.
    pub container: String,
    /// What was asked for.
    pub request: Arc<ExecRequest>,
    /// How far it is.
    pub state: ExecState,
}

/// One exec.
struct Exec {
    id: String,
    scope: Scope,
    container: String,
    request: Arc<ExecRequest>,
    /// When it was made or has ended.
    since: Mutex<Instant>,
    state: watch::Sender<ExecState>,
}

/// All of an engine, by identifier.
#[derive(Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Arc<Exec>>>);

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, exec: Arc<Exec>) -> Result<(), EngineError> {
        let mut map = self.lock();
        map.retain(|_, exec| !(exec.is_over() && exec.since().elapsed() > KEPT));
        let mut bytes: usize = map.values().map(|exec| exec.request.size()).sum();
        while map.len() >= MAX_KEPT || bytes + exec.request.size() > MAX_KEPT_BYTES {
            let oldest = map
                .values()
                .filter(|exec| exec.is_over() || *exec.state.borrow() == ExecState::Created)
                .min_by_key(|exec| exec.since())
                .map(|exec| exec.id.clone());
            let Some(gone) = oldest.and_then(|oldest| map.remove(&oldest)) else {
                return Err(EngineError::Conflict(
                    "too many exec commands run at once: try again when some have ended".to_owned(),
                ));
            };
            bytes -= gone.request.size();
        }
        map.insert(exec.id.clone(), exec);
        Ok(())
    }

    /// Forgets those of a removed container.
    pub(crate) fn forget(&self, container: &str) {
        self.lock().retain(|_, exec| exec.container != container);
    }
}

impl Exec {
    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        matches!(*self.state.borrow(), ExecState::Ended { .. })
    }

    fn end(&self, code: i32, pid: i32) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.state.send_replace(ExecState::Ended { code, pid });
    }

    /// Claims the start: only one caller may have it.
    fn begin(&self) -> Result<(), EngineError> {
        let mut refused = None;
        self.state
            .send_if_modified(|state| match self.refusal(*state) {
                None => {
                    *state = ExecState::Starting;
                    true
                }
                found => {
                    refused = found;
                    false
                }
            });
        refused.map_or(Ok(()), Err)
    }

    /// Whether it can be claimed now.
    fn may_begin(&self) -> Result<(), EngineError> {
        let state = *self.state.borrow();
        self.refusal(state).map_or(Ok(()), Err)
    }

    fn refusal(&self, state: ExecState) -> Option<EngineError> {
        let why = match state {
            ExecState::Created => return None,
            ExecState::Ended { .. } => "has already run",
            ExecState::Starting | ExecState::Running(_) => "is already running",
        };
        Some(EngineError::Conflict(format!(
            "Error: Exec command {} {why}",
            self.id
        )))
    }

    /// For events.
    fn command_line(&self) -> String {
        let (command, rest) = self
            .request
            .args
            .split_first()
            .map_or(("", &[][..]), |(command, rest)| (command.as_str(), rest));
        limits::shortened(&format!("{command} {}", rest.join(" ")), TOLD)
    }
}

impl Engine {
    /// Notes what is to be executed in a container that runs.
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
        check(&request)?;
        let exec = Arc::new(Exec {
            id: names::new_id(),
            scope,
            container: container.id.clone(),
            request: Arc::new(request),
            since: Mutex::new(Instant::now()),
            state: watch::Sender::new(ExecState::Created),
        });
        let id = exec.id.clone();
        let action = format!("exec_create: {}", exec.command_line());
        self.inner.execs.insert(exec)?;
        self.inner
            .emit(&container, action, &[("execID", id.clone())]);
        Ok(id)
    }

    /// One exec.
    ///
    /// # Errors
    /// [`EngineError::NoSuchExec`].
    pub fn exec_inspect(&self, scope: Scope, id: &str) -> Result<ExecSnapshot, EngineError> {
        let (exec, container) = self.inner.find_exec(scope, id)?;
        let state = *exec.state.borrow();
        Ok(ExecSnapshot {
            id: exec.id.clone(),
            container: container.id.clone(),
            request: Arc::clone(&exec.request),
            state,
        })
    }

    /// Identifiers of those of a container that have not ended.
    pub fn exec_ids(&self, container: &str) -> Vec<String> {
        let mut ids: Vec<String> = self
            .inner
            .execs
            .lock()
            .values()
            .filter(|exec| exec.container == container && !exec.is_over())
            .map(|exec| exec.id.clone())
            .collect();
        ids.sort();
        ids
    }

    /// Whether one can be started now.
    ///
    /// # Errors
    /// As [`Engine::exec_start`], before anything is done.
    pub fn exec_check(&self, scope: Scope, id: &str) -> Result<ExecSnapshot, EngineError> {
        let (exec, container) = self.inner.find_exec(scope, id)?;
        require_active(&container)?;
        exec.may_begin()?;
        self.exec_inspect(scope, id)
    }

    /// Starts one; with `detach` its streams lead nowhere. Returns when its command was executed.
    /// The output ends only after the exit code is known.
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
        exec.begin()?;
        Self::whole(async move {
            let started = inner
                .start_exec(&exec, &container, detach, console_size)
                .await;
            if let Err(error) = &started {
                let code = match error {
                    EngineError::Exec { reason, .. } => reason.exit_code(),
                    // A user that does not exist, for one: the command was not tried.
                    EngineError::Invalid(_) => exit_code::NOT_EXECUTABLE,
                    _ => exit_code::NOT_STARTED,
                };
                exec.end(code, 0);
            }
            started
        })
        .await
    }

    /// Sets the size of one's terminal, in characters. Waits for a start that is under way.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run.
    pub async fn exec_resize(
        &self,
        scope: Scope,
        id: &str,
        rows: u16,
        columns: u16,
    ) -> Result<(), EngineError> {
        let (exec, container) = self.inner.find_exec(scope, id)?;
        require_active(&container)?;
        let mut state = exec.state.subscribe();
        let started =
            state.wait_for(|state| !matches!(state, ExecState::Created | ExecState::Starting));
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

    /// A client left one with the key sequence.
    pub fn exec_detached(&self, scope: Scope, id: &str) {
        if let Ok((exec, container)) = self.inner.find_exec(scope, id) {
            self.inner
                .emit(&container, "exec_detach", &[("execID", exec.id.clone())]);
        }
    }
}

/// What a process may be made in, with Docker's words for the rest.
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

fn check(request: &ExecRequest) -> Result<(), EngineError> {
    if request.args.first().is_none_or(String::is_empty) {
        return Err(EngineError::Invalid("No exec command specified".to_owned()));
    }
    if !request.working_dir.is_empty() && !request.working_dir.starts_with('/') {
        return Err(EngineError::Invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            request.working_dir
        )));
    }
    check_strings("Cmd", &request.args)?;
    check_strings("Env", &request.env)?;
    if request.size() > limits::CONFIGURATION {
        return Err(EngineError::Invalid(format!(
            "the exec's configuration has {} bytes, at most {} are allowed: shorten Cmd or Env",
            request.size(),
            limits::CONFIGURATION
        )));
    }
    if let Some(entry) = request.env.iter().find(|entry| entry.starts_with('=')) {
        return Err(EngineError::Invalid(format!(
            "invalid environment variable: {entry}"
        )));
    }
    let strings = request.args.iter().chain(&request.env);
    if strings
        .chain([&request.working_dir, &request.user])
        .any(|text| text.contains('\0'))
    {
        return Err(EngineError::Invalid(
            "exec: a string contains a zero byte".to_owned(),
        ));
    }
    Ok(())
}

impl Inner {
    fn find_exec(
        &self,
        scope: Scope,
        id: &str,
    ) -> Result<(Arc<Exec>, Arc<Container>), EngineError> {
        let unknown = || EngineError::NoSuchExec(id.to_owned());
        let exec = self.execs.lock().get(id).cloned().ok_or_else(unknown)?;
        if exec.scope != scope {
            return Err(unknown());
        }
        let container = self
            .resolve(scope, &exec.container)
            .map_err(|_| unknown())?;
        Ok((exec, container))
    }

    async fn start_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        container: &Arc<Container>,
        detach: bool,
        console_size: Option<[u16; 2]>,
    ) -> Result<Attached, EngineError> {
        let (inner, of, in_container) = (Arc::clone(self), Arc::clone(exec), Arc::clone(container));
        let process = tokio::task::spawn_blocking(move || {
            inner.exec_process(&of.request, &in_container, console_size)
        })
        .await
        .map_err(|error| EngineError::Internal(format!("task failed: {error}")))??;
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
        let pid = match control.request_unhurried(&start).await? {
            Response::Started { pid } => pid,
            other => return Err(unexpected(other)),
        };
        exec.state.send_replace(ExecState::Running(pid));
        let action = format!("exec_start: {}", exec.command_line());
        self.emit(container, action, &[("execID", exec.id.clone())]);
        let wait = Request::Wait {
            exec: Some(exec.id.clone()),
        };
        control.send(&wait).await?;
        self.watch_exec(exec, container, control, pid);
        if let Some(stream) = attached {
            tokio::spawn(carry(Arc::clone(exec), stream, sender, reader));
        }
        Ok(Attached {
            input,
            output: Receiver(output),
            tty: exec.request.tty,
        })
    }

    fn watch_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        container: &Arc<Container>,
        mut control: Connection,
        pid: i32,
    ) {
        let (inner, exec, container) = (Arc::clone(self), Arc::clone(exec), Arc::clone(container));
        tokio::spawn(async move {
            let code = match control.receive().await {
                Ok(Some(Response::Exited(exit))) => exit.code,
                // The shim was killed, and the process with it.
                _ => exit_code::UNKNOWN,
            };
            exec.end(code, pid);
            let attributes = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
            inner.emit(&container, "exec_die", &attributes);
        });
    }

    /// The OCI process object: the container's own with what was asked for.
    fn exec_process(
        &self,
        request: &ExecRequest,
        container: &Container,
        console_size: Option<[u16; 2]>,
    ) -> Result<Value, EngineError> {
        let snapshot = container.snapshot();
        let path = snapshot.run_folder.join("bundle/config.json");
        let bytes = std::fs::read(&path).map_err(EngineError::io("read", &path))?;
        let mut config: Value = serde_json::from_slice(&bytes)
            .map_err(|error| EngineError::Internal(format!("{}: {error}", path.display())))?;
        let mut process = config
            .get_mut("process")
            .map(Value::take)
            .unwrap_or_default();
        let name = match request.user.as_str() {
            "" => &snapshot.spec.process.user,
            name => name,
        };
        let user = self.exec_user(name, container)?;
        let ids = json!({
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": user.additional_gids,
        });
        set_member(&mut process, "user", ids);
        let held = self.exec_capabilities(request, &process);
        set_member(&mut process, "capabilities", held);
        let asked = ProcessSpec {
            terminal: request.tty.then(TerminalSpec::default),
            ..snapshot.spec.process.clone()
        };
        let mut env = environment(&asked, &snapshot.host_name(), &user.home);
        merge_environment(&mut env, &request.env);
        set_member(&mut process, "env", json!(env));
        set_member(&mut process, "args", json!(request.args));
        set_member(&mut process, "terminal", json!(request.tty));
        if !request.working_dir.is_empty() {
            set_member(&mut process, "cwd", json!(request.working_dir));
        }
        let [rows, columns] = console_size.unwrap_or(request.console_size);
        let size = match request.tty && rows > 0 && columns > 0 {
            true => json!({ "height": rows, "width": columns }),
            false => Value::Null,
        };
        set_member(&mut process, "consoleSize", size);
        Ok(process)
    }

    /// As execve(2) would have it: only root keeps what the bounding set allows.
    fn exec_capabilities(&self, request: &ExecRequest, process: &Value) -> Value {
        let bounding = match request.privileged {
            true => json!(capabilities::granted(
                &CapabilitySet::All,
                self.facts.capabilities
            )),
            false => process
                .pointer("/capabilities/bounding")
                .cloned()
                .unwrap_or_else(|| json!([])),
        };
        let root = process.pointer("/user/uid").and_then(Value::as_u64) == Some(0);
        let held = if root { bounding.clone() } else { json!([]) };
        json!({ "bounding": bounding, "permitted": held, "effective": held })
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
        Response::Failed { message, reason } => EngineError::Exec {
            reason: judge(&message, reason),
            message,
        },
        other => EngineError::Internal(format!("exec: unexpected answer of the shim: {other:?}")),
    }
}

/// Carries the streams, and ends them towards the client only when the exit code can be asked
/// for: clients do that next.
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
    let mut state = exec.state.subscribe();
    let ended = state.wait_for(|state| matches!(state, ExecState::Ended { .. }));
    tokio::select! {
        _ = ended => {}
        () = held.closed() => {}
    }
}
