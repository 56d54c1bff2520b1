//! A store whose process is killed at any moment is complete when it is opened again.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::server::{Remote, Server};
use common::{Fixture, Tar, busybox_layer, docker_archive, is_root};
use hostd_images::{Digest, ImageStore, PullOptions, RegistryOptions, StoreOptions};

const FOLDER: &str = "KEELSON_TEST_KILLED_FOLDER";
/// Names in a registry, for the child that pulls.
const NAMES: &str = "KEELSON_TEST_KILLED_NAMES";

fn archives() -> Vec<Vec<u8>> {
    let layer = |text: &str| {
        (0..40)
            .fold(Tar::new(), |tar, number| {
                tar.file(&format!("{text}-{number}"), text.as_bytes(), 0o644)
            })
            .finish()
    };
    vec![
        docker_archive("one:1", &[layer("base"), layer("one")], "one"),
        docker_archive(
            "two:1",
            &[layer("base"), layer("two"), layer("more")],
            "two",
        ),
        docker_archive("box:1", &[busybox_layer()], "sh"),
    ]
}

/// Not a test: what the killed process runs.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = PathBuf::from(folder);
    let store = common::open(&folder.join("engine"), &folder.join("run"), false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let archives = archives();
    println!("ready");
    loop {
        for archive in &archives {
            let loaded = runtime.block_on(common::load(&store, archive)).unwrap();
            let _rootfs = store.mount(&loaded[0].id).unwrap();
        }
        store.tag("one:1", "other:1").unwrap();
        for name in ["two:1", "one:1", "box:1", "other:1"] {
            store.remove(name, true, false, &[]).unwrap();
        }
    }
}

/// Not a test: what the killed process runs when it pulls.
#[test]
fn child_that_pulls() {
    let (Some(folder), Ok(names)) = (std::env::var_os(FOLDER), std::env::var(NAMES)) else {
        return;
    };
    let folder = PathBuf::from(folder);
    // Without authorities, which take long to read in a test's build.
    let options = StoreOptions {
        registries: RegistryOptions {
            bundles: Vec::new(),
            certificates: Vec::new(),
            ..RegistryOptions::default()
        },
        ..StoreOptions::default()
    };
    let store =
        ImageStore::open_with(&folder.join("engine"), &folder.join("run"), options).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    println!("ready");
    loop {
        for name in names.split(' ') {
            let (sender, _receiver) = tokio::sync::mpsc::channel(1000);
            let pull = store.pull(name, PullOptions::default(), sender);
            let pulled = runtime.block_on(pull).unwrap();
            let _rootfs = store.mount(&pulled.id).unwrap();
        }
        for name in names.split(' ') {
            store.remove(name, true, false, &[]).unwrap();
        }
    }
}

fn kill_after(folder: &Path, delay: Duration, child: &str, names: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--nocapture"])
        .env(FOLDER, folder)
        .env(NAMES, names)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        if line.contains("ready") {
            break;
        }
    }
    // Not a wait for something to happen: the moment of death is what is tested.
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The member `manifest` of an image's record.
fn manifest_of(document: &serde_json::Value) -> Option<Digest> {
    let members = document.as_object()?;
    match members.get("manifest") {
        Some(manifest) => manifest.as_str()?.parse().ok(),
        None => members.values().find_map(manifest_of),
    }
}

/// Everything listed is complete, and nothing else is there.
fn check(fixture: &Fixture, delay: Duration) {
    let store = fixture.store();
    let mut expected = Vec::new();
    for image in store.list() {
        assert_eq!(Digest::of(&image.raw_config), image.id);
        for name in &image.repo_tags {
            assert_eq!(store.resolve(name).unwrap().id, image.id);
        }
        let rootfs = store.mount(&image.id).unwrap();
        for (lower, layer) in rootfs.lower.iter().rev().zip(&image.layers) {
            assert!(std::fs::read_dir(lower).unwrap().next().is_some());
            let folder = fixture.root().join("layers").join(layer.diff_id.hex());
            let tar = std::fs::read(folder.join("layer.tar")).unwrap();
            assert_eq!(Digest::of(&tar), layer.diff_id, "after {delay:?}");
            expected.push(folder);
        }
        expected.push(fixture.root().join("blobs").join(image.id.hex()));
        let record = format!("{}.json", image.id.hex());
        let record = fixture.root().join("images").join(record);
        let text = std::fs::read(&record).unwrap();
        let document = serde_json::from_slice(&text).unwrap();
        if let Some(manifest) = manifest_of(&document) {
            let path = fixture.root().join("blobs").join(manifest.hex());
            assert_eq!(Digest::of(&std::fs::read(&path).unwrap()), manifest);
            expected.push(path);
        }
        expected.push(record);
    }
    expected.sort();
    expected.dedup();
    assert_eq!(fixture.objects(), expected, "after {delay:?}");
}

#[test]
fn a_killed_process_leaves_a_complete_store() {
    if !is_root() {
        return;
    }
    let rounds: u64 = std::env::var("KEELSON_TEST_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(25);
    let mut fixture = Fixture::new(false);
    let mut found = std::collections::BTreeMap::new();
    for round in 0..rounds {
        fixture.store = None;
        // Spread over several turns of the child's loop, with odd steps.
        let delay = Duration::from_micros(round * 7_919 % 400_000 * 2);
        kill_after(fixture.folder.path(), delay, "child", "");
        fixture.reopen();
        check(&fixture, delay);
        *found.entry(fixture.store().list().len()).or_insert(0) += 1;
    }
    eprintln!("images found after kills (number: times): {found:?}");
    // What was interrupted can be done again.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for archive in archives() {
        runtime.block_on(fixture.load(&archive)).unwrap();
    }
    assert_eq!(fixture.store().list().len(), 3);
}

#[test]
fn a_process_killed_while_it_pulls_leaves_a_complete_store() {
    if !is_root() {
        return;
    }
    let rounds: u64 = std::env::var("KEELSON_TEST_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(15);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let layer = |text: &str| Tar::new().file(text, text.as_bytes(), 0o644).finish();
    let one = Remote::new(&[layer("base"), layer("one")]);
    let two = Remote::new(&[layer("two"), busybox_layer(), layer("more")]);
    let server = runtime.block_on(Server::start(move |seen| {
        match seen.path.starts_with("/v2/one/") {
            true => one.answer(seen),
            false => two.answer(seen),
        }
    }));
    let names = format!("{} {}", server.name("one"), server.name("two"));
    let mut fixture = Fixture::new(false);
    let mut found = std::collections::BTreeMap::new();
    for round in 0..rounds {
        fixture.store = None;
        let delay = Duration::from_micros(round * 57_919 % 800_000);
        kill_after(fixture.folder.path(), delay, "child_that_pulls", &names);
        fixture.reopen();
        check(&fixture, delay);
        *found.entry(fixture.store().list().len()).or_insert(0) += 1;
    }
    eprintln!("images found after kills (number: times): {found:?}");
}
