//! The shim's event loop.

mod calls;
mod connections;
mod exec;
mod requests;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keelson_log::{Rotation, Writer};
use keelson_shim_protocol::{EXIT_FILE, Exit, Hello, Response, SOCKET_FILE, ShimSpec, exit_code};
use keelson_sys::idle;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitPidFlag;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

use super::client::{Client, Pending};
use super::foreign::Foreign;
use super::recorder::Recorder;
use super::stdio::{self, Output, Streams};
use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::files;
use crate::process::confinement::Asked;
use crate::process::hooks::Subject;
use crate::process::keeper::Keeper;
use crate::process::spawn::{self, Container};
use crate::spec::{self, HookKind, NamespaceKind};

const LISTENER: u64 = 0;
const CHILDREN: u64 = 1;
const OUTPUTS: [u64; 2] = [2, 3];
const INPUT: u64 = 4;
const CHANNEL: u64 = 5;
const FIRST_CLIENT: u64 = 16;

/// After the container's end, a client that reads nothing for this long is dropped.
const LINGER: Duration = Duration::from_secs(10);

/// A container that was made but not started, and that no client is connected to, is ended after
/// this time: its creator was killed or forgot it, and nobody else would end it.
const UNSTARTED: Duration = Duration::from_secs(60);

/// After this many idle milliseconds the shim returns as much memory as it can.
const QUIET: u16 = 200;
/// The same if health checks run: reading the pages again for each of many checks costs more.
const QUIET_WITH_CHECKS: u16 = 2_000;

/// The stage of the container's life.
#[derive(Debug, Clone, PartialEq)]
enum State {
    Created,
    /// It was told to execute its command, and executes its hooks first.
    Delayed,
    Running,
    Stopped(Exit),
}

/// The shim of one container.
pub(crate) struct Server {
    directory: PathBuf,
    spec: ShimSpec,
    /// The parts of config.json that are needed later: all members but hooks and annotations are
    /// empty.
    config: spec::Spec,
    /// All of config.json, after the first health check: checks are frequent.
    probed: Option<Box<spec::Spec>>,
    container: Container,
    /// Set if another runtime made the container.
    foreign: Option<Foreign>,
    streams: Streams,
    log: Recorder,
    /// How many records were written to the log.
    recorded: u64,
    state: State,
    started_at: u64,
    error: Option<String>,
    epoll: Epoll,
    listener: Option<UnixListener>,
    /// Whether the event loop ignores new connections.
    deaf: bool,
    children: SignalFd,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    buffer: Vec<u8>,
    input_watched: bool,
    sessions: exec::Sessions,
    /// Whether all processes of the container end with the first one, because it is the init of a
    /// pid namespace.
    owns_processes: bool,
}

