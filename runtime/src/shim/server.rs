//! The shim's event loop.

mod exec;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keelson_log::{Limits, Reader, Writer};
use keelson_model::shim::{EXIT_FILE, Exit, Hello, Request, Response, SOCKET_FILE, ShimSpec};
use keelson_sys::{clone, idle, sandbox};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitPidFlag;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, WaitOptions};

use super::client::{Attached, Client, Pending};
use super::stdio::{self, Output, Streams};
use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::files;
use crate::process::channel::Message;
use crate::process::exec::check_executed;
use crate::process::hooks::{self, Subject};
use crate::process::spawn::{self, Container};
use crate::spec::{self, NamespaceKind};

/// How many connections wait until they are accepted; the kernel's own limit is lower, if anything.
const BACKLOG: i32 = 4096;
const LISTENER: u64 = 0;
const CHILDREN: u64 = 1;
const OUTPUTS: [u64; 2] = [2, 3];
const INPUT: u64 = 4;
const CHANNEL: u64 = 5;
const FIRST_CLIENT: u64 = 16;

/// A client that takes nothing for so long after the container's end is given up.
const LINGER: Duration = Duration::from_secs(10);

/// A container that was made but not started, with nobody connected, is given up after so long:
/// whoever made it was killed or forgot it, and nobody would ever end it.
const UNSTARTED: Duration = Duration::from_secs(60);

/// After so many milliseconds without anything to do the shim gives up what memory it can.
const QUIET: u8 = 200;

/// Where the container is in its life.
#[derive(Debug, Clone, PartialEq)]
enum State {
    Created,
    /// Told to execute its command, before which it executes hooks.
    Delayed,
    Running,
    Stopped(Exit),
}

