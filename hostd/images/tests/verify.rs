//! A check of the store finds a flipped bit, wherever it is, and says what to do; doing that heals.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::complete::assert_complete;
use common::server::Remote;
use common::{Fixture, Random, Tar, docker_archive, gzip, is_root, oci_archive};
use hostd_images::{Damage, ImageError, PullOptions, VerifyLine};

/// What a check of these images finds.
async fn verify(fixture: &Fixture, names: &[&str]) -> Vec<Damage> {
    let (sender, mut lines) = tokio::sync::mpsc::channel(64);
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let store = fixture.store().clone();
    let check = tokio::spawn(async move { store.verify(names, sender).await });
    let mut damage = Vec::new();
    let mut seen = Vec::new();
    while let Some(line) = lines.recv().await {
        match line {
            VerifyLine::Damaged(found) => damage.push(found),
            other => seen.push(other),
        }
    }
    let count = check.await.unwrap().unwrap();
    assert_eq!(count, damage.len() as u64);
    assert!(matches!(seen.first(), Some(VerifyLine::Started { .. })));
    assert!(matches!(seen.last(), Some(VerifyLine::Finished { damaged, .. }) if *damaged == count));
    damage
}

/// Flips a bit as a bad disk does: the time stays.
fn flip(path: &Path, bit: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
    file.set_modified(time).unwrap();
}

fn layer(text: &str) -> Vec<u8> {
    Tar::new()
        .directory("d", 0o755)
        .pax(&[
            ("SCHILY.xattr.user.a", b"value"),
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.map", b"100,50,9000,50"),
            ("GNU.sparse.size", b"20000"),
        ])
        .file("d/sparse", &[b's'; 100], 0o640)
        .file("d/file", text.repeat(300).as_bytes(), 0o644)
        .symlink("link", "d/file")
        .hard_link("other", "d/file")
        .finish()
}

/// All files of the store that a bit can flip in.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap();
            if kind.is_dir() {
                left.push(path);
            } else if kind.is_file() && kind.len() > 0 && !path.ends_with("reserve") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

