//! What was collected, as clients read it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::common::disk::SmallDisk;
use super::common::{Host, hostctl, is_root, run, wait_until};
use super::{KernelLog, argument, configure, lines, status, texts, wait_for_store};
use serde_json::{Value, json};

#[test]
fn records_of_the_kernel_come_once_however_often_hostd_ends() {
    if !is_root() {
        return;
    }
    let mut kernel = KernelLog::new();
    kernel.write(5, "Linux version 6.12");
    kernel.write(30, "keelson: init started at 1.000 s");
    kernel.write(28, "netcfg: warning: no DHCP server answers");
    kernel.write(28, "hostd: error: it fails");
    kernel.write(31, "netcfg: details");
    let path = kernel.path();
    let mut host = Host::start_with(&["--kernel-log", argument(&path)]);
    wait_for_store(&host);
    wait_until("the records are stored", || {
        texts(&host, "unit=netcfg").len() == 2
    });
    let shown: Vec<Value> = lines(&host, "unit=kernel&unit=init&unit=netcfg")
        .into_iter()
        .map(|line| json!([line["unit"], line["priority"], line["text"]]))
        .collect();
    assert_eq!(
        shown,
        [
            json!(["kernel", "notice", "Linux version 6.12"]),
            json!(["init", "info", "init started at 1.000 s"]),
            json!(["netcfg", "warning", "no DHCP server answers"]),
            json!(["netcfg", "debug", "details"]),
        ]
    );
    let urgent = texts(&host, "priority=warning&unit=hostd");
    assert!(urgent.contains(&"it fails".to_owned()), "{urgent:?}");

    for round in 0..3 {
        host.kill_daemon();
        kernel.write(6, &format!("round {round}"));
        kernel.begin_again();
        host.start_daemon();
        wait_for_store(&host);
        let text = format!("round {round}");
        wait_until("the new record is stored", || {
            texts(&host, "unit=kernel").contains(&text)
        });
    }
    let wanted = ["Linux version 6.12", "round 0", "round 1", "round 2"];
    assert_eq!(texts(&host, "unit=kernel"), wanted);
    assert_eq!(texts(&host, "unit=netcfg").len(), 2);
    assert_eq!(status(&host)["lost"], 0);

    // The kernel has overwritten some.
    kernel.records.extend(["", "", ""].map(String::from));
    kernel.write(6, "after a gap");
    wait_until("the gap is told", || !texts(&host, "unit=logs").is_empty());
    assert!(texts(&host, "unit=logs")[0].starts_with("3 records of the kernel's log"));
    assert_eq!(status(&host)["lost"], 3);
}

#[test]
fn clients_choose_what_they_read() {
    if !is_root() {
        return;
    }
    let mut kernel = KernelLog::new();
    let path = kernel.path();
    let host = Host::start_with(&["--kernel-log", argument(&path)]);
    wait_for_store(&host);
    for number in 0..300 {
        kernel.write(6, &format!("line {number}"));
    }
    wait_until("all are stored", || {
        texts(&host, "unit=kernel").len() == 300
    });
    assert_eq!(texts(&host, "unit=kernel&tail=2"), ["line 298", "line 299"]);
    let at = &lines(&host, "unit=kernel&tail=10")[0];
    let after = format!("unit=kernel&after={}", at["sequence"]);
    assert_eq!(texts(&host, &after).len(), 9);
    assert_eq!(lines(&host, "unit=nobody").len(), 0);
    assert_eq!(lines(&host, "until=1970-01-02T00:00:00Z").len(), 0);
    assert!(lines(&host, "since=1000d&boot=0").len() >= 300);
    let (_, boots) = host.get("/host/v1/logs/boots");
    let boots: Value = serde_json::from_str(&boots).unwrap();
    assert_eq!(boots[0]["number"], 0);
    assert_eq!(boots[0]["boot"], at["boot"]);
    let id = at["boot"].as_str().unwrap();
    assert_eq!(texts(&host, &format!("unit=kernel&boot={id}")).len(), 300);

    for (query, code, part) in [
        ("boot=-7", 404, "no boot -7"),
        ("boot=ffff", 404, "no boot"),
        ("since=soon", 400, "since"),
        ("tail=many", 400, "tail"),
        ("tail=1000000", 400, "100000"),
        ("unknown=1", 400, "unknown"),
    ] {
        let (status, text) = host.get(&format!("/host/v1/logs?{query}"));
        assert_eq!(status, code, "{query}: {text}");
        assert!(text.contains(part), "{query}: {text}");
    }
}

