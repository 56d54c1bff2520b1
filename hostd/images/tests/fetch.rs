//! Imports from an address: answers of servers, and their failures.

mod common;

use common::client::fixture;
use common::server::{Reply, Server};
use common::{Fixture, busybox_layer, gzip, is_root};
use hostd_images::{ImageError, ImageId, ImportOptions, Progress, Step};
use keelson_model::error::ErrorKind;
use tokio::sync::mpsc;

/// Imports as `got:1`. Returns the progress messages, too.
async fn import(fixture: &Fixture, address: &str) -> (Result<ImageId, ImageError>, Vec<Progress>) {
    let (sender, mut steps) = mpsc::channel(64);
    let options = ImportOptions {
        reference: Some("got:1".to_owned()),
        ..ImportOptions::default()
    };
    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        while let Some(step) = steps.recv().await {
            told.push(step);
        }
        told
    });
    let store = fixture.store();
    let imported = store.import_from(address, options, sender).await;
    (imported, told.await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_comes_from_a_server() {
    if !is_root() {
        return;
    }
    let fixture = fixture(|_| {});
    let server = Server::start(|seen| match seen.path.as_str() {
        "/plain" => Reply::new(200, busybox_layer()),
        "/gzip" => Reply::new(200, gzip(&busybox_layer())),
        "/moved?x=1" => Reply::new(302, "").header("Location", "/gzip"),
        "/secret" if seen.header("authorization") == Some("Basic dTpw") => {
            Reply::new(200, busybox_layer())
        }
        _ => Reply::new(404, "no such file"),
    })
    .await;
    let address = server.address;
    let mut seen = Vec::new();
    for (from, shown) in [
        (format!("http://{address}/plain"), "plain"),
        (format!("{address}/gzip#part"), "gzip"),
        (format!("http://{address}/moved?x=1"), "moved?x=1"),
        (format!("http://u:p@{address}/secret"), "secret"),
    ] {
        let (imported, told) = import(&fixture, &from).await;
        let id = imported.unwrap();
        let image = fixture.store().resolve("got:1").unwrap();
        assert_eq!(image.id, id);
        let shown = format!("http://{address}/{shown}");
        let comment = image.config.history[0].comment.clone();
        assert_eq!(comment, Some(format!("Imported from {shown}")));
        assert_eq!(told[0].step, Step::DownloadingFrom(shown.to_string()));
        let last = told.last().unwrap();
        assert_eq!(last.step, Step::Importing);
        assert_eq!(Some(last.current), last.total);
        seen.push(image.layers[0].diff_id);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_servers_leave_nothing() {
    if !is_root() {
        return;
    }
    let fixture = fixture(|_| {});
    let server = Server::start(|seen| {
        let good = busybox_layer();
        let mut reply = Reply::new(200, good.clone());
        match seen.path.as_str() {
            "/none" => reply = Reply::new(404, "no such file"),
            "/forbidden" => reply = Reply::new(403, "\u{1b}[31m"),
            "/loop" => reply = Reply::new(301, "").header("Location", "/loop"),
            "/astray" => reply = Reply::new(301, "").header("Location", "ftp://x/y"),
            "/nowhere" => reply = Reply::new(301, ""),
            "/cut" => reply.cut = Some(good.len() / 2),
            "/stall" => reply.stall = Some(good.len() / 2),
            "/huge" => reply.claimed = Some(1 << 60),
            "/text" => reply.body = b"no archive ".repeat(100),
            // Members of gzip without content, for ever.
            "/endless" => {
                reply.body = gzip(b"").repeat(100);
                reply.endless = true;
            }
            // A file of an archive without end.
            _ => {
                reply.body = good;
                reply.endless = true;
            }
        }
        reply
    })
    .await;
    let before = fixture.objects();
    for (path, words, kind) in [
        ("none", "with status 404", ErrorKind::NotFound),
        ("forbidden", "with status 403", ErrorKind::Unavailable),
        ("loop", "more than 10 redirects", ErrorKind::Unavailable),
        ("astray", "without a valid address", ErrorKind::Unavailable),
        ("nowhere", "without a valid address", ErrorKind::Unavailable),
        ("cut", "the connection broke", ErrorKind::Unavailable),
        ("stall", "no bytes arrived", ErrorKind::Unavailable),
        ("huge", "bytes that are accepted", ErrorKind::InvalidInput),
        ("text", "tar header", ErrorKind::InvalidInput),
        ("endless", "bytes", ErrorKind::InvalidInput),
        ("archive", "bytes", ErrorKind::InvalidInput),
    ] {
        let (imported, _) = import(&fixture, &format!("http://{}/{path}", server.address)).await;
        let error = imported.unwrap_err();
        assert!(error.to_string().contains(words), "{path}: {error}");
        assert_eq!(error.kind(), kind, "{path}: {error}");
    }
    for (address, words) in [
        ("ftp://host/x", "is not an address"),
        ("http:///x", "is not an address"),
        ("", "is not an address"),
        ("http://127.0.0.1:1/x", "connection refused"),
        (
            &format!("https://{}/plain", server.address),
            "does not speak TLS",
        ),
    ] {
        let error = import(&fixture, address).await.0.unwrap_err();
        assert!(error.to_string().contains(words), "{address}: {error}");
    }
    assert_eq!(fixture.objects(), before);
    assert!(fixture.store().list().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_ends_the_download() {
    if !is_root() {
        return;
    }
    let fixture = fixture(|_| {});
    let server = Server::start(|_| {
        let mut reply = Reply::new(200, busybox_layer());
        reply.stall = Some(1000);
        reply
    })
    .await;
    let (sender, mut steps) = mpsc::channel(64);
    let address = format!("http://{}/x", server.address);
    let store = fixture.store().clone();
    let work = tokio::spawn(async move {
        let options = ImportOptions::default();
        store.import_from(&address, options, sender).await
    });
    steps.recv().await.unwrap();
    drop(steps);
    let error = work.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("went away"), "{error}");
    assert!(fixture.store().list().is_empty());
}