/// The shim of one container.
pub(crate) struct Server {
    folder: PathBuf,
    spec: ShimSpec,
    /// Of config.json, what is needed later: everything but hooks and annotations is empty.
    config: spec::Spec,
    container: Container,
    streams: Streams,
    log: Writer,
    /// How many records were written to the log.
    recorded: u64,
    state: State,
    started_at: u64,
    error: Option<String>,
    epoll: Epoll,
    listener: Option<UnixListener>,
    /// Whether the event loop does not wait for connections.
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
    pub(crate) fn create(folder: &Path) -> Result<Self, Failure> {
        let spec = super::load_spec(folder)?;
        if let Some(path) = &spec.shim_cgroup {
            Cgroup::create(path)?.add(std::process::id() as i32)?;
        }
        let config = spec::load(&spec.bundle)?;
        let log = Writer::open(
            &spec.log.path,
            Limits {
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
        // Last, because nothing can fail without being undone once there is a file.
        let listener = listen(folder)?;
        let made = spawn::create(spawn::Request {
            id: &spec.id,
            bundle: &spec.bundle,
            spec: &config,
            rootfs: &spec.rootfs,
            stdio,
            die_with_parent: true,
            relayed: false,
            preserved: 0,
            own_keyring: true,
            start_socket: None,
            announce: &|_| Ok(()),
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
                    let subject = Subject::new(&spec.id, &config, &spec.bundle);
                    container.discard(subject, &config, true);
                    Err(failure)
                }
            }
        });
        let (container, streams) = made.inspect_err(|_| {
            let _ = std::fs::remove_file(folder.join(SOCKET_FILE));
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            spec,
            owns_processes: config.makes(NamespaceKind::Pid),
            config: spec::Spec {
                oci_version: config.oci_version,
                hooks: config.hooks,
                annotations: config.annotations,
                ..spec::Spec::default()
            },
            container,
            streams,
            log,
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

    /// What to tell hostd.
    pub(crate) fn hello(&self) -> Hello {
        Hello::Created {
            shim_pid: std::process::id() as i32,
            pid: self.container.pid,
        }
    }

    /// Ends a container that nobody will ever start; [`Server::run`] then cleans up as after any
    /// other end.
    pub(crate) fn abandon(&self) {
        // The process is a child that was not reaped, so the number is still its own.
        let pid = nix::unistd::Pid::from_raw(self.container.pid);
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    }

    /// Runs until the container has ended and everybody has been told.
    pub(crate) fn run(&mut self) {
        let mut events = [EpollEvent::empty(); 32];
        let mut give_up: Option<Instant> = None;
        // Whether something was done since the memory was given up.
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
            let deadline = [give_up, self.sessions.deadline()];
            let timeout = match deadline.into_iter().flatten().min() {
                None => EpollTimeout::NONE,
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO)
                }
            };
            let soon = EpollTimeout::from(QUIET);
            let quiet = timeout.is_none() || timeout > soon;
            if !busy && quiet {
                // What was done needed most of the program, and the next thing to do may be hours
                // away.
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
                // Only wrong arguments make this fail; without events nothing can be done.
                Err(_) => return,
            };
            for event in events.iter().take(count) {
                self.handle(event.data(), event.events());
            }
            self.exec_expire();
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
            // Closing takes it out of the epoll.
            *slot = None;
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(listener, flags) {
            Ok(socket) => socket,
            Err(error) => {
                let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
                if exhausted.contains(&error) {
                    // The connection waits until something else happens, and would be announced
                    // without a pause.
                    self.deaf = self.epoll.delete(listener).is_ok();
                }
                return;
            }
        };
        let token = self.next_client;
        let client = Client::new(socket.into());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        if self.epoll.add(client.fd(), event).is_ok() {
            self.next_client += 1;
            self.clients.insert(token, client);
        }
    }

    /// Waits for connections again: descriptors may have become free.
    fn listen_again(&mut self) {
        if let Some(listener) = &self.listener {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
            self.deaf = self.epoll.add(listener, event).is_err();
        }
    }

    fn handle_client(&mut self, token: u64, events: EpollFlags) {
        // Taken out, so that requests may change everything else.
        let Some(mut client) = self.clients.remove(&token) else {
            return;
        };
        if events.contains(EpollFlags::EPOLLIN) && !client.input_ended {
            client.read();
        }
        let gone = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        if gone {
            // What it sent before is for the container, but there will be no more events than this.
            client.read_rest();
        }
        if client.attached.is_none() {
            self.answer(&mut client);
        }
        self.pass_input(&mut client, gone);
        if gone || (client.input_ended && client.attached.is_none() && !client.waits()) {
            client.ended = true;
        }
        self.clients.insert(token, client);
    }

    /// Gives an attached client's input to the container.
    fn pass_input(&mut self, client: &mut Client, gone: bool) {
        if let Some(number) = client.session() {
            self.exec_input(number, client);
            return;
        }
        let Some(stdin) = client.attached.as_ref().map(|attached| attached.stdin) else {
            return;
        };
        let bytes = client.take_input();
        let Some(attached) = client.attached.as_mut().filter(|_| stdin) else {
            return;
        };
        if !bytes.is_empty() {
            attached.wrote = true;
            self.streams.push_input(&bytes);
        }
        if client.input_ended {
            // A half-closed connection is the end of the input; one that is gone altogether only
            // when the container was made so.
            if !gone || (attached.wrote && self.spec.stdin_once) {
                self.streams.end_input();
            }
            attached.stdin = false;
        }
    }

    /// Sends to every client what it can take, and adjusts what is waited for.
    fn serve(&mut self) {
        let takes_input = self.streams.takes_input();
        let stopped = matches!(self.state, State::Stopped(_));
        let mut finished = Vec::new();
        for (token, client) in &mut self.clients {
            client.pump(self.recorded);
            let over = stopped && client.is_served();
            if client.dead || over || (client.ended && !client.has_output()) {
                finished.push(*token);
                continue;
            }
            let reads_stdin = client
                .attached
                .as_ref()
                .is_some_and(|attached| attached.stdin);
            let takes_input = match client.session() {
                Some(number) => self.sessions.takes_input(number),
                None => takes_input,
            };
            let mut interest = EpollFlags::empty();
            interest.set(
                EpollFlags::EPOLLIN,
                !client.input_ended
                    && !client.waits()
                    && (takes_input || !reads_stdin)
                    && (client.attached.is_some() || client.has_room()),
            );
            // Requests that came before there was room for their answers bring no further event.
            interest.set(
                EpollFlags::EPOLLOUT,
                client.has_output() || client.has_request(),
            );
            if interest != client.interest {
                client.interest = interest;
                let mut event = EpollEvent::new(interest, *token);
                client.dead = self.epoll.modify(client.fd(), &mut event).is_err();
            }
        }
        for token in finished {
            // Closing the descriptor takes it out of the epoll.
            self.clients.remove(&token);
        }
        let pending = !self.streams.pending.is_empty();
        if pending != self.input_watched
            && let Some(input) = &self.streams.input
        {
            let result = if pending {
                self.epoll
                    .add(input, EpollEvent::new(EpollFlags::EPOLLOUT, INPUT))
            } else {
                self.epoll.delete(input)
            };
            if result.is_ok() {
                self.input_watched = pending;
            }
        }
    }

    /// Answers the requests that have come whole.
    fn answer(&mut self, client: &mut Client) {
        while client.attached.is_none() && !client.waits() && client.has_room() {
            let request = match client.next_request() {
                None => return,
                Some(Ok(request)) => request,
                Some(Err(message)) => {
                    client.respond(&failed(Failure::invalid(message)));
                    continue;
                }
            };
            let result = self.carry_out(request, client);
            match result {
                Ok(Some(response)) => client.respond(&response),
                Ok(None) => {}
                Err(failure) => client.respond(&failed(failure)),
            }
        }
    }

    /// Carries a request out. `None`: it is answered later.
    fn carry_out(
        &mut self,
        request: Request,
        client: &mut Client,
    ) -> Result<Option<Response>, Failure> {
        match request {
            Request::Start => self.start(client),
            Request::State => Ok(Some(self.report())),
            Request::Kill { signal, all } => self.kill(signal, all).map(done),
            Request::Resize {
                exec: None,
                rows,
                columns,
            } => self.resize(rows, columns).map(done),
            Request::Wait { exec: None } => match &self.state {
                State::Stopped(exit) => Ok(Some(Response::Exited(exit.clone()))),
                _ => {
                    client.waiting = true;
                    Ok(None)
                }
            },
            Request::Attach {
                exec: None,
                stdin,
                stdout,
                stderr,
            } => {
                let reader = if stdout || stderr {
                    let mut reader = Reader::open(&self.spec.log.path)
                        .map_err(|error| Failure::internal(error.to_string()))?;
                    reader
                        .seek_end()
                        .map_err(|error| Failure::internal(error.to_string()))?;
                    Some(reader)
                } else {
                    None
                };
                client.respond(&Response::Done);
                client.attached = Some(Attached::new(
                    reader,
                    self.recorded,
                    [stdin, stdout, stderr],
                ));
                Ok(None)
            }
            Request::Pause => self.freeze(true).map(done),
            Request::Resume => self.freeze(false).map(done),
            Request::Update { resources } => self.update(resources).map(done),
            Request::Exec {
                exec,
                process,
                open_stdin,
            } => self.exec_make(exec, process, open_stdin).map(done),
            Request::ExecStart { exec } => self.exec_start(&exec, client).map(|()| None),
            Request::Resize {
                exec: Some(exec),
                rows,
                columns,
            } => self.exec_resize(&exec, rows, columns).map(done),
            Request::Wait { exec: Some(exec) } => self.exec_wait(&exec, client),
            Request::Attach {
                exec: Some(exec),
                stdin,
                stdout,
                stderr,
            } => self
                .exec_attach(&exec, client, [stdin, stdout, stderr])
                .map(|()| None),
        }
    }

    fn start(&mut self, client: &mut Client) -> Result<Option<Response>, Failure> {
        if self.state != State::Created {
            return Err(Failure::conflict("the container was started already"));
        }
        self.container.channel.start()?;
        let hooks = self.config.hooks.as_ref();
        let hooked = hooks.is_some_and(|hooks| !hooks.start_container.is_empty());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, CHANNEL);
        // They may take as long as they like.
        if hooked && self.epoll.add(&self.container.channel, event).is_ok() {
            self.state = State::Delayed;
            client.pending = Some(Pending::Start);
            return Ok(None);
        }
        let hooks = self.executed()?;
        client.pending = hooks.map(Pending::Started);
        Ok(hooks.is_none().then(|| self.started()))
    }

