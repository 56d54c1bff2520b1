//! hostd is killed, executions live.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{Host, is_root, wait_until};
use crate::host;

fn post(host: &Host, path: &str, body: &Value) -> (u16, String) {
    let body = body.to_string();
    host.send("POST", path, &body)
}

/// Makes an execution of a shell script; its identifier.
fn create(host: &Host, script: &str) -> String {
    let (status, body) = post(
        host,
        "/containers/box/exec",
        &json!({"Cmd": ["sh", "-c", script]}),
    );
    assert_eq!(status, 201, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["Id"].as_str().unwrap().to_owned()
}

fn start(host: &Host, id: &str) -> (u16, String) {
    post(host, &format!("/exec/{id}/start"), &json!({"Detach": true}))
}

fn inspect(host: &Host, id: &str) -> Value {
    let (status, body) = host.get(&format!("/exec/{id}/json"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Whether it runs, as which process, and its exit code.
fn state(host: &Host, id: &str) -> (bool, i64, Option<i64>) {
    let found = inspect(host, id);
    let pid = found["Pid"].as_i64().unwrap();
    (found["Running"] == true, pid, found["ExitCode"].as_i64())
}

/// Makes and starts a long-running one. Returns its identifier and process.
fn running(host: &Host, script: &str) -> (String, i64) {
    let id = create(host, script);
    let (status, body) = start(host, &id);
    assert_eq!(status, 200, "{body}");
    let (runs, pid, _) = state(host, &id);
    assert!(runs && pid > 0, "{runs} {pid}");
    (id, pid)
}

/// The container's first process.
fn container_pid(host: &Host) -> i32 {
    let pid = host
        .docker(&["inspect", "-f", "{{.State.Pid}}", "box"])
        .ok();
    pid.parse().unwrap()
}

fn kill(pid: i64) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn is_gone(pid: i64) -> bool {
    !PathBuf::from(format!("/proc/{pid}")).exists()
}

/// The exit codes in the events of an execution's end.
fn told_ends(host: &Host, id: &str) -> Vec<String> {
    let of_it = |event: &Value| {
        event["Action"] == "exec_die" && event["Actor"]["Attributes"]["execID"] == id
    };
    let events = host.events_of("container").into_iter().filter(of_it);
    let code = |event: Value| {
        event["Actor"]["Attributes"]["exitCode"]
            .as_str()
            .map(str::to_owned)
    };
    events.filter_map(code).collect()
}

#[test]
fn a_killed_daemon_loses_no_execution() {
    if !is_root() {
        return;
    }
    let mut host = host();
    let root = PathBuf::from(format!("/proc/{}/root", container_pid(&host)));
    let ended = create(&host, "exit 3");
    assert_eq!(start(&host, &ended).0, 200);
    wait_until("the first has ended", || state(&host, &ended).2 == Some(3));
    let (lives, lives_pid) = running(&host, "exec sleep 1000");
    let waits = "while [ ! -e /go ]; do sleep 0.01; done; exit 5";
    let (ends, ends_pid) = running(&host, waits);
    let created = create(&host, "exit 4");

    host.kill_daemon();
    std::fs::write(root.join("go"), "").unwrap();
    wait_until("it has ended meanwhile", || is_gone(ends_pid));
    host.start_daemon();

    assert_eq!(state(&host, &ended).2, Some(3));
    assert_eq!(state(&host, &lives), (true, lives_pid, None));
    assert_eq!(state(&host, &ends), (false, ends_pid, Some(5)));
    wait_until("its end is told", || told_ends(&host, &ends) == ["5"]);
    assert_eq!(told_ends(&host, &ended), [""; 0], "it was told before");
    assert_eq!(
        inspect(&host, &lives)["ProcessConfig"]["arguments"][1],
        "exec sleep 1000"
    );
    let listed = host
        .docker(&["inspect", "-f", "{{range .ExecIDs}}{{.}} {{end}}", "box"])
        .ok();
    let mut listed: Vec<&str> = listed.split_whitespace().collect();
    let mut wanted = [lives.as_str(), created.as_str()];
    listed.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(listed, wanted);
    let (status, body) = start(&host, &lives);
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("is already running"), "{body}");
    let (status, body) = start(&host, &ends);
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("has already run"), "{body}");

    // What follows is as if there had been one daemon only.
    assert_eq!(start(&host, &created).0, 200);
    wait_until("the last one has run", || {
        state(&host, &created).2 == Some(4)
    });
    // The event is sent a moment after the end can be inspected.
    wait_until("its end is told", || told_ends(&host, &created) == ["4"]);
    kill(lives_pid);
    wait_until("its end is known", || {
        state(&host, &lives) == (false, lives_pid, Some(137))
    });
    wait_until("its end is told", || told_ends(&host, &lives) == ["137"]);
    // And again: no event is sent twice.
    host.kill_daemon();
    host.start_daemon();
    for (id, code) in [(&ended, 3), (&ends, 5), (&created, 4), (&lives, 137)] {
        assert_eq!(state(&host, id).2, Some(code));
        assert_eq!(told_ends(&host, id), [""; 0]);
    }
    assert_eq!(host.docker(&["exec", "box", "echo", "on"]).ok(), "on");
    host.docker(&["rm", "-f", "box"]).ok();
    assert_eq!(host.get(&format!("/exec/{lives}/json")).0, 404);
}

#[test]
fn executions_that_end_with_their_container_meanwhile_are_known() {
    if !is_root() {
        return;
    }
    let mut host = host();
    let first = container_pid(&host);
    let root = PathBuf::from(format!("/proc/{first}/root"));
    let (killed, killed_pid) = running(&host, "exec sleep 1000");
    let waits = "while [ ! -e /go ]; do sleep 0.01; done; exit 6";
    let (ends, ends_pid) = running(&host, waits);
    host.kill_daemon();
    std::fs::write(root.join("go"), "").unwrap();
    wait_until("one has ended by itself", || is_gone(ends_pid));
    kill(first.into());
    let run = host.path().join("run/containers");
    wait_until("the end is recorded", || {
        let mut entries = std::fs::read_dir(&run).unwrap().flatten();
        entries.any(|entry| entry.path().join("exit.json").exists())
    });
    host.start_daemon();
    assert_eq!(state(&host, &killed), (false, killed_pid, Some(137)));
    assert_eq!(state(&host, &ends), (false, ends_pid, Some(6)));
    wait_until("its end is told", || told_ends(&host, &killed) == ["137"]);
    let exited = host
        .docker(&["inspect", "-f", "{{.State.Status}}{{.ExecIDs}}", "box"])
        .ok();
    assert_eq!(exited, "exited[]");
    host.docker(&["rm", "-f", "box"]).ok();
}

/// Starts that are running when the daemon is killed: at whatever step, afterwards the state
/// matches the container.
#[test]
fn a_start_is_never_left_half_done() {
    if !is_root() {
        return;
    }
    let mut host = host();
    for round in 0_u64..6 {
        let root = PathBuf::from(format!("/proc/{}/root", container_pid(&host)));
        let ids: Vec<(String, String)> = (0..8)
            .map(|number| {
                let mark = format!("mark-{round}-{number}");
                let script = format!("touch /{mark}; exec sleep 1000");
                (create(&host, &script), mark)
            })
            .collect();
        let answers: Vec<bool> = std::thread::scope(|scope| {
            let starts: Vec<_> = ids
                .iter()
                .map(|(id, _)| {
                    let socket = host.socket();
                    scope.spawn(move || start_at(&socket, id))
                })
                .collect();
            std::thread::sleep(Duration::from_millis(round * 4));
            // By number: the host is borrowed by nobody but the scope.
            kill(host.pid().into());
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        host.kill_daemon();
        host.start_daemon();
        for ((id, mark), started) in ids.iter().zip(answers) {
            // One that is on its way to its command may need a moment more.
            wait_until("it is known what became of the start", || {
                let (runs, pid, code) = state(&host, id);
                let marked = root.join(mark).exists();
                match (runs, code) {
                    (true, _) => pid > 0 && marked,
                    (false, Some(code)) => {
                        assert_eq!((code, marked, started), (128, false, false));
                        true
                    }
                    // Its start had not begun, and it still can be started.
                    (false, None) => {
                        assert!(!marked && !started);
                        let (status, body) = start(&host, id);
                        assert_eq!(status, 200, "{body}");
                        false
                    }
                }
            });
            let (runs, pid, _) = state(&host, id);
            if runs {
                kill(pid);
                wait_until("its end is known", || state(&host, id).2 == Some(137));
            }
        }
    }
    host.docker(&["rm", "-f", "box"]).ok();
}

/// Whether an execution's start was answered before the daemon died.
fn start_at(socket: &std::path::Path, id: &str) -> bool {
    use std::io::{Read, Write};
    let body = r#"{"Detach":true}"#;
    let request = format!(
        "POST /exec/{id}/start HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) else {
        return false;
    };
    let mut answer = String::new();
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_string(&mut answer);
    answer.starts_with("HTTP/1.1 200")
}
