//! The table of the machine, made by trying every event in every state.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use keelson_model::spec::RestartPolicy;
use keelson_shim_protocol::Exit;

use super::state::*;
use super::tests::{at, exit, rules};
use super::*;

/// Every kind of state, with its name in the table.
fn states() -> Vec<(&'static str, Life)> {
    let running = Life::Running {
        pid: 7,
        ending: None,
    };
    let unknown = |last: &Life| {
        Life::Unknown(Unknown {
            last: Box::new(last.clone()),
            silent: false,
            opening: true,
        })
    };
    let starting = Start {
        from: Rest::Exited,
        by: Starter::Caller,
        again: false,
        waiting: Vec::new(),
        later: Vec::new(),
    };
    vec![
        ("`Created`", Life::Created),
        ("`Starting`", Life::Starting(starting)),
        ("`Running`", running.clone()),
        (
            "`Paused`",
            Life::Paused {
                pid: 7,
                by: Freezer::Caller,
                ending: None,
            },
        ),
        ("`Restarting`", Life::Restarting { until: at(10).time }),
        ("`Exited`", Life::Exited),
        (
            "`Removing`",
            Life::Removing {
                waiting: Vec::new(),
            },
        ),
        ("`Dead`", Life::Dead(Dead::Removal(String::new()))),
        ("`Unknown`, ran", unknown(&running)),
        ("`Unknown`, rested", unknown(&Life::Exited)),
        ("`Gone`", Life::Gone),
    ]
}

const TICKET: Ticket = Ticket(1);

fn requests() -> Vec<(&'static str, Ask)> {
    let (signal, patience) = (Signal::TERM, Some(Duration::from_secs(10)));
    let by = Stopper::Caller;
    vec![
        ("start", Ask::Start),
        (
            "stop",
            Ask::Stop {
                by,
                signal,
                patience,
            },
        ),
        ("kill", Ask::Kill(signal)),
        ("pause", Ask::Pause(Freezer::Caller)),
        ("unpause", Ask::Unpause(Freezer::Caller)),
        ("restart", Ask::Restart { signal, patience }),
        ("remove", Ask::Remove { force: false }),
        ("remove with force", Ask::Remove { force: true }),
    ]
}

fn reports() -> Vec<(&'static str, Event)> {
    let (pid, time) = (7, Timestamp::UNIX_EPOCH);
    let sending = |signal, purpose| Sending { signal, purpose };
    let stop = sending(Signal::TERM, Purpose::Stop);
    let kill = sending(Signal::KILL, Purpose::Deadline);
    let alive = Alive {
        pid,
        paused: false,
        started_at: None,
    };
    let gone = |record: Option<Exit>| Event::FoundGone {
        record,
        boot: Boot::This,
    };
    vec![
        ("started", Event::Started { pid, at: time }),
        (
            "not started",
            Event::NotStarted {
                code: 127,
                error: String::new(),
            },
        ),
        ("stop signal sent", Event::Sent(stop)),
        ("SIGKILL sent", Event::Sent(kill)),
        ("SIGKILL not sent", Event::NotSent(kill, Over::No)),
        ("frozen", Event::Frozen(TICKET, Freezer::Caller)),
        ("thawed", Event::Thawed(Thaw::Request(TICKET))),
        ("removed", Event::Removed),
        (
            "not removed",
            Event::NotRemoved {
                error: String::new(),
            },
        ),
        ("exited", Event::Exited { pid, exit: exit(1) }),
        ("found alive", Event::FoundAlive(alive)),
        ("found gone, record", gone(Some(exit(1)))),
        ("found gone, no record", gone(None)),
        ("no answer", Event::NoAnswer),
        ("time", Event::Time),
    ]
}

/// What follows the end of a run: by its request, or by the rules.
fn ends() -> Vec<(&'static str, Option<Reason>, Rules)> {
    let none = rules(RestartPolicy::Never, false);
    let always = rules(RestartPolicy::Always, false);
    let removed = rules(RestartPolicy::Never, true);
    vec![
        ("by itself", None, none),
        ("by itself, policy `always`", None, always),
        ("by itself, automatic removal", None, removed),
        ("`kill`, policy `always`", Some(Reason::Kill), always),
        ("`stop`, policy `always`", Some(Reason::Stop), always),
        ("`stop`, automatic removal", Some(Reason::Stop), removed),
        ("shutdown, policy `always`", Some(Reason::Shutdown), always),
        (
            "`restart`, automatic removal",
            Some(Reason::Restart),
            removed,
        ),
        ("removal, policy `always`", Some(Reason::Removal), always),
    ]
}

