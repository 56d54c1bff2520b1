//! Container escapes that were found in other runtimes, by the number of the report.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{RUNTIME, Setup, can_run, eventually};
use keelson_shim_protocol::Rootfs;
use serde_json::{Value, json};

/// A container whose root is a directory, which the caller prepares.
fn setup(script: &str, prepare: impl FnOnce(&Path)) -> Setup {
    let mut setup = Setup::new(&["sh", "-c", script]);
    let root = setup.directory.path().join("lower");
    prepare(&root);
    setup.spec.rootfs = Rootfs::Directory { path: root };
    setup
}

/// Removes mounts from a configuration.
fn without(setup: &mut Setup, destination: &str) {
    let mounts = setup.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| {
        !mount["destination"]
            .as_str()
            .unwrap()
            .starts_with(destination)
    });
}

fn bind(source: &Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind"]})
}

fn add(setup: &mut Setup, mount: Value) {
    setup.config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Tries to change every node of the null device: by name, below masked paths, and through
/// descriptors. Prints the results.
const ATTACK: &str = "for path in /dev/null /dev/zero /dev/tty /proc/timer_list /proc/keys \
    /proc/self/fd/0; do chmod 601 $path; chown 7:8 $path; touch -t 200001010000 $path; done \
    2>/dev/null; for path in /dev/null /proc/self/fd/0; do stat -L -c '%t:%T' $path; \
    echo x > $path && echo written; done";

/// A device node belongs to the machine, whatever mount namespace it is reached from.
#[test]
fn nodes_of_the_host_are_out_of_reach() {
    if !can_run() {
        return;
    }
    let expected = "1:3\nwritten\n1:3\nwritten\n";
    let default = || {
        let mut setup = setup(ATTACK, |root| {
            for name in ["chmod", "chown"] {
                symlink("busybox", root.join("bin").join(name)).unwrap();
            }
        });
        setup.config["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/proc/keys"]);
        setup
    };
    // With a node of the container's own.
    let shim = default().create();
    shim.start();
    shim.wait();
    assert_eq!(shim.output(), expected);
    // Also for a process that is added later.
    let mut waiting = default();
    waiting.config["process"]["args"] = json!(["sleep", "1000"]);
    let shim = waiting.create();
    shim.start();
    let process = json!({"args": ["sh", "-c", ATTACK], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": common::CAPABILITIES,
        "effective": common::CAPABILITIES, "permitted": common::CAPABILITIES}});
    assert_eq!(shim.exec("attack", process).unwrap().0, expected);
    let process = json!({"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}});
    shim.session("later", process);
    let later = shim.start_session("later").unwrap();
    eventually("the process executes its command", || {
        std::fs::read_to_string(format!("/proc/{later}/comm")).is_ok_and(|it| it == "sleep\n")
    });
    let found = common::host_objects::writable(later, shim.directory.path());
    assert_eq!(found, [""; 0]);
    drop(shim);
    // Without one: with the image's node, and with no node.
    for node in [true, false] {
        let mut bare = default();
        without(&mut bare, "/dev");
        let dev = bare.directory.path().join("lower/dev");
        if node {
            let (kind, mode) = (rustix::fs::FileType::CharacterDevice, 0o666.into());
            let device = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(rustix::fs::CWD, dev.join("null"), kind, mode, device).unwrap();
        }
        let shim = bare.create();
        shim.start();
        shim.wait();
        let output = shim.output();
        assert!(output.ends_with("1:3\nwritten\n"), "{output}");
    }
}

/// Standard streams that the caller passes, and those that it does not.
#[test]
fn the_callers_null_device_is_not_handed_on() {
    if !can_run() {
        return;
    }
    let bundle = common::bundle::Bundle::new(&["sleep", "1000"], |_| {});
    let pid = || -> i32 {
        let text = std::fs::read_to_string(bundle.directory.path().join("pid")).unwrap();
        text.parse().unwrap()
    };
    let all = |command: &mut std::process::Command| {
        use std::process::Stdio;
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null());
        assert!(streams.stderr(Stdio::null()).status().unwrap().success());
    };
    let check = || {
        let found = common::host_objects::writable(pid(), bundle.directory.path());
        let is_null = |found: &String| found.contains("null");
        assert!(!found.iter().any(is_null), "{found:?}");
    };
    let id = bundle.id.as_str();
    all(&mut bundle.command(&["run", "--detach", "--pid-file", "pid", id]));
    check();
    let exec = ["exec", "--detach", "--pid-file", "pid", id, "sleep", "1000"];
    all(&mut bundle.command(&exec));
    check();
    common::host_objects::assert_unchanged();
}

