//! `/containers/{id}/exec` and `/exec/…`.

use futures::FutureExt;
use hostd_containers::{EngineError, ExecRequest, ExecState};
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::detach::DetachKeys;
use super::streams;
use crate::error::ApiError;
use crate::hijack::{Session, Takeover};
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, MAX_DOCUMENT, mux};

/// The version whose clients set the size of a terminal with the request.
const CONSOLE_SIZE: ApiVersion = ApiVersion::new(1, 42);

/// Body of the creation. `Detach` has no effect here: the start decides.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    console_size: Option<[u16; 2]>,
    detach_keys: String,
    tty: bool,
    env: Vec<String>,
    cmd: Vec<String>,
    privileged: bool,
    user: String,
    working_dir: String,
}

/// Body of the start.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StartBody {
    detach: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
}

pub(crate) async fn create(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let body: CreateBody = reply::read_json(call.request, MAX_DOCUMENT)
        .await?
        .ok_or_else(|| ApiError::invalid("No exec command specified"))?;
    let keys = Some(body.detach_keys.as_str()).filter(|keys| !keys.is_empty());
    DetachKeys::parse(keys)?;
    let request = ExecRequest {
        args: body.cmd,
        env: body.env,
        user: body.user,
        working_dir: body.working_dir,
        privileged: body.privileged,
        tty: body.tty,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        detach_keys: body.detach_keys,
        console_size: body
            .console_size
            .filter(|_| call.version >= CONSOLE_SIZE)
            .unwrap_or_default(),
    };
    let id = api.containers().exec_create(&call.name, request)?;
    Ok(reply::json(StatusCode::CREATED, &json!({ "Id": id })))
}

pub(crate) async fn start(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let containers = api.containers();
    let hijacker = streams::hijacker(&call);
    let headers = call.request.headers().clone();
    let body: StartBody = reply::read_json(call.request, MAX_DOCUMENT)
        .await?
        .unwrap_or_default();
    let exec = containers.exec_check(&call.name)?;
    let size = body.console_size.filter(|_| call.version >= CONSOLE_SIZE);
    if size.is_some() && !body.tty {
        return Err(ApiError::invalid(
            "invalid argument: console size is only supported when TTY is enabled",
        ));
    }
    if body.detach {
        containers.exec_start(&exec.id, true, size).await?;
        return Ok(reply::empty(StatusCode::OK));
    }
    let hijacker = hijacker?;
    let place = api.place(Kind::Follow, call.role).await?;
    let keys = Some(exec.request.detach_keys.as_str()).filter(|keys| !keys.is_empty());
    let keys = DetachKeys::parse(keys)?;
    // The creation decided whether there is a terminal. The start decides how the client reads.
    let (terminal, tty) = (exec.request.tty, body.tty);
    // From here on the stream reports failures, as the docker command expects. It asks for the exit
    // code afterwards.
    let started = {
        let (api, id) = (api.clone(), exec.id.clone());
        // Meanwhile the client reads the answer's head.
        tokio::spawn(async move { api.containers().exec_start(&id, false, size).await })
    };
    let session_api = api.clone();
    let session: Session = Box::new(move |reader, mut writer| {
        async move {
            let started = started
                .await
                .unwrap_or_else(|error| Err(EngineError::Died(error.into())));
            match started {
                Ok(attached) => {
                    let left = streams::session(attached, keys, tty, reader, writer).await;
                    if left && terminal {
                        session_api.containers().exec_detached(&exec.id);
                    }
                }
                Err(error) => {
                    let text = format!("{error}\r\n").into_bytes();
                    // Fails only when the client is gone.
                    let _ = writer.write_all(&mux::frame(1, text.into(), tty)).await;
                    let _ = writer.shutdown().await;
                }
            }
            drop(place);
        }
        .boxed()
    });
    hijacker.take_over(Takeover::new(
        &headers,
        streams::hijacked_type(&headers, tty, call.version),
        api.common_headers(),
        session,
    ));
    // The connection's driver drops this future when it takes the connection over.
    futures::future::pending().await
}

pub(crate) async fn resize(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let (rows, columns) = super::terminal_size(&call)?;
    api.containers()
        .exec_resize(&call.name, rows, columns)
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn inspect(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let exec = api.containers().exec_inspect(&call.name)?;
    let request = &exec.request;
    let (running, code, pid) = match exec.state {
        ExecState::Created => (false, Value::Null, 0),
        ExecState::Starting => (true, Value::Null, 0),
        ExecState::Running(pid) => (true, Value::Null, pid),
        ExecState::Ended { code, pid } => (false, json!(code), pid),
    };
    let (command, arguments) = request
        .args
        .split_first()
        .map_or(("", &[][..]), |(command, rest)| (command.as_str(), rest));
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "ID": exec.id,
            "Running": running,
            "ExitCode": code,
            "ProcessConfig": {
                "tty": request.tty,
                "entrypoint": command,
                "arguments": arguments,
                "privileged": request.privileged,
                "user": request.user,
            },
            "OpenStdin": request.attach_stdin,
            "OpenStderr": request.attach_stderr,
            "OpenStdout": request.attach_stdout,
            "CanRemove": matches!(exec.state, ExecState::Ended { .. }),
            "ContainerID": exec.container,
            "DetachKeys": request.detach_keys,
            "Pid": pid,
        }),
    ))
}
