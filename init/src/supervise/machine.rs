//! The life of a supervised process, as a pure state machine.
//!
//! | state      | start | spawned    | not spawned | ready   | sign of life | exited    | time                     | stop                |
//! |------------|-------|------------|-------------|---------|--------------|-----------|--------------------------|---------------------|
//! | `Idle`     | spawn | `Starting` | `Waiting`   | –       | –            | –         | –                        | `Stopped`           |
//! | `Starting` | –     | –          | –           | `Ready` | –            | `Waiting` | late: say so once        | SIGTERM, `Stopping` |
//! | `Ready`    | –     | –          | –           | –       | waits again  | `Waiting` | say so; SIGABRT, `Hung`  | SIGTERM, `Stopping` |
//! | `Hung`     | –     | –          | –           | –       | –            | `Waiting` | SIGKILL, then say so     | SIGTERM, `Stopping` |
//! | `Waiting`  | –     | `Starting` | `Waiting`   | –       | –            | –         | at the set time: spawn   | `Stopped`           |
//! | `Stopping` | –     | –          | –           | –       | –            | `Stopped` | SIGKILL, then give it up | –                   |
//! | `Stopped`  | –     | –          | –           | –       | –            | –         | –                        | –                   |
//!
//! A process is always restarted while the machine runs. The first restart is immediate: hostd may
//! be killed or replaced at any moment and must be back before a client notices. After ends in
//! quick succession the pauses grow, and from the fifth end on the process counts as crash-looping.
//! A process that is slow to become ready is not disturbed: it may be repairing something. A ready
//! process sends signs of life. If it stops doing so, it is killed and restarted like one that
//! crashed.

use std::time::Duration;

use keelson_model::init::ProcessState;

/// After a run of this length, earlier ends do not count any more.
const GOOD_RUN: Duration = Duration::from_secs(30);
/// Pauses before the first, second, … restart.
const PAUSES: [u64; 4] = [0, 250, 500, 1000];
/// Pauses from the fifth on, in milliseconds: a crash loop.
const LOOP_PAUSES: [u64; 4] = [5_000, 10_000, 30_000, 60_000];
/// After this time a start counts as late.
const LATE: Duration = Duration::from_secs(60);
/// How long a process may survive SIGKILL before the stop continues without it: it hangs in the
/// kernel.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// How long a hanging process may take to end after SIGABRT. A stopped process never receives it.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// The state of a process. Times are since the start of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Not started yet.
    Idle,
    /// Runs, and has not reported that it is ready.
    Starting {
        pid: i32,
        since: Duration,
        late_said: bool,
    },
    /// Runs and is ready.
    Ready {
        pid: i32,
        since: Duration,
        /// When it last sent a sign of life.
        heard: Duration,
        /// When silence causes the next step, if signs of life are expected.
        until: Option<Duration>,
        /// Whether its silence was reported.
        silent: bool,
    },
    /// It sends no signs of life and is being killed.
    Hung {
        pid: i32,
        since: Duration,
        heard: Duration,
        /// When the next, harder step is due; `None` after the last.
        next: Option<Duration>,
        killed: bool,
    },
    /// Will be started at this time.
    Waiting { until: Duration },
    /// Was asked to end.
    Stopping {
        pid: i32,
        kill_at: Duration,
        killed: bool,
    },
    /// Ended, and will not be started again.
    Stopped,
}

/// An event of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The boot has reached it.
    Start,
    /// [`Action::Spawn`] was carried out.
    Spawned { pid: i32 },
    /// [`Action::Spawn`] failed.
    NotSpawned,
    /// It sent `READY=1`.
    Ready,
    /// It sent `WATCHDOG=1`.
    Alive,
    /// It ended.
    Exited,
    /// Time has passed.
    Time,
    /// The machine stops; SIGKILL follows after `limit`.
    Stop { limit: Duration },
}

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the process and report [`Event::Spawned`] or [`Event::NotSpawned`].
    Spawn,
    /// Send SIGTERM.
    Terminate { pid: i32 },
    /// Send SIGKILL.
    Kill { pid: i32 },
    /// Send SIGABRT to a process that hangs, so that it may leave a trace.
    Abort { pid: i32 },
    /// Report that it has sent no sign of life for a while.
    ReportSilent { silence: Duration },
    /// Report that it is ready.
    ReportReady,
    /// Report that it is still not ready after a long time.
    ReportLate,
    /// Report that it will be restarted after the pause. `looping`: it ends again and again.
    ReportRestart { pause: Duration, looping: bool },
    /// Report that it survived SIGKILL.
    ReportStuck { pid: i32 },
}

