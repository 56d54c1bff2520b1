//! Life of a container under its shim.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use common::{Connection, Setup, can_run, eventually, run_script};
use keelson_shim_protocol::{Exit, FailReason, Hello, OciStatus, Request, Response, encode};

#[test]
fn output_and_exit_code_arrive() {
    if !can_run() {
        return;
    }
    let setup = Setup::new(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let shim = setup.create();
    let mut attached = shim.attach(false);
    let mut waiting = shim.connect();
    waiting.send(&Request::Wait { exec: None });
    shim.start();
    assert_eq!(attached.read_all(), (b"out\n".to_vec(), b"err\n".to_vec()));
    let Response::Exited(exit) = waiting.receive() else {
        panic!("no exit");
    };
    assert_eq!((exit.code, exit.oom_killed, &exit.error), (7, false, &None));
    assert!(exit.started_at > 0 && exit.finished_at > exit.started_at);
    assert_eq!(shim.wait(), exit);
    assert!(shim.output().contains("out\n"));
    shim.gone();
}

#[test]
fn a_container_that_nobody_waits_for_is_ended() {
    if !can_run() {
        return;
    }
    let setup = Setup::new(&["sleep", "1000"]);
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    setup.execute(write);
    let path = setup.directory.path();
    eventually("exit.json", || path.join("exit.json").exists());
    let exit: Exit =
        serde_json::from_slice(&std::fs::read(path.join("exit.json")).unwrap()).unwrap();
    assert_eq!((exit.code, exit.started_at), (128 + 9, 0));
    eventually("end of the socket", || !path.join("shim.sock").exists());
    let cgroup = common::cgroup_of(&setup.id);
    assert!(!cgroup.exists(), "a cgroup is left");
}

#[test]
fn a_command_that_does_not_exist_is_reported() {
    if !can_run() {
        return;
    }
    for (args, expected) in [
        (&["no-such-command"][..], FailReason::NotFound),
        (&["/no/such/file"], FailReason::NotFound),
        (&["/etc/passwd"], FailReason::NotExecutable),
        (&["/etc"], FailReason::NotExecutable),
    ] {
        let setup = Setup::new(args);
        let Hello::Failed { message, reason } = setup.hello() else {
            panic!("{args:?} was created");
        };
        assert_eq!(reason, expected, "{message}");
        assert!(message.contains(args[0]), "{message}");
    }
}

#[test]
fn a_file_without_format_fails_at_the_start() {
    if !can_run() {
        return;
    }
    let setup = Setup::new(&["/bin/garbage"]);
    let path = setup.directory.path().join("lower/bin/garbage");
    std::fs::write(&path, "garbage").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let shim = setup.create();
    let Response::Failed { message, reason } = shim.call(&Request::Start) else {
        panic!("started");
    };
    assert_eq!(reason, FailReason::NotExecutable);
    assert!(message.contains("exec format error"), "{message}");
    let exit = shim.wait();
    assert_eq!((exit.code, exit.started_at), (126, 0));
    assert_eq!(exit.error, Some(message));
}

#[test]
fn signals_end_the_container() {
    if !can_run() {
        return;
    }
    let shim = Setup::new(&["sleep", "1000"]).create();
    shim.start();
    let kill = |signal, all| Request::Kill { signal, all };
    assert_eq!(shim.call(&kill(9, false)), Response::Done);
    assert_eq!(shim.wait().code, 137);
    shim.gone();

    let setup = Setup::new(&[
        "sh",
        "-c",
        "trap 'exit 3' TERM; echo ready; sleep 1000 & wait",
    ]);
    let shim = setup.create();
    let mut attached = shim.attach(false);
    shim.start();
    assert_eq!(attached.frame().unwrap().1, b"ready\n");
    assert_eq!(shim.call(&kill(15, false)), Response::Done);
    assert_eq!(shim.wait().code, 3);

    let shim = Setup::new(&["sleep", "1000"]).create();
    shim.start();
    assert_eq!(shim.call(&kill(9, true)), Response::Done);
    assert_eq!(shim.wait().code, 137);
}

#[test]
fn standard_input_and_its_end_reach_the_container() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "cat; echo end"]);
    setup.spec.open_stdin = true;
    let shim = setup.create();
    let mut attached = shim.attach(true);
    shim.start();
    attached.0.write_all(b"hello\n").unwrap();
    assert_eq!(attached.frame().unwrap().1, b"hello\n");
    // More than the pipe and the shim hold together.
    let large = vec![b'x'; 1 << 20];
    let mut writer = attached.0.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        writer.write_all(&large).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let (out, _) = attached.read_all();
    thread.join().unwrap();
    assert_eq!(out.len(), (1 << 20) + 4);
    assert!(out.ends_with(b"end\n"));
    assert_eq!(shim.wait().code, 0);
}

#[test]
fn without_input_the_container_reads_end_of_file() {
    if !can_run() {
        return;
    }
    let (output, exit) = run_script("cat; echo end");
    assert_eq!((output.as_str(), exit.code), ("end\n", 0));
}

