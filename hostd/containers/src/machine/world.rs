//! The machine in a simulated world: a kernel with shims, a disk, and engines that crash.
//!
//! Requests, ends of processes, killed shims, slow and failing effects and crashes come in any
//! order. After each step the actions are carried out like the driver does, and checked: nothing is
//! done twice, every request is answered once, and at the end container and kernel agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keelson_model::spec::RestartPolicy;
use keelson_shim_protocol::Exit;
use proptest::prelude::*;

use super::state::*;
use super::*;
use crate::types::Status;
use crate::types::health::CheckOutcome;

/// What may happen.
#[derive(Debug, Clone)]
enum Happens {
    Asked(Wish),
    /// The running start reports.
    StartEnds(Fate),
    /// The process ends by itself.
    Ends(i32),
    /// The shim is killed, its container with it.
    ShimKilled,
    /// The shim's report arrives.
    Reported,
    /// The shim stops answering, or answers again.
    Stopped,
    Continued,
    /// The connection to a living shim breaks, and it is asked again.
    Disconnected,
    /// The running health check has a result.
    Checked(i32),
    Passed(u64),
    /// The next removal fails.
    DiskFull,
    /// The engine is killed after this many actions.
    Crash(u8),
    /// The machine loses power.
    PowerCut,
    GoesDown,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Success,
    Failure,
    /// It runs, and ends before the start is reported.
    Short,
}

#[derive(Debug, Clone, Copy)]
enum Wish {
    Start,
    Stop(Option<u64>),
    Shutdown(u64),
    Kill(i32),
    Pause,
    Unpause,
    Freeze,
    Thaw,
    Restart(Option<u64>),
    Remove,
    Force,
}

fn wish() -> impl Strategy<Value = Wish> {
    let patience = || proptest::option::weighted(0.8, 0u64..20);
    prop_oneof![
        4 => Just(Wish::Start),
        3 => patience().prop_map(Wish::Stop),
        1 => (0u64..20).prop_map(Wish::Shutdown),
        3 => prop_oneof![Just(1), Just(9), Just(15)].prop_map(Wish::Kill),
        2 => Just(Wish::Pause),
        2 => Just(Wish::Unpause),
        1 => Just(Wish::Freeze),
        1 => Just(Wish::Thaw),
        2 => patience().prop_map(Wish::Restart),
        1 => Just(Wish::Remove),
        1 => Just(Wish::Force),
    ]
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        1 => Just(Happens::Passed(0)),
        20 => wish().prop_map(Happens::Asked),
        12 => prop_oneof![
            6 => Just(Fate::Success),
            1 => Just(Fate::Failure),
            1 => Just(Fate::Short),
        ]
        .prop_map(Happens::StartEnds),
        4 => prop_oneof![Just(0), Just(1)].prop_map(Happens::Ends),
        1 => Just(Happens::ShimKilled),
        8 => Just(Happens::Reported),
        1 => Just(Happens::Stopped),
        2 => Just(Happens::Continued),
        1 => Just(Happens::Disconnected),
        3 => prop_oneof![Just(0), Just(1)].prop_map(Happens::Checked),
        6 => (0u64..15).prop_map(Happens::Passed),
        1 => Just(Happens::DiskFull),
        2 => (0u8..8).prop_map(Happens::Crash),
        1 => Just(Happens::PowerCut),
    ]
}

/// A container's process under its shim.
#[derive(Debug, Clone)]
struct Process {
    pid: i32,
    frozen: bool,
    /// Ignores SIGTERM.
    deaf: bool,
    started: Timestamp,
}

/// A shim's report when it is asked.
#[derive(Debug, Clone)]
enum Report {
    Exited(i32, Exit),
    Killed,
}

#[derive(Debug)]
struct World {
    machine: Machine,
    rules: Rules,
    now: Now,
    /// The kernel.
    process: Option<Process>,
    last_pid: i32,
    /// Processes that outlived their shim.
    leftovers: bool,
    answers: bool,
    /// The shim's record, on a file system that a reboot clears.
    record: Option<Exit>,
    /// state.json; `None` when the container was removed.
    disk: Option<State>,
    boot: Boot,
    removal_fails: bool,
    /// What the engine waits for.
    spawning: bool,
    watched: Option<i32>,
    reports: VecDeque<Report>,
    /// The running health check.
    checking: Option<CheckNumber>,
    /// Events that wait for the running start.
    kept: VecDeque<Event>,
    open: BTreeSet<u64>,
    last_ticket: u64,
    /// The events that were sent.
    lives: BTreeMap<i32, u32>,
    running_told: Option<i32>,
    destroyed: u32,
    /// Actions until the engine is killed.
    crash_in: Option<u8>,
}

