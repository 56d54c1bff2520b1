//! Single stories.

use jiff::Timestamp;
use keelson_shim_protocol::Exit;
use keelson_store::document;

use super::*;
use crate::document::StateDocument;
use crate::types::Status;
use crate::types::health::CheckOutcome;

/// A moment, in seconds.
pub(super) fn at(seconds: u64) -> Now {
    let clock = Timestamp::UNIX_EPOCH;
    Now {
        time: Duration::from_secs(seconds),
        clock: clock
            .checked_add(jiff::SignedDuration::from_secs(seconds as i64))
            .unwrap_or(clock),
        shutting_down: false,
    }
}

fn going_down(seconds: u64) -> Now {
    Now {
        shutting_down: true,
        ..at(seconds)
    }
}

pub(super) fn rules(restart: RestartPolicy, auto_remove: bool) -> Rules {
    Rules {
        restart,
        auto_remove,
        stop_signal: Signal::TERM,
        at_opening: true,
        health: None,
    }
}

/// The end of a run from second 1 to second 2.
pub(super) fn exit(code: i32) -> Exit {
    Exit {
        version: 1,
        code,
        oom_killed: false,
        started_at: 1_000_000_000,
        finished_at: 2_000_000_000,
        error: None,
        log_lost: 0,
    }
}

const NEVER: RestartPolicy = RestartPolicy::Never;
const ALWAYS: RestartPolicy = RestartPolicy::Always;

fn number(name: &str) -> Signal {
    name.parse().unwrap()
}

fn request(machine: &mut Machine, ticket: u64, ask: Ask, seconds: u64) -> Vec<Action> {
    machine.step(Event::Request(Ticket(ticket), ask), at(seconds))
}

fn stop(patience: Option<u64>) -> Ask {
    Ask::Stop {
        by: Stopper::Caller,
        signal: Signal::TERM,
        patience: patience.map(Duration::from_secs),
    }
}

const FORCE: Ask = Ask::Remove { force: true };

/// Runs as process 7 since second 1.
fn running(rules: Rules) -> Machine {
    let mut machine = Machine::new(rules);
    assert_eq!(request(&mut machine, 100, Ask::Start, 1), [Action::Spawn]);
    start(&mut machine, 7);
    machine
}

fn start(machine: &mut Machine, pid: i32) -> Vec<Action> {
    machine.step(
        Event::Started {
            pid,
            at: at(1).clock,
        },
        at(1),
    )
}

/// The event by which an effect reports success.
fn success(action: &Action) -> Option<Event> {
    match *action {
        Action::Send(sending) => Some(Event::Sent(sending)),
        Action::Freeze(ticket, by) => Some(Event::Frozen(ticket, by)),
        Action::Thaw(thaw) => Some(Event::Thawed(thaw)),
        Action::Discard => Some(Event::Removed),
        _ => None,
    }
}

/// Handles an event, lets all effects except starts succeed, and returns all actions.
fn follow(machine: &mut Machine, event: Event, now: Now) -> Vec<Action> {
    let mut all = Vec::new();
    let mut events = std::collections::VecDeque::from([event]);
    while let Some(event) = events.pop_front() {
        let actions = machine.step(event, now);
        for action in &actions {
            if let Some(event) = success(action) {
                events.push_front(event);
            }
            if let Action::Again(ticket, ask) = action {
                events.push_back(Event::Request(*ticket, *ask));
            }
        }
        all.extend(actions);
    }
    all
}

fn ask(machine: &mut Machine, ticket: u64, ask: Ask, seconds: u64) -> Vec<Action> {
    follow(machine, Event::Request(Ticket(ticket), ask), at(seconds))
}

fn end(machine: &mut Machine, pid: i32, code: i32, now: Now) -> Vec<Action> {
    let exit = exit(code);
    follow(machine, Event::Exited { pid, exit }, now)
}