fn word(action: &Action) -> String {
    let word = match action {
        Action::Spawn => "spawn",
        Action::Watch(_) => "watch",
        Action::Send(sending) if sending.signal == Signal::KILL => "send SIGKILL",
        Action::Send(_) => "send signal",
        Action::Freeze(..) => "freeze",
        Action::Thaw(_) => "thaw",
        Action::KillLeftovers => "kill leftovers",
        Action::EndShim => "end shim",
        Action::Discard => "discard",
        Action::CleanRun => "clean",
        Action::Persist => "write",
        Action::Emit(happening) => {
            return format!("`{}`", happening.name());
        }
        Action::Notify(_) => "wake",
        Action::DropPending => "drop",
        Action::Release => "release",
        Action::Answer(_, Outcome::Done) => "done",
        Action::Answer(_, Outcome::Failed) => "error",
        Action::Answer(_, Outcome::NotStarted) => "error",
        Action::Answer(_, Outcome::Refused(refusal)) => {
            return format!("({})", refused(*refusal));
        }
        Action::Again(..) => "again",
        Action::Check(_) => "check",
        Action::EndCheck(_) => "end check",
        Action::KeepHealth => "keep health",
    };
    word.to_owned()
}

fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Runs => "runs",
        Refusal::Rests | Refusal::NotRunning(_) => "does not run",
        Refusal::Frozen => "is paused",
        Refusal::AlreadyPaused => "is paused already",
        Refusal::NotPaused => "is not paused",
        Refusal::Removable => "can only be removed",
        Refusal::InUse(_) => "in use",
        Refusal::BeingRemoved => "is being removed",
        Refusal::MayRun(_) => "may run",
        Refusal::Survived => "did not end",
        Refusal::ShuttingDown => "shutting down",
        Refusal::Gone => "no such container",
    }
}

fn name(life: &Life) -> &'static str {
    match life {
        Life::Created => "`Created`",
        Life::Starting(_) => "`Starting`",
        Life::Running { .. } => "`Running`",
        Life::Paused { .. } => "`Paused`",
        Life::Restarting { .. } => "`Restarting`",
        Life::Exited => "`Exited`",
        Life::Removing { .. } => "`Removing`",
        Life::Dead(_) => "`Dead`",
        Life::Unknown(_) => "`Unknown`",
        Life::Gone => "`Gone`",
    }
}

fn machine(life: &Life, rules: Rules) -> Machine {
    Machine {
        life: life.clone(),
        record: Record {
            started_at: Some(Timestamp::UNIX_EPOCH),
            ..Record::default()
        },
        ..Machine::new(rules)
    }
}

/// The cell of an event in a state.
fn cell(life: &Life, event: &Event, rules: Rules) -> String {
    let mut machine = machine(life, rules);
    let actions = machine.step(event.clone(), at(10));
    let mut words: Vec<String> = actions.iter().map(word).collect();
    if let Life::Starting(start) = &machine.life
        && !start.later.is_empty()
    {
        words.push("later".to_owned());
    }
    let (before, after) = (name(life), name(&machine.life));
    let known = match &machine.life {
        Life::Unknown(unknown) => &unknown.last,
        life => life,
    };
    let ending = match known {
        Life::Running { ending, .. } | Life::Paused { ending, .. } => ending.is_some(),
        _ => false,
    };
    let next = match (before == after, ending) {
        (true, true) => " → ending".to_owned(),
        (true, false) => String::new(),
        (false, _) => format!(" → {after}"),
    };
    match words.is_empty() && next.is_empty() {
        true => "–".to_owned(),
        false => format!("{}{next}", words.join(", ")).trim().to_owned(),
    }
}

