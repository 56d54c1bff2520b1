//! Exec sessions: additional processes in the container. This module handles the requests of
//! clients, [`progress`] the events of sessions. [`session`] has the state of a session,
//! [`history`] the ends of sessions.
//!
//! Their output does not go to the container's log. The output of a session's process goes to the
//! attached clients as it is read, and it is read only while every client has room. So a client
//! that does not read blocks the session's process, like a full pipe, but neither the container nor
//! the shim. Without clients the output is read and dropped.

mod history;
mod probe;
mod progress;
pub(super) mod result;
mod session;

use std::os::fd::AsFd;
use std::path::Path;

use keelson_model::json::Json;
use keelson_shim_protocol::{EXECUTIONS_FILE, EndedExecutions, Response};
use keelson_sys::{clone, sandbox};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use serde::Deserialize;

use super::{Server, State};
use crate::failure::{Failure, Step};
use crate::files;
use crate::process::confinement::Asked;
use crate::process::exec::{self, Target};
use crate::process::keeper::Keeper;
use crate::process::labels;
use crate::shim::client::{Attached, Client, Pending};
use crate::shim::stdio::{self, Streams};
use crate::spec;
use session::{Phase, Session};

pub(super) use session::Sessions;

/// The first token of sessions; a token is this, the session's number times four, and one of the
/// following.
pub(super) const FIRST_TOKEN: u64 = 1 << 62;
const OUTPUTS: [u64; 2] = [0, 1];
const INPUT: u64 = 2;
const CHANNEL: u64 = 3;

/// How many sessions may exist at a time, without ended ones.
const MAX_SESSIONS: usize = 1024;
/// How many sessions may wait to be started. If more are made, the client has forgotten the oldest
/// ones.
const MAX_MADE: usize = 256;
/// Longest name, in bytes. All names must fit into one answer.
const MAX_NAME: usize = 128;

