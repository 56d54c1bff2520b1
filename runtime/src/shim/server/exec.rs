//! Exec sessions: further processes in the container.
//!
//! Their output does not go to the container's log. What a session's process writes is handed to
//! the attached clients as it is read, and it is read only while every one of them has room: a
//! client that does not read holds up the session's process, like a full pipe, but neither the
//! container nor the shim. Without clients the output is read and dropped.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use keelson_model::json::Json;
use keelson_shim_protocol::stream::OutputStream;
use keelson_shim_protocol::{Exit, FailReason, Response};
use keelson_sys::{clone, sandbox};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use serde::Deserialize;

use super::{Server, State, failed};
use crate::failure::{Failure, Step};
use crate::process::channel::{Channel, Message};
use crate::process::exec;
use crate::process::labels;
use crate::shim::client::{Attached, Client, Pending};
use crate::shim::stdio::{self, Output, Streams};
use crate::spec::{self, Process};

/// The first token of sessions; a token is this, the session's number times four, and one of the
/// following.
pub(super) const FIRST_TOKEN: u64 = 1 << 62;
const OUTPUTS: [u64; 2] = [0, 1];
const INPUT: u64 = 2;
const CHANNEL: u64 = 3;

/// How long output is still taken after the end of the process, when others hold it open.
const GRACE: Duration = Duration::from_secs(2);
/// Sessions that may exist at a time, ended ones not counted.
const MAX_SESSIONS: usize = 1024;
/// Sessions that wait to be started: whoever made more than that has forgotten the oldest.
const MAX_MADE: usize = 256;
/// Sessions whose end nobody has asked about yet; of more the oldest is forgotten.
const MAX_ENDED: usize = 128;

/// All sessions, by number.
#[derive(Default)]
pub(super) struct Sessions {
    map: BTreeMap<u64, Session>,
    last: u64,
}

struct Session {
    name: String,
    open_stdin: bool,
    phase: Phase,
    streams: Streams,
    /// Which of the streams the event loop waits for.
    watched: [bool; 2],
    input_watched: bool,
    /// How the process ended.
    exit: Option<Exit>,
    started_at: u64,
    /// When output that others hold open is given up.
    deadline: Option<Instant>,
}

enum Phase {
    /// Waits to be started.
    Made(Box<Process>),
    /// On its way to its command; the terminal when it came already.
    Starting {
        pid: i32,
        channel: Channel,
        terminal: Option<OwnedFd>,
    },
    /// Its command was executed.
    Running { pid: i32 },
    /// There will be no more output.
    Over,
}

impl Session {
    fn pid(&self) -> Option<i32> {
        match &self.phase {
            Phase::Starting { pid, .. } | Phase::Running { pid } => Some(*pid),
            Phase::Made(_) | Phase::Over => None,
        }
    }

    fn takes_input(&self) -> bool {
        self.streams.takes_input()
    }

    fn push_input(&mut self, bytes: &[u8]) {
        // The pipe or terminal is not there yet.
        if self.streams.input.is_none()
            && matches!(self.phase, Phase::Made(_) | Phase::Starting { .. })
        {
            if self.open_stdin && !self.streams.closing {
                self.streams.pending.extend_from_slice(bytes);
            }
            return;
        }
        self.streams.push_input(bytes);
    }
}

impl Sessions {
    fn find(&self, is_it: impl Fn(&Session) -> bool) -> Option<u64> {
        let mut sessions = self.map.iter();
        let found = sessions.find(|(_, session)| is_it(session));
        found.map(|(number, _)| *number)
    }

    fn number_of(&self, name: &str) -> Result<u64, Failure> {
        self.find(|session| session.name == name && !name.is_empty())
            .ok_or_else(|| Failure::not_found(format!("there is no exec session {name}")))
    }

    /// Whether a client may send more input.
    pub(super) fn takes_input(&self, number: u64) -> bool {
        self.map.get(&number).is_none_or(Session::takes_input)
    }