/// CVE-2025-31133: files were hidden by the container's /dev/null, which an image could replace by
/// a link.
#[test]
fn a_false_null_device_hides_nothing_else() {
    if !can_run() {
        return;
    }
    let script = "stat -c %t:%T /proc/timer_list; wc -c < /proc/timer_list; \
                  grep -c ' /proc/sys/kernel/core_pattern ' /proc/self/mountinfo; \
                  echo no > /proc/sys/kernel/core_pattern";
    let mut setup = setup(script, |root| {
        symlink("/proc/sys/kernel/core_pattern", root.join("dev/null")).unwrap();
    });
    without(&mut setup, "/dev");
    setup.config["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/proc/kcore"]);
    let (output, exit) = setup.run();
    assert_ne!(exit.code, 0);
    assert!(output.starts_with("1:3\n0\n0\n"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
}

/// CVE-2025-52565: the console was mounted where a link of the image leads.
#[test]
fn a_false_console_is_not_followed() {
    if !can_run() {
        return;
    }
    for target in ["/proc/sys/kernel/core_pattern", "pts/0", "/etc/passwd"] {
        let mut setup = setup("true", |root| {
            symlink(target, root.join("dev/console")).unwrap();
        });
        without(&mut setup, "/dev");
        setup.config["process"]["terminal"] = json!(true);
        let message = setup.fails();
        assert!(message.contains("process.terminal"), "{message}");
        assert!(message.contains("symbolic link"), "{message}");
    }
    // The directory itself is a link into procfs.
    let mut setup = setup("true", |root| {
        std::fs::remove_dir(root.join("dev")).unwrap();
        symlink("/proc/self/attr", root.join("dev")).unwrap();
    });
    without(&mut setup, "/dev");
    setup.config["process"]["terminal"] = json!(true);
    setup.fails();
}

/// CVE-2025-52881: mounts over parts of procfs divert what the runtime writes there.
#[test]
fn nothing_is_mounted_over_procfs_not_even_by_links() {
    if !can_run() {
        return;
    }
    let tmpfs = |destination: &str| json!({"destination": destination, "type": "tmpfs"});
    for destination in [
        "/proc/self/attr",
        "/proc/sys",
        "/proc/sys/net/ipv4",
        "/proc/1",
    ] {
        let mut setup = setup("true", |_| {});
        add(&mut setup, tmpfs(destination));
        let message = setup.fails();
        assert!(message.contains(destination), "{message}");
    }
    for target in [
        "/proc/self/attr",
        "proc/sys/kernel",
        "../../proc/thread-self/attr",
    ] {
        let mut setup = setup("true", |root| symlink(target, root.join("data")).unwrap());
        let source = setup.directory.path().join("lower2");
        add(&mut setup, bind(&source, "/data"));
        let message = setup.fails();
        assert!(message.contains("/data"), "{target}: {message}");
    }
}

/// The same CVE: parameters reach the kernel, whatever the image has at the path of procfs.
#[test]
fn parameters_are_written_to_the_real_procfs() {
    if !can_run() {
        return;
    }
    let mut setup = setup("exec sleep 1000", |root| {
        let fake = root.join("proc/sys/net/ipv4");
        std::fs::create_dir_all(&fake).unwrap();
        std::fs::write(fake.join("ip_default_ttl"), "0").unwrap();
        std::fs::create_dir_all(root.join("proc/self/attr")).unwrap();
        std::fs::write(root.join("proc/self/oom_score_adj"), "0").unwrap();
    });
    without(&mut setup, "/proc");
    setup.config["linux"]["maskedPaths"] = json!([]);
    setup.config["linux"]["readonlyPaths"] = json!([]);
    setup.config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
    setup.config["process"]["oomScoreAdj"] = json!(321);
    let fake = setup.directory.path().join("lower/proc");
    let shim = setup.create();
    let read = std::process::Command::new("nsenter")
        .args(["-t", &shim.pid.to_string(), "-n"])
        .args(["cat", "/proc/sys/net/ipv4/ip_default_ttl"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), "77\n");
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", shim.pid)).unwrap();
    assert_eq!(score, "321\n");
    for (file, text) in [
        ("sys/net/ipv4/ip_default_ttl", "0"),
        ("self/oom_score_adj", "0"),
    ] {
        assert_eq!(
            std::fs::read_to_string(fake.join(file)).unwrap(),
            text,
            "{file}"
        );
    }
}

/// CVE-2019-5736: the runtime's own file. The container's processes can name it while they are
/// still the runtime, or through a script that has it as its interpreter.
#[test]
fn the_runtimes_file_cannot_be_reached_by_an_interpreter() {
    if !can_run() {
        return;
    }
    let before = std::fs::read(&*RUNTIME).unwrap();
    let script = "exec sleep 1000";
    let shim = setup(script, |root| {
        let path = root.join("bin/trap");
        std::fs::write(&path, "#!/proc/self/exe\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        // Tries to write to the program file of every process that appears.
        let thief = "for i in $(seq 200); do for p in /proc/[0-9]*; do \
                     (echo x > $p/exe) 2>/dev/null && echo written to $(readlink $p/exe); \
                     done; done; echo tried";
        std::fs::write(root.join("thief"), thief).unwrap();
    })
    .create();
    shim.start();
    let exec = |name: &str, args: &[&str]| {
        let process = json!({"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/bin"]});
        let stream = shim.session(name, process);
        let _ = shim.start_session(name);
        stream
    };
    let mut thief = exec("thief", &["sh", "/thief"]);
    for number in 0..10 {
        let (_, _) = exec(&format!("trap{number}"), &["/bin/trap"]).read_all();
    }
    let (out, _) = thief.read_all();
    let out = String::from_utf8_lossy(&out).into_owned();
    assert!(out.contains("tried"), "{out}");
    let own = Path::new(&*RUNTIME).file_name().unwrap().to_string_lossy();
    assert!(!out.contains(own.as_ref()), "{out}");
    assert!(
        std::fs::read(&*RUNTIME).unwrap() == before,
        "the runtime was changed"
    );
}

/// CVE-2024-21626: a leaked descriptor leads outside through the working directory.
#[test]
fn the_working_directory_is_never_a_descriptor() {
    if !can_run() {
        return;
    }
    let mut setup = setup("true", |_| {});
    for number in 3..24 {
        for path in ["/proc/self/fd", "/proc/thread-self/fd", "/proc/1/fd"] {
            setup.config["process"]["cwd"] = json!(format!("{path}/{number}"));
            let message = setup.fails();
            assert!(message.contains("process.cwd"), "{message}");
        }
    }
    let shim = self::setup("exec sleep 1000", |_| {}).create();
    shim.start();
    for number in 3..24 {
        let exec = format!("cwd{number}");
        let process = json!({"args": ["cat", "../../../../etc/hostname"], "user": {"uid": 0, "gid": 0},
            "cwd": format!("/proc/self/fd/{number}"), "env": ["PATH=/bin"]});
        let message = shim.exec(&exec, process).unwrap_err();
        assert!(message.contains("process.cwd"), "{message}");
    }
}

/// The families that this test makes sockets of when it is a container's program.
const FAMILIES: &str = "MAKE_SOCKETS_OF";

#[test]
fn sockets_are_made() {
    let Ok(families) = std::env::var(FAMILIES) else {
        return;
    };
    for family in families.split(',') {
        let family = rustix::net::AddressFamily::from_raw(family.parse().unwrap());
        let made = rustix::net::socket(family, rustix::net::SocketType::SEQPACKET, None);
        match made {
            Err(rustix::io::Errno::PERM) => println!("{}: refused", family.as_raw()),
            _ => println!("{}: for the kernel to decide", family.as_raw()),
        }
    }
}

/// CVE-2026-31431: by the kernel's cryptography, files that can only be read are changed in the page
/// cache. A container neither gets such sockets (38) nor those to the hypervisor (40).
#[test]
fn sockets_of_the_kernels_cryptography_are_refused() {
    if !can_run() {
        return;
    }
    let mut setup = setup("/maker --exact sockets_are_made --nocapture", |_| {});
    let maker = std::env::current_exe().unwrap();
    let env = setup.config["process"]["env"].as_array_mut().unwrap();
    env.push(json!(format!("{FAMILIES}=1,2,16,37,38,39,40,41")));
    let own = [(maker.as_path(), "/maker")];
    let libraries = ["/lib", "/lib64"].map(|path| (Path::new(path), path));
    for (source, destination) in own.into_iter().chain(libraries) {
        let mut mount = bind(source, destination);
        mount["options"] = json!(["rbind", "ro"]);
        add(&mut setup, mount);
    }
    let shim = setup.create();
    shim.start();
    assert_eq!(shim.wait().code, 0);
    let output = shim.output();
    let refused = output
        .lines()
        .filter_map(|line| line.strip_suffix(": refused"));
    assert_eq!(refused.collect::<Vec<_>>(), ["38", "40"], "{output}");
    assert_eq!(output.matches(": for the kernel").count(), 6, "{output}");
}

#[test]
fn no_descriptor_of_the_runtime_is_in_a_container_or_its_hooks() {
    if !can_run() {
        return;
    }
    let list = "ls /proc/self/fd | tr '\\n' ' '";
    let mut setup = setup(&format!("{list}; exec sleep 1000"), |_| {});
    let file = setup.directory.path().join("hook");
    let script = format!("ls /proc/self/fd | tr '\\n' ' ' > {}", file.display());
    setup.config["hooks"] = json!({"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", script],
        "env": ["PATH=/bin:/usr/bin"]}]});
    let shim = setup.create();
    shim.start();
    eventually("output", || shim.output() == "0 1 2 3 ");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "0 1 2 3 ");
}

