//! `create` and `run`.

use std::io::{ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keelson_shim_protocol::Rootfs;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::arguments::{Arguments, only_id, read};
use super::manage;
use super::readiness::Readiness;
use super::relay::{own_size, take_signals, wait};
use super::{Global, log};
use crate::cgroup::Cgroup;
use crate::failure::{self, Failure, Step};
use crate::files;
use crate::process::confinement::Asked;
use crate::process::hooks::Subject;
use crate::process::keeper::Keeper;
use crate::process::spawn::{self, Container};
use crate::sandbox::userns;
use crate::spec;
use crate::state::{self, State, Store};

/// Options of both commands.
#[derive(Debug, Default)]
struct Options {
    bundle: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    preserved: u32,
    /// How many of the preserved descriptors are sockets from a service manager.
    listening: u32,
    no_new_keyring: bool,
    detach: bool,
    keep: bool,
    /// Whether this program stays until the container ends.
    foreground: bool,
}

fn parse(arguments: Arguments, run: bool) -> Result<(Options, String), Failure> {
    let mut options = Options::default();
    let positional = read(arguments, |name, rest| {
        match name {
            "--bundle" | "-b" => options.bundle = Some(rest.value(name)?.into()),
            "--console-socket" => options.console_socket = Some(rest.value(name)?.into()),
            "--pidfd-socket" => options.pidfd_socket = Some(rest.value(name)?.into()),
            "--pid-file" => options.pid_file = Some(rest.value(name)?.into()),
            "--preserve-fds" => {
                let value = rest.value(name)?;
                options.preserved = value.parse().map_err(|_| {
                    Failure::invalid(format!("--preserve-fds: {value:?} is not a number"))
                })?;
            }
            "--no-new-keyring" => options.no_new_keyring = rest.switch(),
            // Any other way of entering the root would leave the host's mounts within reach.
            "--no-pivot" => {
                if rest.switch() {
                    return Err(Failure::unsupported(
                        "--no-pivot: not supported, pivot_root is always used",
                    ));
                }
            }
            // Orphaned processes of the container go to the machine's init anyway.
            "--no-subreaper" if run => {
                rest.switch();
            }
            "--detach" | "-d" if run => options.detach = rest.switch(),
            "--keep" if run => options.keep = rest.switch(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    options.foreground = run && !options.detach;
    options.listening = activation_sockets();
    options.preserved = options.preserved.saturating_add(options.listening);
    Ok((options, only_id(positional)?))
}

/// How many sockets this process got from a service manager (sd_listen_fds(3)).
fn activation_sockets() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

/// `create`: the container's process waits for `start`.
pub(crate) fn create(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let (options, id) = parse(arguments, false)?;
    crate::sandbox::executable::ensure_readonly()?;
    let store = Store::new(&global.root, &id)?;
    make(&store, &id, &options, global.cgroups)?;
    Ok(0)
}

/// `run`: create, start, and unless detached, wait and delete.
pub(crate) fn run(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let (options, id) = parse(arguments, true)?;
    crate::sandbox::executable::ensure_readonly()?;
    let store = Store::new(&global.root, &id)?;
    // Blocked before the container exists, so that no signal is lost; its process starts with an
    // empty mask of its own.
    let signals = match options.detach {
        true => None,
        false => Some(take_signals()?),
    };
    let container = make(&store, &id, &options, global.cgroups)?;
    let started = Readiness::asked_for(&store)
        .map_or(Ok(None), Readiness::listen)
        .and_then(|waiting| manage::start_container(&store).map(|()| waiting));
    let waiting = match started {
        Ok(waiting) => waiting,
        Err(failure) => {
            let _ = manage::destroy(&store);
            return Err(failure);
        }
    };
    let Some(signals) = signals else {
        if let Some(waiting) = waiting
            && let Err(failure) = waiting.wait(container.pidfd.as_fd(), container.pid)
        {
            failure::warn(&[failure]);
        }
        return Ok(0);
    };
    let terminal = container
        .terminal
        .as_ref()
        .filter(|_| options.console_socket.is_none());
    let process = (container.pid, container.pidfd.as_fd());
    let code = wait(process, &signals, terminal, waiting);
    if !options.keep || code.is_err() {
        manage::destroy(&store)?;
    }
    code
}

fn make(store: &Store, id: &str, options: &Options, cgroups: bool) -> Result<Container, Failure> {
    let bundle = options.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let bundle =
        std::path::absolute(&bundle).step(|| format!("find bundle {}", bundle.display()))?;
    let mut spec = spec::load(&bundle)?;
    let terminal = spec
        .process
        .as_ref()
        .is_some_and(|process| process.terminal);
    match (&options.console_socket, terminal) {
        (None, true) if !options.foreground => {
            return Err(Failure::invalid(
                "process.terminal: no process would keep the terminal, use --console-socket",
            ));
        }
        (Some(_), false) => {
            return Err(Failure::invalid(
                "--console-socket is of no use without process.terminal",
            ));
        }
        _ => {}
    }
    if let Some(process) = spec
        .process
        .as_mut()
        .filter(|_| terminal && options.foreground)
    {
        process.console_size = own_size().or(process.console_size);
    }
    if let (1.., Some(process)) = (options.listening, &mut spec.process) {
        process
            .env
            .push(format!("LISTEN_FDS={}", options.listening));
        process.env.push("LISTEN_PID=1".to_owned());
    }
    let root = spec
        .root
        .as_ref()
        .filter(|root| !root.path.as_os_str().is_empty())
        .ok_or_else(|| Failure::invalid("config.json: root.path: is missing"))?;
    let path = bundle.join(&root.path);
    if !cgroups {
        spec.linux.cgroups_path = None;
    } else if spec.linux.cgroups_path.as_deref().is_none_or(str::is_empty)
        && crate::cgroup::mount_point().is_some()
        && !userns::is_restricted()
    {
        spec.linux.cgroups_path = Some(format!("/keelson-{id}"));
    }
    store.create()?;
    let path_of_cgroup = spec.linux.cgroups_path.as_deref();
    let fit = path_of_cgroup.map_or(Ok(()), look_at_cgroup);
    let offered = match Readiness::asked_for(store) {
        Some(readiness) => readiness.offer(&mut spec),
        None => Ok(()),
    };
    let made = fit
        .and(offered)
        .and_then(|()| make_in(store, id, options, &spec, &bundle, path));
    if made.is_err() {
        let _ = store.remove();
    }
    made
}

/// A cgroup that exists already may have been prepared by the caller, but must be fit for use.
fn look_at_cgroup(path: &str) -> Result<(), Failure> {
    let Ok(cgroup) = Cgroup::open(path) else {
        return Ok(());
    };
    if cgroup.is_frozen() {
        return Err(Failure::conflict(format!(
            "linux.cgroupsPath {path}: container's cgroup unexpectedly frozen"
        )));
    }
    let found = cgroup.processes()?.len();
    if found > 0 {
        // Processes that are in the cgroup already would be limited, frozen and killed with the
        // container.
        return Err(Failure::conflict(format!(
            "linux.cgroupsPath {path}: container's cgroup is not empty: {found} process(es) found"
        )));
    }
    Ok(())
}

fn make_in(
    store: &Store,
    id: &str,
    options: &Options,
    spec: &spec::Spec,
    bundle: &Path,
    rootfs: PathBuf,
) -> Result<Container, Failure> {
    let socket = store.listen()?;
    // The words that runc's debug log has for these steps; tools look for them.
    log::debug(|| format!("nsexec container setup: make the first process of {id}"));
    let container = spawn::create(spawn::Request {
        common: Asked {
            id,
            bundle,
            spec,
            stdio: None,
            keeper: Keeper::Caller,
            relayed: options.foreground && options.console_socket.is_none(),
            preserved: options.preserved,
        },
        rootfs: &Rootfs::Directory {
            path: rootfs.clone(),
        },
        own_keyring: !options.no_new_keyring,
        start_socket: Some(socket),
        announce: &|pid| store.save(&state_of(id, spec, bundle, &rootfs, pid)),
    })?;
    log::debug(|| format!("child process in init(): {} is set up", container.pid));
    let noted = container.shared.as_ref().map_or(Ok(()), |shared| {
        let state = state_of(id, spec, bundle, &rootfs, container.pid);
        let shared = Some(shared.clone());
        store.save(&State { shared, ..state })
    });
    let handed = noted.and_then(|()| hand_out(store, options, &container));
    if handed.is_err() {
        container.discard(Subject::new(id, spec, bundle), spec, Keeper::Caller);
    }
    handed.map(|()| container)
}

fn state_of(id: &str, spec: &spec::Spec, bundle: &Path, rootfs: &Path, pid: i32) -> State {
    let created = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    State {
        version: 1,
        id: id.to_owned(),
        oci_version: spec.oci_version.clone(),
        pid,
        pid_start: state::start_time(pid).unwrap_or(0),
        bundle: bundle.to_owned(),
        rootfs: rootfs.to_owned(),
        cgroup: spec.linux.cgroups_path.clone(),
        created,
        annotations: spec.annotations.clone(),
        hooks: spec.hooks.clone().unwrap_or_default(),
        shared: None,
    }
}

/// Hands over what the caller asked for (pid file, terminal, pidfd), and records that the container
/// waits to be started.
fn hand_out(store: &Store, options: &Options, container: &Container) -> Result<(), Failure> {
    if let (Some(path), Some(terminal)) = (&options.console_socket, &container.terminal) {
        send_terminal(path, terminal)?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, container.pid)?;
    }
    if let Some(path) = &options.pidfd_socket {
        send_pidfd(path, "standard", container.pidfd.as_fd())?;
    }
    store.created()
}

/// A program that watches for the file must never read half a number.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Failure> {
    let name = path
        .file_name()
        .ok_or_else(|| Failure::invalid(format!("--pid-file {}: not a file", path.display())))?;
    let temporary = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
    files::replace(path, &temporary, pid.to_string().as_bytes(), 0o666)
        .step(|| format!("--pid-file: write {}", path.display()))
}

/// Connects to a socket whose listener may have been started together with this program.
fn connect(path: &Path) -> std::io::Result<UnixStream> {
    const PATIENCE: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_millis(5);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) && Instant::now() < deadline =>
            {
                std::thread::sleep(INTERVAL);
            }
            other => return other,
        }
    }
}

/// Sends the terminal's master end to the listener of the console socket.
pub(super) fn send_terminal(path: &Path, terminal: &OwnedFd) -> Result<(), Failure> {
    let step = || format!("--console-socket: send the terminal to {}", path.display());
    send(path, b"/dev/ptmx", terminal.as_fd()).step(step)
}

/// Sends a process's descriptor to the listener of the pidfd socket. `name` is the kind of the
/// process in runc's words: `standard`, or `setns` for an additional process.
pub(super) fn send_pidfd(path: &Path, name: &str, process: BorrowedFd<'_>) -> Result<(), Failure> {
    let step = || format!("--pidfd-socket: send the process to {}", path.display());
    send(path, name.as_bytes(), process).step(step)
}

/// Sends a descriptor and a text in one message.
fn send(path: &Path, text: &[u8], fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let socket = connect(path)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::NOSIGNAL;
    rustix::net::sendmsg(&socket, &[IoSlice::new(text)], &mut control, flags)?;
    Ok(())
}
