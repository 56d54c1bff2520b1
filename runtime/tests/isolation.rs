//! What a container sees and may do, and what makes its start fail.

mod common;

use common::{Setup, can_run, run_script};
use serde_json::json;

/// Runs a script and expects it to succeed.
fn output(script: &str) -> String {
    let (output, exit) = run_script(script);
    assert_eq!(exit.code, 0, "{script}: {output}");
    output
}

#[test]
fn namespaces_are_the_containers_own() {
    if !can_run() {
        return;
    }
    let facts = output(
        "echo pid $$; hostname; ls /proc | grep -c '^[0-9]*$'; ls /sys/class/net; ip link show lo | grep -c UP; \
         for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup",
    );
    let lines: Vec<&str> = facts.lines().collect();
    assert_eq!(lines[0], "pid 1");
    assert_eq!(lines[1], "testhost");
    assert!(lines[2].parse::<u32>().unwrap() < 6, "{facts}");
    assert_eq!((lines[3], lines[4]), ("lo", "1"), "{facts}");
    for (line, name) in lines[5..]
        .iter()
        .zip(["pid", "mnt", "uts", "ipc", "net", "cgroup"])
    {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(*line, own.to_string_lossy(), "{name}");
    }
    assert!(facts.lines().any(|line| line == "0::/"), "{facts}");
}

#[test]
fn restrictions_are_in_force() {
    if !can_run() {
        return;
    }
    let status = output("cat /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(field("Seccomp:"), "2");
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "0");
}

#[test]
fn system_calls_are_filtered() {
    if !can_run() {
        return;
    }
    for script in [
        "unshare -U true 2>&1",
        "mount -t tmpfs none /tmp 2>&1",
        "hostname other 2>&1",
    ] {
        let (output, exit) = run_script(script);
        assert_ne!(exit.code, 0, "{script}");
        assert!(
            output.contains("not permitted") || output.contains("denied"),
            "{script}: {output}"
        );
    }
}

#[test]
fn kernel_interfaces_are_masked_and_read_only() {
    if !can_run() {
        return;
    }
    let mut found = 0;
    for path in common::config(&[], "")["linux"]["maskedPaths"]
        .as_array()
        .unwrap()
    {
        let path = path.as_str().unwrap();
        let Ok(metadata) = std::fs::metadata(path) else {
            continue;
        };
        found += 1;
        let script = match metadata.is_dir() {
            true => format!("ls -A {path} | wc -l"),
            false => format!("cat {path} | wc -c"),
        };
        assert_eq!(output(&script), "0\n", "{path}");
    }
    assert!(found > 1, "nothing to mask on this machine");
    for file in [
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/profiling",
        "/sys/fs/cgroup/cgroup.procs",
    ] {
        if !std::path::Path::new(file).exists() && !file.contains("cgroup") {
            continue;
        }
        let (output, _) = run_script(&format!("echo 1 > {file}"));
        assert!(output.contains("Read-only file system"), "{file}: {output}");
    }
    let mounts = output("cat /proc/self/mounts");
    for (place, wanted) in [
        ("/sys", "ro,"),
        ("/proc/sys", "ro,"),
        ("/dev/shm", "nosuid,nodev,noexec"),
        ("/proc", "nosuid,nodev,noexec"),
    ] {
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(place))
            .unwrap_or_else(|| panic!("{place}: {mounts}"));
        assert!(line.contains(wanted), "{line}");
    }
    assert!(
        mounts.lines().all(|line| !line.contains("oldroot")),
        "{mounts}"
    );
}

