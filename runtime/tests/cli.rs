//! The command line, as runc's users call it.

mod common;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use common::bundle::Bundle;
use common::{RUNTIME, can_run, eventually};
use serde_json::{Value, json};

#[test]
fn a_container_goes_through_its_life() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "echo hello; sleep 1000"], |_| {});
    bundle.create(&["--pid-file", "pid"]);
    let id = bundle.id.as_str();
    assert_eq!(bundle.status(), "created");
    let pid = std::fs::read_to_string(bundle.directory.path().join("pid")).unwrap();
    let state: Value = serde_json::from_str(&bundle.ok(&["state", id])).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    assert_eq!(bundle.output(), "");
    assert!(bundle.fails(&["create", id]).contains("exists already"));
    bundle.ok(&["start", id]);
    eventually("output", || bundle.output() == "hello\n");
    assert_eq!(bundle.status(), "running");
    assert!(bundle.fails(&["start", id]).contains("running"));
    let list: Value = serde_json::from_str(&bundle.ok(&["list", "--format=json"])).unwrap();
    assert_eq!(list[0]["status"], "running");
    assert!(bundle.ok(&["list"]).contains(id));
    let pids: Value = serde_json::from_str(&bundle.ok(&["ps", "-f", "json", id])).unwrap();
    assert!(
        pids.as_array()
            .unwrap()
            .iter()
            .any(|entry| entry.as_i64() == pid.parse().ok())
    );
    bundle.ok(&["pause", id]);
    assert_eq!(bundle.status(), "paused");
    bundle.ok(&["resume", id]);
    assert!(bundle.fails(&["delete", id]).contains("running"));
    bundle.ok(&["kill", id, "KILL"]);
    eventually("end", || bundle.status() == "stopped");
    assert!(bundle.fails(&["kill", id, "TERM"]).contains("not running"));
    bundle.ok(&["delete", id]);
    bundle.assert_gone();
}

#[test]
fn run_gives_output_and_exit_code() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "cat; echo err >&2; exit 5"], |_| {});
    std::fs::write(bundle.directory.path().join("in"), "input\n").unwrap();
    let input = std::fs::File::open(bundle.directory.path().join("in")).unwrap();
    let output = bundle
        .command(&["run", &bundle.id])
        .stdin(input)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(output.stdout, b"input\n");
    assert_eq!(output.stderr, b"err\n");
    bundle.assert_gone();
}

#[test]
fn groups_of_the_caller_are_kept_on_request() {
    if !can_run() {
        return;
    }
    let groups = |annotation: &str| {
        let bundle = Bundle::new(&["grep", "^Groups:", "/proc/self/status"], |config| {
            config["annotations"]["run.oci.keep_original_groups"] = json!(annotation);
            config["process"]["user"]["additionalGids"] = json!([7]);
        });
        let output = Command::new("setpriv")
            .args(["--groups", "1234,5678", &RUNTIME, "--root"])
            .arg(bundle.directory.path().join("root"))
            .args(["run", "--bundle"])
            .arg(bundle.directory.path())
            .arg(&bundle.id)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let groups = text.split_whitespace().skip(1);
        groups.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(groups("1"), ["1234", "5678"]);
    assert_eq!(groups("0"), ["7"]);
}

#[test]
fn run_passes_signals_on() {
    if !can_run() {
        return;
    }
    let script = "trap 'echo got; exit 4' TERM; echo ready; while true; do sleep 0.05; done";
    let bundle = Bundle::new(&["sh", "-c", script], |_| {});
    let out = std::fs::File::create(bundle.directory.path().join("out")).unwrap();
    let mut child = bundle
        .command(&["run", &bundle.id])
        .stdout(out)
        .spawn()
        .unwrap();
    eventually("ready", || bundle.output() == "ready\n");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert_eq!(bundle.output(), "ready\ngot\n");
}

#[test]
fn all_processes_are_signalled_also_those_that_the_first_one_left_behind() {
    if !can_run() {
        return;
    }
    let script = "while sleep 0.01; do sleep 1000 & done";
    let bundle = Bundle::new(&["sh", "-c", script], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    bundle.create(&["--pid-file", "pid"]);
    bundle.ok(&["start", &bundle.id]);
    let processes = || {
        let file = common::cgroup_of(&bundle.id).join("cgroup.procs");
        std::fs::read_to_string(file).unwrap().lines().count()
    };
    eventually("some processes", || processes() > 3);
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    eventually("end of the first", || bundle.status() == "stopped");
    assert!(processes() > 0, "the others go on");
    bundle.ok(&["kill", "--all", &bundle.id, "KILL"]);
    eventually("end of all", || processes() == 0);
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_gone();
}

#[test]
fn delete_by_force_kills() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"], |_| {});
    bundle.create(&[]);
    bundle.ok(&["start", &bundle.id]);
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_gone();
    bundle.ok(&["delete", "--force", &bundle.id]);
    // A container that was never started needs no force.
    bundle.create(&[]);
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_gone();
}

#[test]
fn the_terminal_goes_to_the_console_socket() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["tty"], |config| {
        config["process"]["terminal"] = true.into()
    });
    let listener = UnixListener::bind(bundle.directory.path().join("console")).unwrap();
    bundle.create(&["--console-socket", "console"]);
    let (socket, _) = listener.accept().unwrap();
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let mut buffer = [0u8; 64];
    let mut slices = [std::io::IoSliceMut::new(&mut buffer)];
    let message = nix::sys::socket::recvmsg::<()>(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &mut slices,
        Some(&mut space),
        nix::sys::socket::MsgFlags::empty(),
    )
    .unwrap();
    let fd = message
        .cmsgs()
        .unwrap()
        .find_map(|control| match control {
            nix::sys::socket::ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
        .expect("a descriptor");
    bundle.ok(&["start", &bundle.id]);
    let mut text = [0; 64];
    let path = format!("/proc/self/fd/{fd}");
    assert!(Path::new(&path).exists());
    let mut seen = Vec::new();
    while let Ok(length) = nix::unistd::read(borrowed(fd), &mut text) {
        seen.extend_from_slice(&text[..length]);
        if length == 0 || seen.ends_with(b"\n") {
            break;
        }
    }
    assert_eq!(seen, b"/dev/pts/0\r\n");
}

/// The received descriptor. It lives as long as the test.
#[allow(unsafe_code)]
fn borrowed(fd: std::os::fd::RawFd) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: received above and never closed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}

