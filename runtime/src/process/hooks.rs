//! Hooks: the caller's programs that are executed at fixed points of a container's life.
//!
//! | hook | when | namespaces | a failure |
//! |---|---|---|---|
//! | prestart, createRuntime | the namespaces and mounts are made, the root is not entered | the runtime's | ends `create` |
//! | createContainer | after these | the container's, with the runtime's root | ends `create` |
//! | startContainer | before the command is executed | the container's | ends `start` |
//! | poststart | after the command was executed | the runtime's | is reported |
//! | poststop | after the container was deleted | the runtime's | is reported |

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keelson_shim_protocol::OciStatus;
use keelson_sys::clone;
use nix::unistd::ForkResult;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};
use serde_json::{Value, json};

use super::signals;
use crate::failure::{Failure, Step};
use crate::spec::{Hook, HookKind, Hooks, Spec};

/// The container's status when hooks of a kind run.
const fn status_at(kind: HookKind) -> OciStatus {
    match kind {
        HookKind::Prestart | HookKind::CreateRuntime | HookKind::CreateContainer => {
            OciStatus::Creating
        }
        HookKind::StartContainer => OciStatus::Created,
        HookKind::Poststart => OciStatus::Running,
        HookKind::Poststop => OciStatus::Stopped,
    }
}

/// What hooks learn about a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) annotations: &'a std::collections::BTreeMap<String, String>,
}

impl<'a> Subject<'a> {
    /// The container of a specification.
    pub(crate) fn new(id: &'a str, spec: &'a Spec, bundle: &'a Path) -> Self {
        Self {
            oci_version: &spec.oci_version,
            id,
            bundle,
            annotations: &spec.annotations,
        }
    }

    /// The state document. `pid` is the number in the runtime's pid namespace.
    pub(crate) fn state(&self, status: OciStatus, pid: i32) -> Value {
        let mut state = json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if status != OciStatus::Stopped {
            state["pid"] = pid.into();
        }
        state
    }

    /// Executes hooks one after the other, and stops at the first that fails.
    pub(crate) fn run(&self, kind: HookKind, hooks: &[Hook], pid: i32) -> Result<(), Failure> {
        self.run_from(0, hooks.len(), kind, hooks, pid)
    }

    /// Executes a number of hooks, beginning with a given one.
    fn run_from(
        &self,
        first: usize,
        count: usize,
        kind: HookKind,
        hooks: &[Hook],
        pid: i32,
    ) -> Result<(), Failure> {
        let mut state = None;
        for (index, hook) in hooks.iter().enumerate().skip(first).take(count) {
            let state = state.get_or_insert_with(|| self.state(status_at(kind), pid).to_string());
            execute(hook, state).map_err(|failure| Failure {
                // runc's words: callers read the kind and the number from them.
                message: format!(
                    "error running {kind} hook #{index}: {}: {}",
                    hook.path.display(),
                    failure.message
                ),
                ..failure
            })?;
        }
        Ok(())
    }

    /// Executes all hooks of a point at which nothing can be undone any more. Returns what failed.
    pub(crate) fn run_all(&self, kind: HookKind, hooks: &[Hook], pid: i32) -> Vec<Failure> {
        (0..hooks.len())
            .filter_map(|index| self.run_from(index, 1, kind, hooks, pid).err())
            .collect()
    }
}

