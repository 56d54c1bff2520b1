//! Clients that occupy places and do nothing: hostd continues to serve the others.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Host, PATIENCE, hostctl, image, is_root, run, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit for answers, whatever other clients do.
const SOON: Duration = Duration::from_secs(1);

/// This process needs more descriptors than usual.
fn many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

/// Asks for something and reads nothing of the answer.
fn ask(host: &Host, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn get(host: &Host, path: &str) -> UnixStream {
    ask(host, &format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n"))
}

/// Sends a request, checks the status of the answer, and returns the body.
#[track_caller]
fn post(host: &Host, path: &str, body: &str, status: u16) -> String {
    let (found, answer) = host.http(&format!(
        "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(found, status, "{path}: {answer}");
    answer
}

/// Asserts that something can be done soon; a busy machine gets three tries.
#[track_caller]
fn soon(what: &str, mut work: impl FnMut()) {
    let mut times = Vec::new();
    for _ in 0..3 {
        let before = Instant::now();
        work();
        let time = before.elapsed();
        times.push(time);
        if time < SOON {
            return println!("{what}: {time:?}");
        }
    }
    panic!("{what} took {times:?}");
}

fn descriptors(host: &Host) -> usize {
    fs::read_dir(format!("/proc/{}/fd", host.pid()))
        .unwrap()
        .count()
}

fn status_line(host: &Host, name: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim_start_matches(':')
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap()
}

/// The engine does its work: an answer, a start, a process in a container.
#[track_caller]
fn works(host: &Host) {
    soon("a ping", || assert_eq!(host.get("/_ping").0, 200));
    let mut number = 0;
    soon("a start", || {
        number += 1;
        let created = post(
            host,
            &format!("/containers/create?name=quick-{number}"),
            r#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}}"#,
            201,
        );
        assert!(created.contains("Id"), "{created}");
        post(host, &format!("/containers/quick-{number}/start"), "", 204);
    });
    soon("an exec", || {
        let made = post(
            host,
            &format!("/containers/quick-{number}/exec"),
            r#"{"Cmd":["echo","done"],"AttachStdout":true}"#,
            201,
        );
        let id = made.split('"').nth(3).unwrap().to_owned();
        let said = post(host, &format!("/exec/{id}/start"), "{}", 200);
        assert!(said.contains("done"), "{said}");
    });
    for number in 1..=number {
        host.docker(&["rm", "-f", &format!("quick-{number}")]).ok();
    }
}

#[test]
fn readers_that_do_not_read_keep_nobody_waiting() {
    if !is_root() {
        return;
    }
    many_descriptors();
    let host = Host::start();
    host.load_busybox();
    host.docker(&[
        "run",
        "--name=big",
        "--network=none",
        "busybox",
        "sh",
        "-c",
        "head -c 8000000 /dev/urandom > /big; head -c 4000000 /dev/zero | tr '\\0' x | fold",
    ])
    .ok();
    host.docker(&["commit", "big", "big:1"]).ok();
    host.docker(&[
        "run",
        "-d",
        "--name=loud",
        "--network=none",
        "busybox",
        "yes",
    ])
    .ok();
    works(&host);
    let before = (descriptors(&host), status_line(&host, "Threads"));

    let mut still = Vec::new();
    for _ in 0..86 {
        still.push(get(&host, "/containers/big/export"));
        still.push(get(&host, "/images/big:1/get"));
        still.push(get(&host, "/containers/big/logs?stdout=1"));
        still.push(get(&host, "/containers/loud/logs?stdout=1&follow=1"));
        still.push(get(&host, "/events?since=0"));
        still.push(ask(
            &host,
            "POST /containers/loud/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n",
        ));
        // These are to send something, and do not.
        still.push(ask(
            &host,
            "POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000\r\n\r\n",
        ));
    }
    assert!(still.len() > 600);
    works(&host);
    // Also after all of them had time to occupy what they can.
    std::thread::sleep(Duration::from_secs(3));
    works(&host);
    let threads = status_line(&host, "Threads");
    assert!(threads < 200, "{threads} threads");
    let memory = status_line(&host, "VmRSS");
    assert!(memory < 400 << 10, "{memory} KiB");
    // Clients without a place get an error.
    let mut late = get(&host, "/containers/big/export");
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 4096];
    let length = late.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(
        answer.starts_with("HTTP/1.1 200") || answer.contains("archives being made at once"),
        "{answer}"
    );
    drop((still, late));
    wait_until("descriptors and threads are given back", || {
        let (files, threads) = before;
        // Idle threads stay for ten seconds.
        descriptors(&host) <= files + 8 && status_line(&host, "Threads") <= threads + 8
    });
    works(&host);
    host.docker(&["rm", "-f", "loud", "big"]).ok();
}

#[test]
fn idle_connections_give_way() {
    if !is_root() {
        return;
    }
    many_descriptors();
    let host = Host::start();
    let mut idle: Vec<UnixStream> = (0..2200)
        .map_while(|_| UnixStream::connect(host.socket()).ok())
        .collect();
    assert!(idle.len() > 2048, "only {}", idle.len());
    let before = Instant::now();
    wait_until("some were closed", || {
        idle.iter_mut().any(|stream| {
            stream.set_nonblocking(true).unwrap();
            matches!(stream.read(&mut [0]), Ok(0))
        })
    });
    // Long before they are closed for being idle.
    assert!(
        before.elapsed() < Duration::from_secs(20),
        "{:?}",
        before.elapsed()
    );
    let before = Instant::now();
    assert_eq!(host.get("/_ping").0, 200);
    assert!(before.elapsed() < Duration::from_secs(5));
    idle.clear();
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    many_descriptors();
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let directory = tempfile::tempdir().unwrap();
    let listen = format!("tcp://127.0.0.1:{port}");
    let keys = directory.path().join("tls");
    let host = Host::start_with(&["--listen", &listen, "--tls", keys.to_str().unwrap()]);
    let client = directory.path().join("client");
    let issue = ["certificate", "issue", "--name=t", "--role=reader", "--out"];
    run(
        Command::new(&hostctl)
            .args(["--host", &host.url()])
            .args(issue)
            .arg(&client),
        b"",
    )
    .ok();
    let silent: Vec<TcpStream> = (0..600)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            if number % 2 == 0 {
                // The beginning of a handshake, no more.
                stream.write_all(&[22, 3, 1, 2, 0]).unwrap();
            }
            stream
        })
        .collect();
    let also: Vec<UnixStream> = (0..600)
        .map(|_| UnixStream::connect(host.socket()).unwrap())
        .collect();
    let tls_ping = |client: &Path| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "30"])
            .arg("--cacert")
            .arg(client.join("ca.pem"))
            .arg("--cert")
            .arg(client.join("cert.pem"))
            .arg("--key")
            .arg(client.join("key.pem"))
            .arg(format!("https://127.0.0.1:{port}/_ping"));
        assert_eq!(run(&mut curl, b"").ok(), "OK");
    };
    soon("a ping over TLS", || tls_ping(&client));
    soon("a ping", || assert_eq!(host.get("/_ping").0, 200));
    // They are not waited for.
    let before = Instant::now();
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.read(&mut [0]);
    }
    assert!(
        before.elapsed() < Duration::from_secs(15),
        "{:?}",
        before.elapsed()
    );
    drop(also);
}

