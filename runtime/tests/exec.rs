//! Additional processes in a container: sessions of the shim, and the `exec` command.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use common::{Connection, RUNTIME, Setup, Shim, can_run, eventually};
use keelson_shim_protocol::{FailReason, Request, Response};
use serde_json::{Value, json};

/// A container that only sleeps.
fn container() -> Shim {
    let shim = Setup::new(&["sleep", "1000"]).create();
    shim.start();
    shim
}

/// A process like the container's own.
fn process(args: &[&str]) -> Value {
    common::config(args, "")["process"].clone()
}

/// A session that was made: its name, and a connection attached to it.
struct Session {
    name: String,
    attached: Connection,
}

impl Session {
    fn make(shim: &Shim, name: &str, process: Value, stdin: bool) -> Self {
        let made = shim.call(&Request::Exec {
            exec: name.to_owned(),
            process,
            open_stdin: stdin,
        });
        assert_eq!(made, Response::Done);
        let mut attached = shim.connect();
        let request = Request::Attach {
            exec: Some(name.to_owned()),
            stdin,
            stdout: true,
            stderr: true,
        };
        assert_eq!(attached.call(&request), Response::Done);
        Self {
            name: name.to_owned(),
            attached,
        }
    }

    fn start(&self, shim: &Shim) -> i32 {
        match self.try_start(shim) {
            Response::Started { pid } => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    fn try_start(&self, shim: &Shim) -> Response {
        shim.call(&Request::ExecStart {
            exec: self.name.clone(),
        })
    }

    fn wait(&self, shim: &Shim) -> i32 {
        let request = Request::Wait {
            exec: Some(self.name.clone()),
        };
        match shim.call(&request) {
            Response::Exited(exit) => {
                assert!(exit.started_at > 0 && exit.finished_at >= exit.started_at);
                exit.code
            }
            other => panic!("no exit: {other:?}"),
        }
    }
}

/// Runs a process to its end: standard output, standard error, exit code.
fn exec(shim: &Shim, process: Value) -> (String, String, i32) {
    let mut session = Session::make(shim, "one", process, false);
    session.start(shim);
    let (out, error) = session.attached.read_all();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let code = session.wait(shim);
    (text(&out), text(&error), code)
}

/// The same for a script, whose standard error must be empty.
fn script(shim: &Shim, script: &str) -> String {
    let (out, error, code) = exec(shim, process(&["sh", "-c", script]));
    assert_eq!((error.as_str(), code), ("", 0), "{script}: {out}");
    out
}

#[test]
fn a_process_shares_everything_with_the_container() {
    if !can_run() {
        return;
    }
    let shim = container();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let own = std::fs::read_link(format!("/proc/{}/ns/{kind}", shim.pid)).unwrap();
        let seen = script(&shim, &format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(seen.trim(), own.to_string_lossy(), "{kind}");
    }
    let confined = |pid: &str| {
        let wanted = [
            "CapPrm",
            "CapBnd",
            "CapEff",
            "NoNewPrivs",
            "Seccomp:",
            "Umask",
        ];
        let text = script(&shim, &format!("cat /proc/{pid}/status"));
        text.lines()
            .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let own = confined("1");
    assert_eq!(own.len(), 6);
    assert_eq!(confined("self"), own);
    assert!(own.contains(&"Seccomp:\t2".to_owned()), "{own:?}");
    assert_eq!(
        script(&shim, "cat /proc/self/cgroup | grep ^0:").trim(),
        "0::/"
    );
    assert_eq!(
        script(&shim, "hostname; ls / | grep -c proc"),
        "testhost\n1\n"
    );
    // No descriptor of the shim is open.
    let session = Session::make(&shim, "files", process(&["sleep", "1000"]), false);
    let pid = session.start(&shim);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut open: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    // The filter is at work: a new user namespace is not allowed.
    let (_, error, code) = exec(&shim, process(&["unshare", "-r", "true"]));
    assert_ne!(code, 0, "{error}");
}

#[test]
fn user_directory_environment_and_limits_are_those_asked_for() {
    if !can_run() {
        return;
    }
    let shim = container();
    let mut process = process(&[
        "sh",
        "-c",
        "id; pwd; env; ulimit -n; cat /proc/self/oom_score_adj; grep -E 'NoNewPrivs|CapEff' /proc/self/status",
    ]);
    process["user"] = json!({"uid": 1000, "gid": 7, "additionalGids": [8]});
    process["cwd"] = json!("/tmp");
    process["env"] = json!(["PATH=/bin", "X=y z"]);
    process["noNewPrivileges"] = json!(true);
    process["oomScoreAdj"] = json!(77);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 99}]);
    process["capabilities"] = json!({});
    let (out, error, code) = exec(&shim, process.clone());
    assert_eq!((error.as_str(), code), ("", 0));
    for wanted in [
        "uid=1000(user) gid=7 groups=8\n",
        "\n/tmp\n",
        "\nX=y z\n",
        "\nHOME=/home/user\n",
        "\n99\n77\n",
        "CapEff:\t0000000000000000\n",
        "NoNewPrivs:\t1\n",
    ] {
        assert!(out.contains(wanted), "{wanted:?}: {out}");
    }
    process["cwd"] = json!("/proc/self/fd/9");
    let session = Session::make(&shim, "escape", process, false);
    match session.try_start(&shim) {
        Response::Failed { message, reason } => {
            assert!(message.contains("process.cwd"), "{message}");
            assert_ne!(reason, FailReason::Internal);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn exit_codes_and_failures_are_told_apart() {
    if !can_run() {
        return;
    }
    let shim = container();
    assert_eq!(exec(&shim, process(&["sh", "-c", "exit 7"])).2, 7);
    assert_eq!(exec(&shim, process(&["sh", "-c", "kill -9 $$"])).2, 137);
    let out = exec(&shim, process(&["sh", "-c", "echo out; echo err >&2"]));
    assert_eq!(out, ("out\n".to_owned(), "err\n".to_owned(), 0));
    std::fs::write(shim.directory.path().join("upper/text"), "text").unwrap();
    for (command, wanted) in [
        ("no-such", FailReason::NotFound),
        ("/no/such", FailReason::NotFound),
        ("/etc/passwd", FailReason::NotExecutable),
        ("/etc", FailReason::NotExecutable),
    ] {
        let mut session = Session::make(&shim, command, process(&[command]), false);
        match session.try_start(&shim) {
            Response::Failed { reason, .. } => assert_eq!(reason, wanted, "{command}"),
            other => panic!("{command}: {other:?}"),
        }
        assert_eq!(session.attached.frame(), None);
        // The name is free again.
        drop(Session::make(&shim, command, process(&["true"]), false));
    }
    let unknown = shim.call(&Request::Wait {
        exec: Some("unknown".to_owned()),
    });
    assert!(matches!(unknown, Response::Failed { .. }), "{unknown:?}");
    // Nothing of this disturbed the container.
    assert!(script(&shim, "ps").contains("sleep 1000"));
    assert_eq!(shim.output(), "");
}

/// Clock ticks (of 10 ms) that a process has used.
fn processor_time(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

#[test]
fn large_output_is_complete_and_a_stalled_client_stops_only_its_process() {
    if !can_run() {
        return;
    }
    let shim = container();
    // Nobody reads this one for now.
    let mut stalled = Session::make(
        &shim,
        "stalled",
        process(&["sh", "-c", "seq 1 200000; echo end >&2"]),
        false,
    );
    stalled.start(&shim);
    let wanted: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    // Waiting for the client costs nothing.
    eventually("the shim is idle", || {
        let before = processor_time(shim.shim_pid);
        std::thread::sleep(std::time::Duration::from_millis(200));
        processor_time(shim.shim_pid) == before
    });
    let (out, _, code) = exec(&shim, process(&["seq", "1", "200000"]));
    assert_eq!(code, 0);
    assert!(out == wanted, "{} bytes", out.len());
    let (out, error) = stalled.attached.read_all();
    assert!(out == wanted.as_bytes(), "{} bytes", out.len());
    assert_eq!(error, b"end\n");
    assert_eq!(stalled.wait(&shim), 0);
    // A client that goes away does not stop the process.
    let gone = Session::make(
        &shim,
        "gone",
        process(&["sh", "-c", "seq 1 200000; exit 5"]),
        false,
    );
    gone.start(&shim);
    gone.attached.0.shutdown(Shutdown::Both).unwrap();
    assert_eq!(gone.wait(&shim), 5);
}

#[test]
fn many_sessions_run_at_the_same_time_and_end_with_the_container() {
    if !can_run() {
        return;
    }
    let shim = container();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let shim = &shim;
            scope.spawn(move || {
                let name = format!("s{number}");
                let code = number.to_string();
                let process = process(&["sh", "-c", "seq 1 5000; exit $0", &code]);
                let mut session = Session::make(shim, &name, process, false);
                session.start(shim);
                let (out, _) = session.attached.read_all();
                assert!(out.ends_with(b"\n4999\n5000\n"), "{number}");
                assert_eq!(session.wait(shim), number);
            });
        }
    });
    // The end comes while other processes have not executed their command yet.
    let mut connections = Vec::new();
    for number in 0..20 {
        let name = format!("late{number}");
        let session = Session::make(&shim, &name, process(&["sleep", "1000"]), false);
        let mut starting = shim.connect();
        starting.send(&Request::ExecStart { exec: name });
        connections.push((session, starting));
    }
    let kill = Request::Kill {
        signal: 9,
        all: false,
    };
    assert_eq!(shim.call(&kill), Response::Done);
    for (mut session, mut starting) in connections {
        // It started or failed; in both cases it is answered, and the stream ends.
        starting.receive();
        assert_eq!(session.attached.frame(), None);
    }
    assert_eq!(shim.wait().code, 137);
    shim.gone();
}

#[test]
fn input_arrives_with_its_end() {
    if !can_run() {
        return;
    }
    let shim = container();
    let mut session = Session::make(&shim, "in", process(&["sh", "-c", "cat; exit 3"]), true);
    // Before the start, and more than a pipe holds.
    let input: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let mut writer = session.attached.0.try_clone().unwrap();
    let sent = input.clone();
    let feeder = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    session.start(&shim);
    let (out, _) = session.attached.read_all();
    feeder.join().unwrap();
    assert!(out == input, "{} bytes", out.len());
    assert_eq!(session.wait(&shim), 3);
    // Without an open input there is nothing to read.
    assert_eq!(script(&shim, "cat; echo done"), "done\n");
}

#[test]
fn a_terminal_is_the_controlling_one_and_can_be_resized() {
    if !can_run() {
        return;
    }
    let shim = container();
    let mut process = process(&[
        "sh",
        "-c",
        "tty; stty size; read line; stty size; echo got $line >/dev/tty",
    ]);
    process["terminal"] = json!(true);
    process["consoleSize"] = json!({"height": 11, "width": 22});
    let mut session = Session::make(&shim, "tty", process, true);
    session.start(&shim);
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("11 22") {
        seen.extend(session.attached.frame().expect("more output").1);
    }
    let resized = shim.call(&Request::Resize {
        exec: Some("tty".to_owned()),
        rows: 33,
        columns: 44,
    });
    assert_eq!(resized, Response::Done);
    session.attached.0.write_all(b"typed\n").unwrap();
    seen.extend(session.attached.read_all().0);
    let text = String::from_utf8_lossy(&seen);
    assert!(text.starts_with("/dev/pts/0\r\n11 22\r\n"), "{text:?}");
    assert!(text.ends_with("33 44\r\ngot typed\r\n"), "{text:?}");
    assert_eq!(session.wait(&shim), 0);
}

#[test]
fn the_containers_end_ends_its_sessions() {
    if !can_run() {
        return;
    }
    let shim = container();
    let mut running = Session::make(&shim, "running", process(&["sleep", "1000"]), false);
    let pid = running.start(&shim);
    let mut unstarted = Session::make(&shim, "unstarted", process(&["true"]), false);
    let mut waiting = shim.connect();
    waiting.send(&Request::Wait {
        exec: Some("running".to_owned()),
    });
    let kill = Request::Kill {
        signal: 9,
        all: false,
    };
    assert_eq!(shim.call(&kill), Response::Done);
    assert!(matches!(waiting.receive(), Response::Exited(exit) if exit.code == 137));
    assert_eq!(running.attached.frame(), None);
    assert_eq!(unstarted.attached.frame(), None);
    assert_eq!(shim.wait().code, 137);
    shim.gone();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_shims_death_ends_its_sessions() {
    if !can_run() {
        return;
    }
    let shim = container();
    let session = Session::make(&shim, "orphan", process(&["sleep", "1000"]), false);
    let pid = session.start(&shim);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim.shim_pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    eventually("end of the session", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists() || common::is_zombie(pid)
    });
}

#[test]
fn output_that_others_hold_open_is_given_up() {
    if !can_run() {
        return;
    }
    let shim = container();
    let (out, _, code) = exec(&shim, process(&["sh", "-c", "sleep 1000 & echo started"]));
    assert_eq!((out.as_str(), code), ("started\n", 0));
}

#[test]
fn a_paused_container_takes_no_sessions() {
    if !can_run() {
        return;
    }
    let shim = container();
    assert_eq!(shim.call(&Request::Pause), Response::Done);
    let refused = shim.call(&Request::Exec {
        exec: "no".to_owned(),
        process: process(&["true"]),
        open_stdin: false,
    });
    match refused {
        Response::Failed { message, .. } => assert!(message.contains("is paused"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(shim.call(&Request::Resume), Response::Done);
    assert_eq!(script(&shim, "echo thawed"), "thawed\n");
}

#[test]
fn bad_processes_are_refused_by_name() {
    if !can_run() {
        return;
    }
    let shim = container();
    for (process, wanted) in [
        (json!({"args": [], "cwd": "/"}), "process.args"),
        (json!({"args": ["a"], "cwd": "x"}), "process.cwd"),
        (json!({"args": "a"}), "process"),
        (
            json!({"args": ["a"], "cwd": "/", "selinuxLabel": "x"}),
            "process.selinuxLabel",
        ),
    ] {
        let refused = shim.call(&Request::Exec {
            exec: "bad".to_owned(),
            process,
            open_stdin: false,
        });
        match refused {
            Response::Failed { message, .. } => assert!(message.contains(wanted), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

/// A container of the command line, deleted at the end.
struct CliContainer {
    directory: tempfile::TempDir,
    id: String,
}

impl CliContainer {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy();
        let id = format!("exec-{}", name.trim_start_matches('.'));
        common::make_root(&directory.path().join("rootfs"));
        let config = common::config(&["sleep", "1000"], &common::cgroup_path(&id));
        let text = serde_json::to_vec(&config).unwrap();
        std::fs::write(directory.path().join("config.json"), text).unwrap();
        let container = Self { directory, id };
        let status = container.command("run", &["--detach"], &[]).status();
        assert!(status.unwrap().success());
        container
    }

    fn command(&self, command: &str, options: &[&str], rest: &[&str]) -> Command {
        let mut line = Command::new(&*RUNTIME);
        line.arg("--root")
            .arg(self.directory.path().join("state"))
            .arg(command)
            .args(options)
            .arg(&self.id)
            .args(rest)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        line
    }

    fn exec(&self, options: &[&str], rest: &[&str]) -> (i32, String, String) {
        let output = self.command("exec", options, rest).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

impl Drop for CliContainer {
    fn drop(&mut self) {
        let _ = self.command("delete", &["--force"], &[]).output();
    }
}

#[test]
fn the_exec_command_is_runcs() {
    if !can_run() {
        return;
    }
    let container = CliContainer::start();
    let (code, out, _) = container.exec(
        &["--user", "1000:7", "-g", "8", "--cwd=/tmp", "--env", "A=b"],
        &["sh", "-c", "id; pwd; echo $A; exit 9"],
    );
    assert_eq!(
        (code, out.as_str()),
        (9, "uid=1000(user) gid=7 groups=8\n/tmp\nb\n")
    );
    let (code, _, error) = container.exec(&[], &["no-such"]);
    assert_eq!(code, 255);
    assert!(
        error.contains("executable file not found in $PATH"),
        "{error}"
    );
    let caps = |options: &[&str]| {
        let script = "grep -E 'CapEff|NoNewPrivs' /proc/self/status";
        container.exec(options, &["sh", "-c", script]).1
    };
    assert!(caps(&[]).contains("CapEff:\t00000000a80425fb\nNoNewPrivs:\t0"));
    let raised = caps(&["--cap", "CAP_SYS_ADMIN", "--no-new-privs"]);
    assert!(
        raised.contains("CapEff:\t00000000a82425fb\nNoNewPrivs:\t1"),
        "{raised}"
    );

    let mut process = process(&["sh", "-c", "echo from file"]);
    process["user"] = json!({"uid": 0, "gid": 0});
    let path = container.directory.path().join("process.json");
    std::fs::write(&path, serde_json::to_vec(&process).unwrap()).unwrap();
    let (code, out, _) = container.exec(&["--process", "process.json"], &[]);
    assert_eq!((code, out.as_str()), (0, "from file\n"));

    let status = container
        .command("exec", &["-d", "--pid-file", "pid"], &["sleep", "999"])
        .status();
    assert!(status.unwrap().success());
    let pid = std::fs::read_to_string(container.directory.path().join("pid")).unwrap();
    let seen = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(seen, "sleep\0999\0");

    container.command("pause", &[], &[]).status().unwrap();
    let (code, _, error) = container.exec(&[], &["true"]);
    assert_eq!(code, 255);
    assert!(
        error.contains("cannot exec in a paused container"),
        "{error}"
    );
    container.command("resume", &[], &[]).status().unwrap();
}

#[test]
fn the_exec_command_passes_terminals_and_descriptors_on() {
    if !can_run() {
        return;
    }
    let container = CliContainer::start();
    let (code, _, error) = container.exec(&["--preserve-fds", "7"], &["true"]);
    assert_eq!(code, 255);
    assert!(error.contains("is not open"), "{error}");
    let (code, _, error) = container.exec(&["--tty", "--detach"], &["true"]);
    assert_eq!(code, 255);
    assert!(error.contains("--console-socket"), "{error}");

    let listener = UnixListener::bind(container.directory.path().join("console")).unwrap();
    let mut child = container
        .command(
            "exec",
            &["--tty", "--console-socket", "console"],
            &["sh", "-c", "tty; exit 4"],
        )
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    rustix::net::recvmsg(
        &stream,
        &mut [std::io::IoSliceMut::new(&mut name)],
        &mut control,
        rustix::net::RecvFlags::empty(),
    )
    .unwrap();
    let master = control
        .drain()
        .find_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .unwrap();
    let mut seen = Vec::new();
    // A terminal whose other end is closed answers EIO.
    let _ = std::fs::File::from(master).read_to_end(&mut seen);
    assert_eq!(String::from_utf8_lossy(&seen), "/dev/pts/0\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn namespaces_that_the_container_shares_with_the_host_stay_so() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sleep", "1000"]);
    setup.config["linux"]["namespaces"] = json!([{"type": "mount"}]);
    setup.config["hostname"] = json!(null);
    // These file systems belong to namespaces.
    let mounts = setup.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !["cgroup", "mqueue"].contains(&mount["type"].as_str().unwrap()));
    let shim = setup.create();
    shim.start();
    let script = "for kind in mnt pid net ipc uts cgroup user time; do \
                  readlink /proc/self/ns/$kind; done";
    let (output, code) = shim.exec("one", process(&["sh", "-c", script])).unwrap();
    assert_eq!(code, 0, "{output}");
    let link = |owner: i32, kind: &str| {
        let link = std::fs::read_link(format!("/proc/{owner}/ns/{kind}")).unwrap();
        link.to_string_lossy().into_owned()
    };
    let own = std::process::id() as i32;
    let expected =
        ["pid", "net", "ipc", "uts", "cgroup", "user", "time"].map(|kind| link(own, kind));
    let found: Vec<&str> = output.lines().collect();
    assert_eq!(found[0], link(shim.pid, "mnt"));
    assert_eq!(found[1..], expected);
    shim.call(&Request::Kill {
        signal: 9,
        all: true,
    });
    shim.wait();
}