    /// Waits for what the container's process reports at last. Gives the process that runs the hooks
    /// after the start, if there are any.
    fn executed(&mut self) -> Result<Option<i32>, Failure> {
        let reported = match self.container.channel.receive() {
            // It may have been killed meanwhile.
            Ok(Message::Closed) if self.state == State::Delayed => {
                check_executed(self.container.pid)
            }
            Ok(Message::Closed) => Ok(()),
            Ok(Message::Failed(failure)) => Err(failure),
            Ok(Message::Ready(_) | Message::Hooks | Message::Made(_)) => Err(Failure::internal(
                "the container's process reported twice that it is ready",
            )),
            Err(failure) => Err(failure),
        };
        match reported {
            Ok(()) => {
                self.started_at = super::now();
                self.state = State::Running;
                Ok(self.run_hooks("poststart", "running"))
            }
            Err(failure) => {
                self.state = State::Created;
                self.error = Some(failure.message.clone());
                Err(failure)
            }
        }
    }

    /// The same when the event loop has waited for it.
    fn execution(&mut self) {
        if self.state != State::Delayed {
            return;
        }
        let executed = self.executed();
        let _ = self.epoll.delete(&self.container.channel);
        match executed {
            Ok(Some(hooks)) => {
                for client in self.clients.values_mut() {
                    if client.pending == Some(Pending::Start) {
                        client.pending = Some(Pending::Started(hooks));
                    }
                }
            }
            Ok(None) => {
                self.answer_pending(&Pending::Start, &self.started());
            }
            Err(failure) => {
                self.answer_pending(&Pending::Start, &failed(failure));
            }
        }
    }