/// The answers among actions.
fn answers(actions: &[Action]) -> Vec<(u64, Outcome)> {
    let answer = |action: &Action| match action {
        Action::Answer(ticket, outcome) => Some((ticket.0, *outcome)),
        _ => None,
    };
    actions.iter().filter_map(answer).collect()
}

const DONE: Outcome = Outcome::Done;

fn refusal(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

#[test]
fn a_stop_ends_by_a_signal_or_in_time() {
    let mut machine = running(rules(NEVER, false));
    let actions = ask(&mut machine, 1, stop(Some(10)), 5);
    assert_eq!(answers(&actions), []);
    assert!(machine.record().stopped_by_caller);
    assert_eq!(machine.deadline(), Some(at(15).time));
    let mut polite = machine.clone();
    let actions = end(&mut polite, 7, 5, at(6));
    assert_eq!(answers(&actions), [(1, DONE)]);
    assert_eq!(polite.deadline(), None);
    let told: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Emit(happening) => Some(happening.name()),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["die", "stop"]);
    // Deaf to it.
    assert_eq!(machine.step(Event::Time, at(14)), []);
    let actions = machine.step(Event::Time, at(15));
    let kill = Sending {
        signal: Signal::KILL,
        purpose: Purpose::Deadline,
    };
    assert_eq!(actions, [Action::Send(kill)]);
    assert_eq!(machine.deadline(), Some(at(25).time));
    // It survives even that.
    let actions = machine.step(Event::Time, at(25));
    assert_eq!(answers(&actions), [(1, refusal(Refusal::Survived))]);
    assert_eq!(machine.record().status, Status::Running);
    // A second try counts like a first.
    ask(&mut machine, 2, stop(Some(1)), 30);
    assert_eq!(machine.deadline(), Some(at(31).time));
}

#[test]
fn the_shortest_patience_counts() {
    let mut machine = running(rules(NEVER, false));
    ask(&mut machine, 1, stop(None), 1);
    assert_eq!(machine.deadline(), None);
    ask(&mut machine, 2, stop(Some(30)), 2);
    assert_eq!(machine.deadline(), Some(at(32).time));
    ask(&mut machine, 3, stop(Some(5)), 3);
    assert_eq!(machine.deadline(), Some(at(8).time));
    ask(&mut machine, 4, stop(None), 4);
    assert_eq!(machine.deadline(), Some(at(8).time));
    let actions = end(&mut machine, 7, 0, at(5));
    let all = [(1, DONE), (2, DONE), (3, DONE), (4, DONE)];
    assert_eq!(answers(&actions), all);
}

#[test]
fn a_removal_overrules_what_else_is_wanted() {
    let mut machine = running(rules(ALWAYS, false));
    ask(&mut machine, 1, stop(None), 1);
    let (signal, patience) = (Signal::TERM, None);
    ask(&mut machine, 2, Ask::Restart { signal, patience }, 1);
    ask(&mut machine, 3, FORCE, 1);
    assert_eq!(machine.deadline(), Some(at(1).time + KILL_TIME));
    let actions = end(&mut machine, 7, 137, at(2));
    assert!(machine.is_gone());
    let expected = [(1, DONE), (3, DONE), (2, refusal(Refusal::Gone))];
    let mut found = answers(&actions);
    found.sort_by_key(|(ticket, _)| *ticket);
    let mut expected = expected;
    expected.sort_by_key(|(ticket, _)| *ticket);
    assert_eq!(found, expected);
    assert!(!actions.contains(&Action::Spawn));
}

