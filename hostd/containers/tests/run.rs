//! Containers from inside, and as clients see them.

mod common;

use std::path::Path;

use common::*;
use hostd_containers::{
    AttachOptions, ContainerAction, EngineError, LogQuery, Status, WaitCondition,
};
use keelson_model::error::ErrorKind;
use keelson_model::spec::{
    BindMount, CapabilitySet, HostName, HostsEntry, MountKind, MountSpec, Propagation, ReadOnly,
    RootSpec, Stdin, TerminalSpec, TmpfsMount,
};
use tokio::io::AsyncWriteExt;

#[test]
fn output_exit_code_log_and_events() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let mut events = engine.subscribe();
        let mut request = shell("echo out; echo err >&2; echo $FROM $HOSTNAME; exit 7");
        request.spec.labels = [("team".to_owned(), "a".to_owned())].into();
        let ran = run(&engine, request).await;
        assert_eq!(ran.code, 7);
        assert_eq!(ran.out, format!("out\nimage {}\n", &ran.id[..12]));
        assert_eq!(ran.err, "err\n");

        let snapshot = engine.inspect(SCOPE, &ran.id).unwrap();
        assert_eq!(snapshot.state.status, Status::Exited);
        assert_eq!(snapshot.state.exit_code, 7);
        assert_eq!(snapshot.state.pid, 0);
        let (started, finished) = (snapshot.state.started_at, snapshot.state.finished_at);
        assert!(started.unwrap() >= snapshot.created && finished >= started);
        assert_eq!(end_of(&engine, &ran.id).await.exit_code, 7);

        let log = log_text(&engine, &ran.id, whole_log()).await;
        assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
        let query = LogQuery {
            tail: Some(2),
            ..whole_log()
        };
        let last = log_text(&engine, &ran.id, query).await;
        assert_eq!(last.lines().count(), 2, "{last}");

        let mut actions = Vec::new();
        while let Ok(event) = events.try_recv() {
            assert_eq!(event.labels["team"], "a");
            assert_eq!(event.image, "box");
            actions.push(event.action);
        }
        assert!(
            matches!(
                actions.as_slice(),
                [
                    ContainerAction::Create,
                    ContainerAction::Attach,
                    ContainerAction::Start,
                    ContainerAction::Die { code: 7, .. }
                ]
            ),
            "{actions:?}"
        );
        // Nothing of the run is left, a moment after its end.
        let deadline = tokio::time::Instant::now() + LIMIT;
        while exists(&snapshot.run_directory) {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }

        // A second run appends to the log.
        let again = start_and_collect(&engine, ran.id).await;
        assert_eq!(again.code, 7);
        let log = log_text(&engine, &again.id, whole_log()).await;
        assert_eq!(log.matches("out\n").count(), 2);
    });
}

#[test]
fn nothing_of_a_lot_of_output_is_missed() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let ran = run(&engine, shell("seq 1 100000")).await;
        let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(ran.out.len(), expected.len());
        assert_eq!(ran.out, expected);
    });
}

#[test]
fn commands_that_cannot_be_executed() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        for (command, code, words) in [
            ("nope", 127, "executable file not found"),
            ("/no/such/file", 127, "no such file or directory"),
            ("/etc/plain", 126, "permission denied"),
        ] {
            let id = create(&engine, common::command(command)).await;
            let attached = engine.attach(SCOPE, &id, outputs()).await.unwrap();
            let error = engine.start(SCOPE, &id).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            let text = error.to_string().to_lowercase();
            assert!(text.contains(words), "{command}: {text}");
            assert!(text.contains(command), "{command}: {text}");
            let snapshot = engine.inspect(SCOPE, &id).unwrap();
            assert_eq!(snapshot.state.exit_code, code, "{command}");
            assert_eq!(snapshot.state.status, Status::Created);
            // Who attached sees the end.
            assert_eq!(collect(attached).await, (String::new(), String::new()));
            assert!(!exists(&snapshot.run_directory));
        }
    });
}

#[test]
fn a_failed_start_removes_what_is_to_be_removed() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let mut request = command("nope");
        request.spec.auto_remove = true;
        let id = create(&engine, request).await;
        let removed = engine
            .wait(SCOPE, &id, WaitCondition::Removed)
            .await
            .unwrap();
        engine.start(SCOPE, &id).await.unwrap_err();
        assert_eq!(within(removed).await.exit_code, 127);
        let error = engine.inspect(SCOPE, &id).unwrap_err();
        assert_eq!(error.to_string(), format!("No such container: {id}"));
    });
}