#[test]
fn hostctl_shows_and_follows() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let mut kernel = KernelLog::new();
    kernel.write(4, "it is warm");
    let path = kernel.path();
    let host = Host::start_with(&["--kernel-log", argument(&path)]);
    wait_for_store(&host);
    wait_until("it is stored", || !texts(&host, "unit=kernel").is_empty());
    let command = |args: &[&str]| {
        let mut command = Command::new(&hostctl);
        command.args(["--host", &host.url(), "logs"]).args(args);
        command
    };
    let shown = run(&mut command(&["--unit", "kernel"]), b"").ok();
    assert!(shown.ends_with(" kernel: warning: it is warm"), "{shown}");
    let json = run(
        &mut command(&["-u", "kernel", "-o", "json", "-n", "1"]),
        b"",
    )
    .ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["priority"], "warning");
    let boots = run(&mut command(&["--list-boots"]), b"").ok();
    assert!(boots.contains(json["boot"].as_str().unwrap()), "{boots}");
    let state = run(&mut command(&["status"]), b"").ok();
    assert!(
        state.contains("kernel") && state.contains("suppressed: 0"),
        "{state}"
    );
    run(&mut command(&["--boot", "-9"]), b"").fails_with("no boot -9");
    run(&mut command(&["--since", "whenever"]), b"").fails_with("since");

    let mut following = command(&["-f", "-u", "kernel"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || output.next().unwrap().unwrap();
    assert!(next().ends_with("it is warm"));
    for number in 0..20 {
        kernel.write(6, &format!("new {number}"));
        let line = next();
        assert!(line.ends_with(&format!("kernel: new {number}")), "{line}");
    }
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn the_store_is_bounded_survives_restarts_and_keeps_what_it_can_not_read() {
    if !is_root() {
        return;
    }
    let mut kernel = KernelLog::new();
    kernel.write(6, "the first line");
    let path = kernel.path();
    let mut host = Host::start_with(&["--kernel-log", argument(&path)]);
    configure(&mut host, "[logs]\nmax_size = 1048576\n");
    kernel.begin_again();
    wait_until("it is stored", || !texts(&host, "unit=kernel").is_empty());
    let noise = "n".repeat(900);
    for _ in 0..3000 {
        kernel.write(30, &format!("netcfg: {noise}"));
    }
    kernel.write(30, "init: end");
    wait_until("all is read", || !texts(&host, "unit=init").is_empty());
    assert_eq!(status(&host)["max_bytes"], 1 << 20);
    // What is too much is removed after each batch of lines.
    wait_until("the store is small", || {
        status(&host)["bytes"].as_u64().unwrap() < 1_500_000
    });
    assert_eq!(texts(&host, "unit=kernel"), ["the first line"]);

    host.kill_daemon();
    let store = host.path().join("root/logs/kernel");
    let segment = std::fs::read_dir(&store)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(&segment, b"damaged").unwrap();
    host.start_daemon();
    wait_for_store(&host);
    let unreadable = status(&host)["unreadable"].clone();
    let kept = segment.with_extension("unreadable");
    assert_eq!(unreadable, json!([kept.display().to_string()]));
    assert_eq!(std::fs::read(&kept).unwrap(), b"damaged");
    assert!(host.log().contains("can't be read and is kept"));
}

#[test]
fn a_full_disk_is_reported_and_lines_wait_for_room() {
    if !is_root() {
        return;
    }
    let Some(disk) = SmallDisk::new(48) else {
        return;
    };
    let host = Host::start_on(&disk.path().join("root"));
    wait_for_store(&host);
    wait_until("a line is stored", || {
        !texts(&host, "unit=hostd").is_empty()
    });
    let filler = disk.path().join("filler");
    let file = std::fs::File::create(&filler).unwrap();
    let mut size = 48 << 20;
    while size > 4096 {
        let end = file.metadata().unwrap().len();
        let more = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), end, size);
        if more.is_err() {
            size /= 2;
        }
    }
    wait_until("it says that there is no room", || {
        let (code, _) = host.send("POST", "/containers/none/kill", "");
        assert_eq!(code, 404);
        let error = status(&host)["error"].clone();
        error
            .as_str()
            .is_some_and(|error| error.contains("make room"))
    });
    // It still serves what it has.
    assert!(!texts(&host, "unit=hostd&tail=5").is_empty());
    let last = status(&host)["last_sequence"].clone();
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    wait_until("lines are stored again", || {
        let now = status(&host);
        now["error"].is_null() && now["last_sequence"].as_u64() > last.as_u64()
    });
}
