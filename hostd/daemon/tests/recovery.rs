//! hostd dies, containers live.

mod common;

use std::process::Stdio;

use common::{Host, is_root, wait_until};

#[test]
fn a_killed_daemon_loses_nothing() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    host.docker(&[
        "run",
        "-d",
        "--name",
        "lives",
        "busybox",
        "sh",
        "-c",
        "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done",
    ])
    .ok();
    host.docker(&[
        "run",
        "-d",
        "-i",
        "--name",
        "ends",
        "busybox",
        "sh",
        "-c",
        "sleep 1; echo last; exit 7",
    ])
    .ok();
    let pid = host
        .docker(&["inspect", "-f", "{{.State.Pid}}", "lives"])
        .ok();
    host.kill_daemon();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    // The other one ends while nobody looks.
    let run = host.path().join("run/containers");
    wait_until("the exit is recorded", || {
        std::fs::read_dir(&run)
            .unwrap()
            .flatten()
            .any(|entry| entry.path().join("exit.json").exists())
    });
    host.start_daemon();
    let state = |name: &str| {
        host.docker(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.Pid}} {{.State.ExitCode}}",
            name,
        ])
        .ok()
    };
    assert_eq!(state("lives"), format!("running {pid} 0"));
    wait_until("the end is noticed", || state("ends") == "exited 0 7");
    assert_eq!(host.docker(&["logs", "ends"]).ok(), "last");
    assert_eq!(host.docker(&["wait", "ends"]).ok(), "7");
    host.docker(&["stop", "-t", "0", "lives"]).ok();
    let log = host.docker(&["logs", "lives"]).ok();
    let numbers: Vec<u32> = log.lines().map(|line| line.parse().unwrap()).collect();
    let wanted: Vec<u32> = (1..=u32::try_from(numbers.len()).unwrap()).collect();
    assert_eq!(numbers, wanted, "lines are missing");
    // Everything that is allowed to a container that was never forgotten.
    host.docker(&["start", "lives"]).ok();
    host.docker(&["rm", "-f", "lives", "ends"]).ok();
}

#[test]
fn images_and_stopped_containers_survive() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    host.docker(&["create", "--name", "kept", "busybox", "echo", "kept"])
        .ok();
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(host.docker(&["start", "-a", "kept"]).ok(), "kept");
    host.stop_daemon();
    host.start_daemon();
    assert_eq!(host.docker(&["start", "-a", "kept"]).ok(), "kept");
    assert_eq!(
        host.docker(&["run", "--rm", "busybox", "echo", "new"]).ok(),
        "new"
    );
}

#[test]
fn an_orderly_stop_stops_containers() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    host.docker(&[
        "run",
        "-d",
        "--name",
        "stopped",
        "busybox",
        "sh",
        "-c",
        "trap 'echo asked; exit 4' TERM; while :; do sleep 0.1; done",
    ])
    .ok();
    let pid = host
        .docker(&["inspect", "-f", "{{.State.Pid}}", "stopped"])
        .ok();
    host.stop_daemon();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    host.start_daemon();
    let state = host
        .docker(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}}",
            "stopped",
        ])
        .ok();
    assert_eq!(state, "exited 4");
    assert_eq!(host.docker(&["logs", "stopped"]).ok(), "asked");
}

#[test]
fn one_root_has_one_daemon() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let output = host
        .command()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("is another hostd running?"), "{text}");
    // The first one is none the worse for it.
    host.docker(&["ps"]).ok();
}