#[test]
fn failures_name_the_cause_and_leave_nothing() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["no-such-command"], |_| {});
    let id = bundle.id.as_str();
    let message = bundle.fails(&["--log", "log", "--log-format", "json", "run", id]);
    assert!(
        message.contains("executable file not found in $PATH"),
        "{message}"
    );
    let log = std::fs::read_to_string(bundle.directory.path().join("log")).unwrap();
    let line: Value = serde_json::from_str(&log).unwrap();
    assert!(line["msg"].as_str().unwrap().contains("not found"), "{log}");
    bundle.assert_gone();
    for (arguments, wanted) in [
        (&["checkpoint", "x"][..], "not supported"),
        (&["--systemd-cgroup", "list"], "systemd"),
        (&["create", "a/b"], "only letters"),
        (&["create"], "exactly one"),
        (&["create", "--no-such", "x"], "--no-such"),
        (&["start", "missing"], "does not exist"),
        (&["frobnicate"], "No help topic for 'frobnicate'"),
        (&["create", "-b", "/nowhere", "x"], "/nowhere"),
    ] {
        let message = bundle.fails(arguments);
        assert!(message.contains(wanted), "{arguments:?}: {message}");
    }
}

#[test]
fn features_and_spec_are_documents() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["true"], |_| {});
    let features: Value = serde_json::from_str(&bundle.ok(&["features"])).unwrap();
    assert_eq!(features["ociVersionMax"], "1.2.0");
    assert_eq!(features["linux"]["seccomp"]["enabled"], json!(true));
    std::fs::remove_file(bundle.directory.path().join("config.json")).unwrap();
    bundle.ok(&["spec"]);
    assert!(bundle.fails(&["spec"]).contains("config.json"));
    let path = bundle.directory.path().join("config.json");
    let mut example: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(example["process"]["terminal"], json!(true));
    example["process"]["args"] = json!(["true"]);
    std::fs::write(&path, example.to_string()).unwrap();
    let output = bundle.call(&["run", &bundle.id]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn closed_standard_streams_are_the_null_device() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"], |_| {});
    let state = bundle.directory.path().join("state");
    let script = "exec \"$0\" --root \"$1\" create --pid-file pid \"$2\" 0<&- 1>&- 2>&-";
    let status = Command::new("sh")
        .args(["-c", script, &RUNTIME])
        .arg(&state)
        .arg(&bundle.id)
        .current_dir(bundle.directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    let pid = std::fs::read_to_string(bundle.directory.path().join("pid")).unwrap();
    for fd in 0..3 {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "descriptor {fd}");
    }
}

/// A hook that appends its kind, the namespace it runs in and its state to a file.
fn recording_hook(kind: &str, file: &Path) -> Value {
    let script = format!(
        "echo \"{kind} $KIND $0 $(cat) $(readlink /proc/self/ns/mnt)\" >> {}",
        file.display()
    );
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": [format!("KIND={kind}"), "PATH=/bin:/usr/bin"], "timeout": 20}])
}

