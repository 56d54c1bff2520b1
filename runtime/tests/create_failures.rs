//! Whatever fails while a container is made, nothing of it is left.

mod common;

use std::path::Path;
use std::process::Stdio;

use common::bundle::Bundle;
use common::{Setup, can_run, cgroup_of, eventually, is_zombie};
use keelson_shim_protocol::Rootfs;
use serde_json::{Value, json};

/// Processes whose command line names a directory, such as those of the runtime that make a
/// container from a bundle in it.
fn processes_of(directory: &Path) -> Vec<i32> {
    let directory = directory.to_string_lossy();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&*directory) && !is_zombie(*pid)
        })
        .collect()
}

fn nothing_is_mounted_in(directory: &Path, case: &str) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let directory = directory.to_string_lossy();
    assert!(!mounts.contains(&*directory), "{case}: a mount is left");
}

fn nothing_is_left(bundle: &Bundle, case: &str) {
    let directory = bundle.directory.path();
    let state = directory.join("state");
    let entries = std::fs::read_dir(state).into_iter().flatten().count();
    assert_eq!(entries, 0, "{case}: a state directory is left");
    let cgroup = cgroup_of(&bundle.id);
    assert!(!cgroup.exists(), "{case}: a cgroup is left");
    assert!(
        processes_of(directory).is_empty(),
        "{case}: a process is left"
    );
    nothing_is_mounted_in(directory, case);
    let files = std::fs::read_dir(directory).unwrap().flatten();
    let names: Vec<_> = files.map(|entry| entry.file_name()).collect();
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().starts_with(".pid")),
        "{case}: {names:?}"
    );
}

fn with_users(config: &mut Value) {
    let all = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    config["linux"]["uidMappings"] = all.clone();
    config["linux"]["gidMappings"] = all;
    push(config, "/linux/namespaces", json!({"type": "user"}));
}

fn push(config: &mut Value, list: &str, value: Value) {
    let list = config.pointer_mut(list).unwrap();
    list.as_array_mut().unwrap().push(value);
}

fn fails(config: &mut Value, kind: &str) {
    config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 9"]}]);
}

type Change = fn(&mut Value);