#[test]
fn users_directories_and_files() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let mut request =
            shell("id -u; id -g; id -G; pwd; echo $HOME; cat /etc/hostname; hostname");
        request.spec.process.user = "web".to_owned();
        request.spec.process.working_directory = "/made/here".to_owned();
        request.spec.names.hostname = HostName::Given("ship".to_owned());
        let ran = run(&engine, request).await;
        assert_eq!(
            ran.out, "33\n34\n34 7\n/made/here\n/srv\nship\nship\n",
            "{}",
            ran.err
        );

        let mut request = shell("cat /etc/hosts /etc/resolv.conf");
        request.spec.names.hosts = vec![HostsEntry {
            name: "db".to_owned(),
            address: "10.9.8.7".parse().unwrap(),
        }];
        request.spec.names.dns_servers = vec!["192.0.2.53".parse().unwrap()];
        let ran = run(&engine, request).await;
        assert!(ran.out.contains("10.9.8.7\tdb\n"), "{}", ran.out);
        assert!(ran.out.contains("nameserver 192.0.2.53\n"), "{}", ran.out);

        let mut request = shell("true");
        request.spec.process.user = "nobody".to_owned();
        let id = create(&engine, request).await;
        let error = engine.start(SCOPE, &id).await.unwrap_err();
        assert!(error.to_string().contains("unable to find user nobody"));
    });
}

fn bind(source: &Path, target: &str, read_only: ReadOnly) -> MountSpec {
    MountSpec {
        target: target.into(),
        kind: MountKind::Bind(BindMount {
            source: source.to_owned(),
            create_source: true,
            recursive: true,
            read_only,
            propagation: Propagation::RecursivePrivate,
            mapped: false,
        }),
    }
}

fn tmpfs(target: &str) -> MountSpec {
    MountSpec {
        target: target.into(),
        kind: MountKind::Tmpfs(TmpfsMount {
            options: ["noexec", "nosuid", "nodev"].map(str::to_owned).into(),
            read_only: false,
        }),
    }
}

#[test]
fn mounts_and_volumes() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("in"), "from the host").unwrap();
    machine.life(async |engine, _images| {
        let path = shared.path();
        let script = "cat /a/in; echo hello > /a/out; echo x > /b/no; ls /new; \
            echo v > /absent/file && cat /absent/file; cat /data/kept; mount | grep ' /scratch '";
        let mut request = shell(script);
        request.spec.mounts = vec![
            bind(path, "/a", ReadOnly::No),
            bind(path, "/b", ReadOnly::Recursive),
            bind(&path.join("made"), "/new", ReadOnly::No),
            tmpfs("/scratch"),
        ];
        request.spec.anonymous_volumes.push("/data".into());
        let created = engine.create(SCOPE, None, request).await.unwrap();
        let ran = start_and_collect(&engine, created.id).await;
        assert!(
            ran.out.starts_with("from the hostv\nfrom the image\n"),
            "{}",
            ran.out
        );
        assert!(
            ran.out.contains("tmpfs") && ran.out.contains("noexec"),
            "{}",
            ran.out
        );
        assert!(
            ran.err.to_lowercase().contains("read-only file system"),
            "{}",
            ran.err
        );
        let written = std::fs::read_to_string(shared.path().join("out")).unwrap();
        assert_eq!(written, "hello\n");
        assert!(shared.path().join("made").is_dir());

        let mut request = shell("true");
        let mut missing = bind(Path::new("/does/not/exist"), "/x", ReadOnly::No);
        if let MountKind::Bind(bind) = &mut missing.kind {
            bind.create_source = false;
        }
        request.spec.mounts = vec![missing];
        let error = engine.create(SCOPE, None, request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error
                .to_string()
                .contains("bind source path does not exist")
        );
    });
}

#[test]
fn isolation_from_the_host() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let script = "grep -c . /proc/net/dev; cat /sys/class/net/lo/flags; echo $$; ls /proc/acpi /sys/firmware | grep -c .; \
            touch /proc/sys/kernel/x; grep Seccomp: /proc/self/status; grep CapEff /proc/self/status";
        let ran = run(&engine, shell(script)).await;
        assert!(ran.out.starts_with("3\n0x9\n1\n"), "loopback only, process 1: {}", ran.out);
        assert!(ran.out.contains("Seccomp:\t2"), "{}", ran.out);
        assert!(ran.out.contains("00000000a80425fb"), "{}", ran.out);

        let mut request = shell("echo x > /file; echo y > /tmp/file && cat /tmp/file");
        if let RootSpec::Image { read_only, .. } = &mut request.spec.root {
            *read_only = true;
        }
        request.spec.mounts = vec![tmpfs("/tmp")];
        // The image's volume is not there, so a directory is mounted; nothing else is writable.
        let ran = run(&engine, request).await;
        assert_eq!(ran.out, "y\n");
        assert!(ran.err.to_lowercase().contains("read-only file system"), "{}", ran.err);

        let mut request = shell("grep CapEff /proc/self/status");
        let only = CapabilitySet::Only(["NET_ADMIN".to_owned()].into());
        request.spec.security.capabilities = only;
        let ran = run(&engine, request).await;
        assert_eq!(ran.out, "CapEff:\t0000000000001000\n");
    });
}