fn table() -> Vec<String> {
    let plain = rules(RestartPolicy::Never, false);
    let mut lines = Vec::new();
    let head = |first: &str, columns: &[&str]| {
        vec![
            format!("| {first} | {} |", columns.join(" | ")),
            format!("|---|{}", "---|".repeat(columns.len())),
        ]
    };
    let states = states();
    let names: Vec<_> = states.iter().map(|(name, _)| *name).collect();
    lines.extend(head("request", &names));
    for (what, ask) in requests() {
        let event = Event::Request(TICKET, ask);
        let cells = states.iter().map(|(_, life)| cell(life, &event, plain));
        let cells: Vec<_> = cells.collect();
        lines.push(format!("| {what} | {} |", cells.join(" | ")));
    }
    lines.push(String::new());
    // Reports are expected in some states; in the others they are outdated.
    let idle = ["`Created`", "`Exited`", "`Dead`", "`Gone`"];
    let effects = ["frozen", "thawed", "SIGKILL not sent"];
    let (others, awaiting): (Vec<_>, Vec<_>) =
        states.iter().partition(|(name, _)| idle.contains(name));
    let names: Vec<_> = awaiting.iter().map(|(name, _)| *name).collect();
    lines.extend(head("report", &names));
    for (what, event) in reports() {
        for (name, life) in &others {
            let mut machine = machine(life, plain);
            let actions = machine.step(event.clone(), at(10));
            assert_eq!(&machine.life, life, "{what} in {name}");
            assert!(actions.is_empty() || effects.contains(&what), "{actions:?}");
        }
        let cells = awaiting.iter().map(|(_, life)| cell(life, &event, plain));
        let cells: Vec<_> = cells.collect();
        lines.push(format!("| {what} | {} |", cells.join(" | ")));
    }
    lines.push(String::new());
    lines.extend(head("end of a run", &["follows"]));
    for (what, reason, rules) in ends() {
        let ending = reason.map(|reason| Ending {
            is_stop: !matches!(reason, Reason::Kill | Reason::Removal),
            ..Ending::new(reason)
        });
        let event = Event::Exited {
            pid: 7,
            exit: exit(1),
        };
        let cell = cell(&Life::Running { pid: 7, ending }, &event, rules);
        lines.push(format!("| {what} | {cell} |"));
    }
    lines
}

/// The lines between the marks of a text.
fn between<'a>(text: &'a str, comment: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim);
    lines
        .skip_while(|line| !line.contains("TABLE BEGIN"))
        .skip(1)
        .take_while(|line| !line.contains("TABLE END"))
        .map(|line| line.strip_prefix(comment).unwrap_or(line).trim())
        .collect()
}

#[test]
fn the_table_says_what_the_machine_does() {
    let table = table();
    let source = between(include_str!("mod.rs"), "//!");
    let book = include_str!("../../../../docs/architecture.md");
    for (name, found) in [
        ("the module's documentation", source),
        ("docs/architecture.md", between(book, "")),
    ] {
        assert!(
            found == table,
            "the table in {name} is not what the machine does; it should be:\n{}",
            table.join("\n")
        );
    }
}

/// The lines of the crate's sources that assign a status, except tests of this machine.
fn assignments(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(assignments(&path));
            continue;
        }
        let own = ["tests.rs", "table.rs", "world.rs"];
        let name = entry.file_name();
        if own.iter().any(|test| name == *test) {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim();
            // Skip the status of the health.
            let says = line.contains(".status = ") || line.starts_with("status: ");
            if says && !line.contains("HealthStatus::") {
                found.push(format!("{}: {line}", name.to_string_lossy()));
            }
        }
    }
    found
}

#[test]
fn a_status_is_said_in_one_place() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_eq!(assignments(&sources), ["record.rs: status: life.status(),"]);
}

/// States of the first releases are read, and written unchanged as long as nothing happens.
#[test]
fn states_of_the_first_releases_are_read_and_written_alike() {
    for status in [
        "created",
        "running",
        "paused",
        "restarting",
        "exited",
        "removing",
        "dead",
    ] {
        let text = include_str!("../../tests/golden/state.1.json");
        let text = text.replace("exited", status);
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut state: State = serde_json::from_value(written["state"].clone()).unwrap();
        if state.status.has_process() {
            state.pid = 7;
        }
        let machine = Machine::restored(
            rules(RestartPolicy::Never, false),
            Found::Written(state.clone()),
        );
        assert_eq!(machine.record(), state, "{status}");
    }
    // A running start writes the rest state that it began from.
    let mut machine = Machine::new(rules(RestartPolicy::Never, false));
    machine.step(Event::Request(TICKET, Ask::Start), at(1));
    assert_eq!(machine.record(), State::default());
}