    /// When there is something to do without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.map
            .values()
            .filter_map(|session| session.deadline)
            .min()
    }

    /// Forgets the oldest sessions whose end nobody asked about.
    fn trim(&mut self) {
        for number in self.all_but_latest(MAX_ENDED, |phase| matches!(phase, Phase::Over)) {
            self.map.remove(&number);
        }
    }

    /// The sessions in a phase but for so many that were made last.
    fn all_but_latest(&self, count: usize, is_in: fn(&Phase) -> bool) -> Vec<u64> {
        let sessions = self.map.iter().rev();
        sessions
            .filter(|(_, session)| is_in(&session.phase))
            .map(|(number, _)| *number)
            .skip(count)
            .collect()
    }
}

impl Server {
    /// Makes a session.
    pub(super) fn exec_make(
        &mut self,
        name: String,
        process: serde_json::Value,
        open_stdin: bool,
    ) -> Result<(), Failure> {
        self.require_running()?;
        if name.is_empty() {
            return Err(Failure::invalid("an exec session needs a name"));
        }
        if self.sessions.number_of(&name).is_ok() {
            return Err(Failure::conflict(format!(
                "exec session {name} exists already"
            )));
        }
        self.sessions.trim();
        let alive = |session: &&Session| !matches!(session.phase, Phase::Over);
        if self.sessions.map.values().filter(alive).count() >= MAX_SESSIONS {
            return Err(Failure::conflict(format!(
                "container {} has {MAX_SESSIONS} exec sessions; more are not possible",
                self.spec.id
            )));
        }
        let process = Json::deserialize(process)
            .map_err(|error| Failure::invalid(format!("process: {error}")))?;
        let process = spec::process_of(process)?;
        labels::check(&process)?;
        self.sessions.last += 1;
        let session = Session {
            name,
            open_stdin,
            phase: Phase::Made(Box::new(process)),
            streams: Streams::default(),
            watched: [false; 2],
            input_watched: false,
            exit: None,
            started_at: 0,
            deadline: None,
        };
        self.sessions.map.insert(self.sessions.last, session);
        let is_made: fn(&Phase) -> bool = |phase| matches!(phase, Phase::Made(_));
        for number in self.sessions.all_but_latest(MAX_MADE, is_made) {
            self.forget(number);
        }
        Ok(())
    }

    /// An exec'd process of a frozen container would only wait; its client would not know why.
    fn require_running(&self) -> Result<(), Failure> {
        if self.state != State::Running {
            return Err(Failure::conflict(format!(
                "container {} is not running",
                self.spec.id
            )));
        }
        let frozen = self.container.cgroup.as_ref();
        if frozen.is_some_and(crate::cgroup::Cgroup::is_frozen) {
            return Err(Failure::conflict(format!(
                "container {} is paused, unpause the container before exec",
                self.spec.id
            )));
        }
        Ok(())
    }

