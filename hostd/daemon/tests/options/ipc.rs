//! `--ipc`: the owner of a container's System V IPC, message queues and /dev/shm.

use std::fs;

use super::common::{Host, is_root, wait_until};

const NAMESPACE: &str = "readlink /proc/self/ns/ipc";

/// Runs a container until its script reports that it is up.
fn up(host: &Host, name: &str, more: &[&str], script: &str) {
    let script = format!("{script}; echo up; exec sleep 1000");
    let begin = ["run", "-d", "--name", name];
    let end = ["busybox", "sh", "-c", &script];
    host.docker(&[&begin[..], more, &end].concat()).ok();
    wait_until(name, || host.docker(&["logs", name]).stdout.contains("up"));
}

fn run(host: &Host, ipc: &str, script: &str) -> super::common::Done {
    host.docker(&["run", "--rm", "--ipc", ipc, "busybox", "sh", "-c", script])
}

#[test]
fn memory_is_shared_with_containers_that_join() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let shareable = ["--ipc", "shareable", "--shm-size", "1m"];
    up(&host, "donor", &shareable, "echo shared >/dev/shm/file");
    let of_donor = host.docker(&["exec", "donor", "sh", "-c", NAMESPACE]).ok();

    let script = format!("cat /dev/shm/file; echo back >/dev/shm/back; {NAMESPACE}");
    let seen = run(&host, "container:donor", &script).ok();
    assert_eq!(seen, format!("shared\n{of_donor}"));
    let back = host.docker(&["exec", "donor", "cat", "/dev/shm/back"]).ok();
    assert_eq!(back, "back");
    // It is as large as the donor's, and nothing in it can be executed.
    let full = run(
        &host,
        "container:donor",
        "head -c 2000000 /dev/zero >/dev/shm/big",
    );
    assert_ne!(full.code, 0);
    let options = "grep ' /dev/shm ' /proc/mounts";
    let options = run(&host, "container:donor", options).ok();
    for option in ["tmpfs", "nosuid", "nodev", "noexec", "size=1024k"] {
        assert!(options.contains(option), "{options}");
    }

    // Also with a container that has joined, and after the engine was killed.
    up(&host, "between", &["--ipc", "container:donor"], "true");
    host.kill_daemon();
    host.start_daemon();
    let seen = run(&host, "container:between", &script).ok();
    assert_eq!(seen, format!("shared\n{of_donor}"));
    let mode = host.docker(&["inspect", "-f", "{{.HostConfig.IpcMode}}", "between"]);
    let id = host.docker(&["inspect", "-f", "{{.Id}}", "donor"]).ok();
    assert_eq!(mode.ok(), format!("container:{id}"));

    // A container that has joined keeps the namespace, but no other can join it any more.
    host.docker(&["stop", "-t", "0", "donor"]).ok();
    let kept = host.docker(&["exec", "between", "cat", "/dev/shm/file"]);
    assert_eq!(kept.ok(), "shared");
    run(&host, "container:between", "true").fails_with("is not running");
    host.docker(&["start", "donor"]).ok();
    run(&host, "container:between", "true").fails_with("an earlier run");
    host.docker(&["restart", "-t", "0", "between"]).ok();
    run(&host, "container:between", "true").ok();
}

#[test]
fn only_shareable_ipc_can_be_joined() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let join = |name: &str| {
        let body = format!(
            r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{"IpcMode":"container:{name}"}}}}"#
        );
        let (status, made) = host.send("POST", "/containers/create", &body);
        assert_eq!(status, 201, "{made}");
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        let id = made["Id"].as_str().unwrap();
        host.send("POST", &format!("/containers/{id}/start"), "")
    };
    for mode in ["private", "none"] {
        up(&host, mode, &["--ipc", mode], "true");
        let (status, message) = join(mode);
        assert_eq!(status, 400, "{message}");
        let words = ": non-shareable IPC (hint: use IpcMode:shareable for the donor container)";
        assert!(message.contains(words), "{message}");
    }
    let none = host.docker(&["exec", "none", "grep", "-c", " /dev/shm ", "/proc/mounts"]);
    assert_eq!(none.stdout.trim(), "0");
    let (status, message) = join("nobody");
    assert_eq!(status, 400, "{message}");
    assert!(message.contains("No such container: nobody"), "{message}");
    host.docker(&["create", "--name", "idle", "--ipc", "shareable", "busybox"])
        .ok();
    let (status, message) = join("idle");
    assert_eq!(status, 409, "{message}");
    assert!(message.contains("is not running"), "{message}");
    let (status, message) = host.send(
        "POST",
        "/containers/create",
        r#"{"Image":"busybox","HostConfig":{"IpcMode":"mine"}}"#,
    );
    assert_eq!(status, 400);
    assert!(message.contains("invalid IPC mode: mine"), "{message}");

    let of_host = fs::read_link("/proc/self/ns/ipc").unwrap();
    let of_host = of_host.to_string_lossy();
    assert_eq!(run(&host, "host", NAMESPACE).ok(), of_host);
    up(&host, "wide", &["--ipc", "host"], "true");
    assert_eq!(run(&host, "container:wide", NAMESPACE).ok(), of_host);
}