    fn started(&self) -> Response {
        Response::Started {
            pid: self.container.pid,
        }
    }

    /// Begins to run the hooks of a kind; gives the process that does.
    fn run_hooks(&self, kind: &str, status: &str) -> Option<i32> {
        let mut kinds = self.config.hooks.as_ref()?.kinds().into_iter();
        let (_, hooks) = kinds.find(|(name, list)| *name == kind && !list.is_empty())?;
        let subject = Subject::new(&self.spec.id, &self.config, &self.spec.bundle);
        // Failures change nothing, and there is nobody to tell.
        hooks::in_background(subject, kind, hooks, status, self.container.pid).ok()
    }

    fn report(&self) -> Response {
        let frozen = || {
            let cgroup = self.container.cgroup.as_ref();
            cgroup.is_some_and(Cgroup::is_frozen)
        };
        let (status, exit) = match &self.state {
            State::Created | State::Delayed => ("created", None),
            State::Running if frozen() => ("paused", None),
            State::Running => ("running", None),
            State::Stopped(exit) => ("stopped", Some(exit.clone())),
        };
        Response::State {
            status: status.to_owned(),
            pid: self.container.pid,
            exit,
        }
    }

    fn kill(&self, signal: i32, all: bool) -> Result<(), Failure> {
        if matches!(self.state, State::Stopped(_)) {
            return Err(Failure::conflict("the container has ended"));
        }
        let step = || format!("send signal {signal} to process {}", self.container.pid);
        if !all {
            return clone::signal_process(self.container.pidfd.as_fd(), signal).step(step);
        }
        let cgroup = self.container.cgroup.as_ref().ok_or_else(|| {
            Failure::invalid("only a container with a cgroup can be signalled as a whole")
        })?;
        if signal == Signal::SIGKILL as i32 {
            return cgroup.kill();
        }
        for pid in cgroup.processes()? {
            match clone::signal_pid(pid, signal) {
                // Ended since it was listed.
                Err(nix::errno::Errno::ESRCH) => {}
                other => other.step(|| format!("send signal {signal} to process {pid}"))?,
            }
        }
        Ok(())
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), Failure> {
        match &self.streams.outputs[0] {
            Some(terminal) if self.streams.terminal => {
                sandbox::set_terminal_size(terminal, rows, columns)
                    .step(|| "set the terminal's size")
            }
            _ => Err(Failure::invalid("the container has no terminal")),
        }
    }

    fn freeze(&self, frozen: bool) -> Result<(), Failure> {
        if self.state != State::Running {
            return Err(Failure::conflict("the container is not running"));
        }
        self.cgroup()?.freeze(frozen)
    }

