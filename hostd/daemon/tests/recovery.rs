//! hostd dies, containers live.

mod common;
#[path = "recovery/full_disk.rs"]
mod full_disk;
#[path = "recovery/leases.rs"]
mod leases;
#[path = "recovery/storm.rs"]
mod storm;

use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use common::{Host, PATIENCE, is_root, wait_until};
use rustix::process::{Pid, Signal, kill_process};

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

/// An update was taken back, an engine of before the specification wrote the document again, and
/// the update came a second time.
#[test]
fn what_an_older_engine_wrote_is_read() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let data = host.path().join("data");
    let bind = format!("{}:/data:z,ro", data.display());
    host.docker(&[
        "create",
        "--name",
        "old",
        "-v",
        &bind,
        "--tmpfs",
        "/scratch:size=1m",
        "--cap-drop",
        "KILL",
        "--ulimit",
        "nofile=100:200",
        "--hostname",
        "ship",
        "--expose",
        "80",
        "busybox",
        "sh",
        "-c",
        "hostname; ulimit -n; grep CapBnd /proc/self/status; grep -c ' /scratch ' /proc/mounts",
    ])
    .ok();
    let inspect = |host: &Host| -> serde_json::Value {
        let mut shown: serde_json::Value =
            serde_json::from_str(&host.docker(&["inspect", "old"]).ok()).unwrap();
        // Docker's client says when the run was, which differs.
        let container = shown[0].as_object_mut().unwrap();
        container.remove("State");
        shown
    };
    let before = (inspect(&host), host.docker(&["start", "-a", "old"]).ok());
    assert!(before.1.starts_with("ship\n100\n"), "{}", before.1);
    host.kill_daemon();
    let path = host.path().join("root/engine/containers");
    let directory = std::fs::read_dir(path)
        .unwrap()
        .flatten()
        .find(|entry| entry.path().join("container.json").exists())
        .unwrap();
    let path = directory.path().join("container.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let members = document.as_object_mut().unwrap();
    assert_eq!(members["version"], 1);
    assert!(members.remove("spec").is_some());
    members.remove("readable_from");
    std::fs::write(&path, document.to_string()).unwrap();
    host.start_daemon();
    let after = (inspect(&host), host.docker(&["start", "-a", "old"]).ok());
    assert_eq!(after, before);
    // Written the next time with what counts.
    host.docker(&["rename", "old", "new"]).ok();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"spec\""), "{text}");
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

#[test]
fn the_supervisor_gets_signs_of_life() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.stop_daemon();
    let path = host.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let said = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut daemon = host
        .command()
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Three times in the allowed time, and not before it is ready.
    let heard: Vec<String> = (0..5).map(|_| said()).collect();
    assert_eq!(heard[0], "READY=1");
    assert!(
        heard[1..].iter().all(|word| word == "WATCHDOG=1"),
        "{heard:?}"
    );
    // A stopped process sends none.
    let pid = Pid::from_child(&daemon);
    kill_process(pid, Signal::STOP).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(1500)))
        .unwrap();
    let mut buffer = [0; 256];
    let waiting = (0..10).take_while(|_| socket.recv(&mut buffer).is_ok());
    // The signs that it sent before it stopped.
    assert!(waiting.count() <= 2);
    kill_process(pid, Signal::CONT).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
}

/// Starts this host's daemon with so few descriptors that it may fail anywhere, and kills it when it
/// has ended, has answered, or answers nothing.
fn start_with_descriptors(host: &Host, limit: u32) {
    let command = host.command();
    let mut child = std::process::Command::new("sh")
        .args(["-c", "ulimit -n $0; exec \"$@\"", &limit.to_string()])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Duration::from_secs(2);
    let deadline = std::time::Instant::now() + patience;
    while std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(host.socket()) else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_read_timeout(Some(patience)).unwrap();
        let list = b"GET /containers/json?all=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
        if stream.write_all(list).is_ok() {
            // Whatever comes: it had its time.
            let _ = stream.read(&mut [0; 64]);
        }
        break;
    }
    let _ = child.kill();
    child.wait().unwrap();
}

/// An engine without free descriptors can't examine anything. It must not conclude that nothing
/// exists.
#[test]
fn an_engine_short_of_descriptors_gives_nothing_up() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    for number in 0..4 {
        let name = format!("lives{number}");
        host.docker(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"])
            .ok();
    }
    host.docker(&[
        "create", "--name", "kept", "-v", "/data", "busybox", "echo", "kept",
    ])
    .ok();
    host.docker(&[
        "run",
        "--name",
        "ended",
        "busybox",
        "sh",
        "-c",
        "echo said; exit 7",
    ]);
    let list = |host: &Host| {
        let format = "{{.Names}} {{.State}} {{.Image}}";
        let list = host
            .docker(&["ps", "-a", "--no-trunc", "--format", format])
            .ok();
        let pids = host
            .docker(&[
                "inspect",
                "-f",
                "{{.State.Pid}} {{.State.ExitCode}}",
                "lives0",
                "lives3",
                "ended",
            ])
            .ok();
        format!("{list}\n{pids}")
    };
    let before = list(&host);
    host.kill_daemon();
    for limit in (5..48).step_by(3) {
        start_with_descriptors(&host, limit);
    }
    host.start_daemon();
    assert_eq!(list(&host), before);
    assert_eq!(host.docker(&["logs", "ended"]).ok(), "said");
    assert_eq!(host.docker(&["start", "-a", "kept"]).ok(), "kept");
    host.docker(&["exec", "lives2", "true"]).ok();
    host.docker(&["rm", "-f", "lives0", "lives1", "lives2", "lives3"])
        .ok();
}
