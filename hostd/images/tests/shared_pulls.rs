//! Simultaneous pulls: if one fetches an object, the others wait for it.

mod common;

use std::time::Duration;

use common::client::{fixture, noise, pull};
use common::server::{Remote, Reply, Seen, Server};
use common::{Fixture, Tar, busybox_layer, docker_archive, is_root};
use hostd_images::{ImageError, Progress, PullOptions, Pulled, Step};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

fn layers() -> Vec<Vec<u8>> {
    let big = Tar::new().file("noise", &noise(1_500_000), 0o644).finish();
    vec![busybox_layer(), big]
}

/// A pull in a task of its own, whose steps can be watched.
struct Running {
    task: JoinHandle<Result<Pulled, ImageError>>,
    steps: mpsc::Receiver<Progress>,
}

impl Running {
    fn start(fixture: &Fixture, name: &str) -> Self {
        let (sender, steps) = mpsc::channel(256);
        let (store, name) = (fixture.store().clone(), name.to_owned());
        let task =
            tokio::spawn(async move { store.pull(&name, PullOptions::default(), sender).await });
        Self { task, steps }
    }

    /// Waits for a step.
    async fn see(&mut self, step: Step) {
        while self.steps.recv().await.expect("a step").step != step {}
    }

    async fn end(mut self) -> Result<Pulled, ImageError> {
        while self.steps.recv().await.is_some() {}
        self.task.await.unwrap()
    }
}

/// A server whose answers for layers stall in the middle until they are resumed.
async fn stalling(remote: Remote) -> Server {
    Server::start(move |seen: &Seen| {
        let mut reply = remote.answer(seen);
        if remote.is_layer(seen) && seen.header("range").is_none() {
            reply.stall = Some(reply.body.len() / 2);
        }
        reply
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_blob_is_fetched_once() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    let server = stalling(remote).await;
    let fixture = fixture(|_| {});
    let names = ["a", "b", "a", "c"].map(|name| server.name(name));
    let running = names.each_ref().map(|name| Running::start(&fixture, name));
    let mut ids = Vec::new();
    for pull in running {
        ids.push(pull.end().await.unwrap().id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    // Two layers, configuration, manifest and record: each once.
    assert_eq!(fixture.objects().len(), 5);
    let whole = server
        .seen()
        .into_iter()
        .filter(|seen| seen.path.contains("/blobs/") && seen.header("range").is_none());
    assert_eq!(whole.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_goes_on_for_those_that_wait() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers()[1..]);
    let server = stalling(remote.clone()).await;
    let fixture = fixture(|registries| registries.deadlines.stall = Duration::from_secs(2));
    let mut first = Running::start(&fixture, &server.name("a"));
    first.see(Step::Downloading).await;
    let mut second = Running::start(&fixture, &server.name("b"));
    second.see(Step::Downloading).await;
    drop(first.steps);
    let error = first.task.await.unwrap().unwrap_err();
    assert!(matches!(error, ImageError::Interrupted(_)), "{error}");
    second.see(Step::PullComplete).await;
    second.end().await.unwrap();
    let of_layer = server
        .seen()
        .into_iter()
        .filter(|seen| remote.is_layer(seen));
    // Once completely, and once from where it stalled.
    assert_eq!(of_layer.count(), 2);
    assert!(fixture.store().resolve(&server.name("b")).is_ok());
    assert!(fixture.store().resolve(&server.name("a")).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_download_fails_only_the_pull_that_began_it() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers()[1..]);
    let honest = remote.serve().await;
    let broken = Server::start(move |seen: &Seen| {
        let mut reply = remote.answer(seen);
        if remote.is_layer(seen) {
            // Begins, stalls, and is gone.
            match seen.before {
                0 => reply.stall = Some(reply.body.len() / 2),
                _ => reply = Reply::new(404, "{}"),
            }
        }
        reply
    })
    .await;
    let fixture = fixture(|registries| registries.deadlines.stall = Duration::from_secs(1));
    let mut first = Running::start(&fixture, &broken.name("a"));
    first.see(Step::Downloading).await;
    let mut second = Running::start(&fixture, &honest.name("a"));
    second.see(Step::Downloading).await;
    let error = first.end().await.unwrap_err().to_string();
    assert!(error.contains(&broken.name("a")), "{error}");
    second.end().await.unwrap();
    assert!(fixture.store().resolve(&honest.name("a")).is_ok());
    assert!(fixture.store().resolve(&broken.name("a")).is_err());
    let removed = fixture.store().prune(true, &|_| true).unwrap();
    assert!(!removed.removed.is_empty());
    assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pulls_loads_and_removals_of_the_same_layers_go_together() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    let server = remote.serve().await;
    let fixture = fixture(|_| {});
    let archive = docker_archive("loaded:1", &layers(), "sh");
    let (a, b) = (server.name("a"), server.name("b"));
    for _ in 0..6 {
        let (one, two, three, removed) = tokio::join!(
            pull(&fixture, &a),
            pull(&fixture, &b),
            fixture.load(&archive),
            async {
                tokio::task::yield_now().await;
                fixture.store().remove("loaded:1", true, false)
            },
        );
        let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
        assert_eq!((one.id, two.id), (three[0].id, three[0].id));
        match removed {
            Ok(_) | Err(ImageError::NotFound(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let image = fixture.store().resolve(&a).unwrap();
        fixture.store().mount(&image.id).unwrap();
        fixture.store().remove(&a, true, false).unwrap();
    }
    fixture.store().prune(true, &|_| true).unwrap();
    assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_registry_delays_no_other() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    let slow = stalling(remote.clone()).await;
    let good = remote.serve().await;
    let fixture = fixture(|registries| registries.deadlines.stall = Duration::from_secs(600));
    let mut waiting = Running::start(&fixture, &slow.name("a"));
    waiting.see(Step::Downloading).await;
    let pulled = Running::start(&fixture, &good.name("a"))
        .end()
        .await
        .unwrap();
    assert!(fixture.store().mount(&pulled.id).is_ok());
    waiting.task.abort();
}
