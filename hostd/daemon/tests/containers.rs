//! The life of containers through the `docker` command.

#[path = "containers/answers.rs"]
mod answers;
mod common;
#[path = "containers/events.rs"]
mod events;
#[path = "containers/health.rs"]
mod health;
#[path = "containers/host_objects.rs"]
mod host_objects;
/// The walk of the runtime's own tests.
#[path = "../../../runtime/tests/common/host_objects.rs"]
#[allow(unreachable_pub, reason = "the runtime's tests share it")]
mod walk;
#[path = "containers/words.rs"]
mod words;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::{Host, is_root, run, wait_until};

#[test]
fn run_passes_output_input_and_exit_codes() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let done = host.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    assert_eq!(host.docker(&["run", "--rm", "busybox", "true"]).code, 0);
    assert_eq!(host.docker(&["run", "--rm", "busybox", "false"]).code, 1);

    let missing = host.docker(&["run", "--rm", "busybox", "no-such-program"]);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    let not_program = host.docker(&["run", "--rm", "busybox", "/etc/not-a-program"]);
    assert_eq!(not_program.code, 126, "{}", not_program.stderr);
    let no_image = host.docker(&["run", "--rm", "no-such-image", "true"]);
    assert_eq!(no_image.code, 125, "{}", no_image.stderr);

    let piped = host.docker_with(&["run", "-i", "--rm", "busybox", "cat"], b"hello\n");
    assert_eq!(piped.ok(), "hello");
    // Far more than any pipe or socket holds, in both directions at once.
    let big: Vec<u8> = (0..2_000_000_u32)
        .flat_map(|n| (n as u16).to_le_bytes())
        .collect();
    let sum = host.docker_with(&["run", "-i", "--rm", "busybox", "wc", "-c"], &big);
    assert_eq!(sum.ok(), big.len().to_string());

    // What ran with --rm is gone.
    assert_eq!(host.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn output_is_never_lost_or_mixed() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let done = host.docker(&["run", "--rm", "busybox", "seq", "1", "200000"]);
    let wanted: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(done.code, 0);
    assert!(done.stdout == wanted, "{} bytes", done.stdout.len());
}

#[test]
fn a_terminal_is_a_terminal() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    // The docker command insists on a terminal only together with -i.
    let done = host.docker(&[
        "run",
        "-t",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "tty && echo yes",
    ]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.stdout, "/dev/pts/0\r\nyes\r\n");
}

#[test]
fn detached_containers_are_listed_logged_and_stopped() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "--label",
            "tier=front",
            "busybox",
            "sh",
            "-c",
            "trap 'echo bye; exit 5' TERM; echo one; echo two; while :; do sleep 0.1; done",
        ])
        .ok();
    assert_eq!(id.len(), 64);
    let short = &id[..12];
    wait_until("the container has written", || {
        host.docker(&["logs", "web"]).ok() == "one\ntwo"
    });
    assert_eq!(host.docker(&["ps", "-q"]).ok(), short);
    let line = host
        .docker(&[
            "ps",
            "--format",
            "{{.Names}} {{.Image}} {{.State}} {{.Status}}",
        ])
        .ok();
    assert!(line.starts_with("web busybox running Up "), "{line}");
    for (filter, found) in [
        ("name=we", true),
        ("name=^/web$", true),
        ("label=tier=front", true),
        ("label=tier=back", false),
        ("status=running", true),
        ("status=exited", false),
        ("ancestor=busybox", true),
        (&format!("id={short}"), true),
    ] {
        let list = host.docker(&["ps", "-a", "-q", "--filter", filter]).ok();
        assert_eq!(list == short, found, "{filter}");
    }
    assert_eq!(host.docker(&["logs", "--tail", "1", "web"]).ok(), "two");
    let stamped = host.docker(&["logs", "-t", "web"]).ok();
    let (stamp, rest) = stamped.lines().next().unwrap().split_once(' ').unwrap();
    assert_eq!(rest, "one");
    assert!(stamp.ends_with('Z') && stamp.len() >= 20, "{stamp}");
    assert_eq!(
        host.docker(&["logs", "--since", stamp, "web"]).ok(),
        "one\ntwo"
    );
    assert_eq!(
        host.docker(&["logs", "--since", "2100-01-01T00:00:00Z", "web"])
            .ok(),
        ""
    );

    host.docker(&["rm", "web"]).fails_with("force remove");
    assert_eq!(host.docker(&["stop", "web"]).ok(), "web");
    let state = host
        .docker(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}",
            "web",
        ])
        .ok();
    assert_eq!(state, "exited 5 false");
    assert_eq!(host.docker(&["logs", "web"]).ok(), "one\ntwo\nbye");
    assert_eq!(host.docker(&["wait", "web"]).ok(), "5");
    assert_eq!(host.docker(&["rm", "web"]).ok(), "web");
    host.docker(&["container", "inspect", "web"])
        .fails_with("No such container: web");
    // It asks for containers, images, networks, volumes and plugins of that name.
    host.docker(&["inspect", "web"])
        .fails_with("No such object: web");
}

