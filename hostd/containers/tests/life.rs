//! States, policies, and the state after a crash.

mod common;
#[path = "life/faults.rs"]
mod faults;
#[path = "life/storm.rs"]
mod storm;

use std::time::Duration;

use common::*;
use hostd_containers::{
    ContainerAction, CreateRequest, LogQuery, Scope, Signal, Status, WaitCondition,
};
use keelson_model::error::ErrorKind;
use keelson_model::spec::{Patience, RestartPolicy};

fn signal(name: &str) -> Signal {
    name.parse().unwrap()
}

/// Ends at once when it is asked to, with code 5.
fn polite() -> CreateRequest {
    shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done")
}

#[test]
fn stopping_and_killing() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let id = create(&engine, polite()).await;
        let stop = engine.stop(SCOPE, &id, None, None).await.unwrap_err();
        assert_eq!(stop.kind(), ErrorKind::NotModified);
        let kill = engine.kill(SCOPE, &id, signal("TERM")).await.unwrap_err();
        assert_eq!(kill.kind(), ErrorKind::Conflict);
        assert!(
            kill.to_string()
                .ends_with(&format!("container {id} is not running"))
        );

        let mut events = engine.subscribe();
        engine.start(SCOPE, &id).await.unwrap();
        let again = engine.start(SCOPE, &id).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotModified);
        until_logged(&engine, &id, "ready").await;
        within(engine.stop(SCOPE, &id, None, None)).await.unwrap();
        assert_eq!(engine.inspect(SCOPE, &id).unwrap().state.exit_code, 5);
        let mut actions = Vec::new();
        while let Ok(event) = events.try_recv() {
            actions.push(event.action);
        }
        assert!(
            matches!(
                actions.as_slice(),
                [
                    ContainerAction::Start,
                    ContainerAction::Kill(Signal::TERM),
                    ContainerAction::Die { code: 5, .. },
                    ContainerAction::Stop
                ]
            ),
            "{actions:?}"
        );

        // Deaf to SIGTERM: killed after the time.
        let id = create(
            &engine,
            shell("trap '' TERM; echo ready; while :; do sleep 0.02; done"),
        )
        .await;
        engine.start(SCOPE, &id).await.unwrap();
        until_logged(&engine, &id, "ready").await;
        within(engine.stop(SCOPE, &id, None, Some(0)))
            .await
            .unwrap();
        let state = engine.inspect(SCOPE, &id).unwrap().state.clone();
        assert_eq!((state.exit_code, state.status), (137, Status::Exited));

        // Its own stop signal; and a signal that does not end it.
        let mut request = shell(
            "trap 'exit 6' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.02; done",
        );
        request.spec.stop.signal = Some(10);
        let id = create(&engine, request).await;
        engine.start(SCOPE, &id).await.unwrap();
        until_logged(&engine, &id, "ready").await;
        engine.kill(SCOPE, &id, signal("HUP")).await.unwrap();
        until_logged(&engine, &id, "hup").await;
        within(engine.stop(SCOPE, &id, None, None)).await.unwrap();
        assert_eq!(end_of(&engine, &id).await.exit_code, 6);
    });
}

#[test]
fn pausing_renaming_and_processes() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let id = engine
            .create(SCOPE, Some("old".to_owned()), polite())
            .await
            .unwrap()
            .id;
        engine.start(SCOPE, &id).await.unwrap();
        until_logged(&engine, &id, "ready").await;
        let top = engine.processes(SCOPE, "old").await.unwrap();
        assert!(
            top.iter()
                .any(|one| one.arguments.iter().any(|word| word.contains("trap"))),
            "{top:?}"
        );

        engine.pause(SCOPE, "old").await.unwrap();
        assert_eq!(
            engine.inspect(SCOPE, &id).unwrap().state.status,
            Status::Paused
        );
        let error = engine.pause(SCOPE, "old").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        engine.unpause(SCOPE, "old").await.unwrap();
        engine.unpause(SCOPE, "old").await.unwrap_err();

        engine.rename(SCOPE, "old", "new").await.unwrap();
        assert!(engine.inspect(SCOPE, "old").is_err());
        assert_eq!(engine.inspect(SCOPE, "/new").unwrap().id, id);
        assert_eq!(engine.inspect(SCOPE, &id[..10]).unwrap().name, "new");
        engine
            .create(SCOPE, Some("old".to_owned()), polite())
            .await
            .unwrap();
        assert_eq!(
            engine.rename(SCOPE, "new", "old").await.unwrap_err().kind(),
            ErrorKind::Conflict
        );

        // A frozen container can be stopped.
        engine.pause(SCOPE, &id).await.unwrap();
        within(engine.stop(SCOPE, &id, None, None)).await.unwrap();
        assert_eq!(engine.inspect(SCOPE, &id).unwrap().state.exit_code, 5);
        engine.restart(SCOPE, &id, None, None).await.unwrap();
        assert_eq!(
            engine.inspect(SCOPE, &id).unwrap().state.status,
            Status::Running
        );
    });
}