#[test]
fn containers_do_not_get_hostds_limit_of_open_files() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.docker_with(&["load"], &image::busybox("busybox:latest"))
        .ok();
    let own = getrlimit(Resource::Nofile);
    let limits = fs::read_to_string(format!("/proc/{}/limits", host.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft >= own.maximum.unwrap().min(1 << 20), "{line}");
    let shown = host
        .docker(&[
            "run",
            "--rm",
            "--network=none",
            "busybox",
            "sh",
            "-c",
            "ulimit -Hn",
        ])
        .ok();
    assert_eq!(shown.parse(), Ok(own.maximum.unwrap()));
}

#[test]
fn megabytes_of_labels_do_not_stay_in_memory() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let create = |name: &str, bytes: usize, status: u16| {
        let label = "x".repeat(bytes);
        post(
            &host,
            &format!("/containers/create?name={name}"),
            &format!(
                r#"{{"Image":"busybox","Cmd":["true"],"Labels":{{"small":"s","large":"{label}"}},
                    "HostConfig":{{"NetworkMode":"none"}}}}"#
            ),
            status,
        )
    };
    let refused = create("huge", 3 << 20, 400);
    assert!(refused.contains("Labels have"), "{refused}");
    for number in 0..100 {
        create("large", 500 << 10, 201);
        if number % 10 == 0 {
            post(&host, "/containers/large/start", "", 204);
            post(&host, "/containers/large/wait", "", 200);
        }
        let (status, _) = host.http(
            "DELETE /containers/large?force=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(status, 204);
    }
    // Small labels are sent, large ones left out.
    let events = host.events_of("container");
    let event = events.last().unwrap();
    let attributes = &event["Actor"]["Attributes"];
    assert_eq!(attributes["small"], "s");
    assert_eq!(attributes["name"], "large");
    assert!(attributes.get("large").is_none());
    let memory = status_line(&host, "VmRSS");
    assert!(memory < 64 << 10, "{memory} KiB");
}