#[test]
fn a_restart_keeps_what_is_removed_at_its_end() {
    let mut machine = running(rules(NEVER, true));
    let (signal, patience) = (Signal::TERM, Some(Duration::ZERO));
    ask(&mut machine, 1, Ask::Restart { signal, patience }, 3);
    let actions = end(&mut machine, 7, 0, at(3));
    assert!(actions.contains(&Action::Spawn));
    assert!(!actions.contains(&Action::Discard));
    assert_eq!(answers(&actions), []);
    let actions = start(&mut machine, 8);
    assert_eq!(answers(&actions), [(1, DONE)]);
    assert!(actions.contains(&Action::Emit(Happening::Restart)));
    // A restart that can't start it removes it, like any start.
    ask(&mut machine, 2, Ask::Restart { signal, patience }, 4);
    end(&mut machine, 8, 0, at(4));
    let failed = Event::NotStarted {
        code: 127,
        error: "x".to_owned(),
    };
    let actions = follow(&mut machine, failed, at(4));
    assert_eq!(answers(&actions), [(2, Outcome::NotStarted)]);
    assert!(machine.is_gone());
}

#[test]
fn what_is_asked_during_a_start_is_taken_up_after_it() {
    let asks = [Ask::Start, Ask::Kill(number("HUP")), stop(Some(3)), FORCE];
    let mut machine = Machine::new(rules(NEVER, false));
    request(&mut machine, 1, Ask::Start, 1);
    for (ticket, ask) in (2..).zip(asks) {
        assert_eq!(request(&mut machine, ticket, ask, 1), []);
    }
    let mut failing = machine.clone();
    let event = Event::Started {
        pid: 7,
        at: at(1).clock,
    };
    let actions = follow(&mut machine, event, at(2));
    let expected = [(1, DONE), (2, refusal(Refusal::Runs)), (3, DONE)];
    assert_eq!(answers(&actions), expected);
    let actions = end(&mut machine, 7, 137, at(2));
    assert_eq!(answers(&actions), [(4, DONE), (5, DONE)]);
    assert!(machine.is_gone());

    // If it fails, the next start is tried, and the other requests wait for that.
    let failed = Event::NotStarted {
        code: 126,
        error: "no".to_owned(),
    };
    let actions = failing.step(failed, at(2));
    assert_eq!(answers(&actions), [(1, Outcome::NotStarted)]);
    let again = |action: &&Action| matches!(action, Action::Again(..));
    assert_eq!(actions.iter().filter(again).count(), 4);
    let state = failing.record();
    assert_eq!((state.status, state.exit_code), (Status::Created, 126));
}

#[test]
fn policies_start_again_and_stops_take_that_back() {
    let mut machine = running(rules(ALWAYS, false));
    end(&mut machine, 7, 1, at(2));
    assert_eq!(machine.record().status, Status::Restarting);
    let due = machine.deadline().unwrap();
    assert_eq!(due, at(2).time + Duration::from_millis(100));
    // A timer that comes early or late does no harm.
    assert_eq!(machine.step(Event::Time, at(2)), []);
    let mut stopped = machine.clone();
    let actions = ask(&mut stopped, 1, stop(None), 2);
    assert_eq!(answers(&actions), [(1, DONE)]);
    assert_eq!(stopped.deadline(), None);
    assert_eq!(stopped.step(Event::Time, at(9)), []);
    assert_eq!(stopped.record().status, Status::Exited);
    let mut removed = machine.clone();
    ask(&mut removed, 1, FORCE, 2);
    assert!(removed.is_gone());
    let mut going = machine.clone();
    going.step(Event::Time, going_down(9));
    assert_eq!(going.record().status, Status::Exited);

    assert_eq!(machine.step(Event::Time, at(9)), [Action::Spawn]);
    start(&mut machine, 8);
    let state = machine.record();
    assert_eq!((state.status, state.restart_count), (Status::Running, 1));
    end(&mut machine, 8, 1, at(10));
    let pause = machine.deadline().unwrap() - at(10).time;
    assert_eq!(pause, Duration::from_millis(200));
}

