//! Opening an engine on files that can't be read and shims that don't answer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hostd_containers::{Engine, EngineError, SpecChange, Status, WaitCondition};
use keelson_model::error::ErrorKind;
use keelson_model::spec::{Part, RestartPolicy, StartOrder};
use rustix::process::Signal as Kill;

use crate::common::{
    LIMIT, Machine, SCOPE, create, is_root, run, shell, signal_parent, start_and_collect,
    until_logged, whole_log, within,
};

/// What may be found in a file's place.
const FAULTS: [&str; 9] = [
    "truncated",
    "empty",
    "not JSON",
    "zeros",
    "newer",
    "folder",
    "I/O error",
    "loop",
    "missing",
];

/// Puts a fault into a file's place; the file is kept beside it.
fn break_file(path: &Path, fault: &str) {
    let whole = fs::read(path).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    fs::rename(path, kept(path)).unwrap();
    match fault {
        "truncated" => fs::write(path, &whole[..whole.len() / 2]).unwrap(),
        "empty" => fs::write(path, "").unwrap(),
        "not JSON" => fs::write(path, "hello").unwrap(),
        "zeros" => fs::write(path, vec![0; whole.len()]).unwrap(),
        "newer" => {
            let newer = text
                .replacen("\"version\":1", "\"version\":99", 1)
                .replacen("\"readable_from\":1", "\"readable_from\":99", 1);
            fs::write(path, newer).unwrap();
        }
        "folder" => fs::create_dir(path).unwrap(),
        // Nothing is mapped at address 0 of this process.
        "I/O error" => symlink("/proc/self/mem", path).unwrap(),
        "loop" => symlink(path, path).unwrap(),
        "missing" => {}
        other => panic!("{other}"),
    }
}

fn mend_file(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir(path).unwrap(),
        false => drop(fs::remove_file(path)),
    }
    fs::rename(kept(path), path).unwrap();
}

fn kept(path: &Path) -> PathBuf {
    path.with_extension("kept")
}

fn directory(machine: &Machine, id: &str) -> PathBuf {
    machine.root().join("engine/containers").join(id)
}