#[test]
fn a_stopped_container_starts_again_and_keeps_its_files() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&[
        "create",
        "--name",
        "again",
        "busybox",
        "sh",
        "-c",
        "cat /f; echo x >> /f",
    ])
    .ok();
    assert_eq!(host.docker(&["start", "-a", "again"]).ok(), "");
    assert_eq!(host.docker(&["start", "-a", "again"]).ok(), "x");
    assert_eq!(host.docker(&["start", "-a", "again"]).ok(), "x\nx");
    host.docker(&["rename", "again", "other"]).ok();
    host.docker(&["rm", "other"]).ok();
}

#[test]
fn kill_wait_and_names() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&["run", "-d", "--name", "kk", "busybox", "sleep", "1000"])
        .ok();
    host.docker(&["run", "-d", "--name", "kk", "busybox", "true"])
        .fails_with("is already in use by container");
    let mut waiting = host
        .docker_command(&["wait", "kk"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    host.docker(&["kill", "kk"]).ok();
    let mut code = String::new();
    waiting
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut code)
        .unwrap();
    waiting.wait().unwrap();
    assert_eq!(code.trim(), "137");
    host.docker(&["kill", "kk"]).fails_with("is not running");
    host.docker(&["kill", "nobody"])
        .fails_with("No such container: nobody");
    host.docker(&["run", "-d", "--name", "victim", "busybox", "sleep", "1000"])
        .ok();
    assert_eq!(
        host.docker(&["rm", "-f", "kk", "victim"]).ok(),
        "kk\nvictim"
    );
}

#[test]
fn following_logs_ends_with_the_container() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&[
        "run",
        "-d",
        "--name",
        "ff",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; sleep 0.2; done",
    ])
    .ok();
    let done = host.docker(&["logs", "-f", "ff"]);
    assert_eq!(done.ok(), "line 1\nline 2\nline 3");
}

#[test]
fn attach_reaches_a_running_container() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&["run", "-d", "-i", "--name", "aa", "busybox", "cat"])
        .ok();
    let done = host.docker_with(&["attach", "aa"], b"to and fro\n");
    assert_eq!(done.ok(), "to and fro");
    assert_eq!(host.docker(&["wait", "aa"]).ok(), "0");
}