#[test]
fn removal() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    machine.life(async |engine, _images| {
        let id = create(&engine, polite()).await;
        engine.start(SCOPE, &id).await.unwrap();
        let error = engine.remove(SCOPE, &id, false, false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            error.to_string().contains(
                "container is running: stop the container before removing or force remove"
            )
        );
        let removed = engine
            .wait(SCOPE, &id, WaitCondition::Removed)
            .await
            .unwrap();
        engine.remove(SCOPE, &id, true, true).await.unwrap();
        assert_eq!(within(removed).await.exit_code, 137);
        assert!(engine.inspect(SCOPE, &id).is_err());
        assert!(!exists(machine.root().join("engine/containers").join(&id)));

        let mut request = shell("exit 3");
        request.spec.auto_remove = true;
        let id = create(&engine, request).await;
        let removed = engine
            .wait(SCOPE, &id, WaitCondition::Removed)
            .await
            .unwrap();
        engine.start(SCOPE, &id).await.unwrap();
        assert_eq!(within(removed).await.exit_code, 3);
        assert!(engine.list(SCOPE).is_empty());
    });
}

#[test]
fn a_second_prune_is_refused_while_one_runs() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let id = create(&engine, polite()).await;
        let (begin, begun) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let pruning = tokio::spawn({
            let engine = engine.clone();
            // Checks its only container until it must continue.
            let look = move |_: &_| begin.send(()).is_ok() && ended.recv().is_err();
            async move { engine.prune(SCOPE, look).await }
        });
        tokio::task::block_in_place(|| begun.recv()).unwrap();
        let error = engine.prune(SCOPE, |_| true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(error.to_string(), "a prune operation is already running");
        drop(end);
        let pruned = within(pruning).await.unwrap().unwrap();
        assert_eq!(pruned.removed, [id]);
        // Afterwards another prune is possible.
        let pruned = engine.prune(SCOPE, |_| true).await.unwrap();
        assert!(pruned.removed.is_empty());
    });
}

#[test]
fn restart_policies() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let mut request = shell("echo run; exit 4");
        request.spec.restart = RestartPolicy::OnFailure { attempts: Some(2) };
        let id = create(&engine, request).await;
        engine.start(SCOPE, &id).await.unwrap();
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let state = engine.inspect(SCOPE, &id).unwrap().state.clone();
            if state.status == Status::Exited {
                assert_eq!((state.restart_count, state.exit_code), (2, 4));
                break;
            }
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let log = log_text(&engine, &id, whole_log()).await;
        assert_eq!(log, "run\nrun\nrun\n");

        // A stop is the end of it, also while a restart is due.
        let mut request = shell("exit 0");
        request.spec.restart = RestartPolicy::Always;
        let id = create(&engine, request).await;
        engine.start(SCOPE, &id).await.unwrap();
        loop {
            match engine.stop(SCOPE, &id, None, None).await {
                Ok(()) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotModified),
            }
        }
        assert_eq!(
            engine.inspect(SCOPE, &id).unwrap().state.status,
            Status::Exited
        );
    });
}

