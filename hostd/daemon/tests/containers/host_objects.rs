//! Objects of the host that the processes of containers can change, found by the search of the
//! runtime's own tests.

use crate::common::{Host, is_root, wait_until};
use crate::walk;

/// Objects of the host that a container's first process, and one that was added later, can change.
#[track_caller]
fn writable(host: &Host, name: &str, options: &[&str]) -> Vec<String> {
    let own = std::fs::canonicalize(host.path()).unwrap();
    let fixed = ["run", "-d", "--name", name];
    host.docker(&[&fixed, options, &["busybox", "sleep", "1000"]].concat())
        .ok();
    host.docker(&["exec", "-d", name, "sleep", "2000"]).ok();
    let mut pids = Vec::new();
    wait_until("both processes have begun", || {
        let list = host.docker(&["top", name]).ok();
        let sleeping = list.lines().filter(|line| line.contains("sleep "));
        pids = sleeping
            .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
            .collect();
        pids.len() == 2
    });
    let mut found: Vec<String> = pids
        .into_iter()
        .flat_map(|pid| walk::writable(pid, &own))
        .collect();
    found.sort();
    found.dedup();
    host.docker(&["rm", "-f", name]).ok();
    found
}

#[test]
fn containers_can_change_nothing_of_the_hosts_that_was_not_given() {
    if !is_root() {
        return;
    }
    walk::note();
    let host = Host::start();
    host.load_busybox();
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir(outside.path().join("below")).unwrap();
    let path = outside.path().to_str().unwrap();
    let bind = format!("{path}:/given");
    let readonly = format!("{path}:/given:ro");
    let mount = format!("type=bind,source={path},target=/given,readonly");

    // The search finds objects that were given on purpose.
    let found = writable(&host, "given", &["-v", &bind]);
    assert_eq!(found, [format!("mount /given of {path}")]);

    let cases: &[(&str, &[&str])] = &[
        ("default", &[]),
        ("terminal", &["-t"]),
        ("read-only", &["--read-only"]),
        ("bind", &["-v", &readonly]),
        ("mount", &["--mount", &mount]),
        ("files", &["-v", "/etc/hostname:/etc/given:ro"]),
        ("network", &["--network", "host"]),
        ("uts", &["--uts", "host"]),
        ("cgroup", &["--cgroupns", "host"]),
        (
            "tmpfs",
            &["--tmpfs", "/scratch", "--tmpfs", "/given:exec,dev"],
        ),
        ("user", &["-u", "1000:1000"]),
        ("capable", &["--cap-add", "ALL"]),
    ];
    for (name, options) in cases {
        let found = writable(&host, name, options);
        assert_eq!(found, [""; 0], "{options:?}");
    }

    // The option affects message queues and shared memory.
    let found = writable(&host, "ipc", &["--ipc", "host"]);
    let meant = ["mount /dev/shm of ", "mount /dev/mqueue of "];
    assert!(!found.is_empty());
    for object in &found {
        let known = meant.iter().any(|meant| object.starts_with(meant));
        assert!(known, "{found:?}");
    }
    walk::assert_unchanged();
}
