//! Containers in user namespaces.

mod common;

use std::os::unix::fs::MetadataExt;

use common::{Setup, can_run, eventually};
use keelson_shim_protocol::Rootfs;
use serde_json::{Value, json};

/// The host's id of the container's root user.
const FIRST: u32 = 200_000;

fn mappings() -> Value {
    json!([{"containerID": 0, "hostID": FIRST, "size": 65536}])
}

/// A container in a new user namespace that runs a script.
fn setup(script: &str) -> Setup {
    let mut setup = Setup::new(&["sh", "-c", script]);
    let root = setup.directory.path().join("lower");
    common::give(&root, FIRST);
    setup.spec.rootfs = Rootfs::Directory { path: root };
    let linux = &mut setup.config["linux"];
    linux["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    linux["uidMappings"] = mappings();
    linux["gidMappings"] = mappings();
    setup
}

/// Runs it and expects it to succeed.
fn run(setup: Setup) -> String {
    let (output, exit) = setup.run();
    assert_eq!(exit.code, 0, "{output}");
    output
}

#[test]
fn the_root_user_is_nobody_outside() {
    if !can_run() {
        return;
    }
    let shim = setup("cat /proc/self/uid_map; id -u; touch /tmp/x; exec sleep 1000").create();
    shim.start();
    eventually("output", || shim.output().lines().count() == 2);
    let output = shim.output();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "200000", "65536", "0"]);
    let made = shim.directory.path().join("lower/tmp/x");
    eventually("the file", || made.exists());
    assert_eq!(std::fs::metadata(&made).unwrap().uid(), FIRST);
    let status = std::fs::read_to_string(format!("/proc/{}/status", shim.pid)).unwrap();
    assert!(
        status.contains(&format!("Uid:\t{FIRST}\t{FIRST}")),
        "{status}"
    );
    assert!(status.contains("Groups:\t \n"), "{status}");
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(link(&shim.pid.to_string()), link("self"), "{name}");
    }
}

#[test]
fn file_systems_and_devices_are_all_there() {
    if !can_run() {
        return;
    }
    let output = run(setup(
        "for p in proc sys dev dev/pts dev/shm dev/mqueue sys/fs/cgroup; do \
             grep -q \" /$p \" /proc/mounts || echo no $p; done; \
         for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
         echo gone > /dev/null; head -c 3 /dev/zero | wc -c; \
         touch /dev/shm/x /dev/mqueue/x && stat -c %u:%g /dev/shm/x; hostname; \
         ls /sys/class/net; cat /proc/keys | wc -c; (echo 1 > /proc/sysrq-trigger) 2>&1 | wc -l",
    ));
    assert_eq!(output, "3\n0:0\ntesthost\nlo\n0\n1\n");
}

#[test]
fn nodes_cannot_be_made_and_the_hosts_files_not_be_read() {
    if !can_run() {
        return;
    }
    let mut setup = setup("mknod /tmp/m c 1 1 2>&1; cat /secret 2>&1; echo x 2>&1 >/secret");
    let secret = setup.directory.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).unwrap();
    setup.config["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/secret", "type": "bind", "source": secret, "options": ["rbind"]}
    ));
    let (output, exit) = setup.run();
    assert_ne!(exit.code, 0);
    assert!(output.contains("Operation not permitted"), "{output}");
    assert!(
        output.contains("cat: can't open '/secret': Permission denied"),
        "{output}"
    );
    assert!(
        output.contains("can't create /secret: Permission denied"),
        "{output}"
    );
}

#[test]
fn many_extents_and_the_user_asked_for() {
    if !can_run() {
        return;
    }
    let mut setup = setup(
        "id -u; id -g; id -G; wc -l < /proc/self/uid_map; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; echo to > /dev/stdout",
    );
    let mut list = vec![json!({"containerID": 0, "hostID": FIRST, "size": 1000})];
    for number in 0..200 {
        list.push(
            json!({"containerID": 1000 + number, "hostID": FIRST + 5000 - number, "size": 1}),
        );
    }
    setup.config["linux"]["uidMappings"] = json!(list);
    setup.config["process"]["user"] = json!({"uid": 1001, "gid": 7, "additionalGids": [8, 9]});
    setup.config["process"]["oomScoreAdj"] = json!(500);
    setup.config["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 1_000}]);
    assert_eq!(run(setup), "1001\n7\n7 8 9\n201\n500\n64\n1000\nto\n");
}

#[test]
fn bad_mappings_are_refused_by_name() {
    if !can_run() {
        return;
    }
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut setup = setup("true");
        change(&mut setup.config);
        setup.fails()
    };
    let message = refused(&|config| config["linux"]["uidMappings"] = json!([]));
    assert!(message.contains("linux.uidMappings"), "{message}");
    let message = refused(&|config| config["linux"]["gidMappings"][0]["size"] = json!(0));
    assert!(message.contains("linux.gidMappings[0].size"), "{message}");
    let message = refused(&|config| config["linux"]["uidMappings"][0]["hostID"] = json!("x"));
    assert!(message.contains("linux.uidMappings[0].hostID"), "{message}");
    let message = refused(&|config| config["process"]["user"]["uid"] = json!(70_000));
    assert!(message.contains("process.user.uid"), "{message}");
}

