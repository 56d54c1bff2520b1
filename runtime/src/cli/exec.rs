//! `exec`: an additional process in a container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use keelson_shim_protocol::OciStatus;
use keelson_sys::clone;

use super::arguments::Arguments;
use super::create::{send_pidfd, send_terminal, write_pid_file};
use super::manage::open_process;
use super::relay::{own_size, take_signals, wait};
use super::{Global, log};
use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::process::channel::Message;
use crate::process::confinement::Asked;
use crate::process::exec::{self, Spawned, Target};
use crate::process::keeper::Keeper;
use crate::spec::{self, Capabilities, Process, Spec};
use crate::state::{State, Store};

#[derive(Debug, Default)]
struct Options {
    process: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    preserved: u32,
    detach: bool,
    ignore_paused: bool,
    terminal: bool,
    no_new_privileges: bool,
    cwd: Option<String>,
    user: Option<String>,
    apparmor: Option<String>,
    label: Option<String>,
    cgroup: Option<String>,
    groups: Vec<u32>,
    environment: Vec<String>,
    capabilities: Vec<String>,
}

fn number(option: &str, value: &str) -> Result<u32, Failure> {
    value
        .parse()
        .map_err(|_| Failure::invalid(format!("{option}: {value:?} is not a number")))
}

/// Options come before the identifier; everything after it is the command.
fn parse(mut arguments: Arguments) -> Result<(Options, String, Vec<String>), Failure> {
    let mut options = Options::default();
    let id = loop {
        let Some(name) = arguments.next() else {
            return Err(Failure::invalid("exec needs a container id"));
        };
        let rest = &mut arguments;
        match name.as_str() {
            "--process" | "-p" => options.process = Some(rest.value(&name)?.into()),
            "--console-socket" => options.console_socket = Some(rest.value(&name)?.into()),
            "--pidfd-socket" => options.pidfd_socket = Some(rest.value(&name)?.into()),
            "--pid-file" => options.pid_file = Some(rest.value(&name)?.into()),
            "--preserve-fds" => options.preserved = number(&name, &rest.value(&name)?)?,
            "--detach" | "-d" => options.detach = rest.switch(),
            "--ignore-paused" => options.ignore_paused = rest.switch(),
            "--tty" | "-t" => options.terminal = rest.switch(),
            "--no-new-privs" => options.no_new_privileges = rest.switch(),
            "--cwd" => options.cwd = Some(rest.value(&name)?),
            "--user" | "-u" => options.user = Some(rest.value(&name)?),
            "--apparmor" => options.apparmor = Some(rest.value(&name)?),
            "--additional-gids" | "-g" => {
                options.groups.push(number(&name, &rest.value(&name)?)?);
            }
            "--env" | "-e" => options.environment.push(rest.value(&name)?),
            "--cap" | "-c" => options.capabilities.push(rest.value(&name)?),
            "--process-label" => options.label = Some(rest.value(&name)?),
            "--cgroup" => options.cgroup = Some(rest.value(&name)?),
            "--" => {}
            option if option.starts_with('-') => {
                return Err(Failure::invalid(format!("unknown option {option}")));
            }
            _ => break name,
        }
    };
    Ok((options, id, arguments.remaining()))
}

/// The process: read from a file of its own, or the container's process with changes.
fn process(options: &Options, spec: &Spec, command: Vec<String>) -> Result<Process, Failure> {
    if let Some(path) = &options.process {
        let bytes = std::fs::read(path).step(|| format!("--process: read {}", path.display()))?;
        return spec::parse_process(&bytes)
            .map_err(|error| Failure::invalid(format!("--process {}: {error}", path.display())));
    }
    if command.is_empty() {
        return Err(Failure::invalid("exec needs a command or --process"));
    }
    let mut process = spec
        .process
        .clone()
        .ok_or_else(|| Failure::invalid("config.json: process: is missing"))?;
    process.args = command;
    process.terminal = options.terminal;
    process.no_new_privileges |= options.no_new_privileges;
    process.env.extend(options.environment.iter().cloned());
    process
        .user
        .additional_gids
        .extend(options.groups.iter().copied());
    if let Some(cwd) = &options.cwd {
        if !cwd.starts_with('/') {
            return Err(Failure::invalid(format!(
                "--cwd: {cwd:?} is not an absolute path"
            )));
        }
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = &options.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        process.user.uid = number("--user", uid)?;
        if !gid.is_empty() {
            process.user.gid = number("--user", gid)?;
        }
    }
    if options.apparmor.is_some() {
        process.apparmor_profile.clone_from(&options.apparmor);
    }
    if options.label.is_some() {
        process.selinux_label.clone_from(&options.label);
    }
    if !options.capabilities.is_empty() {
        let sets = process
            .capabilities
            .get_or_insert_with(Capabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(options.capabilities.iter().cloned());
        }
        // As runc: ambient capabilities must be inheritable, and most containers have no
        // inheritable ones.
        if !sets.inheritable.is_empty() {
            sets.ambient.extend(options.capabilities.iter().cloned());
        }
    }
    Ok(process)
}