async fn until_status(engine: &Engine, id: &str, wanted: Status) {
    let deadline = Instant::now() + LIMIT;
    while engine.inspect(SCOPE, id).unwrap().state.status != wanted {
        let state = engine.inspect(SCOPE, id).unwrap().state.clone();
        assert!(Instant::now() < deadline, "not {wanted}: {state:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_container_that_cannot_be_read_is_kept_and_shown_as_dead() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let id = machine.life(async |engine, _images| {
        let request = shell("echo kept > /kept");
        let named = engine.create(SCOPE, Some("first".to_owned()), request);
        let id = named.await.unwrap().id;
        assert_eq!(start_and_collect(&engine, id.clone()).await.code, 0);
        engine.rename(SCOPE, "first", "web").await.unwrap();
        id
    });
    let document = directory(&machine, &id).join("container.json");
    // Its document counts as made as soon as it was flushed.
    let mark = directory(&machine, &id).join(".unsettled");
    machine.life(async |_engine, _images| {
        while crate::common::exists(&mark) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let written = directory(&machine, &id).join("upper/kept");
    for fault in FAULTS {
        break_file(&document, fault);
        machine.life(async |engine, images| {
            let dead = engine.inspect(SCOPE, "web").expect(fault);
            assert_eq!(dead.id, id, "{fault}");
            assert_eq!(dead.state.status, Status::Dead, "{fault}");
            assert!(dead.state.error.contains("can't be read"), "{fault}");
            assert!(dead.image_id().starts_with("sha256:"), "{fault}");
            assert_eq!(engine.list(SCOPE).len(), 1);
            for error in [
                engine.start(SCOPE, "web").await.unwrap_err(),
                engine.rename(SCOPE, "web", "other").await.unwrap_err(),
                engine
                    .update(SCOPE, "web", |container| {
                        Ok::<_, EngineError>(SpecChange {
                            spec: (*container.spec).clone(),
                            shown: None,
                            limits: false,
                        })
                    })
                    .await
                    .unwrap_err(),
                engine
                    .create(SCOPE, Some("web".to_owned()), shell("true"))
                    .await
                    .unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{fault}: {error}");
            }
            let pruned = images.prune(true, &|_| true).unwrap();
            assert_eq!(pruned.removed, [], "{fault}");
            engine.shutdown().await;
        });
        assert_eq!(fs::read_to_string(&written).unwrap(), "kept\n", "{fault}");
        mend_file(&document);
        machine.life(async |engine, _images| {
            let state = engine.inspect(SCOPE, "web").unwrap().state.clone();
            assert_eq!((state.status, state.exit_code), (Status::Exited, 0));
        });
    }
    // And it can be removed on purpose.
    break_file(&document, "folder");
    machine.life(async |engine, _images| {
        engine.remove(SCOPE, "web", false, true).await.unwrap();
        assert!(engine.list(SCOPE).is_empty());
        create(&engine, shell("true")).await;
    });
    assert!(!crate::common::exists(directory(&machine, &id)));
}

#[test]
fn an_unknown_image_keeps_all() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let id = machine.life(async |engine, _images| create(&engine, shell("true")).await);
    let identity = directory(&machine, &id).join("identity");
    // Containers of releases without it get one.
    fs::remove_file(&identity).unwrap();
    machine.life(async |_engine, _images| assert!(crate::common::exists(&identity)));
    break_file(
        &directory(&machine, &id).join("container.json"),
        "I/O error",
    );
    fs::remove_file(&identity).unwrap();
    machine.life(async |engine, images| {
        assert_eq!(engine.inspect(SCOPE, &id).unwrap().name, id[..12]);
        let pruned = images.prune(true, &|_| true).unwrap();
        assert_eq!(pruned.removed, []);
        let error = images.remove("box", false, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        engine.remove(SCOPE, &id, false, true).await.unwrap();
        let pruned = images.prune(true, &|_| true).unwrap();
        assert!(!pruned.removed.is_empty());
    });
}

#[test]
fn a_state_that_cannot_be_read_is_not_guessed() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let (runs, ended) = machine.life(async |engine, _images| {
        let runs = create(&engine, shell("echo ready; while :; do sleep 0.05; done")).await;
        engine.start(SCOPE, &runs).await.unwrap();
        until_logged(&engine, &runs, "ready").await;
        (runs, run(&engine, shell("exit 3")).await.id)
    });
    for fault in ["newer", "folder", "I/O error", "loop"] {
        for id in [&runs, &ended] {
            break_file(&directory(&machine, id).join("state.json"), fault);
        }
        machine.life(async |engine, _images| {
            // A shim that lives knows better.
            let state = engine.inspect(SCOPE, &runs).unwrap().state.clone();
            assert_eq!(state.status, Status::Running, "{fault}");
            assert!(state.pid > 0);
            let state = engine.inspect(SCOPE, &ended).unwrap().state.clone();
            assert_eq!(state.status, Status::Dead, "{fault}");
            assert!(state.error.contains("state.json"), "{}", state.error);
        });
        for id in [&runs, &ended] {
            let path = directory(&machine, id).join("state.json");
            mend_file(&path);
        }
        machine.life(async |engine, _images| {
            let state = engine.inspect(SCOPE, &ended).unwrap().state.clone();
            assert_eq!((state.status, state.exit_code), (Status::Exited, 3));
        });
    }
}

#[test]
fn a_specification_that_contradicts_itself_is_not_run() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let id = machine.life(async |engine, _images| {
        let mut request = shell("echo sound");
        "/here".clone_into(&mut request.spec.process.working_directory);
        create(&engine, request).await
    });
    let path = directory(&machine, &id).join("container.json");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("\"/here\"", "\"here\"");
    assert_ne!(changed, text);
    fs::write(&path, &changed).unwrap();
    machine.life(async |engine, _images| {
        let dead = engine.inspect(SCOPE, &id).unwrap();
        assert_eq!(dead.state.status, Status::Dead);
        let reason = &dead.state.error;
        assert!(reason.contains("working directory 'here'"), "{reason}");
        let error = engine.start(SCOPE, &id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    });
    fs::write(&path, text).unwrap();
    machine.life(async |engine, _images| {
        let ran = start_and_collect(&engine, id.clone()).await;
        assert_eq!((ran.code, ran.out.as_str()), (0, "sound\n"));
    });
}

#[test]
fn a_shim_that_does_not_answer_is_not_dead() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let script = "echo ready; while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 6";
    let (ids, pids) = machine.life(async |engine, _images| {
        let (mut ids, mut pids) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let id = create(&engine, shell(script)).await;
            engine.start(SCOPE, &id).await.unwrap();
            until_logged(&engine, &id, "ready").await;
            pids.push(engine.inspect(SCOPE, &id).unwrap().state.pid);
            ids.push(id);
        }
        (ids, pids)
    });
    for pid in &pids {
        signal_parent(*pid, Kill::STOP);
    }
    let began = Instant::now();
    machine.life(async |engine, _images| {
        let opened = began.elapsed();
        assert!(opened < Duration::from_millis(1500), "{opened:?}");
        for (id, pid) in ids.iter().zip(&pids) {
            let state = engine.inspect(SCOPE, id).unwrap().state.clone();
            assert_eq!((state.status, state.pid), (Status::Running, *pid));
            assert!(state.error.contains("does not answer"), "{}", state.error);
            assert!(Path::new(&format!("/proc/{pid}")).exists());
        }
        // The first ends before its shim goes on, the other one later.
        fs::write(format!("/proc/{}/root/tmp/go", pids[0]), "").unwrap();
        let mut ends = Vec::new();
        for (id, pid) in ids.iter().zip(&pids) {
            let ended = engine.wait(SCOPE, id, WaitCondition::NextExit).await;
            ends.push(ended.unwrap());
            signal_parent(*pid, Kill::CONT);
        }
        let second = ends.pop().unwrap();
        assert_eq!(within(ends.pop().unwrap()).await.exit_code, 6);
        let deadline = Instant::now() + LIMIT;
        while !engine
            .inspect(SCOPE, &ids[1])
            .unwrap()
            .state
            .error
            .is_empty()
        {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fs::write(format!("/proc/{}/root/tmp/go", pids[1]), "").unwrap();
        assert_eq!(within(second).await.exit_code, 6);
        assert_eq!(
            crate::common::log_text(&engine, &ids[1], whole_log()).await,
            "ready\n"
        );
    });
}

