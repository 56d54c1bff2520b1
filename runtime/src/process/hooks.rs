//! Hooks: programs of the caller's that are executed at fixed points of a container's life.
//!
//! | hook | when | namespaces | a failure |
//! |---|---|---|---|
//! | prestart, createRuntime | the namespaces and mounts are made, the root is not entered | the runtime's | ends `create` |
//! | createContainer | after these | the container's, with the runtime's root | ends `create` |
//! | startContainer | before the command is executed | the container's | ends `start` |
//! | poststart | after the command was executed | the runtime's | is reported |
//! | poststop | after the container was deleted | the runtime's | is reported |

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keelson_sys::clone;
use nix::unistd::ForkResult;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};
use serde_json::{Value, json};

use super::child;
use crate::failure::{Failure, Step};
use crate::spec::{Hook, Hooks, Spec};

/// What hooks are told about a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) annotations: &'a std::collections::BTreeMap<String, String>,
}

impl<'a> Subject<'a> {
    /// The container that a specification makes.
    pub(crate) fn new(id: &'a str, spec: &'a Spec, bundle: &'a Path) -> Self {
        Self {
            oci_version: &spec.oci_version,
            id,
            bundle,
            annotations: &spec.annotations,
        }
    }

    /// The state document; `pid` is the one in the runtime's namespace.
    pub(crate) fn state(&self, status: &str, pid: i32) -> Value {
        let mut state = json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if status != "stopped" {
            state["pid"] = pid.into();
        }
        state
    }

    /// Executes hooks one after the other, up to the first that fails.
    pub(crate) fn run(
        &self,
        kind: &str,
        hooks: &[Hook],
        status: &str,
        pid: i32,
    ) -> Result<(), Failure> {
        let mut state = None;
        for (index, hook) in hooks.iter().enumerate() {
            let state = state.get_or_insert_with(|| self.state(status, pid).to_string());
            execute(hook, state).map_err(|failure| Failure {
                message: format!(
                    "hooks.{kind}[{index}] {}: {}",
                    hook.path.display(),
                    failure.message
                ),
                ..failure
            })?;
        }
        Ok(())
    }

    /// Executes all hooks of a time at which nothing can be undone any more; gives what failed.
    pub(crate) fn run_all(
        &self,
        kind: &str,
        hooks: &[Hook],
        status: &str,
        pid: i32,
    ) -> Vec<Failure> {
        hooks
            .iter()
            .filter_map(|hook| {
                self.run(kind, std::slice::from_ref(hook), status, pid)
                    .err()
            })
            .collect()
    }
}

/// Executes hooks of a time at which nothing can be undone any more, in a process of their own:
/// one without a time-out takes as long as it likes, and a shim has others to serve. Gives the
/// process, a child of the caller's that ends with the last hook.
pub(crate) fn in_background(
    subject: Subject<'_>,
    kind: &str,
    hooks: &[Hook],
    status: &str,
    pid: i32,
) -> Result<i32, Failure> {
    // SAFETY: this program never starts a thread.
    #[allow(unsafe_code)]
    let forked = unsafe { clone::fork() };
    match forked.step(|| format!("fork for hooks.{kind}"))? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => {
            // SAFETY: what owns these descriptors is never used or dropped in this copy of the
            // process: it ends by _exit.
            #[allow(unsafe_code)]
            let closed = unsafe { clone::close_range(3, u32::MAX) };
            // There is nobody to tell of failures.
            if closed.is_ok() {
                let _ = subject.run_all(kind, hooks, status, pid);
            }
            clone::exit_now(0)
        }
    }
}

fn execute(hook: &Hook, state: &str) -> Result<(), Failure> {
    let mut command = Command::new(&hook.path);
    let mut arguments = hook.args.iter();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command
        .args(arguments)
        .env_clear()
        .stdin(state_file(state)?);
    // SAFETY: this program never starts a thread, so the copy may do anything.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            // A mask is inherited, and the shim's has all signals.
            child::reset_signals().map_err(|failure| std::io::Error::other(failure.message))
        });
    }
    for entry in &hook.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(name, value);
    }
    let mut child = command
        .stdout(Stdio::null())
        .spawn()
        .step(|| "execute the hook")?;
    if let Some(seconds) = hook.timeout {
        let ended = wait_within(
            child.id() as i32,
            Duration::from_secs(seconds.unsigned_abs()),
        );
        if !matches!(ended, Ok(true)) {
            let _ = child.kill();
            let _ = child.wait();
            ended?;
            return Err(Failure::internal(format!(
                "did not end within {seconds} s (timeout)"
            )));
        }
    }
    let status = child.wait().step(|| "wait for the hook")?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::internal(format!(
            "error running hook: {}",
            describe(status)
        )))
    }
}

/// How a program ended, in the words that callers of runc's know.
fn describe(status: std::process::ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(libc::SIGSYS)) => "signal: bad system call".to_owned(),
        (None, Some(libc::SIGKILL)) => "signal: killed".to_owned(),
        (None, Some(libc::SIGTERM)) => "signal: terminated".to_owned(),
        (None, Some(libc::SIGSEGV)) => "signal: segmentation fault".to_owned(),
        (None, Some(number)) => format!("signal: {number}"),
        (None, None) => status.to_string(),
    }
}

/// The state as a file, since a pipe holds only so much and a hook need not read it.
fn state_file(state: &str) -> Result<File, Failure> {
    let step = || "write the state for the hook";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL;
    let mut file = File::from(rustix::fs::memfd_create("state", flags).step(step)?);
    file.write_all(state.as_bytes()).step(step)?;
    file.rewind().step(step)?;
    Ok(file)
}

/// Whether a child ends within a time.
fn wait_within(pid: i32, limit: Duration) -> Result<bool, Failure> {
    let step = || "watch the hook";
    let pid = Pid::from_raw(pid).ok_or_else(|| Failure::internal("the hook has no process"))?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).step(step)?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut poll = [nix::poll::PollFd::new(
            process.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        // Rounded up, so that it does not come back just before the time is over.
        let milliseconds = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        match nix::poll::poll(&mut poll, milliseconds) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error).step(step),
        }
    }
}

/// Whether the child waits for the parent before it runs hooks of its own: the parent may have some
/// to run before, and what the child executes is to find its devices filtered.
pub(crate) fn while_creating(hooks: Option<&Hooks>) -> bool {
    hooks.is_some_and(|hooks| {
        !hooks.prestart.is_empty()
            || !hooks.create_runtime.is_empty()
            || !hooks.create_container.is_empty()
    })
}
