//! Storms of requests on few containers: the final states match the kernel's.

use std::path::Path;
use std::time::{Duration, Instant};

use hostd_containers::{CommitRequest, Engine, Status, WaitCondition};
use keelson_model::error::ErrorKind;
use keelson_model::spec::{ContainerSpec, RestartPolicy};
use rand::Rng;

use crate::common::{
    LIMIT, Machine, SCOPE, create, exists, is_root, processes_with, shell, within,
};

/// Requests of one client in a row.
const ROUNDS: usize = 60;
/// Before so many of them nothing is removed.
const KEPT: usize = 45;
/// Clients of each container.
const CLIENTS: usize = 4;

/// One request. A refusal because of the state is not a failure.
async fn ask(engine: &Engine, id: &str, number: u32) {
    let signal = |name: &str| name.parse().unwrap();
    let done = match number {
        0..=3 => engine.start(SCOPE, id).await,
        4 => engine.stop(SCOPE, id, None, Some(0)).await,
        5 => engine.stop(SCOPE, id, None, Some(1)).await,
        6 => engine.kill(SCOPE, id, signal("KILL")).await,
        7 => engine.kill(SCOPE, id, signal("TERM")).await,
        8 => engine.kill(SCOPE, id, signal("HUP")).await,
        9 => engine.restart(SCOPE, id, None, Some(0)).await,
        10 => engine.pause(SCOPE, id).await,
        11 | 12 => engine.unpause(SCOPE, id).await,
        13 => {
            let request = CommitRequest {
                pause: true,
                ..CommitRequest::default()
            };
            engine.commit(SCOPE, id, request).await.map(drop)
        }
        14 => {
            // An endless stop, and a second one that ends it.
            let (ever, soon) = tokio::join!(
                engine.stop(SCOPE, id, None, Some(-1)),
                engine.stop(SCOPE, id, None, Some(0)),
            );
            ever.and(soon)
        }
        _ => engine.remove(SCOPE, id, false, false).await,
    };
    if let Err(error) = done {
        let kind = error.kind();
        let expected = [
            ErrorKind::NotModified,
            ErrorKind::Conflict,
            ErrorKind::NotFound,
        ];
        assert!(expected.contains(&kind), "{number}: {error}");
    }
}

#[test]
fn storms_of_requests_leave_what_the_kernel_says() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    machine.life(async |engine, _images| {
        let marker = format!("storm-{}", std::process::id());
        let loops = format!("while : {marker}; do sleep 0.02; done");
        let polite = format!("trap 'exit 0' TERM; {loops}");
        let deaf = format!("trap '' TERM; {loops}");
        let short = "exit 1";
        let mut ids = Vec::new();
        for (script, restart, auto_remove) in [
            (polite.as_str(), RestartPolicy::Never, false),
            (polite.as_str(), RestartPolicy::Never, true),
            (deaf.as_str(), RestartPolicy::Always, false),
            (short, RestartPolicy::OnFailure { attempts: None }, false),
        ] {
            let mut request = shell(script);
            request.spec.restart = restart;
            request.spec.auto_remove = auto_remove;
            ids.push(create(&engine, request).await);
        }
        let mut clients = tokio::task::JoinSet::new();
        for id in &ids {
            for _ in 0..CLIENTS {
                let (engine, id) = (engine.clone(), id.clone());
                clients.spawn(async move {
                    for round in 0..ROUNDS {
                        let kinds = if round < KEPT { 15 } else { 16 };
                        let number = rand::rng().random_range(0..kinds);
                        within(ask(&engine, &id, number)).await;
                    }
                });
            }
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        // What runs has its process; the others have none.
        for snapshot in engine.list(SCOPE) {
            let state = &snapshot.state;
            let root = format!("/proc/{}/root", state.pid);
            if state.status == Status::Paused || script_of(&snapshot.spec) != short {
                assert_eq!(state.status.has_process(), Path::new(&root).exists());
            }
        }
        for id in &ids {
            // It may be gone, or not run.
            let _ = within(engine.stop(SCOPE, id, None, Some(0))).await;
            if let Ok(snapshot) = engine.inspect(SCOPE, id) {
                let state = &snapshot.state;
                assert!(
                    !state.status.counts_as_running() && state.pid == 0,
                    "{state:?}"
                );
            }
        }
        assert_eq!(processes_with(&marker), 0);
        // Everything can be removed, whatever was done to it, and then nothing of it is left.
        for id in &ids {
            let removed = engine.wait(SCOPE, id, WaitCondition::Removed).await;
            match within(engine.remove(SCOPE, id, true, true)).await {
                Ok(()) => drop(within(removed.unwrap()).await),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
        }
        assert!(engine.list(SCOPE).is_empty());
        let files = machine.root().join("engine/containers");
        let run = machine.run().join("containers");
        let deadline = Instant::now() + LIMIT;
        while ids
            .iter()
            .any(|id| exists(files.join(id)) || exists(run.join(id)))
        {
            assert!(Instant::now() < deadline, "files are left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Requests of clients that leave stay, so the number of waiting requests is limited, and requests
/// that end the waiting are always accepted.
#[test]
fn requests_that_wait_for_one_container_are_bounded() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        let id = create(&engine, shell("trap '' TERM; while :; do sleep 0.1; done")).await;
        within(engine.start(SCOPE, &id)).await.unwrap();
        let mut stops = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let (engine, id) = (engine.clone(), id.clone());
            stops.spawn(async move { engine.stop(SCOPE, &id, None, Some(-1)).await });
        }
        for _ in 0..300 - 256 {
            let refused = within(stops.join_next()).await.unwrap().unwrap();
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
        }
        within(engine.kill(SCOPE, &id, "KILL".parse().unwrap()))
            .await
            .unwrap();
        while let Some(stopped) = within(stops.join_next()).await {
            stopped.unwrap().unwrap();
        }
        within(engine.remove(SCOPE, &id, true, true)).await.unwrap();
    });
}

fn script_of(spec: &ContainerSpec) -> &str {
    spec.process.args.last().map_or("", String::as_str)
}
