//! The resource usage of containers, as `docker stats` and raw requests see it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Host, PATIENCE, is_root, wait_until};

fn run(host: &Host, name: &str, options: &[&str], command: &str) {
    let start = ["run", "-d", "--network=none", "--name", name];
    let end = ["busybox", "sh", "-c", command];
    host.docker(&[&start, options, &end].concat()).ok();
}

fn host_with(names: &[&str]) -> Option<Host> {
    if !is_root() {
        return None;
    }
    let host = Host::start();
    host.load_busybox();
    for name in names {
        run(&host, name, &[], "while :; do :; done");
    }
    Some(host)
}

fn json(host: &Host, path: &str) -> Value {
    let (status, body) = host.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// A stream of documents.
struct Stats(BufReader<UnixStream>);

impl Stats {
    fn open(host: &Host, path: &str) -> Self {
        let mut stream = UnixStream::connect(host.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{path}: {line}");
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        Self(reader)
    }

    /// The next document; `None` at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line).unwrap() {
            0 => None,
            _ => Some(serde_json::from_str(&line).unwrap()),
        }
    }
}

fn total(document: &Value, member: &str) -> u64 {
    let total = &document[member]["cpu_usage"]["total_usage"];
    total.as_u64().unwrap_or_else(|| panic!("{document}"))
}

#[test]
fn a_stream_has_the_previous_measurement_and_ends_with_the_container() {
    let Some(host) = host_with(&["busy"]) else {
        return;
    };
    let id = host.docker(&["inspect", "-f={{.Id}}", "busy"]).ok();
    let mut stats = Stats::open(&host, "/containers/busy/stats");
    let first = stats.next().unwrap();
    assert_eq!(first["name"], "/busy");
    assert_eq!(first["id"], id.as_str());
    assert_eq!(first["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(total(&first, "precpu_stats"), 0);
    assert!(first.get("networks").is_none(), "{first}");
    let mut before = first;
    for _ in 0..2 {
        let now = stats.next().unwrap();
        assert_eq!(now["precpu_stats"], before["cpu_stats"]);
        assert_eq!(now["preread"], before["read"]);
        let system = |document: &Value| document["cpu_stats"]["system_cpu_usage"].as_u64();
        assert!(system(&now) > system(&before), "{now}");
        assert!(now["cpu_stats"]["online_cpus"].as_u64() > Some(0));
        assert!(total(&now, "cpu_stats") > total(&before, "cpu_stats"));
        before = now;
    }
    host.docker(&["rename", "busy", "calm"]).ok();
    host.docker(&["pause", "calm"]).ok();
    while stats.next().unwrap()["name"] != "/calm" {}
    host.docker(&["unpause", "calm"]).ok();
    // A stopped container uses nothing, and the stream continues.
    host.docker(&["kill", "calm"]).ok();
    let stopped = loop {
        let now = stats.next().unwrap();
        if now["read"] == "0001-01-01T00:00:00Z" {
            break now;
        }
    };
    assert_eq!(total(&stopped, "cpu_stats"), 0);
    assert_eq!(stopped["name"], "/calm");
    assert!(stats.next().is_some());
    host.docker(&["rm", "calm"]).ok();
    while stats.next().is_some() {}
}

#[test]
fn single_documents() {
    let Some(host) = host_with(&["busy"]) else {
        return;
    };
    host.docker(&["create", "--name=rests", "--network=none", "busybox"])
        .ok();
    // Two measurements, so that clients can compute the present use.
    let now = json(&host, "/containers/busy/stats?stream=false");
    assert!(total(&now, "precpu_stats") > 0 && total(&now, "cpu_stats") > 0);
    assert!(total(&now, "cpu_stats") > total(&now, "precpu_stats"));
    let now = json(&host, "/containers/busy/stats?stream=false&one-shot=true");
    assert!(total(&now, "cpu_stats") > 0);
    assert_eq!(total(&now, "precpu_stats"), 0);
    assert_eq!(now["preread"], "0001-01-01T00:00:00Z");
    for query in ["stream=false", "stream=0&one-shot=1"] {
        let rests = json(&host, &format!("/containers/rests/stats?{query}"));
        assert_eq!(rests["name"], "/rests");
        assert_eq!(rests["read"], "0001-01-01T00:00:00Z");
        assert_eq!(rests["memory_stats"], serde_json::json!({}));
    }
    let (status, body) = host.get("/containers/busy/stats?one-shot=1");
    assert_eq!(status, 400);
    assert!(body.contains("cannot have stream=true and one-shot=true"));
    // Clients before 1.41 have no one-shot: they get two measurements.
    let now = json(&host, "/v1.40/containers/busy/stats?stream=0&one-shot=1");
    assert!(total(&now, "precpu_stats") > 0);
    let (status, body) = host.get("/containers/nobody/stats?one-shot=1");
    assert_eq!(status, 404);
    assert!(body.contains("No such container: nobody"));
    host.docker(&["rm", "-f", "busy", "rests"]).ok();
}

#[test]
fn the_docker_command_shows_all_containers() {
    let Some(host) = host_with(&["one", "two"]) else {
        return;
    };
    host.docker(&["create", "--name=rests", "--network=none", "busybox"])
        .ok();
    let rows = |options: &[&str]| -> BTreeMap<String, Value> {
        let start = ["stats", "--no-stream", "--format=json"];
        let shown = host.docker(&[&start, options].concat()).ok();
        let rows = shown.lines().map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            (row["Name"].as_str().unwrap().to_owned(), row)
        });
        rows.collect()
    };
    let shown = rows(&[]);
    assert_eq!(Vec::from_iter(shown.keys()), ["one", "two"]);
    for row in shown.values() {
        let percent = row["CPUPerc"].as_str().unwrap().trim_end_matches('%');
        let percent: f64 = percent.parse().unwrap();
        assert!(percent > 1.0 && percent < 6400.0, "{row}");
    }
    let shown = rows(&["--all"]);
    assert_eq!(Vec::from_iter(shown.keys()), ["one", "rests", "two"]);
    assert_eq!(shown["rests"]["CPUPerc"], "0.00%");
    assert_eq!(shown["rests"]["PIDs"], "0");
    // As a stream, to which a container is added later.
    let mut child = host
        .docker_command(&["stats", "--format={{.Name}} {{.CPUPerc}}."])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |text: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = lines.next().unwrap().unwrap();
            if line.contains(text) && !line.contains(" 0.00%") && !line.contains(" --") {
                return;
            }
            assert!(Instant::now() < deadline, "no {text}");
        }
    };
    until("one ");
    run(&host, "three", &[], "while :; do :; done");
    until("three ");
    child.kill().unwrap();
    child.wait().unwrap();
    host.docker(&["rm", "-f", "one", "two", "three", "rests"])
        .ok();
}