#[test]
fn input_ends_with_the_client_only_when_asked_for() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "read a; echo got $a; read b; echo got $b"]);
    setup.spec.open_stdin = true;
    let shim = setup.create();
    shim.start();
    for text in ["one", "two"] {
        let mut attached = shim.attach(true);
        attached
            .0
            .write_all(format!("{text}\n").as_bytes())
            .unwrap();
        assert_eq!(
            attached.frame().unwrap().1,
            format!("got {text}\n").into_bytes()
        );
    }
    assert_eq!(shim.wait().code, 0);

    let mut setup = Setup::new(&["cat"]);
    setup.spec.open_stdin = true;
    setup.spec.stdin_once = true;
    let shim = setup.create();
    shim.start();
    let mut attached = shim.attach(true);
    attached.0.write_all(b"x").unwrap();
    assert_eq!(attached.frame().unwrap().1, b"x");
    drop(attached);
    assert_eq!(shim.wait().code, 0);
}

#[test]
fn late_and_slow_clients_lose_nothing_and_block_nobody() {
    if !can_run() {
        return;
    }
    let script = "echo first; read x; seq 1 300000; echo done >&2; read y";
    let mut setup = Setup::new(&["sh", "-c", script]);
    setup.spec.open_stdin = true;
    let shim = setup.create();
    let mut early = shim.attach(true);
    // Reads nothing until the container has written everything.
    let mut slow = shim.attach(false);
    shim.start();
    assert_eq!(early.frame().unwrap().1, b"first\n");
    let mut late = shim.attach(false);
    early.0.write_all(b"go\n").unwrap();
    let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    let mut seen = Vec::new();
    loop {
        match early.frame().unwrap() {
            (1, data) => seen.extend(data),
            (_, data) => {
                assert_eq!(data, b"done\n");
                break;
            }
        }
    }
    assert!(seen == expected.as_bytes(), "{} bytes", seen.len());
    early.0.write_all(b"end\n").unwrap();
    assert_eq!(shim.wait().code, 0);
    let (out, error) = late.read_all();
    assert!(out == expected.as_bytes(), "{} bytes", out.len());
    assert_eq!(error, b"done\n");
    let (out, _) = slow.read_all();
    assert!(out == format!("first\n{expected}").as_bytes());
    shim.gone();
}

#[test]
fn a_terminal_has_a_size_and_carries_both_ways() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&[
        "sh",
        "-c",
        "tty; test -c /dev/console && stty size; read x; stty size; echo got $x",
    ]);
    setup.config["process"]["terminal"] = true.into();
    setup.config["process"]["consoleSize"] = serde_json::json!({"height": 24, "width": 80});
    setup.spec.open_stdin = true;
    let shim = setup.create();
    let mut attached = shim.attach(true);
    shim.start();
    let mut seen = String::new();
    while !seen.contains("24 80") {
        let (stream, data) = attached.frame().unwrap();
        assert_eq!(stream, 1);
        seen.push_str(&String::from_utf8_lossy(&data));
    }
    assert!(seen.starts_with("/dev/pts/0\r\n"), "{seen:?}");
    let resize = Request::Resize {
        exec: None,
        rows: 50,
        columns: 132,
    };
    assert_eq!(shim.call(&resize), Response::Done);
    attached.0.write_all(b"word\n").unwrap();
    let (rest, _) = attached.read_all();
    let rest = String::from_utf8_lossy(&rest);
    assert!(
        rest.contains("50 132") && rest.contains("got word"),
        "{rest:?}"
    );
    assert_eq!(shim.wait().code, 0);
}

#[test]
fn killing_the_shim_kills_the_container() {
    if !can_run() {
        return;
    }
    for uid in [0, 1000] {
        let mut setup = Setup::new(&["sleep", "1000"]);
        setup.config["process"]["user"] = serde_json::json!({"uid": uid, "gid": uid});
        let shim = setup.create();
        shim.start();
        let process = format!("/proc/{}", shim.pid);
        assert!(std::path::Path::new(&process).exists());
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(shim.shim_pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        eventually("end of the container", || {
            !std::path::Path::new(&process).exists() || common::is_zombie(shim.pid)
        });
        assert!(!shim.directory.path().join("exit.json").exists());
    }
}

#[test]
fn a_frozen_container_stops_and_goes_on_when_thawed() {
    if !can_run() {
        return;
    }
    let shim = Setup::new(&["sleep", "1000"]).create();
    shim.start();
    let status = || match shim.call(&Request::State) {
        Response::State { status, .. } => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(), OciStatus::Running);
    assert_eq!(shim.call(&Request::Pause), Response::Done);
    assert_eq!(status(), OciStatus::Paused);
    assert_eq!(shim.call(&Request::Resume), Response::Done);
    assert_eq!(status(), OciStatus::Running);
    assert_eq!(shim.call(&Request::Pause), Response::Done);
    let kill = Request::Kill {
        signal: 9,
        all: true,
    };
    assert_eq!(shim.call(&kill), Response::Done);
    assert_eq!(shim.wait().code, 137);
    shim.gone();
}

#[test]
fn large_output_is_recorded_whole_and_rotated() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "seq 1 500000"]);
    setup.spec.log.max_size = 1 << 20;
    setup.spec.log.max_files = 100;
    let (output, exit) = setup.run();
    assert_eq!(exit.code, 0);
    let expected: String = (1..=500_000).map(|number| format!("{number}\n")).collect();
    assert!(output == expected, "{} bytes", output.len());
}

