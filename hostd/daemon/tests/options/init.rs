//! `--init`: a small init is the first process, and nothing else of the container changes.

use std::fs;
use std::time::{Duration, Instant};

use super::common::{Host, is_root, wait_until};

const FIRST: &str = "tr '\\0' ' ' </proc/1/cmdline";

#[test]
fn the_first_process_is_the_init_and_the_command_its_child() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let run = |args: &[&str]| host.docker(&[&["run", "--rm", "--init"], args].concat());
    let script = format!("{FIRST}; echo; cut -d' ' -f4 /proc/$$/stat");
    let seen = run(&["busybox", "sh", "-c", &script]).ok();
    let (first, parent) = seen.split_once('\n').unwrap();
    assert!(first.starts_with("/sbin/docker-init -- sh -c"), "{first}");
    assert_eq!(parent, "1");

    // The command's own end, by itself and by a signal, and commands that can't be executed.
    for (command, code) in [
        (&["sh", "-c", "exit 42"][..], 42),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -35 $$"], 163),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let done = run(&[&["busybox"], command].concat());
        assert_eq!(done.code, code, "{command:?}: {}", done.stderr);
    }

    // With only the rights of an ordinary user, and without a writable directory.
    let least = ["--read-only", "--user", "7:7", "--cap-drop", "ALL"];
    let least = [&least[..], &["--security-opt", "no-new-privileges"]].concat();
    let done = run(&[&least[..], &["busybox", "sh", "-c", FIRST]].concat());
    assert!(done.ok().starts_with("/sbin/docker-init"));

    // No container can write to the program, whatever its user and its mounts.
    let write = "for options in rw,bind rw; do mount -o remount,$options /sbin/docker-init; done; \
        echo x >/sbin/docker-init || echo x >/proc/1/exe";
    for more in [&[][..], &["--privileged"]] {
        let done = run(&[more, &["busybox", "sh", "-c", write]].concat());
        assert_ne!(done.code, 0, "{more:?}");
    }

    let piped = host.docker_with(&["run", "-i", "--rm", "--init", "busybox", "cat"], b"in\n");
    assert_eq!(piped.ok(), "in");
}

#[test]
fn orphans_are_collected() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    // The shell in the middle ends first, so the first process inherits its child.
    let script = "for i in 1 2 3 4 5; do sh -c 'sleep 0.05 & exec true'; done; \
        while ps -o ppid,stat,comm | grep -q '^ *1 .*sleep'; do sleep 0.05; done; \
        ps -o stat | grep -c Z";
    let run = |more: &[&str]| {
        let args = [&["run", "--rm"], more, &["busybox", "sh", "-c", script]].concat();
        host.docker(&args).stdout.trim().to_owned()
    };
    assert_eq!(run(&["--init"]), "0");
}

#[test]
fn signals_reach_the_command() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let script = "trap 'exit 7' TERM; trap 'echo user' USR1; echo up; while :; do sleep 0.02; done";
    host.docker(&[
        "run", "-d", "--init", "--name", "one", "busybox", "sh", "-c", script,
    ])
    .ok();
    let said =
        |text: &str| wait_until(text, || host.docker(&["logs", "one"]).stdout.contains(text));
    said("up");
    let inspected = host.docker(&[
        "inspect",
        "-f",
        "{{.Path}} {{.Args}} {{.HostConfig.Init}}",
        "one",
    ]);
    let inspected = inspected.ok();
    assert!(inspected.starts_with("sh [-c trap"), "{inspected}");
    assert!(inspected.ends_with(" true"), "{inspected}");
    host.docker(&["kill", "-s", "USR1", "one"]).ok();
    said("user");
    host.docker(&["pause", "one"]).ok();
    host.docker(&["unpause", "one"]).ok();
    let beside = host.docker(&["exec", "one", "sh", "-c", FIRST]).ok();
    assert!(beside.starts_with("/sbin/docker-init"), "{beside}");
    let code = || {
        host.docker(&["inspect", "-f", "{{.State.ExitCode}}", "one"])
            .ok()
    };
    host.docker(&["restart", "-t", "60", "one"]).ok();
    wait_until("its handlers are there again", || {
        host.docker(&["logs", "one"]).stdout.matches("up").count() == 2
    });
    host.docker(&["stop", "-t", "60", "one"]).ok();
    assert_eq!(code(), "7");

    // A command without a handler; as the first process the kernel would not end it by this signal.
    host.docker(&[
        "run", "-d", "--init", "--name", "two", "busybox", "sleep", "1000",
    ])
    .ok();
    let begun = Instant::now();
    host.docker(&["stop", "-t", "50", "two"]).ok();
    assert!(begun.elapsed() < Duration::from_secs(40));
    let ended = host.docker(&["inspect", "-f", "{{.State.ExitCode}}", "two"]);
    assert_eq!(ended.ok(), "143");
}

#[test]
fn the_terminal_belongs_to_the_command() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    // Its group, its session, and the terminal's foreground group.
    let script = "cut -d' ' -f5,6,8 /proc/self/stat";
    let seen = host.docker(&["run", "--rm", "-t", "--init", "busybox", "sh", "-c", script]);
    let seen = seen.ok();
    let numbers: Vec<&str> = seen.split_whitespace().collect();
    let [group, session, foreground] = numbers[..] else {
        panic!("{seen}")
    };
    assert_eq!((group, session), (foreground, "1"), "{seen}");
    assert_ne!(group, "1");
}

#[test]
fn an_init_needs_a_separate_pid_namespace() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let look = ["busybox", "sh", "-c", "test -e /sbin/docker-init"];
    let looks = |host: &Host, more: &[&str]| {
        let args = [&["run", "--rm"], more, &look].concat();
        host.docker(&args).code
    };
    assert_eq!(looks(&host, &[]), 1);
    assert_eq!(looks(&host, &["--init", "--pid", "host"]), 1);

    // The host's default for containers without the option.
    let config = host.path().join("config/etc/keelson");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("host.toml"), "[engine]\ninit = true\n").unwrap();
    host.stop_daemon();
    host.start_daemon();
    assert_eq!(looks(&host, &[]), 0);
    assert_eq!(looks(&host, &["--init=false"]), 1);
    assert_eq!(looks(&host, &["--pid", "host"]), 1);
}
