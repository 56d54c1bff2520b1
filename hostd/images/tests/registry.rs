//! Pulls from broken or hostile registries: a pull succeeds if it can, and otherwise nothing is
//! left of it.

mod common;

use std::time::{Duration, Instant};

use common::client::{fixture, noise, pull, pull_with};
use common::server::{INDEX, MANIFEST, Remote, Reply, Seen, Server, unknown};
use common::{Tar, busybox_layer, is_root, zstd};
use hostd_images::{Credentials, Digest, ImageError, Proxies, PullOptions, Step};
use serde_json::json;
use tokio::sync::mpsc;

fn layers() -> Vec<Vec<u8>> {
    let big = Tar::new().file("noise", &noise(1_500_000), 0o644).finish();
    vec![busybox_layer(), big]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_registry_gives_the_image_once() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    let honest = remote.clone();
    let server = Server::start(move |seen| honest.answer(seen)).await;
    let fixture = fixture(|_| {});
    let (pulled, steps) = pull_with(&fixture, &server.name("a"), PullOptions::default()).await;
    let pulled = pulled.unwrap();
    assert!(pulled.updated);
    assert_eq!(pulled.id, remote.config);
    assert_eq!(pulled.digest, Digest::of(&remote.manifest));
    let steps: Vec<Step> = steps.into_iter().map(|told| told.step).collect();
    assert_eq!(steps[0], Step::PullingFrom("a".to_owned()));
    let complete = steps.iter().filter(|step| **step == Step::PullComplete);
    assert_eq!(complete.count(), 2);
    assert!(steps.contains(&Step::Downloading), "{steps:?}");
    let image = fixture.store().resolve(&server.name("a")).unwrap();
    assert_eq!(image.repo_tags, [server.name("a:latest")]);
    assert_eq!(
        image.repo_digests,
        [format!("{}@{}", server.name("a"), pulled.digest)]
    );
    let requests = server.count("GET", "/blobs/");
    // Existing layers are not fetched again, also under another name.
    assert!(!pull(&fixture, &server.name("a")).await.unwrap().updated);
    assert!(pull(&fixture, &server.name("b")).await.unwrap().updated);
    assert_eq!(server.count("GET", "/blobs/"), requests);
}

/// Images are accepted with unusual media types, and other entries of an index are skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_media_types_and_entries_are_no_obstacle() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&[busybox_layer()]);
    let text = String::from_utf8_lossy(&remote.manifest).into_owned();
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    let config = "application/vnd.oci.image.config.v1+json";
    assert!(text.contains(layer) && text.contains(config));
    let mut manifests = vec![
        text.replace(layer, "application/octet-stream"),
        text.replace(layer, ""),
        text.replace(
            layer,
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ),
        text.replace(config, "application/octet-stream"),
        text.replace(config, ""),
        text.replace("\"layers\"", "\"Layers\"")
            .replacen('{', "{\"annotations\":null,", 1),
    ];
    let digest = Digest::of(remote.manifest.as_slice());
    manifests.push(format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[
            {{"mediaType":"m","digest":"sha512:00","size":-1}},null,
            {{"mediaType":"application/vnd.cncf.notary.signature","digest":"{digest}","size":1}},
            {{"mediaType":"{MANIFEST}","digest":"{digest}","size":{},"platform":null,
              "annotations":{{"x":null}}}}]}}"#,
        remote.manifest.len()
    ));
    for manifest in manifests {
        let honest = remote.clone();
        let told = manifest.clone();
        let server = Server::start(move |seen| match seen.path.contains("/manifests/latest") {
            true => Reply::new(200, told.clone()),
            false => honest.answer(seen),
        })
        .await;
        let fixture = fixture(|_| {});
        let pulled = pull(&fixture, &server.name("a")).await;
        assert_eq!(pulled.unwrap().id, remote.config, "{manifest}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_are_resumed() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    for (what, ranges) in [("ranges", true), ("no ranges", false)] {
        let honest = remote.clone();
        let server = Server::start(move |seen: &Seen| {
            let mut plain = seen.clone();
            if !ranges {
                plain.head = String::new();
            }
            let mut reply = honest.answer(&plain);
            if honest.is_layer(seen) {
                let half = reply.body.len() / 2;
                match seen.before {
                    0 => reply.cut = Some(half),
                    1 => reply.stall = Some(half),
                    _ => {}
                }
            }
            reply
        })
        .await;
        let fixture = fixture(|_| {});
        pull(&fixture, &server.name("a"))
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let resumed = server
            .seen()
            .iter()
            .filter(|seen| seen.header("range").is_some())
            .count();
        assert_eq!(resumed, 4, "{what}");
    }
}