impl World {
    fn new(rules: Rules) -> Self {
        let machine = Machine::new(rules);
        Self {
            disk: Some(machine.kept()),
            machine,
            rules,
            now: Now {
                time: Duration::ZERO,
                clock: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000),
                shutting_down: false,
            },
            process: None,
            last_pid: 1,
            leftovers: false,
            answers: true,
            record: None,
            boot: Boot::This,
            removal_fails: false,
            spawning: false,
            watched: None,
            reports: VecDeque::new(),
            checking: None,
            kept: VecDeque::new(),
            open: BTreeSet::new(),
            last_ticket: 0,
            lives: BTreeMap::new(),
            running_told: None,
            destroyed: 0,
            crash_in: None,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.time += time;
        let time = SignedDuration::try_from(time).unwrap();
        self.now.clock += time;
    }

    fn happen(&mut self, what: &Happens) {
        match what {
            Happens::Asked(wish) => self.ask(*wish),
            Happens::StartEnds(fate) => self.end_start(*fate),
            Happens::Ends(code) => {
                if self.process.as_ref().is_some_and(|process| !process.frozen) {
                    self.exit(*code);
                }
            }
            Happens::ShimKilled => {
                if self.process.take().is_some() {
                    self.leftovers = true;
                    self.answers = true;
                    self.reports.push_back(Report::Killed);
                }
            }
            Happens::Reported => self.report(),
            Happens::Stopped => self.answers = self.process.is_none(),
            Happens::Continued => self.answers = true,
            Happens::Disconnected => {
                if self.watched.is_some() && self.process.is_some() {
                    self.watched = None;
                    self.find_out();
                }
            }
            Happens::Checked(code) => {
                if let Some(number) = self.checking.take() {
                    let result = CheckResult {
                        start: self.now.clock,
                        end: self.now.clock,
                        outcome: CheckOutcome::Exited { code: *code },
                        output: String::new(),
                    };
                    self.drive(Event::Checked(number, result));
                }
            }
            Happens::Passed(seconds) => {
                self.pass(Duration::from_secs(*seconds));
                self.timer();
            }
            Happens::DiskFull => self.removal_fails = true,
            Happens::Crash(actions) => self.crash_in = Some(*actions),
            Happens::PowerCut => {
                self.process = None;
                self.leftovers = false;
                self.record = None;
                self.boot = Boot::Earlier;
                self.answers = true;
                self.open_again();
            }
            Happens::GoesDown => self.now.shutting_down = true,
        }
    }

    fn ask(&mut self, wish: Wish) {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let stop = |by, patience| Ask::Stop {
            by,
            signal: Signal::TERM,
            patience: seconds(patience),
        };
        let ask = match wish {
            Wish::Start => Ask::Start,
            Wish::Stop(patience) => stop(Stopper::Caller, patience),
            Wish::Shutdown(patience) => stop(Stopper::Shutdown, Some(patience)),
            Wish::Kill(signal) => Ask::Kill(signal.to_string().parse().unwrap()),
            Wish::Pause => Ask::Pause(Freezer::Caller),
            Wish::Unpause => Ask::Unpause(Freezer::Caller),
            Wish::Freeze => Ask::Pause(Freezer::Commit),
            Wish::Thaw => Ask::Unpause(Freezer::Commit),
            Wish::Restart(patience) => Ask::Restart {
                signal: Signal::TERM,
                patience: seconds(patience),
            },
            Wish::Remove => Ask::Remove { force: false },
            Wish::Force => Ask::Remove { force: true },
        };
        self.last_ticket += 1;
        self.open.insert(self.last_ticket);
        self.drive(Event::Request(Ticket(self.last_ticket), ask));
    }

    /// The process ends with its shim, which leaves a record.
    fn exit(&mut self, code: i32) {
        let Some(process) = self.process.take() else {
            return;
        };
        self.pass(Duration::from_millis(1));
        let nanoseconds = |time: Timestamp| u64::try_from(time.as_nanosecond()).unwrap();
        let exit = Exit {
            version: 1,
            code,
            oom_killed: false,
            started_at: nanoseconds(process.started),
            finished_at: nanoseconds(self.now.clock),
            error: None,
            log_lost: 0,
        };
        self.record = Some(exit.clone());
        self.answers = true;
        self.reports.push_back(Report::Exited(process.pid, exit));
    }