#[test]
fn only_a_signal_that_is_meant_to_end_it_keeps_the_policy_away() {
    let mut machine = running(rules(ALWAYS, false));
    let actions = ask(&mut machine, 1, Ask::Kill(number("HUP")), 1);
    assert_eq!(answers(&actions), [(1, DONE)]);
    assert!(!machine.record().stopped_by_caller);
    let mut reloaded = machine.clone();
    end(&mut reloaded, 7, 129, at(2));
    assert_eq!(reloaded.record().status, Status::Restarting);
    ask(&mut machine, 2, Ask::Kill(Signal::TERM), 1);
    end(&mut machine, 7, 0, at(2));
    assert_eq!(machine.record().status, Status::Exited);
    assert!(machine.record().stopped_by_caller);
}

#[test]
fn frozen_processes_are_thawed_to_end() {
    let mut machine = running(rules(NEVER, false));
    ask(&mut machine, 1, Ask::Pause(Freezer::Caller), 1);
    let mut killed = machine.clone();
    let actions = ask(&mut killed, 2, Ask::Kill(Signal::KILL), 1);
    assert!(!actions.contains(&Action::Thaw(Thaw::Signal(None))));
    let actions = ask(&mut machine, 2, Ask::Kill(number("USR1")), 1);
    assert_eq!(answers(&actions), [(2, DONE)]);
    assert_eq!(machine.record().status, Status::Paused);
    let actions = ask(&mut machine, 3, Ask::Kill(Signal::TERM), 1);
    assert!(actions.contains(&Action::Thaw(Thaw::Signal(Some(Ticket(3))))));
    assert_eq!(answers(&actions), [(3, DONE)]);
    assert_eq!(machine.record().status, Status::Running);
}

#[test]
fn a_commit_thaws_what_it_has_frozen_and_nothing_else() {
    let mut machine = running(rules(NEVER, false));
    let commit = Freezer::Commit;
    ask(&mut machine, 1, Ask::Pause(commit), 1);
    assert_eq!(machine.record().status, Status::Paused);
    let mut plain = machine.clone();
    ask(&mut plain, 2, Ask::Unpause(commit), 1);
    assert_eq!(plain.record().status, Status::Running);
    // A client thaws and freezes it meanwhile.
    ask(&mut machine, 2, Ask::Unpause(Freezer::Caller), 1);
    ask(&mut machine, 3, Ask::Pause(Freezer::Caller), 1);
    let actions = ask(&mut machine, 4, Ask::Unpause(commit), 1);
    assert_eq!(answers(&actions), [(4, refusal(Refusal::NotPaused))]);
    assert_eq!(machine.record().status, Status::Paused);
}

/// It runs since second 1, and is healthy by its first check, in second 2.
fn healthy() -> Machine {
    let second = Duration::from_secs(1);
    let mut machine = running(Rules {
        health: Some(CheckRules {
            interval: second,
            retries: 1,
            start_period: Duration::ZERO,
            start_interval: second,
        }),
        ..rules(NEVER, false)
    });
    let actions = machine.step(Event::Time, at(3));
    let [Action::Check(number)] = actions[..] else {
        panic!("no check is made: {actions:?}");
    };
    let result = CheckResult {
        start: at(3).clock,
        end: at(3).clock,
        outcome: CheckOutcome::Exited { code: 0 },
        output: String::new(),
    };
    machine.step(Event::Checked(number, result), at(3));
    assert_eq!(machine.health().unwrap().status, HealthStatus::Healthy);
    machine
}

#[test]
fn a_commit_leaves_the_health_as_it_is_and_a_pause_does_not() {
    for (by, status) in [
        (Freezer::Commit, HealthStatus::Healthy),
        (Freezer::Caller, HealthStatus::Unhealthy),
    ] {
        let mut machine = healthy();
        machine.step(Event::Frozen(Ticket(1), by), at(4));
        assert_eq!(machine.deadline(), None, "a frozen container is checked");
        machine.step(Event::Thawed(Thaw::Request(Ticket(2))), at(4));
        assert_eq!(machine.health().unwrap().status, status);
        assert_eq!(machine.deadline(), Some(at(5).time));
    }
}