#[test]
fn standard_input() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let mut request = shell("cat; echo end");
        request.spec.process.stdin = Stdin::OpenOnce;
        let id = create(&engine, request).await;
        let options = AttachOptions {
            stdin: true,
            ..outputs()
        };
        let mut attached = engine.attach(SCOPE, &id, options).await.unwrap();
        let mut input = attached.input.take().unwrap();
        engine.start(SCOPE, &id).await.unwrap();
        let text = "line of input\n".repeat(20_000);
        let writer = tokio::spawn({
            let text = text.clone();
            async move {
                input.write_all(text.as_bytes()).await.unwrap();
                input.shutdown().await.unwrap();
            }
        });
        let (out, _) = collect(attached).await;
        writer.await.unwrap();
        assert_eq!(out.len(), text.len() + 4);
        assert!(out.ends_with("input\nend\n"));
        assert_eq!(end_of(&engine, &id).await.exit_code, 0);
    });
}

#[test]
fn terminals() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let mut request = shell("stty size; cat; echo $TERM");
        request.spec.process.terminal = Some(TerminalSpec {
            size: Some((30, 100)),
        });
        request.spec.process.stdin = Stdin::Open;
        let id = create(&engine, request).await;
        let error = engine.resize(SCOPE, &id, 10, 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let options = AttachOptions {
            stdin: true,
            ..outputs()
        };
        let mut attached = engine.attach(SCOPE, &id, options).await.unwrap();
        assert!(attached.tty);
        engine.start(SCOPE, &id).await.unwrap();
        engine.resize(SCOPE, &id, 40, 120).await.unwrap();
        // End of file, typed.
        attached
            .input
            .as_mut()
            .unwrap()
            .write_all(b"hi\n\x04")
            .await
            .unwrap();
        let (out, _) = collect(attached).await;
        assert!(
            out.contains("hi\r\n") && out.ends_with("xterm\r\n"),
            "{out:?}"
        );
    });
}

#[test]
fn attaching_with_the_log() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let id = create(
            &engine,
            shell("echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last"),
        )
        .await;
        engine.start(SCOPE, &id).await.unwrap();
        until_logged(&engine, &id, "first").await;
        let options = AttachOptions {
            logs: true,
            ..outputs()
        };
        let attached = engine.attach(SCOPE, &id, options).await.unwrap();
        let upper = engine.inspect(SCOPE, &id).unwrap().directory.join("upper");
        let pid = engine.inspect(SCOPE, &id).unwrap().state.pid;
        std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
        let (out, _) = collect(attached).await;
        assert_eq!(out, "first\nlast\n");
        assert!(upper.join("tmp/go").exists(), "written to the upper layer");
    });
}

#[test]
fn following_a_log_ends_with_the_container() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let id = create(
            &engine,
            shell("for n in $(seq 1 20); do echo $n; sleep 0.01; done"),
        )
        .await;
        engine.start(SCOPE, &id).await.unwrap();
        let query = LogQuery {
            follow: true,
            timestamps: true,
            ..whole_log()
        };
        let text = log_text(&engine, &id, query).await;
        let numbers: Vec<_> = text
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        let expected: Vec<_> = (1..=20).map(|number: i32| number.to_string()).collect();
        assert_eq!(numbers, expected);
    });
}

#[test]
fn what_create_refuses() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let mut request = shell("true");
        "relative".clone_into(&mut request.spec.process.working_directory);
        let error = engine.create(SCOPE, None, request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("absolute path"), "{error}");

        let name = Some("taken".to_owned());
        let id = engine
            .create(SCOPE, name.clone(), shell("true"))
            .await
            .unwrap()
            .id;
        let error = engine.create(SCOPE, name, shell("true")).await.unwrap_err();
        assert!(matches!(error, EngineError::NameInUse { .. }));
        assert!(error.to_string().contains(&id));
        let name = Some("not good".to_owned());
        let error = engine.create(SCOPE, name, shell("true")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(engine.list(SCOPE).len(), 1);
    });
}