async fn every_flipped_bit_is_found(folders: bool) {
    let fixture = Fixture::new(folders);
    let layers = [layer("one"), layer("two")];
    let archive = oci_archive("docker.io/library/a:1", &layers, gzip);
    fixture.load(&archive).await.unwrap();
    fixture.store().tag("a:1", "b:2").unwrap();
    assert_eq!(verify(&fixture, &[]).await, []);
    let mut random = Random::new("verify");
    for path in files(&fixture.root()) {
        let before = fs::read(&path).unwrap();
        for _ in 0..12 {
            let bit = random.below(before.len() as u64 * 8);
            flip(&path, bit);
            let found = verify(&fixture, &[]).await;
            let what = format!("bit {bit} of {}: {found:?}", path.display());
            assert!(!found.is_empty(), "{what}");
            // An unpacked file is named in the reason, with its folder as the path.
            assert!(
                found
                    .iter()
                    .any(|damage| path.starts_with(&damage.path) || path == Path::new(&damage.path)),
                "{what}"
            );
            for damage in &found {
                assert!(damage.images.contains(&"a:1".to_owned()), "{what}");
                assert!(damage.images.contains(&"b:2".to_owned()), "{what}");
                assert!(
                    damage.remedy.contains("pull or load") || damage.remedy.contains("written"),
                    "{what}"
                );
            }
            // What is in memory was written again.
            let restored = found.iter().all(|damage| damage.remedy.contains("written"));
            if !restored {
                flip(&path, bit);
            }
            assert!(fs::read(&path).unwrap() == before, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_of_an_indexed_store_is_found() {
    if is_root() {
        every_flipped_bit_is_found(false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_of_an_unpacked_store_is_found() {
    if is_root() {
        every_flipped_bit_is_found(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_short_files_are_found() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let archive = oci_archive("docker.io/library/a:1", &[layer("one")], gzip);
    for path in {
        fixture.load(&archive).await.unwrap();
        files(&fixture.root())
    } {
        if path.ends_with("images.lock") {
            continue;
        }
        fs::remove_file(&path).unwrap();
        let found = verify(&fixture, &["a:1"]).await;
        let all = verify(&fixture, &[]).await;
        let names = path.ends_with("repositories.json");
        assert!(!found.is_empty() || names, "{}", path.display());
        assert!(!all.is_empty() || path.exists(), "{}", path.display());
        // Loading again puts it back.
        fixture.load(&archive).await.unwrap();
        assert_eq!(verify(&fixture, &[]).await, [], "{}", path.display());
        assert_complete(&fixture, "loaded again");
    }
    assert!(matches!(
        fixture
            .store()
            .verify(vec!["missing".to_owned()], tokio::sync::mpsc::channel(1).0)
            .await,
        Err(ImageError::NotFound(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_images_that_need_a_damaged_layer_are_named() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    for (name, layers) in [
        ("a:1", vec![layer("one"), layer("two")]),
        ("b:1", vec![layer("one")]),
        ("c:1", vec![layer("three")]),
    ] {
        let archive = docker_archive(name, &layers, name);
        fixture.load(&archive).await.unwrap();
    }
    let image = fixture.store().resolve("b:1").unwrap();
    let folder = fixture.root().join("layers");
    let tar = folder.join(image.layers[0].diff_id.hex()).join("layer.tar");
    flip(&tar, 5000);
    let found = verify(&fixture, &[]).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].kind, "layer");
    assert_eq!(found[0].digest, image.layers[0].diff_id.to_string());
    let mut images = found[0].images.clone();
    images.sort();
    assert_eq!(images, ["a:1", "b:1"]);
    assert_eq!(verify(&fixture, &["c:1"]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulling_again_heals_a_layer_that_is_in_use() {
    if !is_root() {
        return;
    }
    let mut fixture = Fixture::new(false);
    let remote = Remote::new(&[layer("one"), layer("two")]);
    let server = remote.serve().await;
    let name = server.name("image:latest");
    let pull = || async {
        let (progress, _receiver) = tokio::sync::mpsc::channel(1000);
        let options = PullOptions::default();
        fixture.store().pull(&name, options, progress).await
    };
    let id = pull().await.unwrap().id;
    let used = fixture.store().mount(&id).unwrap();
    let image = fixture.store().resolve(&name).unwrap();
    let folder = fixture.root().join("layers");
    let folder = folder.join(image.layers[1].diff_id.hex());
    flip(&folder.join("index.erofs"), 1024 * 8 + 1);
    let manifest = verify(&fixture, &[&name]).await;
    assert_eq!(manifest.len(), 1);
    assert!(manifest[0].reason.contains("byte 1024"), "{manifest:?}");

    assert!(pull().await.unwrap().updated);
    assert_eq!(verify(&fixture, &[]).await, []);
    let fresh = fixture.store().mount(&id).unwrap();
    assert_eq!(fresh.lower, used.lower);
    let file = fresh.lower[0].join("d/file");
    assert_eq!(fs::read(file).unwrap(), "two".repeat(300).as_bytes());
    drop(used);
    assert!(fresh.lower[0].join("d/file").exists());
    drop(fresh);
    common::assert_no_mounts(&fixture.run());
    assert_complete(&fixture, "pulled again");
    // Nothing to be done a second time.
    assert!(!pull().await.unwrap().updated);
    fixture.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_a_damaged_document_opens_with_everything_else() {
    if !is_root() {
        return;
    }
    let mut fixture = Fixture::new(false);
    let image = |name: &str| docker_archive(name, &[layer(name)], name);
    for name in ["a:1", "b:1"] {
        fixture.load(&image(name)).await.unwrap();
    }
    let of_a = fixture.store().resolve("a:1").unwrap();
    let record = format!("images/{}.json", of_a.id.hex());
    let layer = format!("layers/{}/layer.json", of_a.layers[0].diff_id.hex());
    for (path, left) in [(record, 1), (layer, 1), ("repositories.json".to_owned(), 2)] {
        fixture.store = None;
        // The opening brace becomes something else.
        flip(&fixture.root().join(&path), 0);
        fixture.reopen();
        assert_eq!(fixture.store().list().len(), left, "{path}");
        assert_complete(&fixture, &path);
        for name in ["a:1", "b:1"] {
            fixture.load(&image(name)).await.unwrap();
        }
        assert_eq!(fixture.store().list().len(), 2);
        assert_eq!(verify(&fixture, &[]).await, []);
    }
}
