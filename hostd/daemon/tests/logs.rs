//! Where a container's output goes, and how it is read.

mod common;

use std::io::{BufRead, BufReader};
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
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.load_busybox();
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
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.load_busybox();
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
    // Whoever is attached gets it all the same.
    assert!(host.docker(&run).ok().contains("out"));
    let (status, answer) = host.get("/containers/it/logs?stdout=1");
    assert_eq!(status, 501, "{answer}");
    assert!(answer.contains("configured logging driver does not support reading"));
    assert_eq!(host.get("/containers/it/logs").0, 400);
    assert_eq!(json(&host, "/containers/it/json")["LogPath"], "");
}

#[test]
fn details_stand_before_each_line() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.load_busybox();
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
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.load_busybox();
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
        // The first connection is the start's look at the server; it brings nothing.
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
    // What was sent in the last second before the engine was killed may come again.
    while second.ends_with("first") {
        second = receive();
    }
    assert!(
        second.starts_with("<27>") && second.ends_with("second"),
        "{second}"
    );
    // What is sent to a server can be read here, too.
    wait_until("the end", || {
        json(&host, "/containers/late/json")["State"]["Running"] == false
    });
    assert_eq!(host.docker(&["logs", "late"]).ok(), "first");
}

#[test]
fn a_syslog_server_that_is_not_there_fails_the_start_only() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.load_busybox();
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