#[test]
fn invalid_requests_get_an_answer() {
    if !can_run() {
        return;
    }
    let shim = Setup::new(&["sleep", "1000"]).create();
    let mut connection = shim.connect();
    connection.0.write_all(&5u32.to_le_bytes()).unwrap();
    connection.0.write_all(b"{\"op\"").unwrap();
    assert!(matches!(connection.receive(), Response::Failed { .. }));
    // A request of a later version.
    let mut later = Vec::new();
    encode(&serde_json::json!({"op": "later", "what": 1}), &mut later).unwrap();
    connection.0.write_all(&later).unwrap();
    assert!(matches!(connection.receive(), Response::Failed { .. }));
    let resize = Request::Resize {
        exec: None,
        rows: 1,
        columns: 1,
    };
    assert!(matches!(connection.call(&resize), Response::Failed { .. }));
    assert!(matches!(
        connection.call(&Request::Pause),
        Response::Failed { .. }
    ));
    connection.0.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert!(matches!(connection.receive(), Response::Failed { .. }));
    shim.start();
    assert!(matches!(
        shim.call(&Request::Start),
        Response::Failed { .. }
    ));
    let kill = Request::Kill {
        signal: 9,
        all: false,
    };
    assert_eq!(shim.call(&kill), Response::Done);
    shim.wait();
}

#[test]
fn little_output_costs_an_idle_shim_little_memory() {
    if !can_run() {
        return;
    }
    let shims = ["true", "echo x"].map(|script| {
        let script = format!("{script}; exec sleep 1000");
        let shim = Setup::new(&["sh", "-c", &script]).create();
        shim.start();
        shim
    });
    eventually("output", || shims[1].output() == "x\n");
    let anonymous = |shim: &common::Shim| -> u64 {
        let path = format!("/proc/{}/smaps_rollup", shim.shim_pid);
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("Anonymous:"));
        line.unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    eventually("memory is given back", || {
        let figures = shims.each_ref().map(anonymous);
        figures[1] <= figures[0] + 32
    });
}

/// The shim's directory and its log are on a file system that the container's own output fills. In
/// one case there is room again before the end, in the other there is not.
#[test]
fn a_full_disk_loses_neither_the_exit_record_nor_that_output_was_lost() {
    if !can_run() {
        return;
    }
    // A mount namespace for this test's thread.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let flags = rustix::mount::MountPropagationFlags::PRIVATE;
    let all = rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags | all).unwrap();
    for room in [true, false] {
        let script = "head -c 1000000 /dev/zero; touch /full; \
                      while test ! -e /go; do sleep 0.05; done; echo after; exit 3";
        let mut setup = Setup::new(&["sh", "-c", script]);
        let root = setup.directory.path().join("lower");
        let tiny = setup.directory.path().join("tiny");
        std::fs::create_dir(&tiny).unwrap();
        let none = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &tiny, "tmpfs", none, c"size=256k").unwrap();
        let path = root.clone();
        setup.spec.rootfs = keelson_shim_protocol::Rootfs::Directory { path };
        setup.spec.log.path = tiny.join("log");
        setup.shim_directory = Some(tiny.clone());
        let filler = tiny.join("filler");
        std::fs::write(&filler, [0; 64 * 1024]).unwrap();
        let Hello::Created { .. } = setup.hello() else {
            panic!("not created");
        };
        let socket = UnixStream::connect(tiny.join("shim.sock")).unwrap();
        let mut connection = Connection(socket);
        let started = connection.call(&Request::Start);
        assert!(matches!(started, Response::Started { .. }), "{started:?}");
        eventually("the output", || root.join("full").exists());
        match room {
            true => std::fs::remove_file(&filler).unwrap(),
            false => {
                // No space is left at all.
                let mut rest = std::fs::File::create(tiny.join("rest")).unwrap();
                while rest.write(&[0; 4096]).is_ok() {}
            }
        }
        std::fs::write(root.join("go"), "").unwrap();
        let file = tiny.join("exit.json");
        eventually("exit.json", || file.exists());
        let exit: Exit = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(exit.code, 3);
        assert!(exit.log_lost > 500_000, "{exit:?}");
        if room {
            let mut reader = keelson_log::Reader::open(&tiny.join("log")).unwrap();
            let mut output = Vec::new();
            while let keelson_log::Next::Record(record) = reader.next().unwrap() {
                output.extend_from_slice(record.payload);
            }
            let text = String::from_utf8_lossy(&output);
            let (_, end) = text
                .split_once(" bytes of output are missing here")
                .unwrap();
            assert!(end.ends_with("after\n"));
        }
        drop(connection);
        rustix::mount::unmount(&tiny, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}
