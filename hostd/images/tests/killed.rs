//! A store whose process is killed at any moment is complete when it is opened again.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Fixture, Tar, busybox_layer, docker_archive, is_root};
use hostd_images::Digest;

const FOLDER: &str = "KEELSON_TEST_KILLED_FOLDER";

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

fn kill_after(folder: &Path, delay: Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FOLDER, folder)
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
        expected.push(fixture.root().join("images").join(record));
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
        kill_after(fixture.folder.path(), delay);
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
