//! One exec session, and all of them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Instant;

use keelson_shim_protocol::{Execution, ExecutionState, Exit};
use nix::sys::epoll::Epoll;

use super::history::History;
use super::result::Probe;
use crate::failure::Failure;
use crate::process::channel::Channel;
use crate::shim::foreign::Console;
use crate::shim::stdio::Streams;
use crate::spec::Process;

/// How many ended sessions are kept that no client asked about. If there are more, the oldest is
/// forgotten.
const MAX_ENDED: usize = 128;

/// All sessions, by number.
#[derive(Default)]
pub(in crate::shim::server) struct Sessions {
    pub(super) map: BTreeMap<u64, Session>,
    pub(super) last: u64,
    /// The ends of sessions.
    pub(super) history: History,
}

pub(super) struct Session {
    pub(super) name: String,
    pub(super) open_stdin: bool,
    pub(super) phase: Phase,
    pub(super) streams: Streams,
    /// Which of the streams the event loop waits for.
    pub(super) watched: [bool; 2],
    pub(super) input_watched: bool,
    /// How the process ended.
    pub(super) exit: Option<Exit>,
    pub(super) started_at: u64,
    /// When to stop reading output that others hold open; for a running probe: when to kill it.
    pub(super) deadline: Option<Instant>,
    /// The result of a probe.
    pub(super) probe: Option<Probe>,
}

pub(super) enum Phase {
    /// Waits to be started. The original text is kept for another runtime.
    Made(Box<Process>, Option<Box<serde_json::Value>>),
    /// Another runtime makes it by this call, and sends the terminal to this socket.
    Calling { call: i32, console: Option<Console> },
    /// It has not executed its command yet. The terminal, if it was received already.
    Starting {
        pid: i32,
        channel: Channel,
        terminal: Option<OwnedFd>,
    },
    /// Its command was executed.
    Running { pid: i32 },
    /// The output has ended.
    Over,
}

impl Session {
    pub(super) fn pid(&self) -> Option<i32> {
        match &self.phase {
            Phase::Starting { pid, .. } | Phase::Running { pid } => Some(*pid),
            Phase::Made(..) | Phase::Calling { .. } | Phase::Over => None,
        }
    }

    pub(super) fn takes_input(&self) -> bool {
        self.streams.takes_input()
    }

    pub(super) fn push_input(&mut self, bytes: &[u8]) {
        // The pipe or terminal is not there yet.
        if self.streams.input.is_none()
            && matches!(
                self.phase,
                Phase::Made(..) | Phase::Calling { .. } | Phase::Starting { .. }
            )
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
    pub(super) fn find(&self, is_it: impl Fn(&Session) -> bool) -> Option<u64> {
        let mut sessions = self.map.iter();
        let found = sessions.find(|(_, session)| is_it(session));
        found.map(|(number, _)| *number)
    }

    pub(super) fn number_of(&self, name: &str) -> Result<u64, Failure> {
        self.find(|session| session.name == name && !name.is_empty())
            .ok_or_else(|| Failure::not_found(format!("there is no exec session {name}")))
    }

    /// Whether a client may send more input.
    pub(in crate::shim::server) fn takes_input(&self, number: u64) -> bool {
        self.map.get(&number).is_none_or(Session::takes_input)
    }

    /// All sessions, for a restarted hostd.
    pub(super) fn list(&self) -> Vec<Execution> {
        // Probes end with the client that asked for them.
        let others = self.map.values().filter(|session| session.probe.is_none());
        let alive = others.filter_map(|session| {
            let state = match &session.phase {
                _ if session.exit.is_some() => return None,
                Phase::Made(..) => ExecutionState::Made,
                Phase::Calling { call, .. } => ExecutionState::Starting { pid: *call },
                Phase::Starting { pid, .. } => ExecutionState::Starting { pid: *pid },
                Phase::Running { pid } => ExecutionState::Running { pid: *pid },
                Phase::Over => return None,
            };
            let exec = session.name.clone();
            Some(Execution { exec, state })
        });
        self.history.list().chain(alive).collect()
    }

    /// The next time at which something must be done without an event.
    pub(in crate::shim::server) fn deadline(&self) -> Option<Instant> {
        self.map
            .values()
            .filter_map(|session| session.deadline)
            .min()
    }

    /// Forgets the oldest ended sessions that no client asked about.
    pub(super) fn trim(&mut self) {
        for number in self.all_but_latest(MAX_ENDED, |phase| matches!(phase, Phase::Over)) {
            self.map.remove(&number);
        }
    }

    /// The sessions in a phase, without the newest `keep` ones.
    pub(super) fn all_but_latest(&self, count: usize, is_in: fn(&Phase) -> bool) -> Vec<u64> {
        let sessions = self.map.iter().rev();
        sessions
            .filter(|(_, session)| is_in(&session.phase))
            .map(|(number, _)| *number)
            .skip(count)
            .collect()
    }
}

impl Session {
    /// Takes over the process's streams, and sends it the input that clients sent before.
    pub(super) fn connect(&mut self, mut streams: Streams) {
        streams.pending = std::mem::take(&mut self.streams.pending);
        streams.closing = self.streams.closing && !streams.terminal;
        streams.write_input();
        self.streams = streams;
    }

    pub(super) fn is_open(&self, index: usize) -> bool {
        self.streams.outputs.get(index).is_some_and(Option::is_some)
    }

    pub(super) fn close_output(&mut self, index: usize, epoll: &Epoll) {
        if let Some(slot) = self.streams.outputs.get_mut(index)
            && let Some(fd) = slot.take()
            && self.watched[index]
        {
            let _ = epoll.delete(fd);
            self.watched[index] = false;
        }
    }

    /// A terminal's input is a second descriptor of its output: closing that alone would not remove
    /// it from the epoll.
    pub(super) fn close_input(&mut self, epoll: &Epoll) {
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

    pub(super) fn write_input(&mut self, epoll: &Epoll) {
        self.unwatch_input(epoll);
        self.streams.write_input();
    }
}