/// A process's state and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) state: State,
    /// How long it may be silent once it is ready. `None` if it is not watched.
    patience: Option<Duration>,
    /// How many ends followed in quick succession.
    failures: usize,
    /// How often it was restarted after it ended by itself.
    pub(crate) restarts: u32,
    started_before: bool,
}

impl Machine {
    /// A process that was not started yet. `patience`: how long it may be silent.
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Self {
            state: State::Idle,
            patience,
            failures: 0,
            restarts: 0,
            started_before: false,
        }
    }

    /// The process identifier while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        match self.state {
            State::Starting { pid, .. }
            | State::Ready { pid, .. }
            | State::Hung { pid, .. }
            | State::Stopping { pid, .. } => Some(pid),
            State::Idle | State::Waiting { .. } | State::Stopped => None,
        }
    }

    /// The state as the control socket reports it.
    pub(crate) fn told(&self) -> ProcessState {
        match self.state {
            State::Starting { .. } => ProcessState::Starting,
            State::Ready { .. } => ProcessState::Ready,
            State::Hung { .. } => ProcessState::Hung,
            State::Idle | State::Waiting { .. } => ProcessState::Waiting,
            State::Stopping { .. } => ProcessState::Stopping,
            State::Stopped => ProcessState::Stopped,
        }
    }

    /// When [`Event::Time`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Starting {
                since,
                late_said: false,
                ..
            } => Some(since + LATE),
            State::Ready { until, .. } => until,
            State::Hung { next, .. } => next,
            State::Waiting { until } => Some(until),
            State::Stopping { kill_at, .. } => Some(kill_at),
            _ => None,
        }
    }

    /// Handles an event at time `now`, and returns the actions in order.
    pub(crate) fn step(&mut self, event: &Event, now: Duration) -> Vec<Action> {
        match (&self.state, event) {
            (State::Idle, Event::Start) => vec![Action::Spawn],
            (State::Idle | State::Waiting { .. }, Event::Spawned { pid }) => {
                if self.started_before {
                    self.restarts = self.restarts.saturating_add(1);
                }
                self.started_before = true;
                self.state = State::Starting {
                    pid: *pid,
                    since: now,
                    late_said: false,
                };
                Vec::new()
            }
            (State::Idle | State::Waiting { .. }, Event::NotSpawned) => self.wait(now),
            (State::Starting { pid, since, .. }, Event::Ready) => {
                self.state = State::Ready {
                    pid: *pid,
                    since: *since,
                    heard: now,
                    until: self.patience.map(|patience| now + patience),
                    silent: false,
                };
                vec![Action::ReportReady]
            }
            (State::Ready { pid, since, .. }, Event::Alive) => {
                self.state = State::Ready {
                    pid: *pid,
                    since: *since,
                    heard: now,
                    until: self.patience.map(|patience| now + patience),
                    silent: false,
                };
                Vec::new()
            }
            (State::Starting { since, .. } | State::Ready { since, .. }, Event::Exited) => {
                let run = now.saturating_sub(*since);
                self.ended(run, now)
            }
            // The time during which it hung does not count as a good run.
            (State::Hung { since, heard, .. }, Event::Exited) => {
                let run = heard.saturating_sub(*since);
                self.ended(run, now)
            }
            (
                State::Ready {
                    until: Some(until), ..
                },
                Event::Time,
            ) if now >= *until => self.silence(now),
            (
                State::Hung {
                    next: Some(next), ..
                },
                Event::Time,
            ) if now >= *next => self.end_hung(now),
            (
                State::Starting {
                    pid,
                    since,
                    late_said: false,
                },
                Event::Time,
            ) if now >= *since + LATE => {
                self.state = State::Starting {
                    pid: *pid,
                    since: *since,
                    late_said: true,
                };
                vec![Action::ReportLate]
            }
            (State::Waiting { until }, Event::Time) if now >= *until => vec![Action::Spawn],
            (
                State::Starting { pid, .. } | State::Ready { pid, .. } | State::Hung { pid, .. },
                Event::Stop { limit },
            ) => {
                let pid = *pid;
                self.state = State::Stopping {
                    pid,
                    kill_at: now + *limit,
                    killed: false,
                };
                vec![Action::Terminate { pid }]
            }
            (State::Idle | State::Waiting { .. }, Event::Stop { .. }) => {
                self.state = State::Stopped;
                Vec::new()
            }
            (State::Stopping { .. }, Event::Exited) => {
                self.state = State::Stopped;
                Vec::new()
            }
            (
                State::Stopping {
                    pid,
                    kill_at,
                    killed,
                },
                Event::Time,
            ) if now >= *kill_at => {
                let pid = *pid;
                if *killed {
                    self.state = State::Stopped;
                    return vec![Action::ReportStuck { pid }];
                }
                self.state = State::Stopping {
                    pid,
                    kill_at: now + KILL_GRACE,
                    killed: true,
                };
                vec![Action::Kill { pid }]
            }
            _ => Vec::new(),
        }
    }

    /// Silence is handled in two steps. The machine itself may have slept, or PID 1 may not have
    /// run: a living process has the time of the second step to send a sign of life.
    fn silence(&mut self, now: Duration) -> Vec<Action> {
        let State::Ready {
            pid,
            since,
            heard,
            silent,
            ..
        } = self.state
        else {
            return Vec::new();
        };
        if silent {
            self.state = State::Hung {
                pid,
                since,
                heard,
                next: Some(now + ABORT_GRACE),
                killed: false,
            };
            return vec![Action::Abort { pid }];
        }
        self.state = State::Ready {
            pid,
            since,
            heard,
            until: self.patience.map(|patience| now + patience / 2),
            silent: true,
        };
        let silence = now.saturating_sub(heard);
        vec![Action::ReportSilent { silence }]
    }

    fn end_hung(&mut self, now: Duration) -> Vec<Action> {
        let State::Hung {
            pid,
            ref mut next,
            ref mut killed,
            ..
        } = self.state
        else {
            return Vec::new();
        };
        if *killed {
            // It hangs in the kernel. A second process beside it would find its locks taken.
            *next = None;
            return vec![Action::ReportStuck { pid }];
        }
        *killed = true;
        *next = Some(now + KILL_GRACE);
        vec![Action::Kill { pid }]
    }

    /// It ended by itself after a run of this length.
    fn ended(&mut self, run: Duration, now: Duration) -> Vec<Action> {
        if run >= GOOD_RUN {
            self.failures = 0;
        }
        self.wait(now)
    }

    fn wait(&mut self, now: Duration) -> Vec<Action> {
        let pauses = || PAUSES.iter().chain(&LOOP_PAUSES);
        let last = pauses().count() - 1;
        let pause = pauses().nth(self.failures.min(last)).copied();
        let pause = Duration::from_millis(pause.unwrap_or_default());
        let looping = self.failures >= PAUSES.len();
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + pause };
        vec![Action::ReportRestart { pause, looping }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn started(pid: i32, now: u64) -> Machine {
        let mut machine = Machine::new(None);
        assert_eq!(machine.step(&Event::Start, at(now)), [Action::Spawn]);
        assert!(machine.step(&Event::Spawned { pid }, at(now)).is_empty());
        machine
    }

    #[test]
    fn becomes_ready_once() {
        let mut machine = started(7, 1);
        assert_eq!(machine.told(), ProcessState::Starting);
        assert_eq!(machine.step(&Event::Ready, at(2)), [Action::ReportReady]);
        assert_eq!(machine.told(), ProcessState::Ready);
        assert!(machine.step(&Event::Ready, at(3)).is_empty());
        assert_eq!(machine.pid(), Some(7));
    }

    #[test]
    fn after_the_first_end_it_restarts_at_once() {
        let mut machine = started(7, 1);
        machine.step(&Event::Ready, at(2));
        machine.step(&Event::Exited, at(5));
        assert_eq!(machine.deadline(), Some(at(5)));
        assert_eq!(machine.step(&Event::Time, at(5)), [Action::Spawn]);
        machine.step(&Event::Spawned { pid: 8 }, at(5));
        assert_eq!((machine.restarts, machine.pid()), (1, Some(8)));
    }

    #[test]
    fn after_ends_in_succession_the_pauses_grow_but_it_always_restarts() {
        let mut machine = started(7, 0);
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for round in 0..12 {
            let actions = machine.step(&Event::Exited, now);
            let [Action::ReportRestart { pause, looping }] = actions.as_slice() else {
                panic!("{actions:?}");
            };
            assert_eq!(*looping, round >= 4);
            pauses.push(pause.as_millis());
            now += *pause;
            assert_eq!(machine.step(&Event::Time, now), [Action::Spawn]);
            machine.step(&Event::Spawned { pid: 9 }, now);
        }
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[11]), (0, 60_000));
        // After a good run the earlier ends do not count.
        machine.step(&Event::Exited, now + GOOD_RUN);
        assert_eq!(machine.deadline(), Some(now + GOOD_RUN));
    }

    #[test]
    fn a_program_that_can_not_be_executed_is_tried_again() {
        let mut machine = Machine::new(None);
        machine.step(&Event::Start, at(0));
        machine.step(&Event::NotSpawned, at(0));
        assert_eq!(machine.step(&Event::Time, at(0)), [Action::Spawn]);
        machine.step(&Event::NotSpawned, at(0));
        assert!(machine.step(&Event::Time, at(0)).is_empty());
        assert_eq!(machine.restarts, 0);
    }

    #[test]
    fn a_stop_ends_in_bounded_time() {
        let mut machine = started(7, 0);
        let stop = Event::Stop { limit: at(30) };
        assert_eq!(machine.step(&stop, at(1)), [Action::Terminate { pid: 7 }]);
        assert!(machine.step(&stop, at(2)).is_empty());
        assert!(machine.step(&Event::Time, at(30)).is_empty());
        assert_eq!(
            machine.step(&Event::Time, at(31)),
            [Action::Kill { pid: 7 }]
        );
        assert_eq!(
            machine.step(&Event::Time, at(36)),
            [Action::ReportStuck { pid: 7 }]
        );
        assert_eq!(machine.state, State::Stopped);
    }

    #[test]
    fn nothing_starts_again_after_a_stop() {
        let stop = Event::Stop { limit: at(1) };
        let mut running = started(7, 0);
        running.step(&stop, at(1));
        assert!(running.step(&Event::Exited, at(1)).is_empty());
        let mut waiting = started(7, 0);
        waiting.step(&Event::Exited, at(1));
        waiting.step(&stop, at(1));
        let mut idle = Machine::new(None);
        idle.step(&stop, at(1));
        for mut machine in [running, waiting, idle] {
            assert_eq!(machine.state, State::Stopped);
            for event in [Event::Start, Event::Time, Event::Ready, Event::Exited] {
                assert!(machine.step(&event, at(99)).is_empty());
            }
        }
    }

    #[test]
    fn a_late_start_is_reported_once_and_nothing_is_killed() {
        let mut machine = started(7, 0);
        assert_eq!(machine.deadline(), Some(LATE));
        assert_eq!(machine.step(&Event::Time, LATE), [Action::ReportLate]);
        assert_eq!(machine.deadline(), None);
        assert!(machine.step(&Event::Time, at(999)).is_empty());
        assert_eq!(machine.pid(), Some(7));
    }

    /// A process that is ready at second 0 and may be silent for 60.
    fn watched() -> Machine {
        let mut machine = Machine::new(Some(at(60)));
        machine.step(&Event::Start, at(0));
        machine.step(&Event::Spawned { pid: 7 }, at(0));
        machine.step(&Event::Ready, at(0));
        machine
    }

    #[test]
    fn signs_of_life_keep_a_process() {
        let mut machine = watched();
        for second in (30..3000).step_by(30) {
            assert_eq!(machine.deadline(), Some(at(second + 30)));
            assert!(machine.step(&Event::Time, at(second)).is_empty());
            assert!(machine.step(&Event::Alive, at(second)).is_empty());
        }
        assert_eq!(machine.told(), ProcessState::Ready);
    }

    #[test]
    fn a_start_may_take_any_time() {
        let mut machine = Machine::new(Some(at(60)));
        machine.step(&Event::Start, at(0));
        machine.step(&Event::Spawned { pid: 7 }, at(0));
        for second in 0..3000 {
            for action in machine.step(&Event::Time, at(second)) {
                assert_eq!(action, Action::ReportLate);
            }
        }
        machine.step(&Event::Ready, at(3000));
        assert_eq!(machine.deadline(), Some(at(3060)));
    }

    #[test]
    fn a_hung_process_is_ended_and_started_again() {
        let mut machine = watched();
        machine.step(&Event::Alive, at(40));
        let silence = at(60);
        assert_eq!(
            machine.step(&Event::Time, at(100)),
            [Action::ReportSilent { silence }]
        );
        assert_eq!(machine.deadline(), Some(at(130)));
        assert_eq!(
            machine.step(&Event::Time, at(130)),
            [Action::Abort { pid: 7 }]
        );
        assert_eq!(
            (machine.told(), machine.pid()),
            (ProcessState::Hung, Some(7))
        );
        // A sign of life comes too late: it has been sent SIGABRT.
        assert!(machine.step(&Event::Alive, at(131)).is_empty());
        assert_eq!(
            machine.step(&Event::Time, at(135)),
            [Action::Kill { pid: 7 }]
        );
        assert!(matches!(
            machine.step(&Event::Exited, at(136))[..],
            [Action::ReportRestart { looping: false, .. }]
        ));
        assert_eq!(machine.step(&Event::Time, at(136)), [Action::Spawn]);
    }

    #[test]
    fn after_a_sleep_of_the_machine_processes_have_time_to_report() {
        let mut machine = watched();
        let silence = at(90_000);
        assert_eq!(
            machine.step(&Event::Time, at(90_000)),
            [Action::ReportSilent { silence }]
        );
        machine.step(&Event::Alive, at(90_001));
        assert_eq!(machine.deadline(), Some(at(90_061)));
        assert_eq!(machine.told(), ProcessState::Ready);
    }

    #[test]
    fn a_process_that_hangs_again_and_again_counts_as_looping() {
        let mut machine = watched();
        let mut last = false;
        for _ in 0..6 {
            while machine.told() != ProcessState::Waiting {
                let now = machine.deadline().unwrap();
                let actions = machine.step(&Event::Time, now);
                if matches!(actions[..], [Action::Abort { .. }]) {
                    let actions = machine.step(&Event::Exited, now);
                    last = matches!(actions[..], [Action::ReportRestart { looping: true, .. }]);
                }
            }
            let now = machine.deadline().unwrap();
            machine.step(&Event::Time, now);
            machine.step(&Event::Spawned { pid: 7 }, now);
            machine.step(&Event::Ready, now);
        }
        assert!(last);
    }

    #[test]
    fn a_hung_process_that_survives_sigkill_has_no_successor_and_does_not_delay_the_shutdown() {
        let mut machine = watched();
        for _ in 0..3 {
            let now = machine.deadline().unwrap();
            machine.step(&Event::Time, now);
        }
        let now = machine.deadline().unwrap();
        assert_eq!(
            machine.step(&Event::Time, now),
            [Action::ReportStuck { pid: 7 }]
        );
        assert_eq!(machine.deadline(), None);
        let stop = Event::Stop { limit: at(30) };
        assert_eq!(machine.step(&stop, now), [Action::Terminate { pid: 7 }]);
        while let Some(deadline) = machine.deadline() {
            machine.step(&Event::Time, deadline);
        }
        assert_eq!(machine.state, State::Stopped);
    }

    proptest::proptest! {
        /// For all events in any order: a process is only spawned if none runs, signals go to the
        /// running one, and a stop is final.
        #[test]
        fn invariants(
            events in proptest::collection::vec((0u8..8, 0u64..40), 0..60),
            patience in proptest::option::of(1u64..100),
        ) {
            let mut machine = Machine::new(patience.map(at));
            let mut now = Duration::ZERO;
            let mut stopped = false;
            for (number, (kind, passed)) in (1..).zip(events) {
                now += at(passed);
                let event = match kind {
                    0 => Event::Start,
                    1 => Event::Spawned { pid: number },
                    2 => Event::NotSpawned,
                    3 => Event::Ready,
                    4 => Event::Exited,
                    5 => Event::Time,
                    6 => Event::Alive,
                    _ => Event::Stop { limit: at(10) },
                };
                stopped |= matches!(event, Event::Stop { .. });
                let before = machine.pid();
                for action in machine.step(&event, now) {
                    match action {
                        Action::Spawn => proptest::prop_assert!(before.is_none() && !stopped),
                        Action::Terminate { pid }
                        | Action::Kill { pid }
                        | Action::Abort { pid } => {
                            proptest::prop_assert_eq!(before, Some(pid));
                        }
                        _ => {}
                    }
                }
                if let Some(deadline) = machine.deadline() && event == Event::Time {
                    // Time was passed on, so the next deadline is later, or a spawn is due.
                    proptest::prop_assert!(deadline > now || machine.pid().is_none());
                }
            }
        }
    }
}