impl Server {
    /// Makes a session.
    pub(super) fn exec_make(
        &mut self,
        name: String,
        process: serde_json::Value,
        open_stdin: bool,
    ) -> Result<(), Failure> {
        self.require_running()?;
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Failure::invalid(format!(
                "an exec session needs a name of 1 to {MAX_NAME} bytes"
            )));
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
        let given = self.foreign.as_ref().map(|_| Box::new(process.clone()));
        let process = Json::deserialize(process)
            .map_err(|error| Failure::invalid(format!("process: {error}")))?;
        let process = spec::process_of(process)?;
        labels::check(&process)?;
        self.sessions.last += 1;
        let session = Session {
            name,
            open_stdin,
            phase: Phase::Made(Box::new(process), given),
            streams: Streams::default(),
            watched: [false; 2],
            input_watched: false,
            exit: None,
            started_at: 0,
            deadline: None,
            probe: None,
        };
        self.sessions.map.insert(self.sessions.last, session);
        let is_made: fn(&Phase) -> bool = |phase| matches!(phase, Phase::Made(..));
        for number in self.sessions.all_but_latest(MAX_MADE, is_made) {
            self.forget(number);
        }
        Ok(())
    }

    /// In a frozen container the process would only wait, and its client would not know why.
    fn require_running(&self) -> Result<(), Failure> {
        if self.state != State::Running {
            return Err(Failure::conflict(format!(
                "container {} is not running",
                self.spec.id
            )));
        }
        if self.is_frozen() {
            return Err(Failure::conflict(format!(
                "container {} is paused, unpause the container before exec",
                self.spec.id
            )));
        }
        Ok(())
    }

    /// Runs a session. It is answered when the command was executed.
    pub(super) fn exec_start(&mut self, name: &str, client: &mut Client) -> Result<(), Failure> {
        self.require_running()?;
        let number = self.sessions.number_of(name)?;
        let Some(session) = self.sessions.map.get_mut(&number) else {
            return Err(Failure::internal("the session is gone"));
        };
        if let Phase::Starting { .. } | Phase::Calling { .. } = &session.phase {
            // A restarted hostd asks what happened to it.
            client.pending = Some(Pending::ExecStart(number));
            return Ok(());
        }
        if !matches!(session.phase, Phase::Made(..)) {
            return Err(Failure::conflict(format!(
                "exec session {name} was started already"
            )));
        }
        self.exec_spawn(number)?;
        client.pending = Some(Pending::ExecStart(number));
        Ok(())
    }

    /// Makes the process of a session that waits to be started. A session that fails is forgotten.
    fn exec_spawn(&mut self, number: u64) -> Result<(), Failure> {
        let Some(session) = self.sessions.map.get_mut(&number) else {
            return Err(Failure::internal("the session is gone"));
        };
        let Phase::Made(process, given) = &session.phase else {
            return Err(Failure::internal("the session was started already"));
        };
        let streams = match process.terminal {
            true => Ok(None),
            false => stdio::pipes(session.open_stdin).map(Some),
        };
        if let (Some(foreign), Some(given)) = (&mut self.foreign, given) {
            let called = streams.and_then(|streams| {
                let (streams, stdio) = streams.unzip();
                let (call, console) = foreign.exec(number, given, stdio)?;
                Ok((call, console, streams))
            });
            return match called {
                Ok((call, console, streams)) => {
                    if let Some(streams) = streams {
                        session.connect(streams);
                    }
                    session.phase = Phase::Calling { call, console };
                    Ok(())
                }
                Err(failure) => {
                    self.forget(number);
                    Err(failure)
                }
            };
        }
        let spawned = streams.and_then(|streams| {
            let (streams, stdio) = streams.unzip();
            let read;
            let container = match (&self.probed, session.probe.is_some()) {
                (Some(spec), _) => spec.as_ref(),
                (None, true) => self.probed.insert(Box::new(spec::load(&self.spec.bundle)?)),
                (None, false) => {
                    read = spec::load(&self.spec.bundle)?;
                    &read
                }
            };
            let spawned = exec::spawn(exec::ExecRequest {
                common: Asked {
                    id: &self.spec.id,
                    bundle: &self.spec.bundle,
                    spec: container,
                    stdio,
                    keeper: Keeper::Shim,
                    relayed: false,
                    preserved: 0,
                },
                process,
                target: Target {
                    pid: self.container.pid,
                    pidfd: self.container.pidfd.as_fd(),
                    cgroup: self.container.cgroup.as_ref(),
                },
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

    /// Reports how a session ended, at once or when it ends.
    pub(super) fn exec_wait(
        &mut self,
        name: &str,
        client: &mut Client,
    ) -> Result<Option<Response>, Failure> {
        let Ok(number) = self.sessions.number_of(name) else {
            let exit = self.sessions.history.exit(name);
            self.sessions.history.told(name);
            let none = || Failure::not_found(format!("there is no exec session {name}"));
            return exit.map(Response::Exited).map(Some).ok_or_else(none);
        };
        let session = self.sessions.map.get(&number);
        let exit = session.and_then(|session| session.exit.clone());
        if exit.is_none() {
            client.pending = Some(Pending::ExecWait(number));
            return Ok(None);
        }
        // From now on it is in the history.
        self.sessions.history.told(name);
        if let Some(session) = self.sessions.map.get_mut(&number) {
            session.name.clear();
            if matches!(session.phase, Phase::Over) {
                self.sessions.map.remove(&number);
            }
        }
        Ok(exit.map(Response::Exited))
    }

    /// Reports the state of all sessions.
    pub(super) fn exec_list(&self) -> Response {
        Response::Executions {
            executions: self.sessions.list(),
        }
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

    /// Passes an attached client's input to its session.
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

    /// Writes the ends of sessions to a file for hostd, because the container has ended, too.
    pub(super) fn exec_leave_ends(&self, directory: &Path) -> std::io::Result<()> {
        let executions: Vec<_> = self.sessions.history.list().collect();
        if executions.is_empty() {
            return Ok(());
        }
        let ended = EndedExecutions {
            version: 1,
            executions,
        };
        let path = directory.join(EXECUTIONS_FILE);
        let temporary = directory.join(NEW_EXECUTIONS_FILE);
        files::replace(&path, &temporary, &serde_json::to_vec(&ended)?, 0o600)
    }
}

/// The file's name until it is complete.
const NEW_EXECUTIONS_FILE: &str = ".executions.json.new";

fn token(number: u64, what: u64) -> u64 {
    FIRST_TOKEN + (number << 2) + what
}