#[test]
fn events_tell_the_story() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let mut events = host
        .docker_command(&[
            "events",
            "--format",
            "{{.Type}} {{.Action}}",
            "--filter",
            "container=ee",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    wait_until("somebody listens to events", || {
        host.docker(&["info", "-f", "{{.NEventsListener}}"]).ok() == "1"
    });
    host.docker(&["run", "--name", "ee", "busybox", "true"])
        .ok();
    host.docker(&["rm", "ee"]).ok();
    let mut seen = Vec::new();
    for line in &mut lines {
        let line = line.unwrap();
        let last = line == "container destroy";
        seen.push(line);
        if last {
            break;
        }
    }
    events.kill().unwrap();
    events.wait().unwrap();
    for wanted in [
        "container create",
        "container start",
        "container die",
        "container destroy",
    ] {
        assert!(seen.iter().any(|line| line == wanted), "{wanted}: {seen:?}");
    }
    // Past events are sent, too. The command sends whole seconds.
    let until = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let until = until
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .to_string();
    let past = host
        .docker(&[
            "events",
            "--since",
            "0",
            "--until",
            &until,
            "--format",
            "{{.Type}} {{.Action}}",
        ])
        .ok();
    assert!(
        past.contains("image load") && past.contains("container die"),
        "{past}"
    );
}

#[test]
fn containers_run_at_the_same_time() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    std::thread::scope(|scope| {
        for n in 0..10 {
            let host = &host;
            scope.spawn(move || {
                let text = format!("number {n}");
                let done = host.docker(&["run", "--rm", "busybox", "echo", &text]);
                assert_eq!(done.ok(), text);
            });
        }
    });
    assert_eq!(host.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn devices_described_by_a_vendor() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let directory = host.path().join("cdi");
    std::fs::create_dir(&directory).unwrap();
    let text = format!(
        "[engine]\ncdi_directories = [{:?}]\n",
        directory.display().to_string()
    );
    let configuration = host.path().join("config/etc/keelson");
    std::fs::create_dir_all(&configuration).unwrap();
    std::fs::write(configuration.join("host.toml"), text).unwrap();
    host.stop_daemon();
    host.start_daemon();
    std::fs::write(directory.join("tool"), "words").unwrap();
    let document = format!(
        r#"
cdiVersion: 0.6.0
kind: vendor.com/thing
containerEdits:
  env: [VENDOR=yes]
devices:
- name: one
  containerEdits:
    deviceNodes: [{{path: /dev/thing, hostPath: /dev/zero, permissions: r}}]
    mounts: [{{hostPath: {}, containerPath: /opt/tool, options: [ro, bind]}}]
    additionalGids: [4242]
"#,
        directory.join("tool").display()
    );
    std::fs::write(directory.join("vendor.yaml"), document).unwrap();
    let script = "echo $VENDOR; cat /opt/tool; echo; id -G; head -c 3 /dev/thing | wc -c";
    let device = "--device=vendor.com/thing=one";
    let run = [
        "run",
        "--rm",
        "--network=none",
        device,
        "busybox",
        "sh",
        "-c",
        script,
    ];
    assert_eq!(host.docker(&run).ok(), "yes\nwords\n0 4242\n3");
    let device = "--device=vendor.com/thing=two";
    let missing = host.docker(&["run", "--rm", "--network=none", device, "busybox", "true"]);
    missing.fails_with("unresolvable CDI devices vendor.com/thing=two");
    let shown = host.docker(&["info", "-f", "{{.CDISpecDirs}}"]).ok();
    assert_eq!(shown, format!("[{}]", directory.display()));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    for (option, named) in [
        (
            ["--gpus", "all"],
            "could not select device driver \"\" with capabilities: [[gpu]]",
        ),
        (
            ["--storage-opt", "size=1G"],
            "--storage-opt is supported only for",
        ),
    ] {
        let mut args = vec!["create"];
        args.extend(option);
        args.push("busybox");
        host.docker(&args).fails_with(named);
    }
    assert_eq!(host.docker(&["ps", "-aq"]).ok(), "");
    let body = r#"{"Image":"busybox","hostconfig":{"cgrouP":"x"}}"#;
    let request = format!(
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, answer) = host.http(&request);
    assert_eq!(status, 501, "{answer}");
    assert!(answer.contains("Cgroup"), "{answer}");
    let (status, answer) = host.send("POST", "/swarm/init", "{}");
    assert_eq!(status, 501, "{answer}");
    assert!(answer.contains("is not built yet"), "{answer}");
}

#[test]
fn isolation_is_dockers() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let script = "echo $$; hostname; id -u; cat /proc/self/status | grep -E '^(CapEff|Seccomp):'; \
                  touch /proc/sys/kernel/domainname 2>/dev/null && echo writable; ls /sys/class/net";
    let out = host
        .docker(&["run", "--rm", "-h", "inside", "busybox", "sh", "-c", script])
        .ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["1", "inside", "0"], "{out}");
    assert!(out.contains("CapEff:\t00000000a80425fb"), "{out}");
    assert!(out.contains("Seccomp:\t2"), "{out}");
    assert!(!out.contains("writable"), "{out}");
    assert_eq!(lines.last(), Some(&"lo"), "{out}");
    let user = host
        .docker(&["run", "--rm", "-u", "65534", "busybox", "id", "-u"])
        .ok();
    assert_eq!(user, "65534");
    // A command of another process never sees the host's processes.
    let ps = host
        .docker(&["run", "--rm", "busybox", "ps", "-o", "pid"])
        .ok();
    assert_eq!(ps.lines().count(), 2, "{ps}");
}

#[test]
fn version_and_info_answer() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let version = host
        .docker(&["version", "-f", "{{.Server.APIVersion}} {{.Server.Os}}"])
        .ok();
    assert_eq!(version, "1.51 linux");
    host.load_busybox();
    let info = host
        .docker(&[
            "info",
            "-f",
            "{{.Images}} {{.Containers}} {{.Driver}} {{.NCPU}}",
        ])
        .ok();
    let cpus = std::thread::available_parallelism().unwrap();
    assert_eq!(info, format!("1 0 overlayfs {cpus}"));
    let curl = run(
        std::process::Command::new("curl").args([
            "-sS",
            "-i",
            "--unix-socket",
            host.socket().to_str().unwrap(),
            "http://d/_ping",
        ]),
        b"",
    )
    .ok();
    for header in [
        "api-version: 1.51",
        "ostype: linux",
        "docker-experimental: false",
    ] {
        assert!(curl.to_lowercase().contains(header), "{curl}");
    }
}

#[test]
fn the_restart_policy_of_a_container_changes() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let script = "until [ -e /end ]; do sleep 0.1; done; exit 1";
    host.docker(&["run", "-d", "--name", "one", "busybox", "sh", "-c", script])
        .ok();
    host.docker(&["update", "--restart", "on-failure:2", "one"])
        .ok();
    let policy =
        "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    let seen = host.docker(&["inspect", "-f", policy, "one"]).ok();
    assert_eq!(seen, "on-failure 2");

    let refused = host.docker(&["update", "--restart", "sometimes", "one"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("sometimes"), "{}", refused.stderr);
    host.docker(&["update", "--cpu-rt-runtime", "300", "one"])
        .fails_with("does not support CPU real-time scheduler");
    host.docker(&["exec", "one", "touch", "/end"]).ok();
    let end = "{{.RestartCount}} {{.State.Status}}";
    wait_until("two restarts", || {
        host.docker(&["inspect", "-f", end, "one"]).ok() == "2 exited"
    });
}