    fn end_start(&mut self, fate: Fate) {
        if !self.spawning {
            return;
        }
        self.spawning = false;
        // Before a shim is made, everything was cleaned up.
        self.record = None;
        self.boot = Boot::This;
        let event = match fate {
            Fate::Failure => Event::NotStarted {
                code: 127,
                error: "not found".to_owned(),
            },
            Fate::Success | Fate::Short => {
                assert!(self.process.is_none(), "a second process");
                self.last_pid += 1;
                let pid = self.last_pid;
                self.pass(Duration::from_millis(1));
                self.process = Some(Process {
                    pid,
                    frozen: false,
                    deaf: pid % 3 == 0,
                    started: self.now.clock,
                });
                if matches!(fate, Fate::Short) {
                    self.exit(0);
                }
                Event::Started {
                    pid,
                    at: self.now.clock,
                }
            }
        };
        let mut events = VecDeque::from([event]);
        events.append(&mut self.kept);
        self.drive_all(events);
    }

    /// The report of the watched run's shim.
    fn report(&mut self) {
        let Some(pid) = self.watched else {
            // Nobody listens yet, or the engine finds out by itself.
            if !self.machine.is_unknown() && !self.spawning {
                self.reports.clear();
            }
            return self.find_out();
        };
        match self.reports.pop_front() {
            Some(Report::Exited(from, exit)) => {
                assert_eq!(from, pid);
                self.watched = None;
                self.drive(Event::Exited { pid, exit });
            }
            Some(Report::Killed) => {
                self.watched = None;
                self.find_out();
            }
            None => {}
        }
    }

    /// Asks the shim of a container whose state is unknown.
    fn find_out(&mut self) {
        let wanted = self.machine.is_unknown()
            || (matches!(
                self.machine.life,
                Life::Running { .. } | Life::Paused { .. }
            ) && self.watched.is_none());
        if !wanted || self.machine.is_gone() {
            return;
        }
        match &self.process {
            Some(_) if !self.answers => self.drive(Event::NoAnswer),
            Some(process) => {
                let alive = Alive {
                    pid: process.pid,
                    paused: process.frozen,
                    started_at: None,
                };
                self.drive(Event::FoundAlive(alive));
            }
            None => {
                self.reports.clear();
                let (record, boot) = (self.record.clone(), self.boot);
                self.drive(Event::FoundGone { record, boot });
            }
        }
    }

    fn timer(&mut self) {
        while self
            .machine
            .deadline()
            .is_some_and(|due| due <= self.now.time)
        {
            let before = self.machine.deadline();
            self.drive(Event::Time);
            if self.machine.deadline() == before {
                break;
            }
        }
    }

    /// The engine is killed; another one finds its files.
    fn open_again(&mut self) {
        self.open.clear();
        self.kept.clear();
        self.reports.clear();
        self.watched = None;
        // The check ends with the connection to the engine.
        self.checking = None;
        self.crash_in = None;
        self.removal_fails = false;
        self.now.shutting_down = false;
        if std::mem::take(&mut self.spawning) {
            // The unfinished shim ends before its command runs.
            self.record = None;
        }
        match &self.disk {
            Some(state) => {
                self.machine = Machine::restored(self.rules, Found::Written(state.clone()));
            }
            // Nothing is left of it.
            None => self.machine.life = Life::Gone,
        }
    }

    fn drive(&mut self, event: Event) {
        self.drive_all(VecDeque::from([event]));
    }

