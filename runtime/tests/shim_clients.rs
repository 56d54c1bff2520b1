//! Clients and containers that misbehave: the shim goes on, and uses no more than it should.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::time::Duration;

use common::{Connection, Setup, Shim, can_run, eventually};
use keelson_shim_protocol::{OciStatus, Request, Response, encode};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::json;

fn frame(request: &Request) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(request, &mut frame).unwrap();
    frame
}

fn running(args: &[&str]) -> Shim {
    let shim = Setup::new(args).create();
    shim.start();
    shim
}

fn end(shim: &Shim) {
    let kill = Request::Kill {
        signal: 9,
        all: false,
    };
    assert_eq!(shim.call(&kill), Response::Done);
    assert_eq!(shim.wait().code, 137);
}

fn is_running(shim: &Shim) -> bool {
    match shim.call(&Request::State) {
        Response::State { status, .. } => status == OciStatus::Running,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_after_a_waiting_one_are_answered_in_order() {
    if !can_run() {
        return;
    }
    let shim = running(&["sleep", "1000"]);
    let exec = |exec: &str| exec.to_owned();
    let requests = [
        Request::Exec {
            exec: exec("one"),
            process: common::config(&["true"], "")["process"].clone(),
            open_stdin: false,
        },
        Request::ExecStart { exec: exec("one") },
        Request::Wait {
            exec: Some(exec("one")),
        },
        Request::State,
    ];
    let mut connection = shim.connect();
    let all: Vec<u8> = requests.iter().flat_map(frame).collect();
    connection.0.write_all(&all).unwrap();
    assert_eq!(connection.receive(), Response::Done);
    assert!(matches!(connection.receive(), Response::Started { .. }));
    assert!(matches!(connection.receive(), Response::Exited(exit) if exit.code == 0));
    assert!(matches!(connection.receive(), Response::State { .. }));
}

#[test]
fn a_client_that_reads_no_answers_can_not_send_requests_without_end() {
    if !can_run() {
        return;
    }
    let shim = running(&["sleep", "1000"]);
    let mut connection = shim.connect();
    let requests: Vec<u8> = frame(&Request::State).repeat(1000);
    let each = requests.len() / 1000;
    connection
        .0
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut sent = 0;
    loop {
        // The last write may have ended in the middle of a request.
        match connection.0.write(&requests[sent % each..]) {
            Ok(length) => sent += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 64 << 20, "the shim takes whatever comes");
    }
    assert!(is_running(&shim), "others are served");
    // Accepted requests are answered when there is room.
    connection.0.shutdown(Shutdown::Write).unwrap();
    for _ in 0..sent / each {
        assert!(matches!(connection.receive(), Response::State { .. }));
    }
    assert_eq!(connection.0.read(&mut [0]).unwrap(), 0);
}

#[test]
fn half_requests_and_garbage_block_nobody() {
    if !can_run() {
        return;
    }
    let shim = running(&["sleep", "1000"]);
    let mut halves = Vec::new();
    for length in [1, 3, 4, 10] {
        let mut connection = shim.connect();
        let whole = frame(&Request::State);
        connection.0.write_all(&whole[..length]).unwrap();
        halves.push((connection, whole[length..].to_vec()));
    }
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 4096]] {
        let mut connection = shim.connect();
        let _ = connection.0.write_all(bytes);
        assert!(matches!(connection.receive(), Response::Failed { .. }));
        drop(connection);
    }
    assert!(is_running(&shim));
    // The second halves come later, except for one.
    let (gone, _) = halves.pop().unwrap();
    drop(gone);
    for (mut connection, rest) in halves {
        connection.0.write_all(&rest).unwrap();
        assert!(matches!(connection.receive(), Response::State { .. }));
    }
    end(&shim);
    shim.gone();
}

#[test]
fn input_of_a_client_that_goes_away_is_not_lost() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "sleep 0.2; wc -c"]);
    setup.spec.open_stdin = true;
    setup.spec.stdin_once = true;
    let shim = setup.create();
    shim.start();
    let mut attached = shim.attach(true);
    // More than the shim reads at once, and more than a pipe holds.
    attached.0.write_all(&[b'x'; 150_000]).unwrap();
    drop(attached);
    assert_eq!(shim.wait().code, 0);
    assert_eq!(shim.output().trim(), "150000");
}