/// A directory of the host that an image's links point to.
fn outside(setup: &Setup) -> PathBuf {
    let outside = setup.directory.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    outside
}

#[test]
fn links_at_destinations_stay_inside() {
    if !can_run() {
        return;
    }
    let mut setup = setup("true", |_| {});
    let (root, target) = (setup.directory.path().join("lower"), outside(&setup));
    symlink(&target, root.join("absolute")).unwrap();
    let up = format!("../../../../../../../..{}", target.display());
    symlink(up, root.join("relative")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    let source = setup.directory.path().join("source");
    std::fs::write(&source, "").unwrap();
    for destination in ["/absolute/made", "/relative/made2"] {
        add(&mut setup, bind(&source, destination));
    }
    setup.config["linux"]["devices"] = json!([
        {"path": "/absolute/node", "type": "c", "major": 1, "minor": 3},
    ]);
    setup.config["process"]["cwd"] = json!("/relative/cwd");
    let shim = setup.create();
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
    // In the container, the links lead to this path.
    let inside = root.join(target.strip_prefix("/").unwrap());
    for name in ["made", "made2", "node", "cwd"] {
        assert!(inside.join(name).exists(), "{name}");
    }
    drop(shim);
    let mut setup = self::setup("true", |root| {
        symlink("/proc/self/root", root.join("magic")).unwrap();
    });
    let source = setup.directory.path().join("lower2");
    add(&mut setup, bind(&source, "/magic/tmp/made"));
    let message = setup.fails();
    assert!(message.contains("/magic/tmp/made"), "{message}");
}

#[test]
fn nodes_of_the_host_keep_their_owner() {
    if !can_run() {
        return;
    }
    let null = json!([
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "uid": 5, "gid": 6},
    ]);
    let directory = tempfile::tempdir().unwrap();
    let node = directory.path().join("null");
    let device = rustix::fs::makedev(1, 3);
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, device).unwrap();
    let mut bound = setup("true", |_| {});
    without(&mut bound, "/dev");
    add(&mut bound, bind(directory.path(), "/dev"));
    bound.config["linux"]["devices"] = null.clone();
    bound.shows_host = true;
    let (output, exit) = bound.run();
    assert_eq!(exit.code, 0, "{output}");
    let found = std::fs::metadata(&node).unwrap();
    assert_eq!((found.uid(), found.gid()), (0, 0));

    let mut fresh = setup("stat -c '%u %g' /dev/null", |_| {});
    fresh.config["linux"]["devices"] = null;
    assert_eq!(fresh.run().0, "5 6\n");
}