#[test]
fn large_answers_that_nobody_reads_do_not_fill_the_memory() {
    if !is_root() {
        return;
    }
    many_descriptors();
    let host = Host::start();
    host.load_busybox();
    let label = "x".repeat(1000 << 10);
    let body = format!(r#"{{"Image":"busybox","Labels":{{"a":"{label}"}}}}"#);
    post(&host, "/containers/create?name=large", &body, 201);
    let still: Vec<UnixStream> = (0..300)
        .map(|_| get(&host, "/containers/json?all=1"))
        .collect();
    wait_until("the budget was used up", || {
        let (status, body) = host.get("/containers/large/json");
        assert!(
            status == 200 || body.contains("too many large answers"),
            "{body}"
        );
        status == 503
    });
    let memory = status_line(&host, "VmRSS");
    assert!(memory < 192 << 10, "{memory} KiB");
    soon("a ping", || assert_eq!(host.get("/_ping").0, 200));
    drop(still);
    wait_until("it was given back", || {
        host.get("/containers/large/json").0 == 200
    });
    host.docker(&["rm", "large"]).ok();
}

/// A file system of its own that can be frozen.
struct Disk {
    mounted: std::path::PathBuf,
}

impl Disk {
    fn mount(image: &Path, at: &Path) -> Self {
        let file = fs::File::create(image).unwrap();
        file.set_len(128 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(image), b"").ok();
        run(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(image)
                .arg(at),
            b"",
        )
        .ok();
        Self {
            mounted: at.to_owned(),
        }
    }

    fn freeze(&self, option: &str) {
        run(Command::new("fsfreeze").arg(option).arg(&self.mounted), b"").ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for (program, argument) in [("fsfreeze", "-u"), ("umount", "-l")] {
            // It may be thawed already.
            let _ = Command::new(program)
                .arg(argument)
                .arg(&self.mounted)
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

#[test]
fn a_disk_that_stalls_does_not_silence_hostd() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.stop_daemon();
    let root = host.path().join("root");
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    let disk = Disk::mount(&host.path().join("disk"), &root);
    host.start_daemon();
    host.load_busybox();
    disk.freeze("-f");
    let body = r#"{"Image":"busybox","Cmd":["true"]}"#;
    let waiting: Vec<UnixStream> = (0..8)
        .map(|number| {
            ask(
                &host,
                &format!(
                    "POST /containers/create?name=c{number} HTTP/1.1\r\nHost: d\r\n\
                     Connection: close\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
            )
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    soon("a ping", || assert_eq!(host.get("/_ping").0, 200));
    soon("a ping", || assert_eq!(host.get("/v1.44/_ping").0, 200));
    soon("a list", || assert_eq!(host.get("/containers/json").0, 200));
    disk.freeze("-u");
    for mut stream in waiting {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
    host.stop_daemon();
    drop(disk);
}