/// One byte at a time, each well before the limit for a stalled connection: in this way a layer of
/// a megabyte would take a day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registries_that_drip_are_given_up() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    for what in ["manifests/", "blobs/"] {
        let honest = remote.clone();
        let server = Server::start(move |seen: &Seen| {
            let mut reply = honest.answer(seen);
            if seen.path.contains(what) {
                reply.stall = Some(0);
                reply.trickle = Some(Duration::from_millis(50));
            }
            reply
        })
        .await;
        let fixture = fixture(|_| {});
        let error = pull(&fixture, &server.name("a")).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("bytes arrived in 0.3 s"), "{what}: {text}");
        assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_registries_are_asked_again() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    let honest = remote.clone();
    let server = Server::start(move |seen: &Seen| match seen.before {
        0 if seen.path.contains("/manifests/") => {
            Reply::new(429, "").header("Retry-After", "100000")
        }
        0 => Reply::new(503, "busy"),
        1 if seen.path.contains("/blobs/") => Reply::new(500, "broken"),
        _ => honest.answer(seen),
    })
    .await;
    pull(&fixture(|_| {}), &server.name("a")).await.unwrap();

    let server = Server::start(|seen: &Seen| match seen.path.as_str() {
        "/v2/" => Reply::new(200, ""),
        _ => Reply::new(
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow"}]}"#,
        ),
    })
    .await;
    let error = pull(&fixture(|_| {}), &server.name("a")).await.unwrap_err();
    assert!(error.to_string().contains("too many requests"), "{error}");
    assert_eq!(server.count("GET", "/manifests/"), 3);
}

/// A lie about an image, and words that the error must contain.
type Lie = (
    &'static str,
    Box<dyn Fn(&Remote, &Seen) -> Option<Reply> + Send + Sync>,
    &'static str,
);

