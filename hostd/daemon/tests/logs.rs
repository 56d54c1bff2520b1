//! Where a container's output goes, and how it is read.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::{Host, is_root, wait_until};
use serde_json::Value;

fn json(host: &Host, path: &str) -> Value {
    let (status, body) = host.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

const LINES: &str = "echo out; echo err >&2";

#[test]
fn the_default_is_what_clients_read() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    assert_eq!(json(&host, "/info")["LoggingDriver"], "json-file");
    for (options, driver) in [
        (&[][..], "json-file"),
        (&["--log-driver=local", "--log-opt=compress=false"], "local"),
        (
            &[
                "--log-opt=max-size=10m",
                "--log-opt=max-file=3",
                "--log-opt=compress=true",
            ],
            "json-file",
        ),
    ] {
        let mut args = vec!["run", "--name=it", "--network=none"];
        args.extend(options);
        args.extend(["busybox", "echo", "hello"]);
        assert_eq!(host.docker(&args).ok(), "hello\n".trim_end());
        let shown = json(&host, "/containers/it/json");
        assert_eq!(shown["HostConfig"]["LogConfig"]["Type"], driver);
        assert_eq!(host.docker(&["logs", "it"]).ok(), "hello");
        host.docker(&["rm", "it"]).ok();
    }
}

#[test]
fn nowhere_is_not_read() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let run = [
        "run",
        "--name=it",
        "--network=none",
        "--log-driver=none",
        "busybox",
        "sh",
        "-c",
        LINES,
    ];
    // Attached clients get it anyway.
    assert!(host.docker(&run).ok().contains("out"));
    let (status, answer) = host.get("/containers/it/logs?stdout=1");
    assert_eq!(status, 501, "{answer}");
    assert!(answer.contains("configured logging driver does not support reading"));
    assert_eq!(host.get("/containers/it/logs").0, 400);
    assert_eq!(json(&host, "/containers/it/json")["LogPath"], "");
}

#[test]
fn details_stand_before_each_line() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&[
        "run",
        "--name=it",
        "--network=none",
        "--label=tier=a b",
        "-e",
        "OS=x",
        "--log-opt=labels=tier",
        "--log-opt=env=OS",
        "--log-opt=tag={{.Name}}",
        "busybox",
        "echo",
        "hello",
    ])
    .ok();
    let shown = host.docker(&["logs", "--details", "it"]).ok();
    assert_eq!(shown, "OS=x,tag=it,tier=a+b hello");
    assert_eq!(host.docker(&["logs", "it"]).ok(), "hello");
}

#[test]
fn wrong_options_change_nothing() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    for (options, words) in [
        (
            ["--log-driver=fluentd", "--log-opt=mode=blocking"],
            "logger: no log driver named 'fluentd' is registered: Keelson has",
        ),
        (
            ["--log-driver=mine", "--log-opt=mode=blocking"],
            "logger: no log driver named 'mine' is registered",
        ),
        (
            ["--log-driver=json-file", "--log-opt=nope=1"],
            "unknown log opt 'nope' for json-file log driver",
        ),
        (
            ["--log-driver=syslog", "--log-opt=syslog-address=ftp://x"],
            "unsupported scheme: 'ftp'",
        ),
    ] {
        let args = ["create", options[0], options[1], "busybox"];
        host.docker(&args).fails_with(words);
    }
    assert_eq!(host.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn syslog_servers_get_every_line() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    // A stream.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!(
        "--log-opt=syslog-address=tcp://{}",
        server.local_addr().unwrap()
    );
    let received = std::thread::spawn(move || {
        let mut lines: Vec<String> = Vec::new();
        // The first connection only checks the server at the start; it carries no data.
        while lines.len() < 3 {
            let (stream, _) = server.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            lines.extend(BufReader::new(stream).lines().take(3).map(Result::unwrap));
        }
        lines
    });
    host.docker(&[
        "run",
        "--rm",
        "--name=web",
        "--network=none",
        "--log-driver=syslog",
        &address,
        "--log-opt=syslog-facility=local0",
        "--log-opt=syslog-format=rfc5424",
        "--log-opt=tag={{.Name}}",
        "busybox",
        "sh",
        "-c",
        "echo one; echo two; printf 'no end'",
    ])
    .ok();
    let lines = received.join().unwrap();
    for (line, text) in lines.iter().zip(["one", "two", "no end"]) {
        assert!(line.starts_with("<134>1 "), "{line}");
        assert!(line.contains(" web ") && line.ends_with(text), "{line}");
    }
    // Datagrams, and an engine that is killed meanwhile.
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let address = format!(
        "--log-opt=syslog-address=udp://{}",
        server.local_addr().unwrap()
    );
    host.docker(&[
        "run",
        "-d",
        "--name=late",
        "--network=none",
        "--log-driver=syslog",
        &address,
        "busybox",
        "sh",
        "-c",
        "echo first; while ! [ -e /go ]; do sleep 0.05; done; echo second >&2",
    ])
    .ok();
    let receive = || {
        let mut buffer = [0; 2048];
        let length = server.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let first = receive();
    assert!(
        first.starts_with("<30>") && first.ends_with("first"),
        "{first}"
    );
    host.kill_daemon();
    host.start_daemon();
    host.docker(&["exec", "late", "touch", "/go"]).ok();
    let mut second = receive();
    // Lines that were sent in the last second before the engine was killed may arrive twice.
    while second.ends_with("first") {
        second = receive();
    }
    assert!(
        second.starts_with("<27>") && second.ends_with("second"),
        "{second}"
    );
    // Lines that are sent to a server can be read here, too.
    wait_until("the end", || {
        json(&host, "/containers/late/json")["State"]["Running"] == false
    });
    assert_eq!(host.docker(&["logs", "late"]).ok(), "first");
}