#[test]
fn no_descriptor_and_no_mount_leaks_in() {
    if !can_run() {
        return;
    }
    // 3 is the directory that ls itself reads.
    assert_eq!(output("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 ");
    let mounts = output("wc -l < /proc/self/mounts");
    assert!(mounts.trim().parse::<u32>().unwrap() < 30, "{mounts}");
    assert_eq!(
        output("ls -A /tmp; ls / | tr '\\n' ' '"),
        "bin dev etc proc sys tmp "
    );
}

#[test]
fn devices_are_there_and_no_others_can_be_used() {
    if !can_run() {
        return;
    }
    assert_eq!(
        output(
            "for d in null zero full random urandom tty ptmx; do test -c /dev/$d && echo $d; done | wc -l"
        ),
        "7\n"
    );
    assert_eq!(
        output("echo x > /dev/null && head -c 2 /dev/zero | wc -c"),
        "2\n"
    );
    assert_eq!(
        output("readlink /dev/fd; readlink /dev/stdin"),
        "/proc/self/fd\n/proc/self/fd/0\n"
    );
    // The memory of the machine: the node may be made, but not opened.
    let (text, exit) = run_script("mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg");
    assert_ne!(exit.code, 0);
    assert!(text.contains("Operation not permitted"), "{text}");
}

#[test]
fn the_own_executable_cannot_be_written() {
    if !can_run() {
        return;
    }
    // A created container's process still runs the runtime's program.
    let shim = Setup::new(&["true"]).create();
    for pid in [shim.pid, shim.shim_pid] {
        let exe = format!("/proc/{pid}/exe");
        // A busy file becomes writable as soon as the process ends; a read-only mount stays
        // read-only.
        let flags = nix::sys::statvfs::statvfs(exe.as_str()).unwrap().flags();
        assert!(
            flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
            "{flags:?}"
        );
    }
    shim.start();
    shim.wait();
}

#[test]
fn users_groups_and_directories_are_as_asked() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&[
        "sh",
        "-c",
        "id; pwd; echo $HOME; umask; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; ulimit -n; echo to > /dev/stdout",
    ]);
    let process = &mut setup.config["process"];
    process["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7], "umask": 0o27});
    process["cwd"] = "/made/by/runtime".into();
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]);
    let (output, exit) = setup.run();
    assert_eq!(exit.code, 0, "{output}");
    assert!(
        output.starts_with("uid=1000(user) gid=1001 groups=7"),
        "{output}"
    );
    for wanted in [
        "\n/made/by/runtime\n",
        "\n/home/user\n",
        "\n0027\n",
        "CapEff:\t0000000000000000",
        "Seccomp:\t2",
        "\n99\n",
        "\nto\n",
    ] {
        assert!(output.contains(wanted), "{wanted:?} in {output}");
    }
}

#[test]
fn no_new_privileges_and_ambient_capabilities() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&[
        "grep",
        "-E",
        "NoNewPrivs|CapAmb|CapEff|CapInh|Seccomp:",
        "/proc/self/status",
    ]);
    let process = &mut setup.config["process"];
    process["user"] = json!({"uid": 1000, "gid": 1000});
    process["noNewPrivileges"] = true.into();
    let bind = json!(["CAP_NET_BIND_SERVICE"]);
    process["capabilities"] = json!({"bounding": bind, "effective": bind, "permitted": bind, "inheritable": bind, "ambient": bind});
    let (output, _) = setup.run();
    for wanted in [
        "NoNewPrivs:\t1",
        "CapAmb:\t0000000000000400",
        "CapEff:\t0000000000000400",
        "CapInh:\t0000000000000400",
        "Seccomp:\t2",
    ] {
        assert!(output.contains(wanted), "{wanted:?} in {output}");
    }
}