#[test]
fn containers_outlive_the_engine() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let (runs, ends, stopped, created) = machine.life(async |engine, _images| {
        let script = "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two; exit 9";
        let runs = create(&engine, shell(script)).await;
        let ends = create(&engine, shell(script)).await;
        let stopped = run(&engine, shell("exit 2")).await.id;
        let created = create(&engine, polite()).await;
        for id in [&runs, &ends] {
            engine.start(SCOPE, id).await.unwrap();
            until_logged(&engine, id, "one").await;
        }
        (runs, ends, stopped, created)
    });
    // One of them ends while no engine is there.
    let state: serde_json::Value = serde_json::from_slice(
        &std::fs::read(
            machine
                .root()
                .join("engine/containers")
                .join(&ends)
                .join("state.json"),
        )
        .unwrap(),
    )
    .unwrap();
    let pid = state["state"]["pid"].as_i64().unwrap();
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    let record = machine
        .run()
        .join("containers")
        .join(&ends)
        .join("exit.json");
    let deadline = std::time::Instant::now() + LIMIT;
    while !exists(&record) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    // Other leftovers of a crash.
    let half = machine
        .root()
        .join("engine/containers")
        .join("f".repeat(64));
    std::fs::create_dir_all(half.join("upper")).unwrap();
    std::os::unix::fs::symlink("this boot", half.join(".unsettled")).unwrap();

    machine.life(async |engine, _images| {
        assert_eq!(engine.list(SCOPE).len(), 4);
        assert!(!exists(&half));
        let state = |id: &str| engine.inspect(SCOPE, id).unwrap().state.clone();
        assert_eq!(state(&created).status, Status::Created);
        assert_eq!(
            (state(&stopped).status, state(&stopped).exit_code),
            (Status::Exited, 2)
        );
        assert_eq!(
            (state(&ends).status, state(&ends).exit_code),
            (Status::Exited, 9)
        );
        assert_eq!(log_text(&engine, &ends, whole_log()).await, "one\ntwo\n");

        assert_eq!(state(&runs).status, Status::Running);
        let query = LogQuery {
            follow: true,
            ..whole_log()
        };
        let mut logs = engine.logs(SCOPE, &runs, query).await.unwrap();
        let attached = engine.attach(SCOPE, &runs, outputs()).await.unwrap();
        let ended = engine
            .wait(SCOPE, &runs, WaitCondition::NextExit)
            .await
            .unwrap();
        std::fs::write(format!("/proc/{}/root/tmp/go", state(&runs).pid), "").unwrap();
        assert_eq!(within(ended).await.exit_code, 9);
        assert_eq!(collect(attached).await.0, "two\n");
        let mut text = Vec::new();
        while let Some(batch) = within(logs.records.recv()).await {
            for frame in batch.unwrap().frames() {
                text.extend_from_slice(&frame.bytes);
            }
        }
        assert_eq!(text, b"one\ntwo\n");
    });
}

#[test]
fn the_machine_went_down() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let (plain, always) = machine.life(async |engine, _images| {
        let plain = run(&engine, shell("true")).await.id;
        let mut request = polite();
        request.spec.restart = RestartPolicy::Always;
        let always = create(&engine, request).await;
        engine.start(SCOPE, &always).await.unwrap();
        until_logged(&engine, &always, "ready").await;
        engine.kill(SCOPE, &always, Signal::KILL).await.unwrap();
        (plain, always)
    });
    // As if the power had failed while both ran, in another boot.
    for id in [&plain, &always] {
        let path = machine
            .root()
            .join("engine/containers")
            .join(id)
            .join("state.json");
        let mut state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        state["boot"] = "another".into();
        state["state"]["status"] = "running".into();
        state["state"]["stopped_by_caller"] = false.into();
        std::fs::write(&path, state.to_string()).unwrap();
    }
    machine.life(async |engine, _images| {
        let state = engine.inspect(SCOPE, &plain).unwrap().state.clone();
        assert_eq!((state.status, state.exit_code), (Status::Exited, 255));
        let deadline = tokio::time::Instant::now() + LIMIT;
        while engine.inspect(SCOPE, &always).unwrap().state.status != Status::Running {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_torn_state_is_no_obstacle() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let id = machine.life(async |engine, _images| run(&engine, shell("true")).await.id);
    let path = machine
        .root()
        .join("engine/containers")
        .join(&id)
        .join("state.json");
    for torn in ["", "{\"version\":1,\"boo"] {
        std::fs::write(&path, torn).unwrap();
        // A power cut takes the exit record along; the engine that just ended may have left it.
        let _ = std::fs::remove_dir_all(machine.run().join("containers").join(&id));
        machine.life(async |engine, _images| {
            let state = engine.inspect(SCOPE, &id).unwrap().state.clone();
            assert_eq!((state.status, state.exit_code), (Status::Exited, 255));
            assert_eq!(start_and_collect(&engine, id.clone()).await.code, 0);
        });
    }
}

#[test]
fn a_killed_shim_takes_its_container_along() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let marker = format!("marker-{}", std::process::id());
        let script = format!("echo ready; while : {marker}; do sleep 0.02; done");
        let id = create(&engine, shell(&script)).await;
        engine.start(SCOPE, &id).await.unwrap();
        until_logged(&engine, &id, "ready").await;
        assert!(processes_with(&marker) > 0);
        let pid = engine.inspect(SCOPE, &id).unwrap().state.pid;
        signal_parent(pid, rustix::process::Signal::KILL);
        assert_eq!(end_of(&engine, &id).await.exit_code, 255);
        let state = engine.inspect(SCOPE, &id).unwrap().state.clone();
        assert!(state.error.contains("shim"), "{}", state.error);
        assert_eq!(processes_with(&marker), 0);
        // It can be started again.
        engine.start(SCOPE, &id).await.unwrap();
        engine.kill(SCOPE, &id, Signal::KILL).await.unwrap();
    });
}