#[test]
fn a_container_frozen_by_a_commit_is_thawed_after_a_kill_of_the_engine() {
    let mut machine = running(rules(NEVER, false));
    ask(&mut machine, 1, Ask::Pause(Freezer::Commit), 1);
    assert_eq!(machine.kept().status, Status::Running);
    let alive = Alive {
        pid: machine.record().pid,
        paused: true,
        started_at: None,
    };
    let mut next = Machine::restored(rules(NEVER, false), Found::Written(machine.kept()));
    let actions = next.step(Event::FoundAlive(alive), at(2));
    assert!(actions.contains(&Action::Thaw(Thaw::Left)));
    next.step(Event::Thawed(Thaw::Left), at(2));
    assert_eq!(next.record().status, Status::Running);
    // A client's pause is kept.
    let mut machine = running(rules(NEVER, false));
    ask(&mut machine, 1, Ask::Pause(Freezer::Caller), 1);
    let mut next = Machine::restored(rules(NEVER, false), Found::Written(machine.kept()));
    let actions = next.step(Event::FoundAlive(alive), at(2));
    assert!(!actions.contains(&Action::Thaw(Thaw::Left)));
    assert_eq!(next.record().status, Status::Paused);
}

#[test]
fn the_end_of_another_run_is_none_of_this_one() {
    let mut machine = running(rules(ALWAYS, false));
    assert_eq!(end(&mut machine, 6, 1, at(2)), []);
    assert_eq!(machine.record().status, Status::Running);
}

fn found(status: Status, rules: Rules) -> Machine {
    let state = State {
        status,
        pid: 7,
        started_at: Some(at(1).clock),
        ..State::default()
    };
    Machine::restored(rules, Found::Written(state))
}