    fn update(&self, resources: serde_json::Value) -> Result<(), Failure> {
        let resources: spec::Resources = serde_json::from_value(resources)
            .map_err(|error| Failure::invalid(format!("resources: {error}")))?;
        self.cgroup()?.update(&resources)
    }

    fn cgroup(&self) -> Result<&Cgroup, Failure> {
        self.container
            .cgroup
            .as_ref()
            .ok_or_else(|| Failure::invalid("the container has no cgroup (linux.cgroupsPath)"))
    }

    /// Collects ended processes: the container's first one, and orphans that were given to the
    /// subreaper.
    fn reap(&mut self) {
        // At most one waits; another that comes meanwhile makes the descriptor readable again.
        let _ = self.children.read_signal();
        while let Some((pid, status)) = self.collect() {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                // Stopped or continued, which was not asked for.
                (None, None) => continue,
            };
            if self.answer_pending(&Pending::Started(pid), &self.started()) {
                continue;
            }
            // Others are orphans that were given to the subreaper.
            if !self.exec_reaped(pid, code) && pid == self.container.pid {
                self.finish(code);
            }
        }
    }

    /// Collects one ended process.
    fn collect(&mut self) -> Option<(i32, rustix::process::WaitStatus)> {
        let starting = self.exec_is_starting() || self.state == State::Delayed;
        let collected = match starting.then(next_ended) {
            // What it has reported is read before its number is free to be used again.
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

    /// Everything that is left to do when the container's first process has ended.
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
        let _ = self.log.finish(finished_at);
        self.recorded += 1;
        if let Some(cgroup) = &self.container.cgroup {
            // Whoever starts the container again right after the exit record finds no leftovers.
            let _ = cgroup.remove();
        }
        self.run_hooks("poststop", "stopped");
        let exit = Exit {
            version: 1,
            code,
            oom_killed,
            started_at: self.started_at,
            finished_at,
            error: self.error.take(),
        };
        let _ = write_exit(&self.folder, &exit);
        self.listener = None;
        let _ = std::fs::remove_file(self.folder.join(SOCKET_FILE));
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
        message: failure.message,
        reason: failure.reason,
    }
}

/// Has the event loop wait for what there is from the beginning.
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

/// A child that has ended and is still to be collected.
fn next_ended() -> Option<i32> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let status = nix::sys::wait::waitid(nix::sys::wait::Id::All, flags).ok()?;
    status.pid().map(nix::unistd::Pid::as_raw)
}

/// Signals of ended children, which are blocked like all others, as a descriptor.
fn watch_children() -> Result<SignalFd, Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .step(|| "make a signal descriptor")
}

/// Listens in the shim's folder. Only root may connect.
fn listen(folder: &Path) -> Result<UnixListener, Failure> {
    let path = folder.join(SOCKET_FILE);
    let step = || format!("listen on {}", path.display());
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .step(step)?;
    // The file gets the mode of its socket.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600)).step(step)?;
    let bind = || match SocketAddrUnix::new(&path) {
        Ok(address) => rustix::net::bind(&socket, &address),
        // Socket addresses are at most 107 bytes long; folders may be longer.
        Err(_) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(folder, flags, Mode::empty())?;
            let short = format!("/proc/self/fd/{}/{SOCKET_FILE}", opened.as_raw_fd());
            rustix::net::bind(&socket, &SocketAddrUnix::new(short)?)
        }
    };
    match bind() {
        // Of a shim that was killed.
        Err(Errno::ADDRINUSE) => {
            rustix::fs::unlink(&path).step(step)?;
            bind().step(step)?;
        }
        other => other.step(step)?,
    }
    rustix::net::listen(&socket, BACKLOG).step(step)?;
    Ok(socket.into())
}

/// Writes the exit record as a whole. It is not flushed to disk: it is of interest until the next
/// start of the machine only, and the folder lies in memory there.
fn write_exit(folder: &Path, exit: &Exit) -> std::io::Result<()> {
    let path = folder.join(EXIT_FILE);
    let temporary = folder.join(".exit.json.new");
    let json = serde_json::to_vec(exit)?;
    files::replace(&path, &temporary, &json, 0o600)
}
