//! A full disk: operations that fail report it and leave nothing, running containers continue, and
//! with free space everything works again.

use std::fs::{self, File};
use std::io::Write;

use crate::common::disk::SmallDisk;
use crate::common::{Done, Host, image, is_root, wait_until};

/// Writes files until there is no room for another byte or directory.
fn fill(disk: &SmallDisk) {
    let mut file = File::create(disk.path().join("filler")).unwrap();
    for size in [65_536, 1024, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    for number in 0.. {
        if fs::create_dir(disk.path().join(format!("filler-{number}"))).is_err() {
            break;
        }
    }
}

fn empty(disk: &SmallDisk) {
    for entry in fs::read_dir(disk.path()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("filler") {
            let path = entry.path();
            fs::remove_dir(&path)
                .or_else(|_| fs::remove_file(&path))
                .unwrap();
        }
    }
}

/// The error names a path on the disk, says that there is no room, and what to do.
#[track_caller]
fn says_full(done: &Done, disk: &SmallDisk) {
    assert_ne!(done.code, 0, "{}", done.stdout);
    let path = disk.path().display().to_string();
    assert!(
        done.stderr.contains("No space left on device")
            && done.stderr.contains(&path)
            && done.stderr.contains("docker system prune"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_full_disk_is_reported_and_survived() {
    if !is_root() {
        return;
    }
    let Some(disk) = SmallDisk::new(48) else {
        return;
    };
    let mut host = Host::start_on(&disk.path().join("root"));
    host.load_busybox();
    let talks = "i=0; while :; do i=$((i+1)); echo $i $(seq 500); sleep 0.01; done";
    for (name, script) in [("talks", talks), ("quiet", "while :; do sleep 0.05; done")] {
        host.docker(&[
            "run",
            "-d",
            "--network=none",
            "--name",
            name,
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    }
    host.docker(&[
        "create",
        "--network=none",
        "--name=later",
        "busybox",
        "echo",
        "late",
    ])
    .ok();
    let pid = host.docker(&["inspect", "-f={{.State.Pid}}", "talks"]).ok();
    fill(&disk);

    for args in [
        &["create", "busybox", "true"][..],
        &["volume", "create", "data"],
        &["create", "-v", "data:/x", "busybox", "true"],
        &["start", "later"],
        &["rename", "later", "other"],
    ] {
        says_full(&host.docker(args), &disk);
    }
    let done = host.docker_with(&["load"], &image::archive("new", &[7; 1 << 20], None));
    assert!(
        done.stderr.contains("No space left on device"),
        "{}",
        done.stderr
    );
    // Operations that need no space work.
    assert_eq!(host.docker(&["exec", "quiet", "echo", "on"]).ok(), "on");
    let logs = |host: &Host| host.docker(&["logs", "talks"]);
    assert!(logs(&host).stdout.contains("500\n"));
    assert_eq!(host.docker(&["volume", "ls", "-q"]).ok(), "");
    assert_eq!(host.docker(&["ps", "-q"]).ok().lines().count(), 2);
    // A new hostd starts, too, and an end that could not be written is known.
    host.kill_daemon();
    host.start_daemon();
    host.docker(&["stop", "-t=0", "quiet"]).ok();
    host.kill_daemon();
    host.start_daemon();
    let state = |name: &str| {
        let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}";
        host.docker(&["inspect", "-f", format, name]).ok()
    };
    assert_eq!(state("quiet"), "exited 137 0");
    assert_eq!(state("talks"), format!("running 0 {pid}"));
    assert_eq!(state("later").split(' ').next(), Some("created"));

    empty(&disk);
    host.docker(&["volume", "create", "data"]).ok();
    assert_eq!(host.docker(&["start", "-a", "later"]).ok(), "late");
    host.docker(&["start", "quiet"]).ok();
    let gap = "bytes of output are missing here";
    let kept = logs(&host).stdout.len();
    wait_until(
        "its output is kept again, and the log tells of the gap",
        || {
            let logs = logs(&host);
            logs.stderr.contains(gap) && logs.stdout.len() > kept
        },
    );
    host.docker(&["stop", "-t=0", "talks"]).ok();
    let error = host
        .docker(&["inspect", "-f={{.State.Error}}", "talks"])
        .ok();
    assert!(error.contains("is the disk full?"), "{error}");
    host.docker(&["rename", "later", "other"]).ok();
    let ids = host.docker(&["ps", "-aq"]).ok();
    assert_eq!(ids.lines().count(), 3, "what was not made is not there");
    host.docker(&["rm", "-f", "talks", "quiet", "other"]).ok();
    host.docker(&["volume", "rm", "data"]).ok();
    drop(host);
    drop(disk);
}
