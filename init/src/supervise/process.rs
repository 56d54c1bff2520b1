//! Starts the supervised processes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use keelson_linux::notify::SOCKET_VARIABLE;
use keelson_model::init::{HOSTD_STOP_LIMIT, PRIORITIES_VARIABLE, SIGN_OF_LIFE_VARIABLE};
use nix::sys::wait::WaitStatus;

use super::notify;
use crate::boot::CGROUP_ROOT;

/// A process that PID 1 keeps running.
pub(crate) struct Definition {
    /// Short name. Its control group below /system has the same name.
    pub(crate) name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// `-1000` (never chosen by the out-of-memory killer) to `1000`.
    oom_score_adj: &'static str,
    /// How long it may take to end after SIGTERM.
    pub(crate) stop_limit: Duration,
}

/// The process for the network. It is stopped last.
pub(crate) const NETCFG: &str = "netcfg";
/// The process that must live for the machine to be of use.
pub(crate) const HOSTD: &str = "hostd";

/// The supervised processes, in starting order. They are stopped in reverse order.
///
/// netcfg outlives hostd, because hostd's containers must be able to use the network until they are
/// stopped. Without these two the machine can't be reached, so when memory runs out, containers are
/// killed before them. But not at any price: at -900, a leaking hostd would cause everything else
/// to be killed first. At -250 it is killed before the others once it uses a quarter of the
/// machine's memory more than the largest of them. It is restarted, and containers live on under
/// their shims.
pub(crate) const DEFINITIONS: [Definition; 2] = [
    Definition {
        name: NETCFG,
        program: "/usr/bin/netcfg",
        arguments: &[],
        oom_score_adj: "-900",
        stop_limit: Duration::from_secs(5),
    },
    Definition {
        name: HOSTD,
        program: "/usr/bin/hostd",
        arguments: &[
            "--root",
            "/var/lib/keelson",
            "--run",
            "/run/keelson/hostd",
            "--tls",
            "/var/lib/keelson/host/tls",
        ],
        oom_score_adj: "-250",
        stop_limit: HOSTD_STOP_LIMIT,
    },
];

/// A process that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("start {name}: {operation} {}: {source}", path.display())]
pub(crate) struct SpawnError {
    name: &'static str,
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Starts the process in its own session and control group. Returns its identifier and the pipe of
/// its output. `patience` is how long it may be silent.
pub(crate) fn spawn(
    definition: &Definition,
    patience: Option<Duration>,
) -> Result<(i32, io::PipeReader), SpawnError> {
    let error = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| SpawnError {
            name: definition.name,
            operation,
            path,
            source,
        }
    };
    let program = Path::new(definition.program);
    let (reader, writer) = io::pipe().map_err(error("make a pipe for", program))?;
    let errors = writer
        .try_clone()
        .map_err(error("duplicate a pipe for", program))?;
    let mut command = Command::new(program);
    command
        .args(definition.arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .env(SOCKET_VARIABLE, notify::PATH)
        .env(PRIORITIES_VARIABLE, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors);
    if let Some(patience) = patience {
        command.env(SIGN_OF_LIFE_VARIABLE, patience.as_micros().to_string());
    }
    let group = Path::new(CGROUP_ROOT).join("system").join(definition.name);
    let group = match enter(&group) {
        Ok(file) => Some(file),
        Err(cause) => {
            // Only the accounting is lost.
            let cause = error("open control group", &group)(cause);
            crate::console::warning(&cause.to_string());
            None
        }
    };
    keelson_sys::service_process::prepare(&mut command, group, Some(definition.oom_score_adj));
    let child = command.spawn().map_err(error("execute", program))?;
    // Dropping the handle does not affect the process; the loop reaps it like every other.
    let pid = i32::try_from(child.id()).unwrap_or_default();
    Ok((pid, reader))
}

/// Makes the control group and opens the file through which a process enters it.
fn enter(group: &Path) -> io::Result<File> {
    fs::create_dir_all(group)?;
    // In a frozen group the child would stop before it executes the program, and this process would
    // wait for it. A kernel without the file can't freeze groups.
    let _ = fs::write(group.join("cgroup.freeze"), "0");
    OpenOptions::new()
        .write(true)
        .open(group.join("cgroup.procs"))
}

/// How a process ended, as text for people. `None` if the status is not an end.
pub(crate) fn describe_end(status: &WaitStatus) -> Option<String> {
    match status {
        WaitStatus::Exited(_, code) => Some(format!("exited with code {code}")),
        WaitStatus::Signaled(_, signal, dumped) => {
            let dumped = if *dumped { " (core dumped)" } else { "" };
            Some(format!("killed by {signal}{dumped}"))
        }
        _ => None,
    }
}