#[test]
fn a_directory_that_turns_into_a_link_meanwhile_leads_nowhere() {
    if !can_run() {
        return;
    }
    let mut setup = setup("true", |root| {
        std::fs::create_dir(root.join("swap")).unwrap();
    });
    let (root, target) = (setup.directory.path().join("lower"), outside(&setup));
    symlink(&target, root.join("link")).unwrap();
    let source = setup.directory.path().join("source");
    std::fs::write(&source, "").unwrap();
    add(&mut setup, bind(&source, "/swap/a/file"));
    setup.config["process"]["cwd"] = json!("/swap/b/c");
    setup.config["linux"]["devices"] = json!([
        {"path": "/swap/d/null", "type": "c", "major": 1, "minor": 3},
    ]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let here = rustix::fs::CWD;
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(here, root.join("swap"), here, root.join("link"), flags)
                    .unwrap();
            }
        });
        for _ in 0..30 {
            // Whether it succeeds depends on the moment.
            if let keelson_shim_protocol::Hello::Created { shim_pid, .. } = setup.hello() {
                let pid = nix::unistd::Pid::from_raw(shim_pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                eventually("the shim's end", || {
                    common::is_zombie(shim_pid) || !Path::new(&format!("/proc/{shim_pid}")).exists()
                });
            }
            let cgroup = common::cgroup_of(&setup.id);
            eventually("the cgroup's end", || {
                !cgroup.exists() || std::fs::remove_dir(&cgroup).is_ok()
            });
            assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
        }
        done.store(true, Ordering::Relaxed);
    });
}