/// What makes creation fail, from the first step to the last, and what the message must name.
const STAGES: &[(&str, Change)] = &[
    ("linux.seccomp", |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NONE"});
    }),
    ("listenerPath", |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/such/agent",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        });
    }),
    ("linux.namespaces", |config| {
        let network = json!({"type": "network", "path": "/no/such/namespace"});
        config["linux"]["namespaces"][1] = network;
    }),
    ("uidMappings", |config| {
        with_users(config);
        config["linux"]["uidMappings"][0]["size"] = 0.into();
    }),
    ("linux.cgroupsPath", |config| {
        config["linux"]["cgroupsPath"] = "/../escape".into();
    }),
    ("no.such.file", |config| {
        config["linux"]["resources"]["unified"] = json!({"no.such.file": "1"});
    }),
    ("linux.resources.devices", |config| {
        config["linux"]["resources"]["devices"] = json!([{"allow": true, "type": "x"}]);
    }),
    ("/no/such/source", |config| {
        let bind = json!({
            "destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"],
        });
        push(config, "/mounts", bind);
    }),
    ("/no/such/source", |config| {
        with_users(config);
        let bind = json!({
            "destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"],
        });
        push(config, "/mounts", bind);
    }),
    ("/bin is one in the container", |config| {
        let bind = json!({
            "destination": "/bin", "type": "bind", "source": "/etc/passwd", "options": ["bind"],
        });
        push(config, "/mounts", bind);
    }),
    ("nosuchfs", |config| {
        push(
            config,
            "/mounts",
            json!({"destination": "/mnt", "type": "nosuchfs"}),
        );
    }),
    ("linux.devices[0]", |config| {
        let device = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 5});
        config["linux"]["devices"] = json!([device]);
    }),
    ("vm.swappiness", |config| {
        config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
    }),
    ("error running prestart hook #0: ", |config| {
        fails(config, "prestart")
    }),
    ("error running createRuntime hook #0: ", |config| {
        fails(config, "createRuntime")
    }),
    ("error running createContainer hook #0: ", |config| {
        fails(config, "createContainer")
    }),
    ("error running createContainer hook #0: ", |config| {
        with_users(config);
        fails(config, "createContainer");
    }),
    ("error running createRuntime hook #0: ", |config| {
        config["hooks"]["createRuntime"] = json!([{"path": "/no/such/hook"}]);
    }),
    ("process.rlimits[0]", |config| {
        let limit = json!({"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8});
        config["process"]["rlimits"] = json!([limit]);
    }),
    ("process.cwd", |config| {
        config["process"]["cwd"] = "/etc/passwd".into();
    }),
    ("no-such-command", |config| {
        config["process"]["args"] = json!(["no-such-command"]);
    }),
    ("no-such-command", |config| {
        with_users(config);
        config["process"]["args"] = json!(["no-such-command"]);
    }),
];

#[test]
fn nothing_is_left_by_create_and_run_whatever_fails() {
    if !can_run() {
        return;
    }
    for (named, change) in STAGES {
        for command in ["create", "run"] {
            let bundle = Bundle::new(&["true"], change);
            let message = bundle.fails(&[command, &bundle.id]);
            assert!(message.contains(named), "{named}: {message}");
            nothing_is_left(&bundle, &format!("{command}, {named}"));
        }
    }
}

#[test]
fn nothing_is_left_by_a_shim_whatever_fails() {
    if !can_run() {
        return;
    }
    let refused = |mut setup: Setup, named: &str, change: Change| {
        change(&mut setup.config);
        let message = setup.fails();
        assert!(message.contains(named), "{named}: {message}");
        let directory = setup.directory.path();
        assert!(
            !directory.join("shim.sock").exists(),
            "{named}: a socket is left"
        );
        assert!(!directory.join("exit.json").exists(), "{named}");
        eventually(named, || processes_of(directory).is_empty());
        nothing_is_mounted_in(directory, named);
    };
    for (named, change) in STAGES {
        refused(Setup::new(&["true"]), named, *change);
    }
    let mut setup = Setup::new(&["true"]);
    setup.spec.log.path = "/no/such/folder/log".into();
    refused(setup, "/no/such/folder", |_| {});
    let mut setup = Setup::new(&["true"]);
    let lower = vec!["/no/such/layer".into()];
    setup.spec.rootfs = Rootfs::Overlay {
        lower,
        upper: None,
        work: None,
    };
    refused(setup, "/no/such/layer", |_| {});
}

#[test]
fn nothing_is_left_if_the_caller_can_not_get_its_pid_file_or_terminal() {
    if !can_run() {
        return;
    }
    let hooked = |terminal: bool| {
        Bundle::new(&["true"], |config| {
            config["process"]["terminal"] = terminal.into();
            config["hooks"] = json!({
                "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "true"]}],
                "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > undone"]}],
            });
        })
    };
    for (terminal, options, named) in [
        (true, &["--console-socket", "none"][..], "--console-socket"),
        (false, &["--pid-file", "none/pid"], "--pid-file"),
        // A file can't replace a directory.
        (false, &["--pid-file", "rootfs"], "--pid-file"),
        (
            true,
            &["--console-socket", "rootfs", "--pid-file", "pid"],
            "--console-socket",
        ),
    ] {
        for command in [&["create"][..], &["run", "--detach"]] {
            let bundle = hooked(terminal);
            let arguments = [command, options, &[&bundle.id]].concat();
            let message = bundle.fails(&arguments);
            assert!(message.contains(named), "{message}");
            nothing_is_left(&bundle, named);
            let directory = bundle.directory.path();
            assert!(
                directory.join("undone").exists(),
                "{named}: no poststop hook"
            );
            assert!(!directory.join("pid").exists(), "{named}");
            assert!(!directory.join(".rootfs.new").exists(), "{named}");
        }
    }
}

