//! A store is complete when it is opened again, at whatever moment its process was killed.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::complete::assert_complete;
use common::disk::SmallDisk;
use common::server::{Remote, Server};
use common::{Fixture, Random, Tar, docker_archive, is_root, rounds};
use hostd_images::{ImageStore, ImageStoreOptions, ImportOptions, PullOptions, RegistryOptions};
use tokio::runtime::Runtime;

/// Where the killed process keeps its store, and where it mounts.
const ROOT: &str = "KEELSON_TEST_KILLED_ROOT";
const RUN: &str = "KEELSON_TEST_KILLED_RUN";
/// Its work: [`work`].
const WORK: &str = "KEELSON_TEST_KILLED_WORK";
/// Names in a registry, for the one that pulls.
const NAMES: &str = "KEELSON_TEST_KILLED_NAMES";

/// Longest life of a process; about one turn of its loop.
const LIFE: u64 = 120_000;

fn layer(text: &str, files: usize) -> Vec<u8> {
    (0..files)
        .fold(Tar::new().directory("d", 0o755), |tar, number| {
            let data = text.repeat(number * 37 % 400 + 1);
            tar.file(&format!("d/{text}-{number}"), data.as_bytes(), 0o644)
        })
        .finish()
}

fn archives() -> Vec<Vec<u8>> {
    vec![
        docker_archive("one:1", &[layer("base", 40), layer("one", 3)], "one"),
        docker_archive(
            "two:1",
            &[layer("base", 40), layer("two", 30), layer("more", 1)],
            "two",
        ),
    ]
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Not a test: what the killed process runs.
#[test]
fn child() {
    let (Some(root), Some(run)) = (std::env::var_os(ROOT), std::env::var_os(RUN)) else {
        return;
    };
    // Without authorities, which take long to read in a test's build.
    let options = ImageStoreOptions {
        registries: RegistryOptions {
            bundles: Vec::new(),
            certificates: Vec::new(),
            ..RegistryOptions::default()
        },
        ..ImageStoreOptions::default()
    };
    let store = ImageStore::open_with(&PathBuf::from(root), &PathBuf::from(run), options).unwrap();
    let runtime = runtime();
    let work = std::env::var(WORK).unwrap();
    let names = std::env::var(NAMES).unwrap();
    println!("ready");
    loop {
        match work.as_str() {
            "load" => load(&store, &runtime),
            "import" => import(&store, &runtime),
            _ => pull(&store, &runtime, &names),
        }
    }
}

fn load(store: &ImageStore, runtime: &Runtime) {
    for archive in &archives() {
        let loaded = runtime.block_on(common::load(store, archive)).unwrap();
        let _rootfs = store.mount(&loaded[0].id).unwrap();
    }
    store.tag("one:1", "other:1").unwrap();
    for name in ["two:1", "one:1", "other:1"] {
        store.remove(name, true, false).unwrap();
    }
}

fn import(store: &ImageStore, runtime: &Runtime) {
    for text in ["imported", "again", "imported"] {
        let options = ImportOptions {
            reference: Some("imported:1".to_owned()),
            ..ImportOptions::default()
        };
        let archive = layer(text, 20);
        let id = runtime
            .block_on(store.import(&archive[..], options))
            .unwrap();
        let _rootfs = store.mount(&id).unwrap();
    }
    store.prune(false, &|_| true).unwrap();
    store.remove("imported:1", false, false).unwrap();
}

fn pull(store: &ImageStore, runtime: &Runtime, names: &str) {
    for name in names.split(' ') {
        let (sender, _receiver) = tokio::sync::mpsc::channel(1000);
        let pull = store.pull(name, PullOptions::default(), sender);
        let pulled = runtime.block_on(pull).unwrap();
        let _rootfs = store.mount(&pulled.id).unwrap();
    }
    for name in names.split(' ') {
        store.remove(name, true, false).unwrap();
    }
}

/// Starts a process that works on a store until it is killed.
fn start(root: &Path, run: &Path, work: &str, names: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(ROOT, root)
        .env(RUN, run)
        .env(WORK, work)
        .env(NAMES, names)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.any(|line| line.is_ok_and(|line| line.contains("ready")));
    assert!(ready, "the process ended early");
    child
}

/// Kills processes at random moments, and looks at the store after each.
fn kill_and_check(work: &str, names: &str, rounds: u64) {
    // A file system of its own, so that syncing it does not wait for the whole machine's.
    let Some(disk) = SmallDisk::new(64) else {
        return;
    };
    let mut random = Random::new(work);
    let mut fixture = Fixture::on(&disk.path().join("engine"), false);
    let mut found = std::collections::BTreeMap::new();
    for round in 0..rounds {
        fixture.store = None;
        let life = Duration::from_micros(random.below(LIFE));
        let mut child = start(&fixture.root(), &fixture.run(), work, names);
        // This does not wait for an event: the moment of the kill is what is tested.
        std::thread::sleep(life);
        child.kill().unwrap();
        child.wait().unwrap();
        fixture.reopen();
        common::assert_no_mounts(&fixture.run());
        assert_complete(
            &fixture,
            &format!("{work}, round {round}, killed after {life:?}"),
        );
        *found.entry(fixture.store().list().len()).or_insert(0) += 1;
    }
    eprintln!("{work}: images found after kills (number: times): {found:?}");
    // Interrupted work can be repeated, and nothing is left after all images are removed.
    let runtime = runtime();
    for archive in archives() {
        runtime.block_on(fixture.load(&archive)).unwrap();
    }
    fixture.store().prune(true, &|_| true).unwrap();
    assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
    fixture.close();
}

#[test]
fn a_process_killed_while_it_loads_leaves_a_complete_store() {
    kill_and_check("load", "", rounds(110));
}

#[test]
fn a_process_killed_while_it_imports_leaves_a_complete_store() {
    kill_and_check("import", "", rounds(100));
}

/// A registry with two images, and their names.
fn registry(runtime: &Runtime) -> String {
    let one = Remote::new(&[layer("base", 40), layer("one", 3)]);
    let two = Remote::new(&[layer("two", 30), layer("base", 40), layer("more", 1)]);
    let server = runtime.block_on(Server::start(move |seen| {
        match seen.path.starts_with("/v2/one/") {
            true => one.answer(seen),
            false => two.answer(seen),
        }
    }));
    format!("{} {}", server.name("one"), server.name("two"))
}

#[test]
fn a_process_killed_while_it_pulls_leaves_a_complete_store() {
    if !is_root() {
        return;
    }
    let runtime = runtime();
    kill_and_check("pull", &registry(&runtime), rounds(100));
}

/// Cuts the power at random moments: data that was not on the disk is lost.
fn cut_and_check(work: &str, names: &str, rounds: u64) {
    let Some(mut disk) = SmallDisk::new(64) else {
        return;
    };
    let mut random = Random::new(work);
    let mut fixture = Fixture::on(&disk.path().join("engine"), false);
    let mut found = std::collections::BTreeMap::new();
    for round in 0..rounds {
        fixture.close();
        let life = Duration::from_micros(random.below(LIFE));
        let mut child = start(&fixture.root(), &fixture.run(), work, names);
        std::thread::sleep(life);
        disk.cut_power();
        child.kill().unwrap();
        child.wait().unwrap();
        common::unmount_below(&fixture.run());
        disk.mount_again();
        fixture.reopen();
        assert_complete(
            &fixture,
            &format!("{work}, round {round}, power cut after {life:?}"),
        );
        *found.entry(fixture.store().list().len()).or_insert(0) += 1;
    }
    eprintln!("{work}: images found after power cuts (number: times): {found:?}");
    fixture.close();
    disk.check();
}

#[test]
fn a_power_cut_while_it_loads_leaves_a_complete_store() {
    cut_and_check("load", "", rounds(40));
}

#[test]
fn a_power_cut_while_it_pulls_leaves_a_complete_store() {
    if !is_root() {
        return;
    }
    let runtime = runtime();
    cut_and_check("pull", &registry(&runtime), rounds(40));
}