/// Members that only a newer release knows are kept, whatever happens to the container.
#[test]
fn unknown_members_of_a_state_are_kept() {
    let text = include_str!("../../tests/golden/state.1.json");
    let text = text.replacen('{', r#"{"outer":[1],"#, 1);
    let text = text.replace(r#""state":{"#, r#""state":{"inner":"kept","#);
    let path = std::path::Path::new("state.json");
    let read: StateDocument = document::parse(path, text.as_bytes()).unwrap();
    let (boot, state) = read.clone().into_parts();
    let mut machine = Machine::restored(rules(RestartPolicy::Never, false), Found::Written(state));
    assert_eq!(StateDocument::new(boot.clone(), machine.kept()), read);
    machine.step(Event::Request(Ticket(1), Ask::Start), at(1));
    let written = serde_json::to_value(StateDocument::new(boot, machine.kept())).unwrap();
    assert_eq!(written["outer"], serde_json::json!([1]));
    assert_eq!(written["state"]["inner"], "kept");
}

fn gone(record: Option<Exit>, boot: Boot) -> Event {
    Event::FoundGone { record, boot }
}

#[test]
fn what_is_found_at_the_opening() {
    let none = rules(NEVER, false);
    // It ended while no engine ran: with a record, without one, and in another boot.
    for (record, boot, code, leftovers) in [
        (Some(exit(9)), Boot::This, 9, false),
        (None, Boot::This, 255, true),
        (None, Boot::Earlier, 255, false),
    ] {
        let mut machine = found(Status::Running, none);
        let actions = follow(&mut machine, gone(record, boot), at(2));
        assert_eq!(actions.contains(&Action::KillLeftovers), leftovers);
        let state = machine.record();
        assert_eq!((state.status, state.exit_code), (Status::Exited, code));
    }
    // It runs, even if the last engine was killed before it wrote that.
    for status in [Status::Created, Status::Running, Status::Exited] {
        let mut machine = found(status, none);
        let alive = Alive {
            pid: 8,
            paused: status == Status::Exited,
            started_at: None,
        };
        let actions = machine.step(Event::FoundAlive(alive), at(2));
        assert_eq!(actions, [Action::Persist, Action::Watch(8)]);
        assert!(!machine.is_unknown());
        assert_eq!(machine.record().pid, 8);
    }
    // An unchanged state is not written.
    let alive = Alive {
        pid: 7,
        paused: false,
        started_at: None,
    };
    let mut machine = found(Status::Running, none);
    let actions = machine.step(Event::FoundAlive(alive), at(2));
    assert_eq!(actions, [Action::Watch(7)]);
    // Policies, and removals that were running.
    let mut machine = found(Status::Exited, rules(ALWAYS, false));
    machine.step(gone(None, Boot::This), at(2));
    assert_eq!(machine.deadline(), Some(at(2).time));
    let mut machine = found(Status::Exited, rules(NEVER, true));
    follow(&mut machine, gone(None, Boot::This), at(2));
    assert!(machine.is_gone());
    let mut machine = found(Status::Removing, none);
    follow(&mut machine, gone(None, Boot::This), at(2));
    assert!(machine.is_gone());
    // A service of the host is started by its manager.
    let service = Rules {
        at_opening: false,
        ..rules(ALWAYS, false)
    };
    let mut machine = found(Status::Running, service);
    machine.step(gone(None, Boot::Earlier), at(2));
    assert_eq!(machine.record().status, Status::Exited);
}

#[test]
fn a_run_that_was_never_written_is_told_once() {
    let none = rules(NEVER, false);
    let mut machine = found(Status::Created, none);
    let actions = machine.step(gone(Some(exit(3)), Boot::This), at(3));
    let dies = |action: &Action| matches!(action, Action::Emit(Happening::Die { .. }));
    assert!(actions.iter().any(dies));
    let kept = machine.record();
    assert_eq!((kept.status, kept.exit_code), (Status::Exited, 3));
    // The same record again, because the engine was killed before it deleted it.
    let mut machine = Machine::restored(none, Found::Written(kept));
    let actions = machine.step(gone(Some(exit(3)), Boot::This), at(3));
    assert!(!actions.iter().any(dies));
    // A start that failed has a record, too.
    let mut machine = found(Status::Created, none);
    let failed = Exit {
        started_at: 0,
        ..exit(127)
    };
    machine.step(gone(Some(failed), Boot::This), at(3));
    assert_eq!(machine.record().status, Status::Created);
}

#[test]
fn a_silent_shim_is_told_and_not_forgotten() {
    let mut machine = found(Status::Exited, rules(NEVER, false));
    assert_eq!(machine.shown().error, "");
    machine.step(Event::NoAnswer, at(1));
    assert!(machine.shown().error.contains("does not answer"));
    assert_eq!(machine.record().error, "");
    let actions = ask(&mut machine, 1, Ask::Start, 1);
    let may_run = |attempt| refusal(Refusal::MayRun(attempt));
    assert_eq!(answers(&actions), [(1, may_run(Attempt::Start))]);
    let actions = ask(&mut machine, 2, Ask::Remove { force: false }, 1);
    assert_eq!(answers(&actions), [(2, may_run(Attempt::Remove))]);
    let actions = ask(&mut machine, 3, FORCE, 1);
    let wanted = [Action::EndShim, Action::KillLeftovers, Action::Discard];
    assert_eq!(actions[..3], wanted);
    assert!(machine.is_gone());

    // A shim stops answering during a run; requests meanwhile are not forgotten.
    let mut machine = running(rules(ALWAYS, false));
    machine.step(Event::NoAnswer, at(1));
    ask(&mut machine, 1, stop(Some(1)), 1);
    assert!(machine.is_unknown());
    assert_eq!(machine.deadline(), Some(at(2).time));
    let actions = follow(&mut machine, gone(Some(exit(0)), Boot::This), at(2));
    assert_eq!(answers(&actions), [(1, DONE)]);
    assert_eq!(machine.record().status, Status::Exited);
}

#[test]
fn what_cannot_be_read_is_removed_on_purpose_only() {
    let none = rules(NEVER, false);
    let mut machine = Machine::unreadable(none, "torn".to_owned());
    assert!(machine.is_read_only());
    assert_eq!(machine.record().error, "torn");
    for (ticket, ask) in (1..).zip([Ask::Start, stop(None), Ask::Pause(Freezer::Caller)]) {
        let actions = request(&mut machine, ticket, ask, 1);
        assert!(matches!(answers(&actions)[..], [(_, Outcome::Refused(_))]));
    }
    let actions = ask(&mut machine, 9, Ask::Remove { force: false }, 1);
    assert_eq!(actions[0], Action::EndShim);
    assert!(machine.is_gone());
    // If the state can't be read, the shim's report is used.
    let unreadable = Found::Unreadable("newer".to_owned());
    let mut machine = Machine::restored(none, unreadable);
    machine.step(gone(None, Boot::This), at(1));
    assert_eq!(machine.record().status, Status::Dead);
    assert!(machine.is_read_only());
}

#[test]
fn a_failed_removal_is_told_and_can_be_tried_again() {
    let mut machine = Machine::new(rules(NEVER, false));
    request(&mut machine, 1, Ask::Remove { force: false }, 1);
    let failed = Event::NotRemoved {
        error: "busy".to_owned(),
    };
    let actions = machine.step(failed, at(1));
    assert_eq!(answers(&actions), [(1, Outcome::Failed)]);
    assert!(actions.contains(&Action::Notify(Moment::NotRemoved)));
    let state = machine.record();
    assert_eq!((state.status, &*state.error), (Status::Dead, "busy"));
    ask(&mut machine, 2, Ask::Remove { force: false }, 2);
    assert!(machine.is_gone());
}

#[test]
fn nothing_starts_while_the_machine_goes_down() {
    let mut machine = Machine::new(rules(ALWAYS, false));
    let start = Event::Request(Ticket(1), Ask::Start);
    let actions = machine.step(start, going_down(1));
    assert_eq!(answers(&actions), [(1, refusal(Refusal::ShuttingDown))]);
    // A running start is ended by the shutdown, which is not a client's stop.
    let mut machine = Machine::new(rules(ALWAYS, false));
    request(&mut machine, 1, Ask::Start, 1);
    let shutdown = Ask::Stop {
        by: Stopper::Shutdown,
        signal: Signal::TERM,
        patience: Some(Duration::ZERO),
    };
    assert_eq!(
        machine.step(Event::Request(Ticket(2), shutdown), going_down(1)),
        []
    );
    let event = Event::Started {
        pid: 7,
        at: at(1).clock,
    };
    follow(&mut machine, event, going_down(1));
    let actions = end(&mut machine, 7, 0, going_down(2));
    assert_eq!(answers(&actions), [(2, DONE)]);
    let state = machine.record();
    assert_eq!(state.status, Status::Exited);
    assert!(!state.stopped_by_caller);
    // A restart during the shutdown of the machine.
    let mut machine = running(rules(NEVER, true));
    let (signal, patience) = (Signal::TERM, None);
    ask(&mut machine, 1, Ask::Restart { signal, patience }, 1);
    let actions = end(&mut machine, 7, 0, going_down(2));
    assert_eq!(answers(&actions), [(1, refusal(Refusal::ShuttingDown))]);
    assert!(machine.is_gone());
}

#[test]
fn a_torn_state_counts_as_a_run_whose_end_nobody_saw() {
    let mut machine = Machine::restored(rules(NEVER, false), Found::Torn);
    machine.step(gone(None, Boot::This), at(1));
    let state = machine.record();
    assert_eq!((state.status, state.exit_code), (Status::Exited, 255));
}

#[test]
fn rules_may_change_in_a_run() {
    let mut machine = running(rules(NEVER, false));
    machine.set_rules(rules(ALWAYS, false));
    end(&mut machine, 7, 0, at(2));
    assert_eq!(machine.record().status, Status::Restarting);
}
