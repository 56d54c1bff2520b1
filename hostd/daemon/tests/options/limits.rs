//! Limits that the host may not have, and the cgroup that a container is put into.

use std::fs;

use super::common::{Host, is_root};

#[test]
fn what_the_host_can_not_limit_is_discarded_with_a_warning() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.load_busybox();
    let lacks_io = host.get("/info").1.contains("No io limit support");
    let made = host.docker(&["create", "--blkio-weight", "300", "busybox"]);
    let warned =
        "does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";
    assert_eq!(made.stderr.contains(warned), lacks_io, "{}", made.stderr);
    let id = made.ok();
    let format = "{{.HostConfig.BlkioWeight}}";
    let weight = host.docker(&["inspect", "-f", format, &id]).ok();
    assert_eq!(weight, if lacks_io { "0" } else { "300" });
    host.docker(&["create", "--cpu-rt-runtime", "5", "busybox"])
        .fails_with("kernel does not support CPU real-time scheduler");
}

#[test]
fn a_container_is_in_the_cgroup_that_was_asked_for() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.load_busybox();
    let own = host.cgroup_parent();
    for (name, parent, wanted) in [
        ("below", "batch/night".to_owned(), "batch/night"),
        ("whole", format!("/{own}/other"), "other"),
    ] {
        let run = ["run", "-d", "--name", name, "--cgroup-parent", &parent];
        let id = host
            .docker(&[&run[..], &["busybox", "sleep", "1000"]].concat())
            .ok();
        let pid = host.docker(&["inspect", "-f", "{{.State.Pid}}", name]).ok();
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let seen = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
        assert_eq!(seen, Some(&*format!("/{own}/{wanted}/{id}")));
        let top = host.docker(&["top", name]).ok();
        assert!(top.contains("sleep 1000"), "{top}");
        let shown = host.docker(&["inspect", "-f", "{{.HostConfig.CgroupParent}}", name]);
        assert_eq!(shown.ok(), parent);
        host.docker(&["rm", "-f", name]).ok();
    }
    host.docker(&["create", "--cgroup-parent", "../up", "busybox"])
        .fails_with("invalid CgroupParent");
}