fn lies() -> Vec<Lie> {
    fn lie(
        what: &'static str,
        says: &'static str,
        tell: impl Fn(&Remote, &Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Lie {
        (what, Box::new(tell), says)
    }
    let is = |part: &'static str| move |seen: &Seen| seen.path.contains(part);
    let manifest = is("/manifests/latest");
    vec![
        lie("other layer", "is corrupt", |remote, seen| {
            let mut reply = remote.answer(seen);
            let last = reply.body.len().checked_sub(1)?;
            // The last byte of gzip: the size. Only the digest shows the change.
            reply.body[last] ^= 0;
            remote.is_layer(seen).then(|| {
                reply.body[9] ^= 0x55;
                reply
            })
        }),
        lie("other configuration", "is corrupt", |remote, seen| {
            let config = seen.path.ends_with(&remote.config.to_string());
            let mut reply = remote.answer(seen);
            reply.body = String::from_utf8_lossy(&reply.body)
                .replace("PATH", "HTAP")
                .into_bytes();
            config.then_some(reply)
        }),
        lie("longer layer", "manifest says", |remote, seen| {
            let mut reply = remote.answer(seen);
            reply.body.push(0);
            remote.is_layer(seen).then_some(reply)
        }),
        lie("shorter layer", "manifest says", |remote, seen| {
            let mut reply = remote.answer(seen);
            reply.body.pop();
            remote.is_layer(seen).then_some(reply)
        }),
        lie("endless layer", "more than the", |remote, seen| {
            let mut reply = remote.answer(seen);
            reply.endless = true;
            remote.is_layer(seen).then_some(reply)
        }),
        lie(
            "always broken layer",
            "the connection broke",
            |remote, seen| {
                let mut reply = remote.answer(seen);
                reply.cut = Some(0);
                remote.is_layer(seen).then_some(reply)
            },
        ),
        lie("endless manifest", "it is larger than", move |_, seen| {
            let mut reply = Reply::new(200, vec![b' '; 1 << 16]);
            reply.endless = true;
            manifest(seen).then_some(reply)
        }),
        lie("no manifest", "not valid JSON", move |_, seen| {
            manifest(seen).then(|| Reply::new(200, "<html>"))
        }),
        lie(
            "wrong digest of the manifest",
            "is corrupt",
            move |remote, seen| {
                let digest = Digest::of(b"other").to_string();
                let reply = remote.answer(seen).header("Docker-Content-Digest", digest);
                manifest(seen).then_some(reply)
            },
        ),
        lie(
            "artifact",
            "not that of a container image",
            move |remote, seen| {
                let text = String::from_utf8_lossy(&remote.manifest).into_owned();
                let text = text.replace("image.config", "chart.config");
                manifest(seen).then(|| Reply::new(200, text))
            },
        ),
        lie("old manifest", "push it again", move |_, seen| {
            let text = r#"{"schemaVersion":1,"name":"a","tag":"latest","fsLayers":[]}"#;
            manifest(seen).then(|| Reply::new(200, text))
        }),
        lie("signature", "of an artifact", move |remote, seen| {
            let text = String::from_utf8_lossy(&remote.manifest).into_owned();
            let text = text
                .replace("oci.image.config.v1", "oci.empty.v1")
                .replacen('{', r#"{"artifactType":"application/x-signature","#, 1);
            manifest(seen).then(|| Reply::new(200, text))
        }),
        lie("another media type", "text/html", move |remote, seen| {
            let text = String::from_utf8_lossy(&remote.manifest).into_owned();
            manifest(seen).then(|| Reply::new(200, text.replace(MANIFEST, "text/html")))
        }),
        lie(
            "manifest and index",
            "neither config",
            move |remote, seen| {
                let text = String::from_utf8_lossy(&remote.manifest).into_owned();
                let text = text.replacen('{', r#"{"manifests":[],"#, 1);
                manifest(seen).then(|| Reply::new(200, text))
            },
        ),
        lie(
            "layer of another kind",
            "text/plain",
            move |remote, seen| {
                let text = String::from_utf8_lossy(&remote.manifest).into_owned();
                let text =
                    text.replace("application/vnd.oci.image.layer.v1.tar+gzip", "text/plain");
                manifest(seen).then(|| Reply::new(200, text))
            },
        ),
        lie(
            "compressed layer of no known kind",
            "lz4 compression is not supported",
            |remote, seen| {
                let mut reply = remote.answer(seen);
                remote.is_layer(seen).then(|| {
                    reply.body[..6].copy_from_slice(b"\x04\x22\x4d\x18\0\0");
                    reply
                })
            },
        ),
        lie("truncated layer", "the connection broke", |remote, seen| {
            let mut reply = remote.answer(seen);
            let length = reply.body.len();
            // Also when the rest is requested: it breaks at the end each time.
            reply.cut = Some(length - length.min(10));
            remote.is_layer(seen).then_some(reply)
        }),
        lie(
            "foreign layer",
            "foreign layer, and registry",
            move |remote, seen| {
                let text = String::from_utf8_lossy(&remote.manifest).into_owned();
                let text = text.replace("layer.v1", "layer.nondistributable.v1");
                match remote.is_layer(seen) {
                    true => Some(unknown()),
                    false => manifest(seen).then(|| Reply::new(200, text)),
                }
            },
        ),
        lie("huge layer", "at most", move |remote, seen| {
            let layers = [(remote.layers[0], 1 << 40), (remote.layers[1], 7)];
            let bytes = remote.manifest_of(&layers, remote.blobs[&remote.config].len());
            manifest(seen).then(|| Reply::new(200, bytes))
        }),
        lie(
            "too few layers",
            "has 1 layers where",
            move |remote, seen| {
                let layers = [(remote.layers[0], remote.blobs[&remote.layers[0]].len())];
                let bytes = remote.manifest_of(&layers, remote.blobs[&remote.config].len());
                manifest(seen).then(|| Reply::new(200, bytes))
            },
        ),
        lie(
            "layers swapped",
            "configuration says",
            move |remote, seen| {
                let size = |digest: &Digest| (*digest, remote.blobs[digest].len());
                let layers = [size(&remote.layers[1]), size(&remote.layers[0])];
                let bytes = remote.manifest_of(&layers, remote.blobs[&remote.config].len());
                manifest(seen).then(|| Reply::new(200, bytes))
            },
        ),
        lie("redirects in a circle", "redirects", |remote, seen| {
            let to = seen.path.clone();
            remote
                .is_layer(seen)
                .then(|| Reply::new(307, "").header("Location", to))
        }),
        lie("garbled layer", "ask the image's maker", |remote, seen| {
            remote.is_layer(seen).then(|| {
                let mut reply = remote.answer(seen);
                reply.body[12..40].fill(0xaa);
                reply
            })
        }),
        lie("redirect to plain HTTP", "plain HTTP", |remote, seen| {
            let to = "http://registry.invalid/x";
            remote
                .is_layer(seen)
                .then(|| Reply::new(302, "").header("Location", to))
        }),
        lie("another range", "instead of one from", |remote, seen| {
            let mut reply = remote.answer(seen);
            if seen.before == 0 {
                reply.cut = Some(reply.body.len() / 2);
            } else {
                reply.headers = vec![("Content-Range".to_owned(), "bytes 1-2/3".to_owned())];
            }
            remote.is_layer(seen).then_some(reply)
        }),
        lie(
            "token service without TLS",
            "does not use HTTPS",
            |_, seen| {
                let challenge = "Bearer realm=\"http://registry.invalid/token\"";
                (seen.path == "/v2/")
                    .then(|| Reply::new(401, "").header("WWW-Authenticate", challenge))
            },
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lying_registries_leave_nothing() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    let fixture = fixture(|_| {});
    for (what, tell, says) in lies() {
        let honest = remote.clone();
        let server = Server::start(move |seen: &Seen| {
            tell(&honest, seen).unwrap_or_else(|| honest.answer(seen))
        })
        .await;
        let error = match pull(&fixture, &server.name("a")).await {
            Ok(pulled) => panic!("{what}: {pulled:?}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(says), "{what}: {error}");
        assert!(error.contains(&server.name("a")), "{what}: {error}");
        // Which blob it is.
        if what.ends_with(" layer") {
            let digests = remote.layers.iter().map(Digest::to_string);
            assert!(
                { digests }.any(|digest| error.contains(&digest)),
                "{what}: {error}"
            );
        }
        assert_eq!(
            fixture.objects(),
            Vec::<std::path::PathBuf>::new(),
            "{what}"
        );
        assert!(fixture.store().list().is_empty(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_are_stopped() {
    if !is_root() {
        return;
    }
    // 4 MiB are accepted; this is more, and small when compressed.
    let bomb = Tar::new().file("zeros", &vec![0; 6 << 20], 0o644).finish();
    let remote = Remote::new(&[bomb]);
    let server = remote.serve().await;
    let fixture = fixture(|_| {});
    let error = pull(&fixture, &server.name("a")).await.unwrap_err();
    assert!(
        error.to_string().contains("limit") || error.to_string().contains("more than"),
        "{error}"
    );
    assert!(fixture.objects().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platform_is_chosen_and_attestations_are_not() {
    if !is_root() {
        return;
    }
    let mut remote = Remote::new(&[busybox_layer()]);
    // The same layer as zstd.
    let blob = zstd(&busybox_layer());
    let layer = (Digest::of(&blob), blob.len());
    let config_size = remote.blobs[&remote.config].len();
    let text = String::from_utf8(remote.manifest_of(&[layer], config_size)).unwrap();
    remote.manifest = text.replace("+gzip", "+zstd").into_bytes();
    remote.blobs.insert(layer.0, blob);
    let own = Digest::of(&remote.manifest);
    let entry = |digest: &Digest, size: usize, os: &str, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": size,
            "platform": {"os": os, "architecture": architecture}})
    };
    let mut attestation = entry(&Digest::of(b"a"), 1, "linux", "amd64");
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        attestation,
        entry(&Digest::of(b"b"), 1, "linux", "s390x"),
        entry(&own, remote.manifest.len(), "linux", "amd64"),
    ]})
    .to_string();
    let root = Digest::of(index.as_bytes());
    let server = Server::start(
        move |seen: &Seen| match seen.path.ends_with("/manifests/latest") {
            true => Reply::new(200, index.clone()).header("Content-Type", INDEX),
            false if seen.path.ends_with("/manifests/absent") => unknown(),
            false => remote.answer(seen),
        },
    )
    .await;
    let fixture = fixture(|_| {});
    let platform = |text: &str| PullOptions {
        platform: Some(text.to_owned()),
        credentials: None,
    };
    let name = server.name("a");
    let (pulled, _) = pull_with(&fixture, &name, platform("linux/amd64")).await;
    // The name refers to the index.
    assert_eq!(pulled.unwrap().digest, root);
    let (error, _) = pull_with(&fixture, &name, platform("linux/riscv64")).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("no matching manifest for linux/riscv64"),
        "{error}"
    );
    // Without an index the configuration says it.
    let by_digest = format!("{name}@{own}");
    let (error, _) = pull_with(&fixture, &by_digest, platform("linux/arm64")).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("does not match the specified platform"),
        "{error}"
    );
    let found = fixture.store().distribution(&name, None).await.unwrap();
    assert_eq!((found.digest, found.media_type.as_str()), (root, INDEX));
    let error = pull(&fixture, &server.name("a:absent")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("manifest for {name}:absent not found: manifest unknown: manifest unknown")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_fetched_and_go_nowhere_else() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&[busybox_layer()]);
    let elsewhere = remote.serve().await;
    let target = elsewhere.address;
    let own = std::sync::Arc::new(std::sync::OnceLock::new());
    let address = std::sync::Arc::clone(&own);
    let server = Server::start(move |seen: &Seen| {
        let address: &String = address.get().unwrap();
        if seen.path.starts_with("/token?") {
            let basic = seen.header("authorization") == Some("Basic dTpw");
            let scope = seen.path.contains("scope=repository%3Aa%3Apull");
            return match basic && scope && seen.path.contains("service=test") {
                true => Reply::new(200, format!(r#"{{"token":"t{}"}}"#, seen.before)),
                false => Reply::new(401, "{}"),
            };
        }
        // The service was asked three times: with the wrong password, for a token that is soon
        // worth nothing, and for another one.
        if seen.header("authorization") != Some("Bearer t2") {
            let challenge =
                format!("Bearer realm=\"http://{address}/token\",service=\"test\",scope=\"x\"");
            return Reply::new(401, "{}").header("WWW-Authenticate", challenge);
        }
        match seen.path.contains("/blobs/") {
            true => {
                let to = format!("http://{target}{}", seen.path);
                Reply::new(307, "").header("Location", to)
            }
            false => remote.answer(seen),
        }
    })
    .await;
    own.set(server.address.to_string()).unwrap();
    let fixture = fixture(|_| {});
    let login = |password: &str| PullOptions {
        platform: None,
        credentials: Some(Credentials {
            username: "u".to_owned(),
            password: password.to_owned(),
            ..Credentials::default()
        }),
    };
    let name = server.name("a");
    let (error, _) = pull_with(&fixture, &name, login("wrong")).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "pull access denied for {name}, repository does not exist"
        )),
        "{error}"
    );
    pull_with(&fixture, &name, login("p")).await.0.unwrap();
    let there = elsewhere.seen();
    assert_eq!(there.len(), 2);
    assert!(
        there
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_ends_when_nobody_waits_for_it() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    let server = Server::start(move |seen: &Seen| {
        let mut reply = remote.answer(seen);
        if remote.is_layer(seen) {
            reply.stall = Some(reply.body.len() / 2);
        }
        reply
    })
    .await;
    let fixture = fixture(|registries| registries.deadlines.stall = Duration::from_secs(20));
    let (sender, mut receiver) = mpsc::channel(64);
    let store = fixture.store().clone();
    let name = server.name("a");
    let task = tokio::spawn(async move { store.pull(&name, PullOptions::default(), sender).await });
    while let Some(step) = receiver.recv().await {
        if step.step == Step::Downloading {
            break;
        }
    }
    let start = Instant::now();
    drop(receiver);
    let error = task.await.unwrap().unwrap_err();
    assert!(matches!(error, ImageError::Interrupted(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(fixture.objects().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_stand_between() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&[busybox_layer()]);
    let proxy = Server::start(move |seen: &Seen| {
        if seen.method == "CONNECT" {
            return Reply::new(405, "");
        }
        let mut plain = seen.clone();
        match seen.path.strip_prefix("http://192.0.2.1:5000") {
            Some(path) => plain.path = path.to_owned(),
            None => return Reply::new(400, ""),
        }
        remote.answer(&plain)
    })
    .await;
    let url = format!("http://{}", proxy.address);
    let fixture = fixture(|registries| {
        registries.proxies = Proxies::from_variables(|name| {
            ["https_proxy", "http_proxy"]
                .contains(&name)
                .then(|| url.clone())
        })
        .unwrap();
        registries.insecure = vec!["192.0.2.0/24".parse().unwrap()];
    });
    pull(&fixture, "192.0.2.1:5000/a").await.unwrap();
    assert!(proxy.count("CONNECT", "192.0.2.1:5000") > 0);
    // Without being configured as insecure, it is TLS or nothing.
    let error = pull(&fixture, "198.51.100.1:5000/a").await.unwrap_err();
    assert!(
        error.to_string().contains("refuses the connection"),
        "{error}"
    );
    assert_eq!(proxy.count("GET", "198.51.100.1"), 0);
}