#[test]
fn additional_processes_are_inside_too() {
    if !can_run() {
        return;
    }
    let shim = setup("exec sleep 1000").create();
    shim.start();
    let script = "id -u; id -G; cat /proc/self/uid_map; touch /tmp/y && stat -c %u /tmp/y; \
                  grep CapEff /proc/self/status; echo to > /dev/stdout; \
                  [ $(readlink /proc/self/ns/user) = $(readlink /proc/1/ns/user) ] && echo same";
    let mut process = shim_process(script);
    let (output, code) = shim.exec("one", process.clone()).unwrap();
    assert_eq!(code, 0, "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3]), ("0", "0", "0"), "{output}");
    assert!(lines[2].contains("200000"), "{output}");
    assert!(lines[4].ends_with("00000000a80425fb"), "{output}");
    assert_eq!((lines[5], lines[6]), ("to", "same"), "{output}");
    let made = std::fs::metadata(shim.directory.path().join("lower/tmp/y")).unwrap();
    assert_eq!(made.uid(), FIRST);
    process["terminal"] = json!(true);
    process["user"] = json!({"uid": 1000, "gid": 1000});
    process["args"] = json!(["sh", "-c", "tty; stat -c %u $(tty)"]);
    let (output, code) = shim.exec("two", process).unwrap();
    assert_eq!(code, 0, "{output}");
    assert!(output.ends_with("\r\n1000\r\n"), "{output}");
}

fn shim_process(script: &str) -> Value {
    let mut process = common::config(&["sh", "-c", script], "")["process"].take();
    process["args"] = json!(["sh", "-c", script]);
    process
}

#[test]
fn a_terminal_belongs_to_the_user() {
    if !can_run() {
        return;
    }
    let mut setup = setup("tty; stat -c %u $(tty); stat -c %t:%T /dev/console");
    setup.config["process"]["terminal"] = json!(true);
    setup.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    assert_eq!(run(setup), "/dev/pts/0\r\n1000\r\n88:0\r\n");
}

#[test]
fn an_existing_user_namespace_is_joined_with_those_it_owns() {
    if !can_run() {
        return;
    }
    let first = setup("exec sleep 1000").create();
    first.start();
    let path = |name: &str| format!("/proc/{}/ns/{name}", first.pid);
    let mut second = setup(
        "cat /proc/self/uid_map; touch /tmp/z /dev/shm/z && ls /sys/class/net; exec sleep 1000",
    );
    second.config["linux"]["namespaces"] = json!([
        {"type": "user", "path": path("user")}, {"type": "network", "path": path("net")},
        {"type": "ipc", "path": path("ipc")}, {"type": "pid", "path": path("pid")},
        {"type": "mount"}, {"type": "uts"}, {"type": "cgroup"},
    ]);
    let second = second.create();
    second.start();
    eventually("output", || second.output().contains("lo"));
    assert!(second.output().contains("200000"), "{}", second.output());
    for name in ["user", "net", "ipc", "pid"] {
        let other = std::fs::read_link(format!("/proc/{}/ns/{name}", second.pid)).unwrap();
        assert_eq!(std::fs::read_link(path(name)).unwrap(), other, "{name}");
    }
    let mut third = setup("true");
    third.config["linux"]["namespaces"] =
        json!([{"type": "user", "path": path("user")}, {"type": "mount"}, {"type": "pid"}]);
    third.config["linux"]["uidMappings"][0]["hostID"] = json!(300_000);
    third.config["hostname"] = json!("");
    let message = third.fails();
    assert!(message.contains("linux.uidMappings"), "{message}");
}

#[test]
fn namespaces_of_the_host_can_be_kept() {
    if !can_run() {
        return;
    }
    let mut setup = setup(
        "ls /sys/class/net | wc -l; ls -d /proc/[0-9]* 2>/dev/null | wc -l; ls /dev/mqueue >/dev/null",
    );
    setup.config["linux"]["namespaces"] = json!([{"type": "user"}, {"type": "mount"}]);
    setup.config["hostname"] = json!("");
    let output = run(setup);
    let numbers: Vec<usize> = output.lines().map(|line| line.parse().unwrap()).collect();
    let links = std::fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(numbers[0], links, "{output}");
    assert!(numbers[1] > 1, "{output}");
}

#[test]
fn a_writable_cgroup_belongs_to_the_user() {
    if !can_run() {
        return;
    }
    let owner = |options: Value| {
        let mut setup = setup("exec sleep 1000");
        let mounts = setup.config["mounts"].as_array_mut().unwrap();
        let cgroup = mounts
            .iter_mut()
            .find(|mount| mount["type"] == "cgroup")
            .unwrap();
        cgroup["options"] = options;
        setup.shows_host = true;
        let shim = setup.create();
        let owner = |file: &str| std::fs::metadata(shim.cgroup().join(file)).unwrap().uid();
        (owner("."), owner("cgroup.procs"), owner("cgroup.freeze"))
    };
    assert_eq!(owner(json!(["nosuid", "rw"])), (FIRST, FIRST, 0));
    assert_eq!(owner(json!(["nosuid", "ro"])), (0, 0, 0));
}

#[test]
fn hooks_and_devices_of_config_json() {
    if !can_run() {
        return;
    }
    let mut setup = setup("stat -c %t:%T /dev/other/zero; cat /hooked");
    setup.config["linux"]["devices"] = json!([
        {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5},
        {"path": "/dev/fifo", "type": "p"},
    ]);
    let script = format!("cat > {}/lower/hooked", setup.directory.path().display());
    setup.config["hooks"] =
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    setup.config["process"]["args"] = json!([
        "sh",
        "-c",
        "stat -c %t:%T /dev/zero; test -p /dev/fifo && cat /hooked"
    ]);
    let output = run(setup);
    assert!(output.starts_with("1:5\n{"), "{output}");
    assert!(output.contains("\"status\":\"creating\""), "{output}");

    let mut wrong = self::setup("true");
    wrong.config["linux"]["devices"] = json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "uid": 4_000_000_000u32}]);
    let message = wrong.fails();
    assert!(
        message.contains("linux.devices[0].uid: 4000000000"),
        "{message}"
    );
}