#[test]
fn an_exit_record_that_cannot_be_read_is_told() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let id = machine.life(async |engine, _images| {
        let id = create(
            &engine,
            shell("echo ready; while [ ! -e /tmp/go ]; do sleep 0.02; done"),
        )
        .await;
        engine.start(SCOPE, &id).await.unwrap();
        until_logged(&engine, &id, "ready").await;
        id
    });
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(directory(&machine, &id).join("state.json")).unwrap())
            .unwrap();
    let pid = state["state"]["pid"].as_i64().unwrap();
    fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    let record = machine.run().join("containers").join(&id).join("exit.json");
    let deadline = Instant::now() + LIMIT;
    while !record.exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::write(&record, "{").unwrap();
    machine.life(async |engine, _images| {
        // It is tried for a while, and clients need not wait for that.
        assert_eq!(
            engine.inspect(SCOPE, &id).unwrap().state.status,
            Status::Running
        );
        until_status(&engine, &id, Status::Exited).await;
        let state = engine.inspect(SCOPE, &id).unwrap().state.clone();
        assert_eq!(state.exit_code, 255);
        assert!(state.error.contains("can't be read"), "{}", state.error);
    });
}

#[test]
fn containers_that_join_others_are_started_after_them() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let ids = machine.life(async |engine, _images| {
        let mut ids: Vec<String> = Vec::new();
        // Each joins the one before it.
        for _ in 0..4 {
            let mut request = shell("echo ready; while :; do sleep 0.05; done");
            request.spec.restart = RestartPolicy::Always;
            request.spec.stop.signal = Some(9);
            request.spec.namespaces.donors.network = ids.last().cloned();
            let id = create(&engine, request).await;
            engine.start(SCOPE, &id).await.unwrap();
            until_logged(&engine, &id, "ready").await;
            ids.push(id);
        }
        within(engine.shutdown()).await;
        ids
    });
    for _ in 0..3 {
        machine.life(async |engine, _images| {
            for id in &ids {
                until_status(&engine, id, Status::Running).await;
            }
            let network = |id: &String| {
                let pid = engine.inspect(SCOPE, id).unwrap().state.pid;
                std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
            };
            let first = network(&ids[0]);
            assert!(ids.iter().all(|id| network(id) == first));
            within(engine.shutdown()).await;
        });
    }
}