#[test]
fn files_and_directories_of_the_host_are_bound() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&[
        "sh",
        "-c",
        "cat /etc/resolv.conf; cat /data/file; echo new > /data/new; echo no > /ro/new; echo code $?; echo w >> /etc/resolv.conf",
    ]);
    let host = setup.directory.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "content\n").unwrap();
    let mounts = setup.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/etc/resolv.conf", "type": "bind", "source": host.join("file"), "options": ["rbind", "ro"]}));
    mounts.push(json!({"destination": "/data", "type": "bind", "source": host, "options": ["rbind", "rprivate"]}));
    mounts.push(
        json!({"destination": "/ro", "type": "bind", "source": host, "options": ["bind", "ro"]}),
    );
    let upper = setup.directory.path().join("upper/etc/resolv.conf");
    let shim = setup.create();
    shim.start();
    shim.wait();
    let output = shim.output();
    assert!(output.starts_with("content\ncontent\n"), "{output}");
    assert!(output.contains("code 1"), "{output}");
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "new\n");
    assert_eq!(
        std::fs::read_to_string(host.join("file")).unwrap(),
        "content\n"
    );
    assert_eq!(std::fs::metadata(upper).unwrap().len(), 0);
}

#[test]
fn links_of_an_image_do_not_lead_out_of_it() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["cat", "/outside/file"]);
    let lower = setup.directory.path().join("lower");
    let host = setup.directory.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "bound\n").unwrap();
    // An absolute link to a directory that exists only on the host.
    std::os::unix::fs::symlink(setup.directory.path().join("victim"), lower.join("outside"))
        .unwrap();
    std::fs::create_dir(setup.directory.path().join("victim")).unwrap();
    let mounts = setup.config["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({"destination": "/outside", "type": "bind", "source": host, "options": ["rbind"]}),
    );
    let victim = setup.directory.path().join("victim");
    // In the container the link's target does not exist yet: it is made there.
    let shim = setup.create();
    shim.start();
    assert_eq!(shim.wait().code, 0);
    assert_eq!(shim.output(), "bound\n");
    assert_eq!(std::fs::read_dir(victim).unwrap().count(), 0);
}

#[test]
fn proc_replaced_by_a_link_is_refused() {
    if !can_run() {
        return;
    }
    for destination in ["/proc", "/proc/", "//proc/."] {
        let mut setup = Setup::new(&["true"]);
        let lower = setup.directory.path().join("lower");
        std::fs::remove_dir(lower.join("proc")).unwrap();
        std::os::unix::fs::symlink("/tmp", lower.join("proc")).unwrap();
        let mounts = setup.config["mounts"].as_array_mut().unwrap();
        let proc = mounts.iter_mut().find(|mount| mount["type"] == "proc");
        proc.unwrap()["destination"] = destination.into();
        let message = setup.fails();
        assert!(
            message.contains("must be mounted on ordinary directory")
                && message.contains(destination),
            "{message}"
        );
    }
}

#[test]
fn a_read_only_root_is_read_only() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "touch /x; touch /dev/shm/x && echo shm"]);
    setup.config["root"]["readonly"] = true.into();
    let (output, _) = setup.run();
    assert!(
        output.contains("Read-only file system") && output.contains("shm"),
        "{output}"
    );

    // Without an upper directory, of one layer or of several.
    for layers in [1, 2] {
        let mut setup = Setup::new(&["sh", "-c", "touch /x"]);
        let path = setup.directory.path();
        let lower = [path.join("lower"), path.join("lower2")][..layers].to_vec();
        setup.spec.rootfs = keelson_shim_protocol::Rootfs::Overlay {
            lower,
            upper: None,
            work: None,
        };
        let (output, exit) = setup.run();
        assert_eq!(exit.code, 1, "{output}");
        assert!(output.contains("Read-only file system"), "{output}");
    }
}

