//! Additional processes that never execute their command, and sessions that nobody starts.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::path::Path;

use common::bundle::Bundle;
use common::{Connection, Setup, Shim, can_run};
use keelson_shim_protocol::{
    EXECUTIONS_FILE, EndedExecutions, ExecutionState, FailReason, Request, Response,
};
use serde_json::{Value, json};

fn container() -> Shim {
    let shim = Setup::new(&["sleep", "1000"]).create();
    shim.start();
    shim
}

fn process(args: &[&str]) -> Value {
    common::config(args, "")["process"].clone()
}

fn make(shim: &Shim, name: &str, process: Value, open_stdin: bool) -> Response {
    shim.call(&Request::Exec {
        exec: name.to_owned(),
        process,
        open_stdin,
    })
}

fn attach(shim: &Shim, name: &str) -> Connection {
    let mut connection = shim.connect();
    let request = Request::Attach {
        exec: Some(name.to_owned()),
        stdin: true,
        stdout: true,
        stderr: true,
    };
    assert_eq!(connection.call(&request), Response::Done);
    connection
}

/// From now on the kernel kills additional processes when they execute their command.
fn kill_at_execution(config: &Path) {
    let mut spec: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["execve", "execveat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    });
    std::fs::write(config, spec.to_string()).unwrap();
}

#[test]
fn a_process_that_is_killed_before_its_command_was_not_started() {
    if !can_run() {
        return;
    }
    let shim = container();
    kill_at_execution(&shim.directory.path().join("bundle/config.json"));
    for terminal in [false, true] {
        let mut process = process(&["true"]);
        process["terminal"] = terminal.into();
        for round in 0..20 {
            let name = format!("killed-{terminal}-{round}");
            let mut stream = shim.session(&name, process.clone());
            let message = shim.start_session(&name).unwrap_err();
            assert!(message.contains("before its command"), "{message}");
            assert_eq!(stream.read_all(), (Vec::new(), Vec::new()));
        }
    }

    let bundle = Bundle::new(&["sleep", "1000"], |_| {});
    bundle.create(&[]);
    bundle.ok(&["start", &bundle.id]);
    kill_at_execution(&bundle.directory.path().join("config.json"));
    let output = bundle.call(&["exec", "--pid-file", "pid", &bundle.id, "true"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{error}");
    assert!(error.contains("before its command"), "{error}");
    assert!(!bundle.directory.path().join("pid").exists());
}

#[test]
fn a_session_needs_a_name() {
    if !can_run() {
        return;
    }
    let shim = container();
    let Response::Failed { message, .. } = make(&shim, "", process(&["true"]), false) else {
        panic!("made");
    };
    assert!(message.contains("name"), "{message}");
}

#[test]
fn sessions_that_nobody_starts_cost_little_and_are_forgotten() {
    if !can_run() {
        return;
    }
    let shim = container();
    let descriptors = || {
        let directory = format!("/proc/{}/fd", shim.shim_pid);
        std::fs::read_dir(directory).unwrap().count()
    };
    let before = descriptors();
    let mut waiter = None;
    for number in 0..300 {
        let name = format!("session-{number}");
        let made = make(&shim, &name, process(&["true"]), true);
        assert_eq!(made, Response::Done, "{name}");
        if number == 0 {
            let mut connection = shim.connect();
            connection.send(&Request::Wait { exec: Some(name) });
            waiter = Some(connection);
        }
    }
    // The connection of the one that waited.
    assert!(descriptors() <= before + 2, "{} {before}", descriptors());
    assert!(matches!(
        waiter.unwrap().receive(),
        Response::Failed {
            reason: FailReason::Internal,
            ..
        }
    ));
    let message = shim.start_session("session-0").unwrap_err();
    assert!(message.contains("no exec session"), "{message}");
    shim.start_session("session-299").unwrap();
    assert_eq!(shim.session_code("session-299"), 0);
}

#[test]
fn input_that_comes_before_the_start_is_kept() {
    if !can_run() {
        return;
    }
    let shim = container();
    let made = make(&shim, "one", process(&["cat"]), true);
    assert_eq!(made, Response::Done);
    let mut attached = attach(&shim, "one");
    attached.0.write_all(b"early\n").unwrap();
    attached.0.shutdown(Shutdown::Write).unwrap();
    shim.start_session("one").unwrap();
    assert_eq!(attached.read_all().0, b"early\n");
    assert_eq!(shim.session_code("one"), 0);
}

/// What the shim reports about its sessions.
fn executions(shim: &Shim) -> Vec<(String, ExecutionState)> {
    match shim.call(&Request::Executions) {
        Response::Executions { executions } => executions
            .into_iter()
            .map(|execution| (execution.exec, execution.state))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_comes_back_is_told_of_all_sessions() {
    if !can_run() {
        return;
    }
    let shim = Setup::new(&["sleep", "1000"]).create();
    shim.start();
    assert_eq!(executions(&shim), []);
    let exit = |command: &str| process(&["sh", "-c", command]);
    for (name, command) in [
        ("told", "exit 7"),
        ("untold", "exit 5"),
        ("runs", "sleep 1000"),
    ] {
        assert_eq!(make(&shim, name, exit(command), false), Response::Done);
    }
    assert_eq!(make(&shim, "made", exit("exit 0"), false), Response::Done);
    let pids = ["told", "untold", "runs"].map(|name| shim.start_session(name).unwrap());
    assert_eq!(shim.session_code("told"), 7);
    // Every time that a client asks.
    assert_eq!(shim.session_code("told"), 7);
    common::eventually("both have ended", || {
        let ended = executions(&shim);
        let is_ended = |state: &ExecutionState| matches!(state, ExecutionState::Ended { .. });
        ended.iter().filter(|(_, state)| is_ended(state)).count() == 2
    });
    let state = |name: &str| {
        let mut found = executions(&shim)
            .into_iter()
            .filter(|(exec, _)| exec == name);
        let (_, state) = found.next().unwrap();
        assert!(found.next().is_none(), "{name} is named twice");
        state
    };
    let code = |name: &str| match state(name) {
        ExecutionState::Ended { pid, exit } => (pid, exit.code),
        other => panic!("{other:?}"),
    };
    assert_eq!(code("told"), (pids[0], 7));
    assert_eq!(code("untold"), (pids[1], 5));
    assert_eq!(state("runs"), ExecutionState::Running { pid: pids[2] });
    assert_eq!(state("made"), ExecutionState::Made);
    // A started one is not started again.
    assert!(shim.start_session("runs").is_err());

    let kill = Request::Kill {
        signal: 9,
        all: true,
    };
    assert_eq!(shim.call(&kill), Response::Done);
    assert_eq!(shim.wait().code, 137);
    let left = std::fs::read(shim.directory.path().join(EXECUTIONS_FILE)).unwrap();
    let left: EndedExecutions = serde_json::from_slice(&left).unwrap();
    let codes = left
        .executions
        .iter()
        .map(|execution| match &execution.state {
            ExecutionState::Ended { exit, .. } => (execution.exec.as_str(), exit.code),
            other => panic!("{other:?}"),
        });
    let mut codes: Vec<_> = codes.collect();
    codes.sort_unstable();
    assert_eq!(codes, [("runs", 137), ("told", 7), ("untold", 5)]);
}