/// The same in a separate process: a hook without a time-out may take any time, and a shim must
/// serve others meanwhile. Returns the process, a child of the caller that ends with the last hook.
pub(crate) fn in_background(
    subject: Subject<'_>,
    kind: HookKind,
    hooks: &[Hook],
    pid: i32,
) -> Result<i32, Failure> {
    // SAFETY: this program never starts a thread.
    #[allow(unsafe_code)]
    let forked = unsafe { clone::fork() };
    match forked.step(|| format!("fork for hooks.{kind}"))? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => {
            // SAFETY: the owners of these descriptors are never used or dropped in this copy of the
            // process: it ends by _exit.
            #[allow(unsafe_code)]
            let closed = unsafe { clone::close_range(3, u32::MAX) };
            // Nobody waits for a report of failures.
            if closed.is_ok() {
                let _ = subject.run_all(kind, hooks, pid);
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
    command.args(arguments).stdin(state_file(state)?);
    // SAFETY: this program never starts a thread, so the copy may do anything.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            // A child inherits the mask, and the shim's mask blocks all signals.
            signals::reset().map_err(|failure| std::io::Error::other(failure.message))
        });
    }
    // As with runc and crun: without a list the hook has the runtime's environment; with an empty
    // list it has none.
    if let Some(environment) = &hook.env {
        command.env_clear();
        for entry in environment {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            command.env(name, value);
        }
    }
    let mut outputs = [Output::new(), Output::new()];
    let [stdout, stderr] = outputs.each_mut().map(Output::writer);
    let spawned = command.stdout(stdout).stderr(stderr).spawn();
    // It holds the hook's ends of the pipes. They must be closed, or the reader would never see the
    // end.
    drop(command);
    let mut child = spawned.step(|| "execute the hook")?;
    let limit = hook
        .timeout
        .map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
    let ended = wait_within(child.id() as i32, limit, &mut outputs);
    let what = match ended {
        Ok(true) => {
            let status = child.wait().step(|| "wait for the hook")?;
            if status.success() {
                return Ok(());
            }
            describe(status)
        }
        other => {
            let _ = child.kill();
            let _ = child.wait();
            other?;
            let seconds = hook.timeout.unwrap_or_default();
            format!("did not end within {seconds} s (timeout)")
        }
    };
    let [stdout, stderr] = outputs.map(Output::text);
    Err(Failure::internal(format!(
        "{what}, stdout: {stdout}, stderr: {stderr}"
    )))
}

/// The hook's output, for the message if it fails.
struct Output {
    reader: Option<std::io::PipeReader>,
    kept: Vec<u8>,
}

impl Output {
    /// How many of the first bytes are kept; the rest is read and dropped.
    const MOST: usize = 4096;

    fn new() -> Self {
        Self {
            reader: None,
            kept: Vec::new(),
        }
    }

    /// The hook's end of the pipe. If no pipe can be made, for example because the container's own
    /// filter forbids it, the hook's output is lost.
    fn writer(&mut self) -> Stdio {
        let Ok((reader, writer)) = std::io::pipe() else {
            return Stdio::null();
        };
        let flags = rustix::fs::OFlags::NONBLOCK;
        if rustix::fs::fcntl_setfl(&reader, flags).is_err() {
            return Stdio::null();
        }
        self.reader = Some(reader);
        writer.into()
    }

    /// Reads what is there now.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(reader) = &mut self.reader {
            match reader.read(&mut buffer) {
                Ok(count @ 1..) => {
                    let room = Self::MOST.saturating_sub(self.kept.len());
                    let read = buffer.get(..count.min(room)).unwrap_or_default();
                    self.kept.extend_from_slice(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.reader = None,
            }
        }
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.kept).trim().to_owned()
    }
}

/// How a program ended, as runc reports it.
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

/// Whether a child ends within its time-out, if it has one. Its output is read meanwhile, so that
/// it is never blocked. Later output of processes that it left behind is not waited for.
fn wait_within(
    pid: i32,
    limit: Option<Duration>,
    outputs: &mut [Output; 2],
) -> Result<bool, Failure> {
    let step = || "watch the hook";
    let pid = Pid::from_raw(pid).ok_or_else(|| Failure::internal("the hook has no process"))?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).step(step)?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        let input = nix::poll::PollFlags::POLLIN;
        let mut poll = vec![nix::poll::PollFd::new(process.as_fd(), input)];
        let readers = outputs.iter().flat_map(|output| &output.reader);
        poll.extend(readers.map(|reader| nix::poll::PollFd::new(reader.as_fd(), input)));
        let timeout = match left {
            None => nix::poll::PollTimeout::NONE,
            // Round up, so that the wait does not end just before the deadline.
            Some(left) => u16::try_from(left.as_millis() + 1)
                .unwrap_or(u16::MAX)
                .into(),
        };
        let found = nix::poll::poll(&mut poll, timeout);
        let ended = poll.first().and_then(nix::poll::PollFd::any) == Some(true);
        drop(poll);
        match found {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).step(step),
        }
        outputs.iter_mut().for_each(Output::read);
        if ended {
            return Ok(true);
        }
    }
}

/// Whether the child waits for the parent before it runs its own hooks: the parent may have hooks
/// that run earlier, and the device filter must be in force before the child executes anything.
pub(crate) fn while_creating(hooks: Option<&Hooks>) -> bool {
    hooks.is_some_and(|hooks| {
        !hooks.prestart.is_empty()
            || !hooks.create_runtime.is_empty()
            || !hooks.create_container.is_empty()
    })
}
