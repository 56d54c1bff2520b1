//! The record of a container's last run, and the state for disk and clients.

use jiff::Timestamp;
use keelson_shim_protocol::{Exit, exit_code};
use keelson_store::Rest;

use super::state::{Dead, Life, Unknown};
use super::{Machine, Rules};
use crate::types::{State, Status};

/// The last run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Record {
    pub(super) exit_code: i32,
    pub(super) error: String,
    pub(super) oom_killed: bool,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    /// Starts by the policy since the last one by a caller.
    pub(super) restart_count: u32,
    pub(super) stopped_by_caller: bool,
    /// Members of the state, and of its document, that only a newer release knows.
    pub(super) rest: Rest,
    pub(super) document_rest: Rest,
}

impl Record {
    /// The state of a container with this record. The only place that says a status.
    pub(super) fn project(&self, life: &Life) -> State {
        let error = match life {
            Life::Dead(Dead::Document(why) | Dead::State(why) | Dead::Removal(why)) => why,
            _ => &self.error,
        };
        State {
            status: life.status(),
            pid: life.pid().unwrap_or_default(),
            exit_code: self.exit_code,
            error: error.clone(),
            oom_killed: self.oom_killed,
            started_at: self.started_at,
            finished_at: self.finished_at,
            restart_count: self.restart_count,
            stopped_by_caller: self.stopped_by_caller,
            rest: self.rest.clone(),
            document_rest: self.document_rest.clone(),
        }
    }

    /// Records how a run ended.
    pub(super) fn finish(&mut self, exit: &Exit, now: Timestamp) {
        self.exit_code = exit.code;
        self.error = error_of(exit);
        self.oom_killed = exit.oom_killed;
        self.finished_at = Some(timestamp(exit.finished_at).unwrap_or(now));
        if let Some(started) = timestamp(exit.started_at) {
            self.started_at = Some(started);
        }
    }

    /// Whether a shim's record is about a run whose end is not recorded here yet.
    pub(super) fn lacks(&self, exit: &Exit) -> bool {
        exit.started_at != 0 && timestamp(exit.finished_at) != self.finished_at
    }
}

/// The state of a container of an earlier engine.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its state.
    Written(State),
    /// The state was torn by a power cut: the container may have run.
    Torn,
    /// Why its state can't be read.
    Unreadable(String),
}

impl Machine {
    /// A container as an earlier engine left it; its shim was not asked yet.
    pub(crate) fn restored(rules: Rules, found: Found) -> Self {
        let mut machine = Self::new(rules);
        let last = match found {
            Found::Unreadable(why) => Life::Dead(Dead::State(why)),
            Found::Torn => Life::Running {
                pid: 0,
                ending: None,
            },
            Found::Written(state) => {
                let last = Life::restored(&state);
                machine.record = Record {
                    exit_code: state.exit_code,
                    error: state.error,
                    oom_killed: state.oom_killed,
                    started_at: state.started_at,
                    finished_at: state.finished_at,
                    restart_count: state.restart_count,
                    stopped_by_caller: state.stopped_by_caller,
                    rest: state.rest,
                    document_rest: state.document_rest,
                };
                last
            }
        };
        machine.life = Life::Unknown(Unknown {
            last: Box::new(last),
            silent: false,
            opening: true,
        });
        machine
    }

    /// A container whose document can't be read.
    pub(crate) fn unreadable(rules: Rules, why: String) -> Self {
        Self {
            life: Life::Dead(Dead::Document(why)),
            ..Self::new(rules)
        }
    }
}

impl Life {
    fn restored(state: &State) -> Self {
        let pid = state.pid;
        match state.status {
            Status::Created => Self::Created,
            Status::Running => Self::Running { pid, ending: None },
            Status::Paused => Self::Paused {
                pid,
                by: super::Freezer::Caller,
                ending: None,
            },
            // Whether and when it is started is decided when its shim is known to be gone.
            Status::Restarting => Self::Restarting {
                until: std::time::Duration::MAX,
            },
            Status::Exited => Self::Exited,
            Status::Removing => Self::Removing {
                waiting: Vec::new(),
            },
            Status::Dead => Self::Dead(Dead::Removal(state.error.clone())),
        }
    }
}

/// The record of a run whose end was not observed.
pub(crate) fn lost_exit(reason: &str) -> Exit {
    Exit {
        version: 1,
        code: exit_code::UNKNOWN,
        oom_killed: false,
        started_at: 0,
        finished_at: 0,
        error: Some(reason.to_owned()),
        log_lost: 0,
    }
}

/// The error of a container's end, in addition to the code.
fn error_of(exit: &Exit) -> String {
    match (&exit.error, exit.log_lost) {
        (Some(error), _) => error.clone(),
        (None, 0) => String::new(),
        (None, bytes) => format!(
            "{bytes} bytes of output are missing in the log, which could not be written; \
             is the disk full?"
        ),
    }
}

/// Nanoseconds since 1970 as a time; 0 is none.
fn timestamp(nanoseconds: u64) -> Option<Timestamp> {
    (nanoseconds > 0)
        .then(|| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok())
        .flatten()
}