impl Server {
    /// Makes the container and the socket.
    pub(crate) fn create(directory: &Path) -> Result<Self, Failure> {
        let spec = super::load_spec(directory)?;
        if let Some(path) = &spec.shim_cgroup {
            Cgroup::create(path)?.add(std::process::id() as i32)?;
        }
        let config = spec::load(&spec.bundle)?;
        let log = Writer::open(
            &spec.log.path,
            Rotation {
                max_size: spec.log.max_size,
                max_files: spec.log.max_files,
            },
        )
        .map_err(|error| Failure::internal(error.to_string()))?;
        let children = watch_children()?;
        let terminal = config
            .process
            .as_ref()
            .is_some_and(|process| process.terminal);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).step(|| "make an epoll")?;
        let (pipes, stdio) = match terminal {
            true => (None, None),
            false => {
                let (streams, ends) = stdio::pipes(spec.open_stdin)?;
                (Some(streams), Some(ends))
            }
        };
        // Last: once the file exists, every failure would have to remove it.
        let listener = connections::listen(directory)?;
        let reserved = reserve_exit(directory).step(|| {
            let path = directory.join(EXIT_FILE);
            format!("reserve room for {}", path.display())
        });
        let other = spec.runtime.clone();
        let mut foreign = other.map(|runtime| Foreign::new(runtime, &spec.id, directory));
        let made = reserved.and_then(|()| {
            if let Some(foreign) = &mut foreign {
                return foreign.create(&spec, &config, stdio);
            }
            spawn::create(spawn::Request {
                common: Asked {
                    id: &spec.id,
                    bundle: &spec.bundle,
                    spec: &config,
                    stdio,
                    keeper: Keeper::Shim,
                    relayed: false,
                    preserved: 0,
                },
                rootfs: &spec.rootfs,
                own_keyring: true,
                start_socket: None,
                announce: &|_| Ok(()),
            })
        });
        let made = made.and_then(|mut container| {
            let streams = match (pipes, container.terminal.take()) {
                (Some(streams), _) => Ok(streams),
                (None, Some(master)) => stdio::terminal(master, spec.open_stdin),
                (None, None) => Err(Failure::internal("the container made no terminal")),
            };
            let watched = streams.and_then(|streams| {
                watch(&epoll, &listener, &children, &streams)?;
                Ok(streams)
            });
            match watched {
                Ok(streams) => Ok((container, streams)),
                Err(failure) => {
                    match &mut foreign {
                        Some(foreign) => foreign.delete(),
                        None => {
                            let subject = Subject::new(&spec.id, &config, &spec.bundle);
                            container.discard(subject, &config, Keeper::Shim);
                        }
                    }
                    Err(failure)
                }
            }
        });
        let (container, streams) = made.inspect_err(|_| {
            let _ = std::fs::remove_file(directory.join(SOCKET_FILE));
            let _ = std::fs::remove_file(directory.join(NEW_EXIT_FILE));
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            spec,
            owns_processes: config.makes(NamespaceKind::Pid),
            config: spec::Spec {
                oci_version: config.oci_version,
                // Another runtime runs the hooks itself.
                hooks: config.hooks.filter(|_| foreign.is_none()),
                annotations: config.annotations,
                ..spec::Spec::default()
            },
            probed: None,
            container,
            foreign,
            streams,
            log: Recorder::new(log),
            recorded: 0,
            state: State::Created,
            started_at: 0,
            error: None,
            epoll,
            listener: Some(listener),
            deaf: false,
            children,
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            buffer: Vec::new(),
            input_watched: false,
            sessions: exec::Sessions::default(),
        })
    }

    /// The report to hostd.
    pub(crate) fn hello(&self) -> Hello {
        Hello::Created {
            shim_pid: std::process::id() as i32,
            pid: self.container.pid,
        }
    }

    /// Ends a container that nobody will start. [`Server::run`] then cleans up as after any other
    /// end.
    pub(crate) fn abandon(&self) {
        // The process is a child that was not reaped, so its number can't have been reused.
        let pid = nix::unistd::Pid::from_raw(self.container.pid);
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    }

    /// Runs until the container has ended and all clients have been told.
    pub(crate) fn run(&mut self) {
        let mut events = [EpollEvent::empty(); 32];
        let mut give_up: Option<Instant> = None;
        // Whether anything was done since memory was last returned.
        let mut busy = true;
        loop {
            if self.state == State::Created {
                match (self.clients.is_empty(), give_up) {
                    (true, None) => give_up = Some(Instant::now() + UNSTARTED),
                    (true, Some(at)) if Instant::now() >= at => {
                        self.abandon();
                        give_up = None;
                    }
                    (true, Some(_)) => {}
                    (false, _) => give_up = None,
                }
            }
            let calls = self.foreign.as_ref().and_then(Foreign::deadline);
            let deadline = [give_up, self.sessions.deadline(), calls];
            let timeout = match deadline.into_iter().flatten().min() {
                None => EpollTimeout::NONE,
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO)
                }
            };
            let soon = EpollTimeout::from(match self.probed {
                Some(_) => QUIET_WITH_CHECKS,
                None => QUIET,
            });
            let quiet = timeout.is_none() || timeout > soon;
            if !busy && quiet {
                // That work used most of the program's pages, and the next work may be hours away.
                self.buffer = Vec::new();
                idle::wait_readable(self.epoll.0.as_fd(), timeout.into());
                busy = true;
                continue;
            }
            let wait = if quiet { soon } else { timeout };
            let count = match self.epoll.wait(&mut events, wait) {
                Ok(count) => {
                    busy = count > 0;
                    count
                }
                Err(nix::errno::Errno::EINTR) => continue,
                // Only wrong arguments make this fail. Without events nothing can be done.
                Err(_) => return,
            };
            for event in events.iter().take(count) {
                self.handle(event.data(), event.events());
            }
            self.exec_expire();
            if let Some(foreign) = &mut self.foreign {
                foreign.expire();
            }
            self.serve();
            let only_connections = events
                .iter()
                .take(count)
                .all(|event| event.data() == LISTENER);
            if self.deaf && !only_connections {
                self.listen_again();
            }
            if self.state == State::Running {
                give_up = None;
            }
            self.exec_watch();
            if matches!(self.state, State::Stopped(_)) {
                let now = Instant::now();
                if self.clients.is_empty() || give_up.is_some_and(|at| now >= at) {
                    return;
                }
                if count > 0 || give_up.is_none() {
                    give_up = Some(now + LINGER);
                }
            }
        }
    }

    fn handle(&mut self, token: u64, events: EpollFlags) {
        match token {
            LISTENER => self.accept(),
            CHILDREN => self.reap(),
            INPUT => self.streams.write_input(),
            CHANNEL => self.execution(),
            token if token >= exec::FIRST_TOKEN => self.exec_event(token),
            token if OUTPUTS.contains(&token) => self.read_output((token - OUTPUTS[0]) as usize),
            token => self.handle_client(token, events),
        }
    }

    fn read_output(&mut self, index: usize) {
        let output = self.streams.record(index, &mut self.log, &mut self.buffer);
        self.recorded += u64::from(output == Output::Some);
        if output == Output::End
            && let Some(slot) = self.streams.outputs.get_mut(index)
        {
            // Closing removes it from the epoll.
            *slot = None;
        }
    }

    /// Reaps ended processes: the container's first one, and orphans that the subreaper got.
    fn reap(&mut self) {
        // At most one signal waits. Another that comes meanwhile makes the descriptor readable
        // again.
        let _ = self.children.read_signal();
        while let Some((pid, status)) = self.collect() {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => exit_code::killed_by(signal),
                // Stopped or continued: such reports were not asked for.
                (None, None) => continue,
            };
            if self.answer_pending(&Pending::Started(pid), &self.started())
                || self.called(pid, code)
                || self.exec_reaped(pid, code)
            {
                continue;
            }
            // Others are orphans that the subreaper got.
            match &mut self.foreign {
                _ if pid == self.container.pid => {
                    self.settle_start();
                    self.finish(code);
                }
                Some(foreign) => foreign.note_stray(pid, code),
                None => {}
            }
        }
    }

    /// Reaps one ended process.
    fn collect(&mut self) -> Option<(i32, rustix::process::WaitStatus)> {
        let delayed = self.state == State::Delayed && self.foreign.is_none();
        let starting = self.exec_is_starting() || delayed;
        let collected = match starting.then(next_ended) {
            // Its reports are read before its number can be reused.
            Some(ended) => {
                let pid = ended?;
                if pid == self.container.pid {
                    self.execution();
                }
                self.exec_settle(pid);
                rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG)
            }
            None => rustix::process::wait(WaitOptions::NOHANG),
        };
        let (pid, status) = collected.ok()??;
        Some((pid.as_raw_nonzero().get(), status))
    }

    /// The remaining work after the container's first process has ended.
    fn finish(&mut self, code: i32) {
        let finished_at = super::now();
        let mut oom_killed = false;
        if let Some(cgroup) = &self.container.cgroup {
            oom_killed = cgroup.oom_kills() > 0;
            // Without a pid namespace of its own, processes of the container may be left.
            if !self.owns_processes
                && let Ok(text) = cgroup.read("cgroup.events")
                && text.lines().any(|line| line == "populated 1")
            {
                let _ = cgroup.kill();
            }
        }
        for index in 0..OUTPUTS.len() {
            self.streams
                .record_rest(index, &mut self.log, &mut self.buffer);
        }
        self.log.finish(finished_at);
        self.recorded += 1;
        if let Some(foreign) = &mut self.foreign {
            foreign.delete();
        }
        if let Some(cgroup) = &self.container.cgroup {
            // A caller that starts the container again right after the exit record finds no
            // leftovers.
            let _ = cgroup.remove();
        }
        self.run_hooks(HookKind::Poststop);
        let exit = Exit {
            version: 1,
            code,
            oom_killed,
            started_at: self.started_at,
            finished_at,
            error: self.error.take(),
            log_lost: self.log.lost(),
        };
        // If this fails, there is nobody to report to; the ends of the sessions are then unknown.
        let _ = self.exec_leave_ends(&self.directory);
        let _ = write_exit(&self.directory, &exit);
        self.listener = None;
        let _ = std::fs::remove_file(self.directory.join(SOCKET_FILE));
        for client in self.clients.values_mut() {
            if client.waiting {
                client.waiting = false;
                client.respond(&Response::Exited(exit.clone()));
            }
        }
        self.streams.outputs = [None, None];
        self.streams.input = None;
        self.state = State::Stopped(exit);
        self.exec_container_ended();
    }
}