    /// Runs a session. The answer comes when its command was executed.
    pub(super) fn exec_start(&mut self, name: &str, client: &mut Client) -> Result<(), Failure> {
        self.require_running()?;
        let number = self.sessions.number_of(name)?;
        let Some(session) = self.sessions.map.get_mut(&number) else {
            return Err(Failure::internal("the session is gone"));
        };
        let Phase::Made(process) = &session.phase else {
            return Err(Failure::conflict(format!(
                "exec session {name} was started already"
            )));
        };
        let streams = match process.terminal {
            true => Ok(None),
            false => stdio::pipes(session.open_stdin).map(Some),
        };
        let spawned = streams.and_then(|streams| {
            let (streams, stdio) = streams.unzip();
            let spawned = exec::spawn(exec::Request {
                id: &self.spec.id,
                bundle: &self.spec.bundle,
                spec: &spec::load(&self.spec.bundle)?,
                process,
                pid: self.container.pid,
                pidfd: self.container.pidfd.as_fd(),
                cgroup: self.container.cgroup.as_ref(),
                stdio,
                die_with_parent: true,
                relayed: false,
                preserved: 0,
            })?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token(number, CHANNEL));
            let watched = self.epoll.add(&spawned.channel, event);
            if watched.is_err() {
                // It does not wait for anything before it executes its command.
                let _ = clone::signal_process(spawned.pidfd.as_fd(), libc::SIGKILL);
            }
            watched.step(|| "watch the process's channel")?;
            Ok((spawned, streams))
        });
        match spawned {
            Ok((spawned, streams)) => {
                if let Some(streams) = streams {
                    session.connect(streams);
                }
                session.phase = Phase::Starting {
                    pid: spawned.pid,
                    channel: spawned.channel,
                    terminal: None,
                };
                client.pending = Some(Pending::ExecStart(number));
                Ok(())
            }
            Err(failure) => {
                self.forget(number);
                Err(failure)
            }
        }
    }

    /// Attaches a client.
    pub(super) fn exec_attach(
        &mut self,
        name: &str,
        client: &mut Client,
        streams: [bool; 3],
    ) -> Result<(), Failure> {
        let number = self.sessions.number_of(name)?;
        client.respond(&Response::Done);
        let over = self
            .sessions
            .map
            .get(&number)
            .is_none_or(|session| matches!(session.phase, Phase::Over));
        client.attached = Some(Attached::to_session(number, streams));
        client.ended = over;
        Ok(())
    }

    /// Tells how a session ended, now or when it has.
    pub(super) fn exec_wait(
        &mut self,
        name: &str,
        client: &mut Client,
    ) -> Result<Option<Response>, Failure> {
        let number = self.sessions.number_of(name)?;
        let session = self.sessions.map.get(&number);
        let exit = session.and_then(|session| session.exit.clone());
        if exit.is_none() {
            client.pending = Some(Pending::ExecWait(number));
            return Ok(None);
        }
        // Nobody will ask for it again.
        if let Some(session) = self.sessions.map.get_mut(&number) {
            session.name.clear();
            if matches!(session.phase, Phase::Over) {
                self.sessions.map.remove(&number);
            }
        }
        Ok(exit.map(Response::Exited))
    }

    pub(super) fn exec_resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), Failure> {
        let number = self.sessions.number_of(name)?;
        let streams = self
            .sessions
            .map
            .get(&number)
            .map(|session| &session.streams);
        match streams.and_then(|streams| streams.outputs[0].as_ref().filter(|_| streams.terminal)) {
            Some(terminal) => sandbox::set_terminal_size(terminal, rows, columns)
                .step(|| "set the terminal's size"),
            None => Err(Failure::invalid(format!(
                "exec session {name} has no terminal now"
            ))),
        }
    }

    /// Gives an attached client's input to its session.
    pub(super) fn exec_input(&mut self, number: u64, client: &mut Client) {
        let bytes = client.take_input();
        let Some(attached) = client.attached.as_mut().filter(|attached| attached.stdin) else {
            return;
        };
        let Some(session) = self.sessions.map.get_mut(&number) else {
            return;
        };
        if !bytes.is_empty() {
            session.push_input(&bytes);
        }
        if client.input_ended {
            attached.stdin = false;
            session.streams.end_input();
        }
    }

    /// An event of a session.
    pub(super) fn exec_event(&mut self, token: u64) {
        let (number, what) = ((token - FIRST_TOKEN) >> 2, token & 3);
        match what {
            CHANNEL => self.exec_progress(number),
            INPUT => {
                if let Some(session) = self.sessions.map.get_mut(&number) {
                    session.write_input(&self.epoll);
                }
            }
            output => self.exec_output(number, output as usize),
        }
    }

    /// What the process reports on its way to its command.
    fn exec_progress(&mut self, number: u64) {
        let Some(session) = self.sessions.map.get_mut(&number) else {
            return;
        };
        let Phase::Starting {
            pid,
            channel,
            terminal,
        } = &mut session.phase
        else {
            return;
        };
        let pid = *pid;
        let result = match channel.receive() {
            Ok(Message::Ready(master)) => {
                *terminal = master;
                return;
            }
            Ok(Message::Closed) => exec::check_executed(pid).map(|()| terminal.take()),
            Ok(Message::Failed(failure)) => Err(failure),
            Ok(Message::Hooks | Message::Made(_)) => Err(Failure::internal(
                "the process reported what only a container's first one does",
            )),
            Err(failure) => Err(failure),
        };
        let _ = self.epoll.delete(&*channel);
        let result = result.and_then(|terminal| match terminal {
            Some(master) => stdio::terminal(master, session.open_stdin).map(Some),
            None => Ok(None),
        });
        match result {
            Ok(terminal) => {
                if let Some(streams) = terminal {
                    session.connect(streams);
                }
                session.started_at = crate::shim::now();
                session.phase = Phase::Running { pid };
                self.answer_pending(&Pending::ExecStart(number), &Response::Started { pid });
            }
            Err(failure) => {
                // Of a process that failed nothing is left but the zombie, which is reaped as
                // every other.
                self.answer_pending(&Pending::ExecStart(number), &failed(failure));
                self.forget(number);
            }
        }
    }

    /// Whether a session is on its way to its command.
    pub(super) fn exec_is_starting(&self) -> bool {
        let mut sessions = self.sessions.map.values();
        sessions.any(|session| matches!(session.phase, Phase::Starting { .. }))
    }

    /// Reads to the end what a process that has ended reported, if it was on its way to its
    /// command.
    pub(super) fn exec_settle(&mut self, process: i32) {
        let starting = |session: &Session| match session.phase {
            Phase::Starting { pid, .. } => pid == process,
            _ => false,
        };
        while let Some(number) = self.sessions.find(starting) {
            self.exec_progress(number);
        }
    }

    /// Answers the clients that wait for something. True: there was one.
    pub(super) fn answer_pending(&mut self, pending: &Pending, response: &Response) -> bool {
        let mut answered = false;
        for client in self.clients.values_mut() {
            if client.pending.as_ref() == Some(pending) {
                client.pending = None;
                client.respond(response);
                answered = true;
            }
        }
        answered
    }

    /// Drops a session that never ran; whoever waits for it is told.
    fn forget(&mut self, number: u64) {
        let gone = Response::Failed {
            message: "the exec session was not started".to_owned(),
            reason: FailReason::Internal,
        };
        self.answer_pending(&Pending::ExecWait(number), &gone);
        self.end_clients(number);
        self.sessions.map.remove(&number);
    }

    fn end_clients(&mut self, number: u64) {
        for client in self.clients.values_mut() {
            if client.session() == Some(number) {
                client.ended = true;
            }
        }
    }

    /// Notes the end of a session's process. False: the process is none.
    pub(super) fn exec_reaped(&mut self, pid: i32, code: i32) -> bool {
        let found = self
            .sessions
            .map
            .iter_mut()
            .find(|(_, session)| session.exit.is_none() && session.pid() == Some(pid));
        let Some((number, session)) = found else {
            return false;
        };
        let exit = Exit {
            version: 1,
            code,
            oom_killed: false,
            started_at: session.started_at,
            finished_at: crate::shim::now(),
            error: None,
            log_lost: 0,
        };
        session.exit = Some(exit.clone());
        let number = *number;
        self.exec_exited(number, exit);
        true
    }

    fn exec_exited(&mut self, number: u64, exit: Exit) {
        let collected = self.answer_pending(&Pending::ExecWait(number), &Response::Exited(exit));
        for index in 0..2 {
            self.exec_output(number, index);
        }
        if let Some(session) = self.sessions.map.get_mut(&number) {
            session.deadline = Some(Instant::now() + GRACE);
            if collected {
                // Nobody will ask for it again.
                session.name.clear();
            }
        }
        self.exec_finish(number);
    }

    /// Reads output as long as there is some and every client has room.
    fn exec_output(&mut self, number: u64, index: usize) {
        // The other sessions and the container shall have their turn, too.
        for _ in 0..16 {
            let Some(session) = self.sessions.map.get_mut(&number) else {
                return;
            };
            let Some(slot) = session.streams.outputs.get(index) else {
                return;
            };
            let Some(fd) = slot.as_ref().map(AsFd::as_fd) else {
                return;
            };
            let mut attached = self
                .clients
                .values_mut()
                .filter(|client| client.wants(number, index))
                .collect::<Vec<_>>();
            if attached.iter().any(|client| !client.has_room()) {
                if session.watched[index] {
                    let _ = self.epoll.delete(fd);
                    session.watched[index] = false;
                }
                return;
            }
            match session.streams.read(index, &mut self.buffer) {
                Output::Some => {
                    let stream = match index {
                        0 => OutputStream::Stdout,
                        _ => OutputStream::Stderr,
                    };
                    for client in &mut attached {
                        client.send_output(stream, &self.buffer);
                        client.pump(self.recorded);
                    }
                }
                Output::None => return,
                Output::End => {
                    session.close_output(index, &self.epoll);
                    self.exec_finish(number);
                    return;
                }
            }
        }
    }

    /// Ends a session whose process has ended and whose output has been read.
    fn exec_finish(&mut self, number: u64) {
        let Some(session) = self.sessions.map.get_mut(&number) else {
            return;
        };
        if !matches!(session.phase, Phase::Running { .. })
            || session.exit.is_none()
            || session.streams.outputs.iter().any(Option::is_some)
        {
            return;
        }
        session.close_input(&self.epoll);
        session.phase = Phase::Over;
        session.deadline = None;
        if session.name.is_empty() {
            self.sessions.map.remove(&number);
        }
        self.end_clients(number);
        self.sessions.trim();
    }

    /// Gives up output that others hold open after the end of a session's process, unless it is
    /// the clients that have not taken what is there.
    pub(super) fn exec_expire(&mut self) {
        let now = Instant::now();
        let due: Vec<u64> = self
            .sessions
            .map
            .iter()
            .filter(|(_, session)| session.deadline.is_some_and(|at| at <= now))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            for index in 0..2 {
                self.exec_output(number, index);
            }
            let Some(session) = self.sessions.map.get_mut(&number) else {
                continue;
            };
            // Those that are not waited for are full.
            if (0..2).all(|index| !session.is_open(index) || session.watched[index]) {
                for index in 0..2 {
                    session.close_output(index, &self.epoll);
                }
                self.exec_finish(number);
            } else {
                session.deadline = Some(now + GRACE);
            }
        }
    }

    /// Waits for what can be read and written now.
    pub(super) fn exec_watch(&mut self) {
        for (number, session) in &mut self.sessions.map {
            if !matches!(
                session.phase,
                Phase::Running { .. } | Phase::Starting { .. }
            ) {
                continue;
            }
            for (index, output) in OUTPUTS.into_iter().enumerate() {
                let full = || {
                    self.clients
                        .values()
                        .any(|client| client.wants(*number, index) && !client.has_room())
                };
                if let Some(Some(fd)) = session.streams.outputs.get(index)
                    && !session.watched[index]
                    && !full()
                {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, token(*number, output));
                    session.watched[index] = self.epoll.add(fd, event).is_ok();
                }
            }
            if let Some(fd) = &session.streams.input
                && !session.input_watched
                && !session.streams.pending.is_empty()
            {
                let event = EpollEvent::new(EpollFlags::EPOLLOUT, token(*number, INPUT));
                session.input_watched = self.epoll.add(fd, event).is_ok();
            }
        }
    }

    /// The container has ended: what was not started never will be.
    pub(super) fn exec_container_ended(&mut self) {
        let made: Vec<u64> = self
            .sessions
            .map
            .iter()
            .filter(|(_, session)| matches!(session.phase, Phase::Made(_)))
            .map(|(number, _)| *number)
            .collect();
        for number in made {
            self.forget(number);
        }
    }
}