#[test]
fn networks_are_those_of_the_container() {
    let Some(host) = host_with(&[]) else { return };
    run(
        &host,
        "own",
        &["--cap-add=NET_ADMIN"],
        "busybox ip link add eth0 type bridge && busybox ip link set eth0 up &&
         busybox ip address add 10.9.9.1/24 dev eth0 && touch /made; busybox ping 10.9.9.2; sleep 1000",
    );
    host.docker(&[
        "run",
        "-d",
        "--name=hosts",
        "--network=host",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let one_shot = |name: &str| {
        json(
            &host,
            &format!("/containers/{name}/stats?stream=0&one-shot=1"),
        )
    };
    assert!(one_shot("hosts").get("networks").is_none());
    wait_until("the interfaces are there", || {
        host.docker(&["exec", "own", "ls", "/made"]).code == 0
    });
    let networks = one_shot("own")["networks"].clone();
    let names: Vec<_> = networks.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["eth0"]);
    // The container does not exist.
    wait_until("packets were counted", || {
        let eth0 = &one_shot("own")["networks"]["eth0"];
        eth0["tx_bytes"].as_u64() > eth0["tx_packets"].as_u64()
    });
    host.docker(&["rm", "-f", "own", "hosts"]).ok();
}

#[test]
fn many_watchers_share_a_clock() {
    const WATCHERS: usize = 200;
    let Some(host) = host_with(&["it"]) else {
        return;
    };
    let threads = || {
        std::fs::read_dir(format!("/proc/{}/task", host.pid()))
            .unwrap()
            .count()
    };
    // A client that never reads delays nobody.
    let idle = Stats::open(&host, "/containers/it/stats");
    let before = threads();
    let started = Instant::now();
    let mut watchers: Vec<_> = (0..WATCHERS)
        .map(|_| Stats::open(&host, "/containers/it/stats"))
        .collect();
    let mut reads = Vec::new();
    for _ in 0..4 {
        let documents = watchers.iter_mut().map(|stats| stats.next().unwrap());
        let times: Vec<_> = documents
            .map(|document| document["read"].as_str().unwrap().to_owned())
            .collect();
        reads.push(times);
    }
    // The last round is the same measurement for all of them.
    let [.., last] = reads.as_slice() else {
        unreachable!()
    };
    let mut different = last.clone();
    different.sort();
    different.dedup();
    assert!(different.len() <= 2, "{different:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{started:?}");
    assert!(threads() < before + 20, "{} after {before}", threads());
    drop(idle);
    host.docker(&["rm", "-f", "it"]).ok();
}