#[test]
fn system_containers_are_invisible_to_users() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    machine.life(async |engine, _images| {
        let name = Some("time".to_owned());
        let id = engine
            .create(Scope::System, name.clone(), polite())
            .await
            .unwrap()
            .id;
        engine.start(Scope::System, &id).await.unwrap();
        for wanted in ["time", id.as_str(), &id[..8]] {
            assert_eq!(
                engine.inspect(SCOPE, wanted).unwrap_err().kind(),
                ErrorKind::NotFound
            );
            let error = engine.remove(SCOPE, wanted, true, true).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
        assert!(engine.list(SCOPE).is_empty());
        // The name is free for users.
        engine.create(SCOPE, name, polite()).await.unwrap();
        assert_eq!(engine.list(Scope::System).len(), 1);
        engine
            .remove(Scope::System, "time", true, true)
            .await
            .unwrap();
    });
}

#[test]
fn a_container_that_never_ends_does_not_use_up_the_stop() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let deaf = "trap '' TERM; echo ready; while :; do sleep 0.02; done";
        let mut ids = Vec::new();
        for patience in [
            Patience::Forever,
            Patience::For(Duration::from_secs(86_400)),
            Patience::For(Duration::ZERO),
        ] {
            let mut request = shell(deaf);
            request.spec.stop.patience = patience;
            ids.push(create(&engine, request).await);
        }
        ids.push(create(&engine, polite()).await);
        for id in &ids {
            engine.start(SCOPE, id).await.unwrap();
            until_logged(&engine, id, "ready").await;
        }
        // Frozen ones, too.
        engine.pause(SCOPE, &ids[1]).await.unwrap();
        let start = std::time::Instant::now();
        within(engine.shutdown_scope(SCOPE, Duration::from_secs(2))).await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        let codes = ids.iter().map(|id| {
            let state = &engine.inspect(SCOPE, id).unwrap().state;
            (state.status, state.exit_code)
        });
        let ended = |code| (Status::Exited, code);
        assert!(codes.eq([ended(137), ended(137), ended(137), ended(5)]));
    });
}

#[test]
fn an_orderly_end_stops_everything_and_starts_nothing() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let id = machine.life(async |engine, _images| {
        let mut request = polite();
        request.spec.restart = RestartPolicy::UnlessStopped;
        let id = create(&engine, request).await;
        engine.start(SCOPE, &id).await.unwrap();
        until_logged(&engine, &id, "ready").await;
        within(engine.shutdown()).await;
        let state = engine.inspect(SCOPE, &id).unwrap().state.clone();
        assert_eq!((state.status, state.exit_code), (Status::Exited, 5));
        assert!(!state.stopped_by_caller);
        assert!(engine.start(SCOPE, &id).await.is_err());
        id
    });
    // The next boot starts it again.
    let path = machine
        .root()
        .join("engine/containers")
        .join(&id)
        .join("state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&path, text.replace(boot.trim(), "another")).unwrap();
    machine.life(async |engine, _images| {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while engine.inspect(SCOPE, &id).unwrap().state.status != Status::Running {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