#[test]
fn a_syslog_server_that_is_not_there_fails_the_start_only() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let socket = host.path().join("syslog.sock");
    let address = format!("--log-opt=syslog-address=unixgram://{}", socket.display());
    host.docker(&[
        "create",
        "--name=it",
        "--network=none",
        "--log-driver=syslog",
        &address,
        "busybox",
        "echo",
        "hello",
    ])
    .ok();
    host.docker(&["start", "it"])
        .fails_with("failed to initialize logging driver");
    let server = UnixDatagram::bind(&socket).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    host.docker(&["start", "it"]).ok();
    let mut buffer = [0; 2048];
    let length = server.recv(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..length]);
    assert!(text.ends_with("]: hello"), "{text}");
}

/// The lines of a number of frames.
fn framed(body: &[u8]) -> Vec<String> {
    let mut rest = body;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(8);
        let length = u32::from_be_bytes(head[4..].try_into().unwrap()) as usize;
        found.push(String::from_utf8_lossy(&tail[..length]).into_owned());
        rest = &tail[length..];
    }
    found
}

#[test]
fn a_frame_is_a_line_except_for_the_docker_command() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let args = ["run", "--network=none", "--name=it", "busybox", "sh", "-c"];
    host.docker(&[&args[..], &["echo a; echo b; echo c >&2; echo d"]].concat())
        .ok();
    let frames = |agent: &str| {
        let (status, body) = host.http(&format!(
            "GET /containers/it/logs?stdout=1&stderr=1 HTTP/1.0\r\nUser-Agent: {agent}\r\n\r\n"
        ));
        assert_eq!(status, 200);
        framed(body.as_bytes())
    };
    let mut lines = frames("docker-sdk-python/7.1.0");
    // Between the streams there is no order.
    lines.sort();
    assert_eq!(lines, ["a\n", "b\n", "c\n", "d\n"]);
    let joined = frames("Docker-Client/28.2.2 (linux)");
    assert!(joined.len() < 4, "{joined:?}");
    assert_eq!(joined.concat().len(), 8);
    host.docker(&["rm", "it"]).ok();
}

#[test]
fn following_continues_across_rotations_and_damage() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let args = [
        "run",
        "-d",
        "--network=none",
        "--name=it",
        "--log-opt=max-size=16k",
        "--log-opt=max-file=500",
        "busybox",
        "sh",
        "-c",
        "seq 1 100000",
    ];
    host.docker(&args).ok();
    let followed = host.docker(&["logs", "-f", "it"]).ok();
    let expected = |last: u32| -> Vec<String> { (1..=last).map(|n| n.to_string()).collect() };
    assert!(followed.lines().eq(expected(100_000)), "{}", followed.len());
    let path = json(&host, "/containers/it/json")["LogPath"].clone();
    let path = std::path::PathBuf::from(path.as_str().unwrap());
    assert!(path.with_extension("log.3").exists(), "nothing was rotated");
    // A line before the last is changed, and a torn record is at the end.
    let names = ["log", "log.1", "log.2"].map(|end| path.with_extension(end));
    let damaged = names.iter().any(|name| {
        let mut bytes = std::fs::read(name).unwrap();
        let mut places = bytes.windows(6);
        let Some(at) = places.position(|found| found == b"99999\n") else {
            return false;
        };
        bytes[at] = b'2';
        std::fs::write(name, &bytes).unwrap();
        true
    });
    assert!(damaged, "there is no such line");
    let mut newest = std::fs::File::options().append(true).open(&path).unwrap();
    newest.write_all(&[0; 100]).unwrap();
    let read = host.docker(&["logs", "it"]).ok();
    let last: Vec<_> = read.lines().rev().take(2).collect();
    assert_eq!(last, ["100000", "99998"]);
    assert_eq!(host.docker(&["logs", "--tail=1", "it"]).ok(), "100000");
    // A later run writes after it.
    host.docker(&["start", "it"]).ok();
    let followed = host.docker(&["logs", "-f", "it"]).ok();
    let lines: Vec<_> = followed.lines().collect();
    assert_eq!(lines.len(), 199_999);
    assert_eq!(&lines[99_998..100_000], ["100000", "1"]);
    host.docker(&["rm", "-f", "it"]).ok();
}

#[test]
fn the_log_of_a_dead_container_is_not_read() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let args = [
        "run",
        "--network=none",
        "--name=it",
        "busybox",
        "echo",
        "hello",
    ];
    assert_eq!(host.docker(&args).ok(), "hello");
    let id = host.docker(&["inspect", "-f={{.Id}}", "it"]).ok();
    host.kill_daemon();
    let directory = host.path().join("root/engine/containers").join(&id);
    std::fs::write(directory.join("container.json"), "{").unwrap();
    host.start_daemon();
    let state = json(&host, &format!("/containers/{id}/json"))["State"].clone();
    assert_eq!(state["Dead"], true, "{state}");
    let (status, body) = host.get(&format!("/containers/{id}/logs?stdout=1"));
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("can not get logs from container which is dead or marked for removal"));
    host.docker(&["rm", "-f", &id]).ok();
}