#[test]
fn hooks_run_at_their_time() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"], |_| {});
    let host = bundle.directory.path().join("hooks");
    let path = bundle.directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        config["hooks"][kind] = recording_hook(kind, &host);
    }
    config["hooks"]["startContainer"] = recording_hook("startContainer", Path::new("/hooks"));
    config["annotations"]["org.example"] = "kept".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let kinds = || -> Vec<String> {
        let text = std::fs::read_to_string(&host).unwrap_or_default();
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        text.lines().map(first).collect()
    };

    bundle.create(&["--pid-file", "pid"]);
    let inside = bundle.directory.path().join("rootfs/hooks");
    assert_eq!(kinds(), ["prestart", "createRuntime", "createContainer"]);
    assert!(!inside.exists());
    bundle.ok(&["start", &bundle.id]);
    assert_eq!(kinds().last().unwrap(), "poststart");
    bundle.ok(&["delete", "--force", &bundle.id]);
    assert_eq!(kinds().last().unwrap(), "poststop");

    let pid = std::fs::read_to_string(bundle.directory.path().join("pid")).unwrap();
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let text = std::fs::read_to_string(&host).unwrap() + &std::fs::read_to_string(inside).unwrap();
    for (kind, status, outside) in [
        ("prestart", "creating", true),
        ("createRuntime", "creating", true),
        ("createContainer", "creating", false),
        ("startContainer", "created", false),
        ("poststart", "running", true),
        ("poststop", "stopped", true),
    ] {
        let line = text.lines().find(|line| line.starts_with(kind)).unwrap();
        let rest = line.strip_prefix(&format!("{kind} {kind} sh "));
        let (state, namespace) = rest.expect(line).rsplit_once(' ').unwrap();
        let state: Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], bundle.id.as_str(), "{kind}");
        assert_eq!(state["annotations"]["org.example"], "kept", "{kind}");
        if status != "stopped" {
            assert_eq!(state["pid"].to_string(), pid, "{kind}");
        }
        assert_eq!(Path::new(namespace) == own, outside, "{kind}");
    }
}

#[test]
fn a_hook_that_fails_or_hangs_ends_the_container() {
    if !can_run() {
        return;
    }
    for (kind, script, wanted) in [
        ("createRuntime", "exit 3", "exit status 3"),
        ("createContainer", "exit 3", "exit status 3"),
        ("startContainer", "exit 3", "exit status 3"),
        ("prestart", "exec sleep 1000", "within 1 s"),
    ] {
        let bundle = Bundle::new(&["true"], |config| {
            config["hooks"][kind] =
                json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1}]);
        });
        let message = bundle.fails(&["run", &bundle.id]);
        assert!(message.contains(wanted), "{kind}: {message}");
        assert!(
            message.contains(&format!("error running {kind} hook #0: ")),
            "{message}"
        );
        bundle.assert_gone();
    }
}

#[test]
fn limits_and_usage_of_a_running_container() {
    if !can_run() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"], |_| {});
    let id = bundle.id.as_str();
    bundle.create(&[]);
    bundle.ok(&["start", id]);
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", id])).unwrap();
    assert_eq!(stats["id"], id);
    assert_eq!(stats["data"]["pids"]["current"], 1);
    let table = bundle.ok(&["ps", id, "-o", "pid,args", "-A"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines[0].contains("PID") && lines[1].contains("sleep 1000"),
        "{table}"
    );
    assert_eq!(lines.len(), 2, "{table}");
    let controllers = std::fs::read_to_string(common::cgroup_root().join("cgroup.controllers"));
    let cgroup = common::cgroup_of(id);
    if controllers.is_ok_and(|text| text.contains("pids")) {
        bundle.ok(&["update", "--pids-limit", "77", id]);
        let limit = || std::fs::read_to_string(cgroup.join("pids.max")).unwrap();
        assert_eq!(limit().trim(), "77");
        bundle.ok(&["update", "--pids-limit=-1", id]);
        assert_eq!(limit().trim(), "max");
    } else {
        let message = bundle.fails(&["update", "--pids-limit", "77", id]);
        assert!(
            message.contains("no cgroup v2 controller \"pids\""),
            "{message}"
        );
    }
    for (arguments, wanted) in [
        (&["update", "--pids-limit", "x", id][..], "not a number"),
        (&["update", "--l3-cache-schema", "x", id], "RDT"),
        (&["update", "--resources", "/nowhere", id], "/nowhere"),
        (&["ps", "--format", "xml", id], "xml"),
        (&["checkpoint", id], "not supported"),
        (&["restore", id], "not supported"),
    ] {
        let message = bundle.fails(arguments);
        assert!(message.contains(wanted), "{arguments:?}: {message}");
    }
}