#[test]
fn devices_without_a_node_on_the_host_are_made() {
    if !can_run() {
        return;
    }
    let mut setup = setup(
        "stat -c '%t:%T %a %u:%g' /dev/mine /dev/deep/er; head -c 3 /dev/mine | wc -c; \
         chmod 600 /dev/deep/er && stat -c %a /dev/deep/er",
    );
    setup.config["linux"]["devices"] = json!([
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o647, "uid": 7, "gid": 9},
        {"path": "/dev/deep/er", "type": "b", "major": 7, "minor": 3},
    ]);
    let lines = run(setup);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines, ["1:5 647 7:9", "7:3 666 0:0", "3", "600"]);
    assert!(!std::path::Path::new("/dev/mine").exists());
}

/// A container whose root is made of layers, as images are.
fn layered(script: &str) -> Setup {
    let mut layered = Setup::new(&["sh", "-c", script]);
    layered.config["linux"] = setup("true").config["linux"].take();
    layered.config["linux"]["cgroupsPath"] = json!(common::cgroup_path(&layered.id));
    layered
}

#[test]
fn owners_of_layers_are_those_of_the_image() {
    if !can_run() {
        return;
    }
    let layered = layered(
        "stat -c %u:%g / /bin/busybox /etc/passwd /of-1000; touch /made /etc/made; rm /of-1000; \
         echo x >> /etc/passwd; mkdir /tmp/d; stat -c %u /made /tmp/d; \
         test -e /of-1000 || echo gone",
    );
    let directory = layered.directory.path().to_owned();
    let file = directory.join("lower/of-1000");
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::chown(&file, Some(1000), Some(100)).unwrap();
    let shim = layered.create();
    shim.start();
    assert_eq!(shim.wait().code, 0, "{}", shim.output());
    assert_eq!(shim.output(), "0:0\n0:0\n0:0\n1000:100\n0\n0\ngone\n");
    // On the disk, changed files have the same owners as without a user namespace.
    for name in ["made", "etc/made", "etc/passwd", "tmp/d", "."] {
        let path = directory.join("upper").join(name);
        assert_eq!(std::fs::metadata(path).unwrap().uid(), 0, "{name}");
    }
    assert_eq!(std::fs::metadata(file).unwrap().uid(), 1000);
    assert!(!directory.join("lower/made").exists());
}

#[test]
fn a_single_read_only_layer_is_mapped_too() {
    if !can_run() {
        return;
    }
    let mut layered = layered("stat -c %u /bin/busybox; touch /x 2>&1");
    let lower = layered.directory.path().join("lower");
    for name in ["proc", "sys", "dev", "tmp"] {
        assert!(lower.join(name).is_dir());
    }
    layered.spec.rootfs = Rootfs::Overlay {
        lower: vec![lower],
        upper: None,
        work: None,
    };
    let (output, exit) = layered.run();
    assert_ne!(exit.code, 0);
    assert!(output.starts_with("0\n"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
}