/// Containers are started after those that they depend on, by name and by service. A container that
/// depends on itself is started anyway.
#[test]
fn restart_policies_start_containers_in_order() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let part = |service: usize| {
        Some(Part {
            group: "shop".to_owned(),
            service: service.to_string(),
        })
    };
    let ids = machine.life(async |engine, _images| {
        let mut ids: Vec<String> = Vec::new();
        for number in 0..8_usize {
            let mut request = shell("echo ready; while :; do sleep 0.05; done");
            request.spec.restart = RestartPolicy::Always;
            request.spec.stop.signal = Some(9);
            request.spec.start_order = StartOrder {
                part_of: part(number),
                ..StartOrder::default()
            };
            let order = &mut request.spec.start_order;
            match (number, ids.last()) {
                // They depend on each other.
                (6 | 7, _) => order.after_services.push((13 - number).to_string()),
                (_, None) => {}
                (2 | 4, _) => order.after_services.push((number - 1).to_string()),
                (_, Some(last)) => order.after.push(last.clone()),
            }
            let id = create(&engine, request).await;
            engine.start(SCOPE, &id).await.unwrap();
            until_logged(&engine, &id, "ready").await;
            ids.push(id);
        }
        within(engine.shutdown()).await;
        ids
    });
    for _ in 0..3 {
        machine.life(async |engine, _images| {
            let mut times = Vec::new();
            for id in &ids {
                until_status(&engine, id, Status::Running).await;
                times.push(engine.inspect(SCOPE, id).unwrap().state.started_at);
            }
            assert!(times[..6].is_sorted_by(|a, b| a < b), "{times:?}");
            // A start by a client does not wait.
            for id in &ids {
                engine.stop(SCOPE, id, None, Some(0)).await.unwrap();
            }
            for id in ids.iter().rev() {
                within(engine.start(SCOPE, id)).await.unwrap();
            }
            within(engine.shutdown()).await;
        });
    }
}

#[test]
fn restart_policies_apply_when_the_engine_is_opened() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let ids = machine.life(async |engine, _images| {
        let mut ids = Vec::new();
        for (policy, stopped) in [
            (RestartPolicy::Always, false),
            (RestartPolicy::UnlessStopped, false),
            (RestartPolicy::Never, false),
            (RestartPolicy::Always, true),
            (RestartPolicy::UnlessStopped, true),
        ] {
            let mut request = shell("echo ready; while :; do sleep 0.05; done");
            request.spec.restart = policy;
            request.spec.stop.signal = Some(9);
            let id = create(&engine, request).await;
            engine.start(SCOPE, &id).await.unwrap();
            until_logged(&engine, &id, "ready").await;
            if stopped {
                engine.stop(SCOPE, &id, None, Some(0)).await.unwrap();
            }
            ids.push(id);
        }
        within(engine.shutdown()).await;
        ids
    });
    let [always, unless, no, always_stopped, unless_stopped] = &ids[..] else {
        panic!()
    };
    // After an orderly end, and after one by SIGKILL.
    for _ in 0..2 {
        machine.life(async |engine, _images| {
            for id in [always, unless, always_stopped] {
                until_status(&engine, id, Status::Running).await;
            }
            for id in [no, unless_stopped] {
                let state = engine.inspect(SCOPE, id).unwrap().state.clone();
                assert_eq!(state.status, Status::Exited);
            }
            engine
                .stop(SCOPE, always_stopped, None, Some(0))
                .await
                .unwrap();
        });
    }
}
