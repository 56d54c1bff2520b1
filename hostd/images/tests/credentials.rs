//! Access to registries: credentials of the machine and of the client, tokens and their renewal.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::client::{fixture, noise, pull, pull_with};
use common::server::{Remote, Reply, Seen, Server};
use common::{Tar, busybox_layer, is_root};
use hostd_images::{Credentials, PullOptions};

/// `keeper:secret`.
const KEEPER: &str = "a2VlcGVyOnNlY3JldA==";

fn write_auth(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("registry-auth.json");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn challenge(text: &str) -> Reply {
    Reply::new(401, "{}").header("WWW-Authenticate", text)
}

/// A registry that wants `keeper` and his password.
async fn guarded(remote: Remote) -> Server {
    Server::start(move |seen: &Seen| {
        match seen.header("authorization") == Some(&format!("Basic {KEEPER}")) {
            true => remote.answer(seen),
            false => challenge("Basic realm=\"x\""),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machine_has_credentials_of_its_own() {
    if !is_root() {
        return;
    }
    let server = guarded(Remote::new(&[busybox_layer()])).await;
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        r#"{{"auths":{{"{}":{{"auth":"{KEEPER}"}}}}}}"#,
        server.address
    );
    let path = write_auth(directory.path(), &text);
    let fixture = fixture(|registries| registries.credentials = vec![path.clone()]);
    let name = server.name("team/a");
    pull(&fixture, &name).await.unwrap();
    // The client's credentials have priority.
    let own = PullOptions {
        credentials: Some(Credentials {
            username: "other".to_owned(),
            password: "wrong".to_owned(),
            ..Credentials::default()
        }),
        ..PullOptions::default()
    };
    let error = pull_with(&fixture, &name, own).await.0.unwrap_err();
    assert!(error.to_string().contains("pull access denied"), "{error}");
    // Others could read it: not used.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = pull(&fixture, &name).await.unwrap_err().to_string();
    assert!(
        error.contains("chmod 600") && error.contains(&name),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    let error = pull(&fixture, &name).await.unwrap_err();
    assert!(error.to_string().contains("pull access denied"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_gets_only_its_own_credentials() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&[busybox_layer()]);
    let mirror = guarded(remote).await;
    let directory = tempfile::tempdir().unwrap();
    let hub = r#"{"auths":{"docker.io":{"username":"hub","password":"h"}}}"#;
    let path = write_auth(directory.path(), hub);
    let url = format!("http://{}", mirror.address);
    let fixture = fixture(|registries| {
        registries.credentials = vec![path];
        registries.mirrors = vec![url.parse().unwrap()];
        // Nobody is there: Docker Hub itself is not reached by this test.
        registries.proxies.https = Some("http://127.0.0.1:1".parse().unwrap());
    });
    pull(&fixture, "a").await.unwrap_err();
    let heads: String = mirror.seen().iter().map(|seen| seen.head.clone()).collect();
    assert!(!heads.to_lowercase().contains("authorization:"), "{heads}");
    let both = format!(
        r#"{{"auths":{{"docker.io":{{"username":"hub","password":"h"}},
        "{}":{{"auth":"{KEEPER}"}}}}}}"#,
        mirror.address
    );
    write_auth(directory.path(), &both);
    pull(&fixture, "a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_token_is_exchanged_at_the_token_service() {
    if !is_root() {
        return;
    }
    let service = Server::start(|seen: &Seen| {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        let right = seen.method == "POST"
            && form.contains("grant_type=refresh_token")
            && form.contains("refresh_token=idtoken")
            && form.contains("service=registry")
            && form.contains("scope=repository%3Aa%3Apull");
        match right {
            true => Reply::new(200, r#"{"access_token":"granted","expires_in":300}"#),
            false => Reply::new(400, "{}"),
        }
    })
    .await;
    let remote = Remote::new(&[busybox_layer()]);
    let realm = format!(
        "Bearer realm=\"http://{}/token\",service=\"registry\"",
        service.address
    );
    let server = Server::start(move |seen: &Seen| {
        match seen.header("authorization") == Some("Bearer granted") {
            true => remote.answer(seen),
            false => challenge(&realm),
        }
    })
    .await;
    let login = |identity: &str, registry: &str| PullOptions {
        credentials: Some(Credentials {
            identity_token: identity.to_owned(),
            registry_token: registry.to_owned(),
            ..Credentials::default()
        }),
        ..PullOptions::default()
    };
    let name = server.name("a");
    pull_with(&fixture(|_| {}), &name, login("idtoken", ""))
        .await
        .0
        .unwrap();
    assert_eq!(service.count("POST", "/token"), 1);
    // A token for the registry itself is sent as it is.
    pull_with(&fixture(|_| {}), &name, login("", "granted"))
        .await
        .0
        .unwrap();
    assert_eq!(service.count("POST", "/token"), 1);
    let error = pull_with(&fixture(|_| {}), &name, login("stolen", ""))
        .await
        .0;
    error.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_runs_out_in_a_long_pull_is_renewed() {
    if !is_root() {
        return;
    }
    let service = {
        let given = AtomicUsize::new(0);
        Server::start(move |_| {
            let number = given.fetch_add(1, Ordering::Relaxed);
            Reply::new(200, format!(r#"{{"token":"t{number}"}}"#))
        })
        .await
    };
    let big = Tar::new().file("noise", &noise(1_500_000), 0o644).finish();
    let remote = Remote::new(&[big]);
    let realm = format!(
        "Bearer realm=\"http://{}/token\",service=\"s\"",
        service.address
    );
    let server = Server::start(move |seen: &Seen| {
        let layer = remote.is_layer(seen);
        let resumed = seen.header("range").is_some();
        match seen.header("authorization") {
            // Valid for the first half only.
            Some("Bearer t0") if !resumed => {
                let mut reply = remote.answer(seen);
                if layer {
                    reply.cut = Some(reply.body.len() / 2);
                }
                reply
            }
            Some("Bearer t1") => remote.answer(seen),
            _ => challenge(&realm),
        }
    })
    .await;
    pull(&fixture(|_| {}), &server.name("a")).await.unwrap();
    assert_eq!(service.count("GET", "/token"), 2);
    let resumed = server
        .seen()
        .into_iter()
        .filter(|seen| seen.header("range").is_some());
    // With the old token, and with the new one.
    assert_eq!(resumed.count(), 2);
}
