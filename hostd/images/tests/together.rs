//! Everything at once on the same images. Operations fail only for reasons that their order
//! explains, listed images are complete, and in the end nothing is left.

mod common;

use std::sync::Arc;

use common::complete::assert_complete;
use common::server::{Remote, Server};
use common::{Fixture, Random, Tar, docker_archive, is_root};
use hostd_images::{Holder, ImageError, ImageStore, ImportOptions, PullOptions, VerifyLine};
use tokio::sync::mpsc;

/// How many operations one task does.
const STEPS: u64 = 40;
const TASKS: u64 = 8;

fn layer(text: &str) -> Vec<u8> {
    Tar::new()
        .directory("d", 0o755)
        .file("d/file", text.repeat(2000).as_bytes(), 0o644)
        .finish()
}

/// The images, as archives and in a registry. They share a layer.
struct Images {
    archives: Vec<Vec<u8>>,
    remote: Vec<String>,
}

/// All names that an image may have.
const NAMES: [&str; 4] = ["one:1", "two:1", "extra:1", "imported:1"];

/// Expects success, or that the image was removed meanwhile.
fn may_be_gone<T>(what: &str, result: Result<T, ImageError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(ImageError::NotFound(_)) => None,
        Err(error) => panic!("{what}: {error}"),
    }
}

async fn step(store: &ImageStore, images: &Images, random: &mut Random) {
    let pick = random.below(2) as usize;
    let name = NAMES[random.below(4) as usize];
    match random.below(10) {
        0 | 1 => {
            common::load(store, &images.archives[pick]).await.unwrap();
        }
        2 => {
            let (progress, _receiver) = mpsc::channel(1000);
            let pull = store.pull(&images.remote[pick], PullOptions::default(), progress);
            pull.await.unwrap();
        }
        // Given up in the middle.
        3 => {
            let (progress, receiver) = mpsc::channel(1000);
            let pull = store.pull(&images.remote[pick], PullOptions::default(), progress);
            drop(receiver);
            let _ = pull.await;
        }
        4 => {
            let options = ImportOptions {
                reference: Some("imported:1".to_owned()),
                ..ImportOptions::default()
            };
            store.import(&layer("base")[..], options).await.unwrap();
        }
        // A container runs: its files are correct as long as it holds its layers.
        5 => {
            if let Some(image) = may_be_gone("find", store.resolve(name))
                && let Some(rootfs) = may_be_gone("mount", store.mount(&image.id))
            {
                for folder in &rootfs.lower {
                    let data = tokio::fs::read(folder.join("d/file")).await.unwrap();
                    assert!(data.len() > 2000);
                }
            }
        }
        6 => {
            may_be_gone("remove", store.remove(name, true, false));
        }
        7 => {
            store.prune(random.below(2) == 0, &|_| true).unwrap();
        }
        8 => {
            may_be_gone("tag", store.tag(name, "extra:1"));
            if let Some(saved) = may_be_gone("save", store.save(&[name.to_owned()])) {
                let mut archive = Vec::new();
                // Layers may be removed while they are read. Then the archive is incomplete, and
                // its reader gets an error.
                if saved.write_to(&mut archive).await.is_ok() {
                    common::load(store, &archive).await.unwrap();
                }
            }
        }
        _ => {
            let (sender, mut lines) = mpsc::channel(16);
            let check = store.verify(Vec::new(), sender);
            let read = async {
                while let Some(line) = lines.recv().await {
                    assert!(!matches!(line, VerifyLine::Damaged(_)), "{line:?}");
                }
            };
            let (damaged, ()) = tokio::join!(check, read);
            assert_eq!(damaged.unwrap(), 0);
        }
    }
}

async fn everything_at_once(directories: bool) {
    let layers = [layer("base"), layer("one"), layer("two")];
    let first = [layers[0].clone(), layers[1].clone()];
    let second = [layers[0].clone(), layers[2].clone()];
    let (one, two) = (Remote::new(&first), Remote::new(&second));
    let server = Server::start(move |seen| match seen.path.starts_with("/v2/one/") {
        true => one.answer(seen),
        false => two.answer(seen),
    })
    .await;
    let images = Arc::new(Images {
        archives: vec![
            docker_archive("one:1", &first, "sh"),
            docker_archive("two:1", &second, "sh"),
        ],
        remote: vec![server.name("one"), server.name("two")],
    });
    let mut fixture = Fixture::new(directories);
    let mut seeds = Random::new("together");
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let (store, images) = (fixture.store().clone(), Arc::clone(&images));
        let mut random = Random::from(seeds.below(u64::MAX));
        tasks.push(tokio::spawn(async move {
            for _ in 0..STEPS {
                step(&store, &images, &mut random).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    common::assert_no_mounts(&fixture.run());
    assert_complete(&fixture, "after everything");
    let listed = fixture.store().list().len();
    fixture.reopen();
    assert_eq!(fixture.store().list().len(), listed);
    assert_complete(&fixture, "after the next start");
    fixture.store().prune(true, &|_| true).unwrap();
    assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_at_once_with_indexes() {
    if is_root() {
        everything_at_once(false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_at_once_with_directories() {
    if is_root() {
        everything_at_once(true).await;
    }
}

/// Forced removals beside containers that come and go: objects kept for a stopped container are
/// freed after it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn forced_removals_free_everything_in_the_end() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let archive = Arc::new(docker_archive(
        "one:1",
        &[layer("base"), layer("one")],
        "sh",
    ));
    let mut tasks = Vec::new();
    for number in 0..6 {
        let (store, archive) = (fixture.store().clone(), Arc::clone(&archive));
        tasks.push(tokio::spawn(async move {
            for _ in 0..15 {
                let image = common::load(&store, &archive).await.unwrap()[0].id;
                let holder = Holder::container(&format!("{number}").repeat(64));
                let leased = may_be_gone("lease", store.lease(&image.to_string(), holder));
                may_be_gone("remove", store.remove("one:1", true, false));
                // Held images exist.
                if let Some(lease) = leased {
                    let rootfs = store.mount(&image).unwrap();
                    assert!(rootfs.lower[1].join("d/file").exists());
                    drop(lease);
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    fixture.store().prune(true, &|_| true).unwrap();
    common::until("nothing is left", || fixture.objects().is_empty());
}