impl Session {
    /// Takes the streams over that the process has, and gives it what clients have sent before.
    fn connect(&mut self, mut streams: Streams) {
        streams.pending = std::mem::take(&mut self.streams.pending);
        streams.closing = self.streams.closing && !streams.terminal;
        streams.write_input();
        self.streams = streams;
    }

    fn is_open(&self, index: usize) -> bool {
        self.streams.outputs.get(index).is_some_and(Option::is_some)
    }

    fn close_output(&mut self, index: usize, epoll: &Epoll) {
        if let Some(slot) = self.streams.outputs.get_mut(index)
            && let Some(fd) = slot.take()
            && self.watched[index]
        {
            let _ = epoll.delete(fd);
            self.watched[index] = false;
        }
    }

    /// A terminal's input is a second descriptor of its output: closing it alone would not take
    /// it out of the epoll.
    fn close_input(&mut self, epoll: &Epoll) {
        self.unwatch_input(epoll);
        self.streams.input = None;
        self.streams.pending = Vec::new();
    }

    fn unwatch_input(&mut self, epoll: &Epoll) {
        if let Some(fd) = &self.streams.input
            && self.input_watched
        {
            let _ = epoll.delete(fd);
        }
        self.input_watched = false;
    }

    fn write_input(&mut self, epoll: &Epoll) {
        self.unwatch_input(epoll);
        self.streams.write_input();
    }
}

fn token(number: u64, what: u64) -> u64 {
    FIRST_TOKEN + (number << 2) + what
}