#[test]
fn many_attached_clients_see_everything() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "read x; seq 1 2000"]);
    setup.spec.open_stdin = true;
    let shim = setup.create();
    let clients: Vec<Connection> = (0..200).map(|_| shim.attach(false)).collect();
    shim.start();
    let mut writer = shim.attach(true);
    writer.0.write_all(b"go\n").unwrap();
    let expected: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    for mut client in clients {
        assert_eq!(client.read_all().0, expected.as_bytes());
    }
    assert_eq!(shim.wait().code, 0);
}

#[test]
fn connections_without_a_descriptor_wait_and_the_shim_does_not_spin() {
    if !can_run() {
        return;
    }
    let shim = running(&["sleep", "1000"]);
    let limit = Rlimit {
        current: Some(32),
        maximum: Some(32),
    };
    rustix::process::prlimit(Pid::from_raw(shim.shim_pid), Resource::Nofile, limit).unwrap();
    let mut clients: Vec<Connection> = (0..60).map(|_| shim.connect()).collect();
    for client in &mut clients[..10] {
        assert!(matches!(
            client.call(&Request::State),
            Response::State { .. }
        ));
    }
    let sleeps = || {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", shim.shim_pid)).unwrap();
        text.rsplit_once(") ").unwrap().1.starts_with('S')
    };
    eventually("the shim has nothing to do", || {
        (0..20).all(|_| {
            std::thread::sleep(Duration::from_millis(2));
            sleeps()
        })
    });
    // The waiting connections are accepted when others leave.
    let last = clients.split_off(59);
    drop(clients);
    for mut client in last {
        assert!(matches!(
            client.call(&Request::State),
            Response::State { .. }
        ));
    }
    end(&shim);
}

#[test]
fn a_slow_hook_in_the_container_delays_only_its_start() {
    if !can_run() {
        return;
    }
    let waiting = || {
        let mut setup = Setup::new(&["sh", "-c", "echo runs; exec sleep 1000"]);
        let script = "until test -e /go; do sleep 0.01; done";
        setup.config["hooks"]["startContainer"] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]);
        let shim = setup.create();
        let mut starter = shim.connect();
        starter.send(&Request::Start);
        assert!(!is_running(&shim));
        let Response::Failed { message, .. } = shim.call(&Request::Start) else {
            panic!("started twice");
        };
        assert!(message.contains("already"), "{message}");
        (shim, starter)
    };
    let (shim, mut starter) = waiting();
    std::fs::write(format!("/proc/{}/root/go", shim.pid), "").unwrap();
    assert_eq!(starter.receive(), Response::Started { pid: shim.pid });
    assert!(is_running(&shim));
    eventually("output", || shim.output() == "runs\n");
    end(&shim);

    let (shim, mut starter) = waiting();
    end(&shim);
    let Response::Failed { message, .. } = starter.receive() else {
        panic!("started");
    };
    assert!(message.contains("before its command"), "{message}");
    assert_eq!(shim.wait().started_at, 0);
    assert_eq!(shim.wait().error, Some(message));
}

#[test]
fn endless_output_does_not_delay_the_end() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "cat /dev/zero & sleep 0.1; exit 3"]);
    // Neither the kernel nor a cgroup ends the processes that the first one leaves behind.
    setup.config["linux"]["cgroupsPath"] = json!(null);
    setup.config["linux"]["resources"] = json!(null);
    let namespaces = setup.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    setup.spec.log.max_size = 1 << 20;
    let shim = setup.create();
    shim.start();
    assert_eq!(shim.wait().code, 3);
    shim.gone();
}