#[test]
fn mounts_in_the_runtimes_own_namespace_are_removed() {
    if !can_run() {
        return;
    }
    let shares: Change = |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "mount");
    };
    for (options, change) in [
        (
            &[][..],
            (|config| fails(config, "createContainer")) as Change,
        ),
        (&[], |config| {
            config["process"]["cwd"] = "/etc/passwd".into()
        }),
        (&["--pid-file", "none/pid"], |_| {}),
    ] {
        let bundle = Bundle::new(&["true"], |config| {
            shares(config);
            change(config);
        });
        let message = bundle.fails(&[&["create"], options, &[&bundle.id]].concat());
        nothing_is_left(&bundle, &message);
    }
}

#[test]
fn a_start_that_fails_is_cleaned_up_by_run_and_by_delete() {
    if !can_run() {
        return;
    }
    let change: Change = |config| fails(config, "startContainer");
    let bundle = Bundle::new(&["true"], change);
    let message = bundle.fails(&["run", &bundle.id]);
    assert!(
        message.contains("error running startContainer hook #0: "),
        "{message}"
    );
    nothing_is_left(&bundle, "run");
    bundle.create(&[]);
    let message = bundle.fails(&["start", &bundle.id]);
    assert!(
        message.contains("error running startContainer hook #0: "),
        "{message}"
    );
    eventually("end", || bundle.status() == "stopped");
    bundle.ok(&["delete", &bundle.id]);
    nothing_is_left(&bundle, "delete");
}

#[test]
fn what_a_killed_create_leaves_ends_and_can_be_deleted() {
    if !can_run() {
        return;
    }
    for change in [(|_| {}) as Change, with_users] {
        // The runtime is the hook's parent.
        let bundle = Bundle::new(&["true"], |config| {
            change(config);
            let script = json!(["sh", "-c", "kill -9 $PPID"]);
            config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": script}]);
        });
        let output = bundle.call(&["create", &bundle.id]);
        assert_eq!(output.status.code(), None, "{output:?}");
        eventually("end", || processes_of(bundle.directory.path()).is_empty());
        // An ending process disappears from the list before the kernel reports that it has ended.
        eventually("stopped", || bundle.status() == "stopped");
        bundle.ok(&["delete", &bundle.id]);
        nothing_is_left(&bundle, "killed while it runs a hook");

        let mut setup = Setup::new(&["true"]);
        change(&mut setup.config);
        let script = json!(["sh", "-c", "kill -9 $PPID"]);
        setup.config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": script}]);
        let (read, write) = std::io::pipe().unwrap();
        setup.execute(write);
        assert_eq!(std::io::read_to_string(read).unwrap(), "");
        eventually("end", || processes_of(setup.directory.path()).is_empty());
        let cgroup = cgroup_of(&setup.id);
        eventually("the cgroup is empty", || {
            std::fs::remove_dir(&cgroup).is_ok()
        });
    }
}

#[test]
fn a_container_whose_create_was_killed_at_its_end_can_be_deleted() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["true"], |config| {
        config["process"]["terminal"] = true.into()
    });
    let directory = bundle.directory.path();
    let _full = common::full_socket(&directory.join("console"));
    let mut create = bundle
        .command(&["create", "--console-socket", "console", &bundle.id])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let state = directory.join("state").join(&bundle.id).join("state.json");
    eventually("the container's process", || state.exists());
    eventually("create waits for the console", || {
        let file = format!("/proc/{}/wchan", create.id());
        std::fs::read_to_string(file).is_ok_and(|place| place.contains("unix_wait_for_peer"))
    });
    assert_eq!(bundle.status(), "creating");
    assert!(bundle.fails(&["start", &bundle.id]).contains("creating"));
    create.kill().unwrap();
    create.wait().unwrap();
    assert!(bundle.fails(&["delete", &bundle.id]).contains("creating"));
    bundle.ok(&["delete", "--force", &bundle.id]);
    nothing_is_left(&bundle, "killed before the end");
}