/// `exec`.
pub(crate) fn exec(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let (options, id, command) = parse(arguments)?;
    crate::sandbox::executable::ensure_readonly()?;
    for number in 3..3_u32.saturating_add(options.preserved) {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(Failure::invalid(format!(
                "--preserve-fds {}: descriptor {number} is not open",
                options.preserved
            )));
        }
    }
    let store = Store::new(&global.root, &id)?;
    let state = store.load()?;
    let status = state.status(store.progress());
    if status == OciStatus::Creating {
        return Err(Failure::conflict(
            "cannot exec in a container that is being made",
        ));
    }
    if status == OciStatus::Stopped {
        return Err(Failure::conflict("cannot exec in a stopped container"));
    }
    if status == OciStatus::Paused && !options.ignore_paused {
        return Err(Failure::conflict("cannot exec in a paused container"));
    }
    let spec = spec::load(&state.bundle)?;
    let mut process = process(&options, &spec, command)?;
    if process.terminal && !options.detach {
        process.console_size = own_size().or(process.console_size);
    }
    match (&options.console_socket, process.terminal) {
        (None, true) if options.detach => {
            return Err(Failure::invalid(
                "--tty: needs --console-socket, because no process would keep the terminal",
            ));
        }
        (Some(_), false) => {
            return Err(Failure::invalid(
                "--console-socket is of no use without a terminal",
            ));
        }
        _ => {}
    }
    // Blocked before the process exists, so that no signal is lost; the process starts with an
    // empty mask of its own.
    let signals = match options.detach {
        true => None,
        false => Some(take_signals()?),
    };
    let container = open_process(&state).step(|| format!("open process {}", state.pid))?;
    let cgroup = match &options.cgroup {
        Some(path) => Some(cgroup_below(&state, path)?),
        None => state.open_cgroup(),
    };
    log::debug(|| format!("nsexec container setup: make a process in container {id}"));
    let spawned = exec::spawn(exec::ExecRequest {
        common: Asked {
            id: &id,
            bundle: &state.bundle,
            spec: &spec,
            stdio: None,
            keeper: Keeper::Caller,
            relayed: !options.detach && options.console_socket.is_none(),
            preserved: options.preserved,
        },
        process: &process,
        target: Target {
            pid: state.pid,
            pidfd: container.as_fd(),
            cgroup: cgroup.as_ref(),
        },
    })?;
    log::debug(|| {
        let pid = spawned.pid;
        format!("child process in init(): {pid}; setns_init: about to exec")
    });
    let followed = follow(&spawned, &options);
    if followed.is_err() {
        let _ = clone::signal_process(spawned.pidfd.as_fd(), libc::SIGKILL);
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(spawned.pid), None);
    }
    let terminal = followed?;
    match signals {
        Some(signals) => wait(
            (spawned.pid, spawned.pidfd.as_fd()),
            &signals,
            terminal.as_ref(),
            None,
        ),
        None => Ok(0),
    }
}

/// Only a container's own start has hooks and the like.
fn unexpected() -> Failure {
    Failure::internal("the process reported what only a container's first one does")
}

/// A cgroup below the container's cgroup, by its path relative to that one.
fn cgroup_below(state: &State, path: &str) -> Result<Cgroup, Failure> {
    let refused = |reason: &str| Failure::invalid(format!("--cgroup {path:?}: {reason}"));
    if path.contains(':') {
        return Err(refused(
            "unknown controller before the colon: cgroup v2 has one hierarchy for all",
        ));
    }
    if Path::new(path)
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        return Err(Failure::invalid(format!(
            "--cgroup: {path} is not a sub cgroup path"
        )));
    }
    let own = state
        .cgroup
        .as_deref()
        .ok_or_else(|| refused("the container has no cgroup"))?;
    let cgroup = format!("{own}/{path}");
    if !crate::cgroup::exists(&cgroup)? {
        return Err(Failure::not_found(format!(
            "--cgroup: adding pid of the process to {cgroup}/cgroup.procs: no such file or directory"
        )));
    }
    Cgroup::open(&cgroup).map_err(|failure| refused(&failure.message))
}

/// Waits until the command is executed. Returns the terminal, unless it was sent to a console
/// socket.
fn follow(spawned: &Spawned, options: &Options) -> Result<Option<OwnedFd>, Failure> {
    let mut kept = None;
    loop {
        match spawned.channel.receive()? {
            Message::Ready(terminal) => match (&options.console_socket, terminal) {
                (Some(path), Some(terminal)) => send_terminal(path, &terminal)?,
                (None, terminal) => kept = terminal,
                (Some(_), None) => {}
            },
            Message::Failed(failure) => return Err(failure),
            Message::Hooks | Message::Made(_) => return Err(unexpected()),
            Message::Closed => break exec::check_executed(spawned.pid)?,
        }
    }
    if let Some(path) = &options.pidfd_socket {
        send_pidfd(path, "setns", spawned.pidfd.as_fd())?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, spawned.pid)?;
    }
    Ok(kept)
}