/// A small file system, unmounted at the end.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(
            Some("small"),
            directory.path(),
            Some("tmpfs"),
            none,
            Some("size=256k"),
        )
        .unwrap();
        Self(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_does_not_block_the_container() {
    if !can_run() {
        return;
    }
    let small = Small::new();
    let path = small.0.path();
    std::fs::write(path.join("filler"), [1; 100_000]).unwrap();
    let flood = "head -c 1000000 /dev/zero | tr '\\0' x";
    let script = format!("echo first; {flood}; touch /flooded; read x; echo last; exit 5");
    let mut setup = Setup::new(&["sh", "-c", &script]);
    setup.spec.open_stdin = true;
    setup.spec.log.path = path.join("log");
    let shim = setup.create();
    shim.start();
    let flooded = format!("/proc/{}/root/flooded", shim.pid);
    eventually("everything is written", || Path::new(&flooded).exists());
    std::fs::remove_file(path.join("filler")).unwrap();
    let mut attached = shim.attach(true);
    attached.0.write_all(b"go\n").unwrap();
    assert_eq!(shim.wait().code, 5);
    let mut reader = keelson_log::Reader::open(&path.join("log")).unwrap();
    let mut text = Vec::new();
    while let keelson_log::Next::Record(record) = reader.next().unwrap() {
        text.extend_from_slice(record.payload);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.len() < 1_000_000, "the disk was not full");
    assert!(text.starts_with("first\nxx"), "{:?}", &text[..20]);
    assert!(text.ends_with("last\n"), "{:?}", &text[text.len() - 20..]);
}

fn probe(args: &[&str], limit: u64) -> Request {
    Request::Probe {
        exec: "probe".to_owned(),
        process: common::config(args, "")["process"].clone(),
        limit,
        output: 8,
    }
}

/// Members of the container's cgroup.
fn members(shim: &common::Shim) -> usize {
    let members = std::fs::read_to_string(shim.cgroup().join("cgroup.procs")).unwrap();
    members.lines().count()
}

#[test]
fn a_probe_ends_with_its_time_or_its_client() {
    if !can_run() {
        return;
    }
    let shim = Setup::new(&["sleep", "1000"]).create();
    let refused = shim.call(&probe(&["true"], 1_000));
    assert!(matches!(refused, Response::Failed { .. }), "{refused:?}");
    shim.start();
    let result = |code, output: &str| Response::Probed {
        code,
        output: output.to_owned(),
    };
    // The first bytes of both streams are kept.
    let words = ["sh", "-c", "echo 12345678901; exit 7"];
    let answer = shim.call(&probe(&words, 60_000));
    assert_eq!(answer, result(Some(7), "12345678"));
    // Output that another process holds open is not waited for.
    let daemon = ["sh", "-c", "sleep 1000 & echo begun"];
    let answer = shim.call(&probe(&daemon, 60_000));
    assert_eq!(answer, result(Some(0), "begun\n"));
    assert_eq!(members(&shim), 2);
    let slow = ["sh", "-c", "echo a; sleep 2000 & sleep 2000"];
    assert_eq!(shim.call(&probe(&slow, 50)), result(None, "a\n"));
    eventually("the probe's processes are gone", || members(&shim) == 2);
    // Only one runs at a time.
    let mut client = shim.connect();
    client.send(&probe(&slow, 60_000));
    eventually("the probe runs", || members(&shim) >= 4);
    let refused = shim.call(&probe(&["true"], 1_000));
    assert!(
        matches!(&refused, Response::Failed { message, .. } if message.contains("has not ended")),
        "{refused:?}"
    );
    drop(client);
    eventually("the probe ends with its client", || members(&shim) == 2);
    eventually("the next one is made", || {
        shim.call(&probe(&["true"], 60_000)) == result(Some(0), "")
    });
    // No trace of them is kept.
    let none = Response::Executions {
        executions: Vec::new(),
    };
    assert_eq!(shim.call(&Request::Executions), none);
    let Response::Failed { reason, .. } = shim.call(&probe(&["/no/such"], 1_000)) else {
        panic!("it was executed");
    };
    assert_eq!(reason, keelson_shim_protocol::FailReason::NotFound);
    let kill = Request::Kill {
        signal: 9,
        all: true,
    };
    assert_eq!(shim.call(&kill), Response::Done);
    assert_eq!(shim.wait().code, 137);
    shim.gone();
}
