//! Pushing to registries that are broken or hostile.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::client::{fixture, noise, push, push_with};
use common::server::{Reply, Seen, Server, Take};
use common::storage::Storage;
use common::{Fixture, Tar, docker_archive, is_root};
use hostd_images::{Digest, ImageError, RegistryOptions, Step};
use tokio::sync::mpsc;

/// Bytes of a layer that does not compress.
const SIZE: usize = 1_500_000;

/// A store with an image of one such layer, or more.
async fn with_image(name: &str, layers: usize, change: fn(&mut RegistryOptions)) -> Fixture {
    let fixture = fixture(|registries| {
        registries.deadlines.answer = Duration::from_secs(1);
        registries.deadlines.connect = Duration::from_secs(1);
        change(registries);
    });
    let layers: Vec<_> = (0..layers)
        .map(|number| {
            let file = format!("noise-{number}");
            Tar::new().file(&file, &noise(SIZE), 0o644).finish()
        })
        .collect();
    let archive = docker_archive(name, &layers, "sh");
    fixture.load(&archive).await.unwrap();
    fixture
}

/// A registry that handles requests in a special way.
struct Target {
    storage: Arc<Storage>,
    server: Server,
}

impl Target {
    async fn start(
        take: impl Fn(&Seen) -> Take + Send + Sync + 'static,
        reply: impl Fn(&Storage, &Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let storage = Arc::new(Storage::default());
        let kept = Arc::clone(&storage);
        let server = Server::start_taking(take, move |seen| {
            reply(&kept, seen).unwrap_or_else(|| kept.answer(seen))
        })
        .await;
        Self { storage, server }
    }

    /// Whether the repository has an image with all its blobs.
    fn has(&self, repository: &str) -> bool {
        let (_, manifest) = self.storage.manifest(repository, "latest");
        let text = String::from_utf8(manifest).unwrap();
        let blobs = self.storage.blobs(repository);
        !blobs.is_empty() && blobs.iter().all(|blob| text.contains(&blob.to_string()))
    }

    /// The requests that sent a layer's bytes: method and `Content-Range`.
    fn parts(&self) -> Vec<(String, Option<String>)> {
        let seen = self.server.seen();
        let of = |seen: &Seen| {
            let range = seen.header("content-range").map(str::to_owned);
            (seen.method.clone(), range)
        };
        seen.iter().filter(|seen| is_part(seen)).map(of).collect()
    }
}

/// Whether the request sends a part of a layer.
fn is_part(seen: &Seen) -> bool {
    let length = seen.header("content-length").unwrap_or("0");
    seen.path.contains("/blobs/uploads/") && length.parse::<usize>().unwrap() > 10_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_upload_goes_on_where_it_stood() {
    if !is_root() {
        return;
    }
    let broken = AtomicUsize::new(0);
    let target = Target::start(
        move |seen| match is_part(seen) && broken.fetch_add(1, Ordering::Relaxed) == 0 {
            true => Take::Cut(700_000),
            false => Take::All,
        },
        |_, _| None,
    )
    .await;
    let name = target.server.name("a");
    let fixture = with_image(&name, 1, |_| {}).await;
    let (pushed, steps) = push_with(&fixture, &name).await;
    pushed.unwrap();
    assert!(target.has("a"));
    let parts = target.parts();
    assert_eq!(parts.len(), 2, "{parts:?}");
    let range = parts[1].1.clone().unwrap();
    assert!(range.starts_with("700000-"), "{range}");
    assert_eq!(target.server.count("POST", "/blobs/uploads/"), 2);
    for wanted in [Step::Preparing, Step::Pushing, Step::Pushed] {
        let told = steps.iter().any(|told| told.step == wanted);
        assert!(told, "{wanted:?}: {steps:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_forgotten_begins_again() {
    if !is_root() {
        return;
    }
    let broken = AtomicUsize::new(0);
    let target = Target::start(
        move |seen| match is_part(seen) && broken.fetch_add(1, Ordering::Relaxed) == 0 {
            true => Take::Cut(700_000),
            false => Take::All,
        },
        |_, seen| {
            let status = seen.method == "GET" && seen.path.contains("/uploads/");
            status.then(|| Reply::new(404, "{}"))
        },
    )
    .await;
    let name = target.server.name("a");
    let fixture = with_image(&name, 1, |_| {}).await;
    push(&fixture, &name).await.unwrap();
    assert!(target.has("a"));
    assert_eq!(target.parts()[1], ("PUT".to_owned(), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_not_a_lost_blob() {
    if !is_root() {
        return;
    }
    // All bytes arrive, the upload is closed, and the connection breaks before the answer.
    let target = Target::start(
        |seen| match is_part(seen) && seen.before == 0 {
            true => Take::Cut(usize::MAX),
            false => Take::All,
        },
        |_, _| None,
    )
    .await;
    let name = target.server.name("a");
    let fixture = with_image(&name, 1, |_| {}).await;
    push(&fixture, &name).await.unwrap();
    assert!(target.has("a"));
    assert_eq!(target.parts().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_registries_get_it_later() {
    if !is_root() {
        return;
    }
    let storms = AtomicUsize::new(0);
    let target = Target::start(
        |_| Take::All,
        move |_, seen| {
            let storm = is_part(seen) && storms.fetch_add(1, Ordering::Relaxed) < 2;
            let first = seen.before == 0 && seen.method != "PUT";
            match (storm, first) {
                (true, _) => Some(Reply::new(503, "").header("Retry-After", "0")),
                (_, true) => Some(Reply::new(500, "")),
                _ => None,
            }
        },
    )
    .await;
    let name = target.server.name("a");
    let fixture = with_image(&name, 1, |_| {}).await;
    push(&fixture, &name).await.unwrap();
    assert!(target.has("a"));
    assert_eq!(target.parts().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn layers_go_out_side_by_side() {
    if !is_root() {
        return;
    }
    // The first layer is only taken when the second one has come, too.
    let waiting = Arc::new(AtomicUsize::new(0));
    let target = Target::start(
        |_| Take::All,
        move |_, seen| {
            if is_part(seen) {
                waiting.fetch_add(1, Ordering::SeqCst);
                let start = Instant::now();
                while waiting.load(Ordering::SeqCst) < 2 {
                    if start.elapsed() > Duration::from_secs(5) {
                        return Some(Reply::new(400, ""));
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            None
        },
    )
    .await;
    let name = target.server.name("a");
    let fixture = with_image(&name, 3, |registries| {
        registries.deadlines.answer = Duration::from_secs(20);
    })
    .await;
    push(&fixture, &name).await.unwrap();
    assert_eq!(target.storage.blobs("a").len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_runs_out_is_renewed_on_the_way() {
    if !is_root() {
        return;
    }
    let own = Arc::new(OnceLock::<String>::new());
    let address = Arc::clone(&own);
    let tokens = AtomicUsize::new(0);
    let target = Target::start(
        |seen| match is_part(seen) && seen.header("authorization") == Some("Bearer t0") {
            true => Take::Nothing,
            false => Take::All,
        },
        move |_, seen| {
            let address = address.get().unwrap();
            if seen.path.starts_with("/token?") {
                assert!(seen.path.contains("scope=repository%3Aa%3Apull%2Cpush"));
                let number = tokens.fetch_add(1, Ordering::Relaxed);
                return Some(Reply::new(200, format!(r#"{{"token":"t{number}"}}"#)));
            }
            let given = seen.header("authorization");
            let old = given == Some("Bearer t0") && is_part(seen);
            let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"s\"");
            (given.is_none() || old)
                .then(|| Reply::new(401, "{}").header("WWW-Authenticate", challenge))
        },
    )
    .await;
    own.set(target.server.address.to_string()).unwrap();
    let name = target.server.name("a");
    let fixture = with_image(&name, 1, |_| {}).await;
    push(&fixture, &name).await.unwrap();
    assert!(target.has("a"));
    assert_eq!(target.server.count("GET", "/token?"), 2);
}

/// The actions of a hostile registry, and words that the error must contain.
type Trick = (
    &'static str,
    fn(&Seen) -> Take,
    fn(&Seen) -> Option<Reply>,
    &'static str,
);

fn tricks() -> Vec<Trick> {
    fn all(_: &Seen) -> Take {
        Take::All
    }
    fn begin(seen: &Seen, location: Option<&str>) -> Option<Reply> {
        let reply = Reply::new(202, "");
        (seen.method == "POST").then(|| match location {
            Some(location) => reply.header("Location", location),
            None => reply,
        })
    }
    vec![
        (
            "no place for the upload",
            all,
            |seen| begin(seen, None),
            "names no address",
        ),
        (
            "a place that is none",
            all,
            |seen| begin(seen, Some("http://")),
            "names no address",
        ),
        (
            "a place without TLS elsewhere",
            all,
            |seen| begin(seen, Some("http://registry.invalid/upload")),
            "to plain HTTP",
        ),
        (
            "always busy",
            all,
            |seen| is_part(seen).then(|| Reply::new(503, "")),
            "answers 503",
        ),
        (
            "always too many",
            all,
            |seen| is_part(seen).then(|| Reply::new(429, "")),
            "too many requests",
        ),
        (
            "redirects in a circle",
            all,
            |seen| {
                let to = seen.path.clone();
                (seen.method == "HEAD").then(|| Reply::new(307, "").header("Location", to))
            },
            "more than 5 redirects",
        ),
        (
            "a redirected part",
            all,
            |seen| {
                let to = seen.path.clone();
                is_part(seen).then(|| Reply::new(307, "").header("Location", to))
            },
            "answers 307",
        ),
        (
            "always hangs up",
            |seen| match is_part(seen) {
                true => Take::Cut(1000),
                false => Take::All,
            },
            // And never has anything.
            |seen| {
                let status = seen.method == "GET" && seen.path.contains("/uploads/");
                let place = seen.path.clone();
                status.then(|| {
                    Reply::new(204, "")
                        .header("Location", place)
                        .header("Range", "0-0")
                })
            },
            "cannot be reached",
        ),
        (
            "has more than was sent",
            |seen| match is_part(seen) {
                true => Take::Cut(1000),
                false => Take::All,
            },
            |seen| {
                let status = seen.method == "GET" && seen.path.contains("/uploads/");
                status.then(|| Reply::new(204, "").header("Range", "0-99999999"))
            },
            "were sent at most",
        ),
        (
            "never content with the range",
            all,
            |seen| is_part(seen).then(|| Reply::new(416, "")),
            "answers 416",
        ),
        (
            "never authorized",
            all,
            |seen| {
                let challenge = "Basic realm=\"x\"";
                is_part(seen).then(|| Reply::new(401, "").header("WWW-Authenticate", challenge))
            },
            "push access denied",
        ),
        (
            "takes nothing",
            |seen| match is_part(seen) {
                true => Take::Stall(0),
                false => Take::All,
            },
            |_| None,
            "nothing moved",
        ),
        (
            "stores another manifest",
            all,
            |seen| {
                let put = seen.method == "PUT" && seen.path.contains("/manifests/");
                let digest = Digest::of(b"other").to_string();
                put.then(|| Reply::new(201, "").header("Docker-Content-Digest", digest))
            },
            "is corrupt",
        ),
        (
            "refuses the manifest",
            all,
            |seen| {
                let put = seen.method == "PUT" && seen.path.contains("/manifests/");
                let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#;
                put.then(|| Reply::new(400, body))
            },
            "manifest invalid: no",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_registries_leave_nothing() {
    if !is_root() {
        return;
    }
    for (what, take, reply, says) in tricks() {
        let target = Target::start(take, move |_, seen| reply(seen)).await;
        let name = target.server.name("a");
        let fixture = with_image(&name, 1, |_| {}).await;
        let before = fixture.objects();
        let start = Instant::now();
        let error = match push(&fixture, &name).await {
            Ok(pushed) => panic!("{what}: {pushed:?}"),
            Err(error) => error.to_string(),
        };
        assert!(start.elapsed() < Duration::from_secs(15), "{what}");
        assert!(error.contains(says), "{what}: {error}");
        assert!(error.contains(&name), "{what}: {error}");
        // Each attempt counts.
        assert!(target.parts().len() <= 3, "{what}: {:?}", target.parts());
        assert_eq!(fixture.objects(), before, "{what}");
        let image = fixture.store().resolve(&name).unwrap();
        assert!(image.repo_digests.is_empty(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_ends_when_nobody_waits_for_it() {
    if !is_root() {
        return;
    }
    let target = Target::start(
        |seen| match is_part(seen) {
            true => Take::Stall(100_000),
            false => Take::All,
        },
        |_, _| None,
    )
    .await;
    let name = target.server.name("a");
    let fixture = with_image(&name, 1, |registries| {
        registries.deadlines.stall = Duration::from_secs(20);
        registries.deadlines.answer = Duration::from_secs(20);
    })
    .await;
    let before = fixture.objects();
    let (sender, mut receiver) = mpsc::channel(64);
    let store = fixture.store().clone();
    let task = tokio::spawn(async move { store.push(&name, None, sender).await });
    while let Some(step) = receiver.recv().await {
        if step.step == Step::Pushing && step.current > 0 {
            break;
        }
    }
    drop(receiver);
    let start = Instant::now();
    let error = task.await.unwrap().unwrap_err();
    assert!(matches!(error, ImageError::Interrupted(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(fixture.objects(), before);
}