    /// Like the driver.
    fn drive_all(&mut self, mut events: VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            let actions = self.machine.step(event.clone(), self.now);
            let reporting = actions.iter().filter(|action| action.reports()).count();
            assert!(reporting <= 1, "{event:?} leads to {actions:?}");
            let mut spawn = false;
            for action in actions {
                match &mut self.crash_in {
                    Some(0) => return self.open_again(),
                    Some(left) => *left -= 1,
                    None => {}
                }
                spawn |= action == Action::Spawn;
                if let Action::Again(ticket, ask) = action {
                    events.push_back(Event::Request(ticket, ask));
                } else if let Some(result) = self.carry_out(action) {
                    events.push_front(result);
                }
            }
            if spawn {
                self.kept = events;
                return;
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn => {
                assert!(!self.spawning, "two starts at once");
                assert!(self.process.is_none(), "a start beside a process");
                assert!(self.disk.is_some(), "a start of what was removed");
                assert!(!self.now.shutting_down, "a start at the end");
                self.spawning = true;
            }
            Action::Watch(pid) => {
                assert_eq!(self.watched, None, "watched twice");
                self.watched = Some(pid);
                self.running_told.get_or_insert(pid);
            }
            Action::Check(number) => {
                assert_eq!(self.checking, None, "two checks at once");
                assert!(self.watched.is_some(), "a check of what does not run");
                self.checking = Some(number);
            }
            Action::EndCheck(number) => {
                assert_eq!(self.checking.take(), Some(number), "not that check");
            }
            Action::Send(sending) => return Some(self.send(sending)),
            Action::Freeze(ticket, by) => {
                return Some(match &mut self.process {
                    Some(process) if self.answers => {
                        process.frozen = true;
                        Event::Frozen(ticket, by)
                    }
                    _ => Event::NotFrozen(ticket, self.over()),
                });
            }
            Action::Thaw(thaw) => {
                return Some(match &mut self.process {
                    Some(process) if self.answers => {
                        process.frozen = false;
                        Event::Thawed(thaw)
                    }
                    _ => Event::NotThawed(thaw, self.over()),
                });
            }
            Action::KillLeftovers => {
                self.leftovers = false;
                if self.process.is_some() {
                    self.exit(137);
                }
            }
            Action::EndShim => {
                if self.answers {
                    self.exit(137);
                }
            }
            Action::Discard => {
                assert!(self.process.is_none(), "a removal beside a process");
                assert!(!self.leftovers, "a removal beside processes");
                assert!(self.disk.is_some(), "removed twice");
                if std::mem::take(&mut self.removal_fails) {
                    return Some(Event::NotRemoved {
                        error: "no space".to_owned(),
                    });
                }
                self.disk = None;
                self.record = None;
                return Some(Event::Removed);
            }
            Action::CleanRun => self.record = None,
            Action::Persist => {
                assert!(self.disk.is_some(), "a state without a container");
                assert!(!self.machine.is_read_only());
                self.disk = Some(self.machine.kept());
            }
            Action::Emit(Happening::Start) => {
                let started = self.lives.insert(self.last_pid, 0);
                assert_eq!(started, None, "a run told twice");
                self.running_told = Some(self.last_pid);
            }
            Action::Emit(Happening::Die { .. }) => {
                let pid = self.running_told.take();
                let ends = self.lives.entry(pid.unwrap_or(self.last_pid)).or_default();
                *ends += 1;
                // An engine that was killed right after it sent the end sends it again.
                assert!(*ends <= 1 || pid.is_none(), "an end told twice");
            }
            Action::Emit(Happening::Destroy) => {
                self.destroyed += 1;
                assert_eq!(self.destroyed, 1, "destroyed twice");
            }
            Action::Answer(ticket, _) => {
                assert!(self.open.remove(&ticket.0), "{ticket:?} was answered twice");
            }
            Action::Emit(_)
            | Action::Notify(_)
            | Action::KeepHealth
            | Action::DropPending
            | Action::Release
            | Action::Again(..) => {}
        }
        None
    }

    fn over(&self) -> Over {
        match self.record {
            Some(_) => Over::Yes,
            None => Over::No,
        }
    }

    fn send(&mut self, sending: Sending) -> Event {
        let Some(process) = &self.process else {
            return Event::NotSent(sending, self.over());
        };
        if !self.answers {
            return Event::NotSent(sending, Over::No);
        }
        match sending.signal.number() {
            9 => self.exit(137),
            15 if !process.deaf && !process.frozen => self.exit(0),
            _ => {}
        }
        Event::Sent(sending)
    }

    /// Lets all running work end, except endless work.
    fn settle(&mut self) {
        self.crash_in = None;
        self.answers = true;
        for _ in 0..200 {
            if self.spawning {
                self.end_start(Fate::Success);
            }
            self.report();
            if let Some(due) = self.machine.life_deadline() {
                self.pass(due.saturating_sub(self.now.time));
                self.timer();
                continue;
            }
            let quiet = !self.spawning
                && self.reports.is_empty()
                && !self.machine.is_unknown()
                && self.machine.life_deadline().is_none();
            if quiet {
                return;
            }
        }
        panic!("it does not come to rest: {self:#?}");
    }