fn done(_: ()) -> Option<Response> {
    Some(Response::Done)
}

fn failed(failure: Failure) -> Response {
    Response::Failed {
        reason: failure.told_reason(),
        message: failure.message,
    }
}

/// Registers the descriptors that exist from the beginning with the event loop.
fn watch(
    epoll: &Epoll,
    listener: &UnixListener,
    children: &SignalFd,
    streams: &Streams,
) -> Result<(), Failure> {
    let add = |fd: BorrowedFd<'_>, token| {
        epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
            .step(|| "watch a descriptor")
    };
    add(listener.as_fd(), LISTENER)?;
    add(children.as_fd(), CHILDREN)?;
    for (output, token) in streams.outputs.iter().zip(OUTPUTS) {
        if let Some(output) = output {
            add(output.as_fd(), token)?;
        }
    }
    Ok(())
}

/// A child that has ended and must still be reaped.
fn next_ended() -> Option<i32> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let status = nix::sys::wait::waitid(nix::sys::wait::Id::All, flags).ok()?;
    status.pid().map(nix::unistd::Pid::as_raw)
}

/// A descriptor for SIGCHLD, which is blocked like all other signals.
fn watch_children() -> Result<SignalFd, Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .step(|| "make a signal descriptor")
}

/// The name of the exit record until it is complete.
const NEW_EXIT_FILE: &str = ".exit.json.new";
/// More than an exit record ever takes, in bytes: it holds one message of bounded length.
const EXIT_ROOM: u64 = 16 * 1024;

/// Reserves the space of the exit record when the container is made, so that it can be written even
/// if the file system is full when the container ends.
fn reserve_exit(directory: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let file = rustix::fs::open(directory.join(NEW_EXIT_FILE), flags, mode)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, EXIT_ROOM) {
        // The file system can't reserve space.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

/// Writes the exit record as a whole. It is not flushed to disk: it is needed only until the
/// machine's next boot, and its directory is in memory.
fn write_exit(directory: &Path, exit: &Exit) -> std::io::Result<()> {
    let (path, temporary) = (directory.join(EXIT_FILE), directory.join(NEW_EXIT_FILE));
    files::fill(&path, &temporary, &serde_json::to_vec(exit)?)
}