#[test]
fn a_restriction_that_cannot_be_applied_fails_the_start() {
    if !can_run() {
        return;
    }
    let hybrid = common::cgroup_root().ends_with("unified");
    let mut cases = vec![
        (
            "/process/apparmorProfile",
            json!("some-profile"),
            "apparmorProfile",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_FUN", "soft": 1, "hard": 1}]),
            "process.rlimits[0].type",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 1}]),
            "RLIMIT_NOFILE",
        ),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "vm.swappiness",
        ),
        (
            "/linux/sysctl",
            json!({"net.no.such.thing": "1"}),
            "net.no.such.thing",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_NONE"}),
            "linux.seccomp.defaultAction",
        ),
        (
            "/annotations/io.keelson.seccomp",
            json!("other"),
            "io.keelson.seccomp",
        ),
        (
            "/linux/resources",
            json!({"devices": [{"allow": true, "type": "x"}]}),
            "linux.resources.devices[0].type",
        ),
        (
            "/linux/resources",
            json!({"memory": {"swappiness": 3}}),
            "linux.resources.memory.swappiness",
        ),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation",
        ),
        (
            "/hooks",
            json!({"prestart": [{"path": "/no/such/hook"}]}),
            "error running prestart hook #0: /no/such/hook",
        ),
        ("/process/user", json!({"uid": "root"}), "process.user.uid"),
        (
            "/mounts/0/options",
            json!(["no-such-option"]),
            "mount proc on /proc",
        ),
        ("/mounts/0/type", json!("nofs"), "mount nofs on /proc"),
    ];
    if hybrid {
        cases.push((
            "/linux/resources",
            json!({"memory": {"limit": 67108864}}),
            "\"memory\"",
        ));
        cases.push((
            "/linux/resources",
            json!({"pids": {"limit": 5}}),
            "\"pids\"",
        ));
    }
    for (pointer, value, wanted) in cases {
        let mut setup = Setup::new(&["true"]);
        match setup.config.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                setup.config.pointer_mut(parent).unwrap()[name] = value;
            }
        }
        let message = setup.fails();
        assert!(message.contains(wanted), "{pointer}: {message}");
    }
}

#[test]
fn namespace_parameters_are_set() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&[
        "cat",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/kernel/msgmax",
    ]);
    setup.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4242"});
    assert_eq!(setup.run().0, "1\n4242\n");
}

#[test]
fn two_containers_share_a_namespace_by_path() {
    if !can_run() {
        return;
    }
    let first = Setup::new(&["sleep", "1000"]).create();
    first.start();
    let mut setup = Setup::new(&[
        "sh",
        "-c",
        "readlink /proc/self/ns/net; ps | grep -c '[s]leep 1000'",
    ]);
    for namespace in setup.config["linux"]["namespaces"].as_array_mut().unwrap() {
        let kind = namespace["type"].as_str().unwrap().to_owned();
        let file = match kind.as_str() {
            "network" => "net",
            "pid" => "pid",
            _ => continue,
        };
        namespace["path"] = format!("/proc/{}/ns/{file}", first.pid).into();
    }
    let (output, _) = setup.run();
    let net = std::fs::read_link(format!("/proc/{}/ns/net", first.pid)).unwrap();
    assert!(output.starts_with(&*net.to_string_lossy()), "{output}");
    assert!(output.trim_end().ends_with('1'), "{output}");
    first.call(&keelson_shim_protocol::Request::Kill {
        signal: 9,
        all: true,
    });
    first.wait();
}

#[test]
fn many_containers_at_once() {
    if !can_run() {
        return;
    }
    let threads: Vec<_> = (0..8)
        .map(|number| {
            std::thread::spawn(move || run_script(&format!("echo {number}; exit {number}")))
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let (output, exit) = thread.join().unwrap();
        assert_eq!((output, exit.code), (format!("{number}\n"), number as i32));
    }
}

#[test]
fn clocks_and_scheduling_are_the_containers_own() {
    if !can_run() {
        return;
    }
    // The first word is the time since boot; policy 3 (batch) and nice 7 stand in stat.
    let mut setup = Setup::new(&["sh", "-c", "cat /proc/uptime /proc/self/stat"]);
    let namespaces = setup.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "time"}));
    setup.config["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 500_000_000, "nanosecs": 5}});
    setup.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
    setup.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    let (output, exit) = setup.run();
    assert_eq!(exit.code, 0, "{output}");
    let uptime: f64 = output.split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 500_000_000.0, "{output}");
    let fields: Vec<&str> = output.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!((fields[16], fields[38]), ("7", "3"), "{output}");
}