    /// Container and kernel agree.
    fn check(&self) {
        let state = self.machine.record();
        match &self.process {
            Some(process) => {
                let status = match process.frozen {
                    true => Status::Paused,
                    false => Status::Running,
                };
                assert_eq!(
                    (state.status, state.pid),
                    (status, process.pid),
                    "{self:#?}"
                );
            }
            None => assert!(!state.status.has_process(), "{self:#?}"),
        }
        assert!(!self.leftovers || self.machine.is_gone(), "{self:#?}");
        // Its health is checked as long as it runs, and only then.
        let checked = self.rules.health.is_some() && state.status == Status::Running;
        let waiting = self.machine.monitor.deadline().is_some();
        let down = self.now.shutting_down;
        assert!(
            waiting != self.checking.is_some() || !checked || down,
            "{self:#?}"
        );
        assert!(
            checked || !(waiting || self.checking.is_some()),
            "{self:#?}"
        );
        match &self.disk {
            None => assert!(self.machine.is_gone(), "{self:#?}"),
            // A container that could not be removed is dead for this engine only.
            Some(_) if state.status == Status::Dead => {}
            Some(disk) => assert_eq!(*disk, self.machine.kept(), "{self:#?}"),
        }
    }
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let policy = prop_oneof![
        Just(RestartPolicy::Never),
        Just(RestartPolicy::Always),
        Just(RestartPolicy::UnlessStopped),
        proptest::option::of(1u32..4).prop_map(|attempts| RestartPolicy::OnFailure { attempts }),
    ];
    let health = proptest::option::of(any_check());
    let others = (policy, any::<bool>(), any::<bool>(), health);
    others.prop_map(|(restart, auto_remove, at_opening, health)| Rules {
        restart,
        // The two exclude each other.
        auto_remove: auto_remove && restart == RestartPolicy::Never,
        stop_signal: Signal::TERM,
        at_opening,
        health,
    })
}

fn any_check() -> impl Strategy<Value = CheckRules> {
    let seconds = |range: std::ops::Range<u64>| range.prop_map(Duration::from_secs);
    let times = (seconds(1..20), seconds(0..30), seconds(1..5), 1u32..4);
    times.prop_map(
        |(interval, start_period, start_interval, retries)| CheckRules {
            interval,
            retries,
            start_period,
            start_interval,
        },
    )
}

/// A long sequence of events.
fn row() -> impl Strategy<Value = Vec<Happens>> {
    proptest::collection::vec(happens(), 50..150)
}

fn world(rules: Rules, row: &[Happens]) -> World {
    let mut world = World::new(rules);
    for what in row {
        world.happen(what);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever happens in whatever order: it comes to rest, agrees with the kernel, and no
    /// request is left without an answer.
    #[test]
    fn everything_comes_to_rest(rules in any_rules(), row in row()) {
        let mut world = world(rules, &row);
        world.settle();
        world.check();
        // A stop without end is the only thing that may be waited for.
        if world.process.is_none() {
            prop_assert!(world.open.is_empty(), "{world:#?}");
        }
    }

    /// From everywhere a removal with force leads to the end.
    #[test]
    fn everything_can_be_removed(rules in any_rules(), row in row()) {
        let mut world = world(rules, &row);
        world.crash_in = None;
        world.removal_fails = false;
        for _ in 0..3 {
            if world.machine.is_gone() {
                break;
            }
            world.ask(Wish::Force);
            world.settle();
        }
        prop_assert!(world.machine.is_gone(), "{world:#?}");
        prop_assert!(world.process.is_none() && world.disk.is_none(), "{world:#?}");
        prop_assert!(world.open.is_empty(), "{world:#?}");
    }

    /// From everywhere a shutdown leads to a state without a process, and nothing starts.
    #[test]
    fn everything_can_be_shut_down(rules in any_rules(), row in row()) {
        let mut world = world(rules, &row);
        world.happen(&Happens::Crash(u8::MAX));
        world.crash_in = None;
        // A start that is under way was begun before.
        world.happen(&Happens::GoesDown);
        world.ask(Wish::Shutdown(5));
        world.settle();
        prop_assert!(world.process.is_none(), "{world:#?}");
        prop_assert!(!world.spawning && world.open.is_empty(), "{world:#?}");
    }

    /// After a crash, the files and the kernel's state are consistent.
    #[test]
    fn a_crash_changes_nothing(rules in any_rules(), row in row(), power in any::<bool>()) {
        let mut world = world(rules, &row);
        match power {
            true => world.happen(&Happens::PowerCut),
            false => world.open_again(),
        }
        if world.disk.is_some() {
            world.settle();
            world.check();
        }
    }
}
