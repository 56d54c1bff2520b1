//! Events of exec sessions that no client asks for: execution, output, end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use keelson_shim_protocol::stream::OutputStream;
use keelson_shim_protocol::{Exit, FailReason, Response};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::session::{Phase, Session};
use super::{CHANNEL, FIRST_TOKEN, INPUT, OUTPUTS, token};
use crate::failure::Failure;
use crate::process::channel::Message;
use crate::process::exec;
use crate::shim::client::Pending;
use crate::shim::server::{Server, failed};
use crate::shim::stdio::{self, Output};

/// How long output is still read after the end of the process, if others hold it open.
const GRACE: Duration = Duration::from_secs(2);

impl Server {
    /// An event of a session.
    pub(in crate::shim::server) fn exec_event(&mut self, token: u64) {
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

    /// Handles a report that the process sends before it executes its command.
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
        self.exec_executed(number, result.map(|terminal| (pid, terminal)));
    }

    /// Handles the end of another runtime's call that makes the process.
    pub(in crate::shim::server) fn exec_called(
        &mut self,
        number: u64,
        outcome: Result<(), Failure>,
    ) {
        let (Some(foreign), Some(session)) = (&self.foreign, self.sessions.map.get_mut(&number))
        else {
            return;
        };
        let Phase::Calling { console, .. } = &mut session.phase else {
            return;
        };
        let console = console.take();
        let made = foreign.exec_pid(number);
        let result = outcome.and(made).and_then(|pid| {
            let terminal = console.map(|console| console.terminal()).transpose()?;
            Ok((pid, terminal))
        });
        let pid = result.as_ref().map_or(0, |(pid, _)| *pid);
        self.exec_executed(number, result);
        let foreign = self.foreign.as_mut();
        if let Some(code) = foreign.and_then(|foreign| foreign.claim_stray(pid)) {
            self.exec_reaped(pid, code);
        }
    }

    /// Handles the result: this process executed its command and may have a terminal, or it failed.
    fn exec_executed(&mut self, number: u64, result: Result<(i32, Option<OwnedFd>), Failure>) {
        let Some(session) = self.sessions.map.get_mut(&number) else {
            return;
        };
        let result = result.and_then(|(pid, terminal)| match terminal {
            Some(master) => Ok((pid, Some(stdio::terminal(master, session.open_stdin)?))),
            None => Ok((pid, None)),
        });
        match result {
            Ok((pid, terminal)) => {
                if let Some(streams) = terminal {
                    session.connect(streams);
                }
                session.started_at = crate::shim::now();
                session.phase = Phase::Running { pid };
                if let Some(probe) = &session.probe {
                    session.deadline = Instant::now().checked_add(probe.limit());
                }
                self.answer_pending(&Pending::ExecStart(number), &Response::Started { pid });
            }
            Err(failure) => {
                // A process that failed leaves only a zombie, which is reaped like every other.
                let failed = failed(failure);
                self.answer_pending(&Pending::ExecStart(number), &failed);
                self.answer_pending(&Pending::Probe(number), &failed);
                self.forget(number);
            }
        }
    }

    /// Whether a session has not executed its command yet.
    pub(in crate::shim::server) fn exec_is_starting(&self) -> bool {
        let mut sessions = self.sessions.map.values();
        sessions.any(|session| matches!(session.phase, Phase::Starting { .. }))
    }

    /// Reads the remaining reports of a process that ended, if it had not executed its command yet.
    pub(in crate::shim::server) fn exec_settle(&mut self, process: i32) {
        let starting = |session: &Session| match session.phase {
            Phase::Starting { pid, .. } => pid == process,
            _ => false,
        };
        while let Some(number) = self.sessions.find(starting) {
            self.exec_progress(number);
        }
    }

    /// Answers the clients that wait for an event. True: there was one.
    pub(in crate::shim::server) fn answer_pending(
        &mut self,
        pending: &Pending,
        response: &Response,
    ) -> bool {
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

    /// Drops a session that never ran, and tells the clients that wait for it.
    pub(super) fn forget(&mut self, number: u64) {
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

    /// Records the end of a session's process. False: the process belongs to no session.
    pub(in crate::shim::server) fn exec_reaped(&mut self, pid: i32, code: i32) -> bool {
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
        if session.probe.is_some() {
            let number = *number;
            self.probe_ended(number, code);
            return true;
        }
        self.sessions.history.add(&session.name, pid, &exit);
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
                // From now on it is in the history.
                self.sessions.history.told(&session.name);
                session.name.clear();
            }
        }
        self.exec_finish(number);
    }

    /// Reads output while there is some and every client has room.
    pub(super) fn exec_output(&mut self, number: u64, index: usize) {
        // The other sessions and the container must have their turn, too.
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
                    if let Some(probe) = &mut session.probe {
                        probe.keep(&self.buffer);
                    }
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

    /// After the end of a session's process, stops reading output that other processes hold open,
    /// unless clients still have to read the rest.
    pub(in crate::shim::server) fn exec_expire(&mut self) {
        let now = Instant::now();
        let due: Vec<u64> = self
            .sessions
            .map
            .iter()
            .filter(|(_, session)| session.deadline.is_some_and(|at| at <= now))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            if self.probe_expired(number) {
                continue;
            }
            for index in 0..2 {
                self.exec_output(number, index);
            }
            let Some(session) = self.sessions.map.get_mut(&number) else {
                continue;
            };
            // Clients that are not waited for are full.
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

    /// Registers the streams that can be read and written now.
    pub(in crate::shim::server) fn exec_watch(&mut self) {
        for (number, session) in &mut self.sessions.map {
            if !matches!(
                session.phase,
                Phase::Running { .. } | Phase::Starting { .. } | Phase::Calling { .. }
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

    /// The container has ended: sessions that were not started never will be.
    pub(in crate::shim::server) fn exec_container_ended(&mut self) {
        let made: Vec<u64> = self
            .sessions
            .map
            .iter()
            .filter(|(_, session)| matches!(session.phase, Phase::Made(..)))
            .map(|(number, _)| *number)
            .collect();
        for number in made {
            self.forget(number);
        }
    }
}
