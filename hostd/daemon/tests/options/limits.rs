//! Limits that the host may not support, and the parent cgroup of a container.

use std::fs;

use super::common::Host;

#[test]
fn unsupported_limits_are_discarded_with_a_warning() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let lacks_io = host.get("/info").1.contains("No io limit support");
    let made = host.docker(&["create", "--blkio-weight", "300", "busybox"]);
    let warned =
        "does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";
    assert_eq!(made.stderr.contains(warned), lacks_io, "{}", made.stderr);
    let id = made.ok();
    let format = "{{.HostConfig.BlkioWeight}}";
    let weight = host.docker(&["inspect", "-f", format, &id]).ok();
    assert_eq!(weight, if lacks_io { "0" } else { "300" });

    // The same for every other limit, at creation and at an update.
    for (option, value, format, limit, warned) in [
        (
            "--memory",
            "64m",
            "{{.HostConfig.Memory}}",
            "memory limit",
            "memory limit capabilities",
        ),
        (
            "--memory-reservation",
            "32m",
            "{{.HostConfig.MemoryReservation}}",
            "memory limit",
            "memory soft limit capabilities",
        ),
        (
            "--cpu-shares",
            "512",
            "{{.HostConfig.CpuShares}}",
            "cpu cfs quota",
            "CPU shares",
        ),
        (
            "--cpu-quota",
            "50000",
            "{{.HostConfig.CpuQuota}}",
            "cpu cfs quota",
            "CPU CFS scheduler",
        ),
        (
            "--cpuset-cpus",
            "0",
            "{{.HostConfig.CpusetCpus}}",
            "cpuset",
            "cpuset",
        ),
        (
            "--pids-limit",
            "9",
            "{{.HostConfig.PidsLimit}}",
            "pids limit",
            "PIDs limit capabilities",
        ),
    ] {
        let lacks = host.get("/info").1.contains(&format!("No {limit}"));
        let none = host.docker(&["create", "busybox"]).ok();
        let shown = |id: &str| host.docker(&["inspect", "-f", format, id]).ok();
        let made = host.docker(&["create", option, value, "busybox"]);
        let changed = host.docker(&["update", option, value, &none]);
        for done in [&made, &changed] {
            let text = format!("{}{}", done.stdout, done.stderr);
            assert_eq!(text.contains("discarded."), lacks, "{option}: {text}");
            assert_eq!(text.contains(warned), lacks, "{option}: {text}");
        }
        changed.ok();
        let made = made.ok();
        assert_eq!(shown(&made), shown(&none), "{option}");
        let unlimited = shown(&host.docker(&["create", "busybox"]).ok());
        assert_eq!(shown(&made) == unlimited, lacks, "{option}");
        // Such a container runs.
        host.docker(&["start", &made]).ok();
    }
    host.docker(&["create", "--memory", "1m", "busybox"])
        .fails_with("Minimum memory limit allowed is 6MB");
    host.docker(&["create", "--cpu-rt-runtime", "5", "busybox"])
        .fails_with("kernel does not support CPU real-time scheduler");
}

#[test]
fn a_container_is_in_the_requested_cgroup() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
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
