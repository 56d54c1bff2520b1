//! A check of the store finds a flipped bit anywhere, and says what to do. Doing that repairs the
//! store.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::complete::assert_complete;
use common::server::Remote;
use common::{Fixture, Random, Tar, docker_archive, gzip, is_root, oci_archive};
use hostd_images::{Damage, Holder, Image, ImageError, PullOptions, VerifyLine};

/// The findings of a check of these images.
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

/// Flips a bit like a bad disk: the file's time stays.
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

async fn every_flipped_bit_is_found(directories: bool) {
    let fixture = Fixture::new(directories);
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
            // An unpacked file is named in the reason, with its directory as the path.
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
            // Documents in memory were written again.
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
        // Loading again restores it.
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
    // The second time nothing has to be done.
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
        // The opening brace becomes another character.
        flip(&fixture.root().join(&path), 0);
        fixture.reopen();
        // Unreadable images are listed, too.
        let store = fixture.store();
        assert_eq!(store.list().len(), 2, "{path}");
        let readable = |image: &Arc<Image>| store.resolve(&image.id.to_string()).is_ok();
        let all = store.list();
        assert_eq!(
            all.iter().filter(|image| readable(image)).count(),
            left,
            "{path}"
        );
        for name in ["a:1", "b:1"] {
            fixture.load(&image(name)).await.unwrap();
        }
        assert_eq!(fixture.store().list().len(), 2);
        let left = verify(&fixture, &[]).await;
        let aside = |damage: &Damage| damage.reason.contains("put aside") || damage.kind == "names";
        assert!(left.iter().all(aside), "{left:?}");
    }
}

/// Every file that start-up reads.
fn files_of(root: &Path) -> Vec<PathBuf> {
    let mut files = vec![root.join("repositories.json")];
    for (folder, record) in [("layers", "layer.json"), ("blobs", ""), ("images", "")] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            files.push(match record {
                "" => path,
                record => path.join(record),
            });
        }
    }
    files
}

/// A document of a newer release that this one can't read.
const NEWER: &str = r#"{"version":9,"readable_from":9,"everything":"else"}"#;

/// Replaces a file by something unreadable.
fn spoil(path: &Path, fault: &str) {
    use std::os::unix::fs::symlink;
    let bytes = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    match fault {
        "empty" => fs::write(path, "").unwrap(),
        "truncated" => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        "zeros" => fs::write(path, vec![0; bytes.len()]).unwrap(),
        // Reading gives EIO.
        "unreadable" => symlink("/proc/self/mem", path).unwrap(),
        "link to itself" => symlink(path, path).unwrap(),
        "newer" => fs::write(path, NEWER).unwrap(),
        _ => fs::create_dir(path).unwrap(),
    }
}

/// An unreadable file at start-up loses nothing permanently: whatever is done then, the image is
/// back when the fault is gone.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_objects_are_kept() {
    if !is_root() {
        return;
    }
    let mut fixture = Fixture::new(true);
    let layers = [layer("first"), layer("second")];
    let named = fixture
        .load(&docker_archive("a:1", &layers, "sh"))
        .await
        .unwrap()[0]
        .id;
    // One without a name that shares a layer.
    let other = docker_archive("", &layers[..1], "other");
    let dangling = fixture.load(&other).await.unwrap()[0].id;
    let files = files_of(&fixture.root());
    assert_eq!(files.len(), 7);
    for path in &files {
        for fault in [
            "empty",
            "truncated",
            "zeros",
            "unreadable",
            "link to itself",
            "folder",
            "newer",
        ] {
            let label = format!("{fault} {}", path.display());
            let good = fs::read(path).unwrap();
            fixture.close();
            spoil(path, fault);
            fixture.reopen();
            let store = fixture.store();
            // The unreadable object is named, and it is unknown what is unused.
            let damages = verify(&fixture, &[]).await;
            let says = |part: &str| damages.iter().any(|d| format!("{d:?}").contains(part));
            assert!(says(&path.display().to_string()), "{label}: {damages:?}");
            for id in [named, dangling] {
                match store.resolve(&id.to_string()) {
                    Ok(_) | Err(ImageError::Unreadable { .. }) => {}
                    Err(error) => panic!("{label}: {error}"),
                }
                assert!(store.list().iter().any(|image| image.id == id), "{label}");
            }
            drop(store.lease_again(None, Holder::start()));
            let own = path.parent().unwrap().ends_with("images");
            let all_known = store.resolve(&dangling.to_string()).is_ok() && !own;
            if !all_known || path.ends_with("repositories.json") {
                let pruned = store.prune(false, &|_| true).unwrap();
                assert!(pruned.removed.is_empty(), "{label}: {pruned:?}");
            }
            fixture.close();
            for other in files.iter().filter(|other| *other != path) {
                assert!(other.exists(), "{label}: {} is gone", other.display());
            }
            match path.symlink_metadata().unwrap().is_dir() {
                true => fs::remove_dir(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
            fs::write(path, good).unwrap();
            fixture.reopen();
            assert_eq!(fixture.store().resolve("a:1").unwrap().id, named, "{label}");
            fixture.store().mount(&named).unwrap();
            fixture.store().mount(&dangling).unwrap();
            assert_eq!(verify(&fixture, &[]).await, [], "{label}");
        }
    }
}

/// The next load replaces unreadable objects, and moves them aside.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_objects_are_replaced_by_a_load() {
    if !is_root() {
        return;
    }
    let layers = [layer("first"), layer("second")];
    let archive = docker_archive("a:1", &layers, "sh");
    let mut fixture = Fixture::new(true);
    let id = fixture.load(&archive).await.unwrap()[0].id;
    for path in files_of(&fixture.root()) {
        fixture.close();
        spoil(&path, "truncated");
        fixture.reopen();
        fixture.load(&archive).await.unwrap();
        fixture.close();
        fixture.reopen();
        assert_eq!(fixture.store().resolve("a:1").unwrap().id, id);
        fixture.store().mount(&id).unwrap();
    }
    let root = fixture.root();
    assert_eq!(fs::read_dir(root.join("unreadable")).unwrap().count(), 2);
    assert!(root.join("repositories.json.unreadable.0").exists());
    // As long as names may be missing, nothing is pruned.
    let pruned = fixture.store().prune(true, &|_| true).unwrap();
    assert!(pruned.removed.is_empty());
    fs::remove_file(root.join("repositories.json.unreadable.0")).unwrap();
    fixture.close();
    fixture.reopen();
    let pruned = fixture.store().prune(true, &|_| true).unwrap();
    assert!(!pruned.removed.is_empty());
}

/// Documents of a newer release are no error at start-up. They are kept, whatever is done then, and
/// the newer release finds them again.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_newer_release_are_kept() {
    if !is_root() {
        return;
    }
    let archive = docker_archive("a:1", &[layer("first")], "sh");
    let mut fixture = Fixture::new(true);
    let id = fixture.load(&archive).await.unwrap()[0].id;
    let root = fixture.root();
    let documents: Vec<_> = files_of(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    assert_eq!(documents.len(), 3);
    let names = fs::read(root.join("repositories.json")).unwrap();
    fixture.close();
    for path in &documents {
        spoil(path, "newer");
    }
    fixture.reopen();
    let damages = verify(&fixture, &[]).await;
    for path in &documents {
        let of_it = |damage: &&Damage| damage.reason.contains(&path.display().to_string());
        let found = damages.iter().find(of_it).unwrap();
        assert!(found.reason.contains("version 9 or newer"), "{found:?}");
        assert_eq!(fs::read_to_string(path).unwrap(), NEWER);
    }
    assert!(fixture.store().list().iter().any(|image| image.id == id));
    // The user's requests are carried out beside them.
    fixture.load(&archive).await.unwrap();
    fixture.store().tag("a:1", "b:1").unwrap();
    fixture.store().mount(&id).unwrap();
    let mut kept = fs::read_dir(root.join("unreadable"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            if path.is_dir() {
                path.join("layer.json")
            } else {
                path
            }
        })
        .chain([root.join("repositories.json.unreadable.0")]);
    assert!(kept.all(|path| fs::read_to_string(path).unwrap() == NEWER));
    fixture.store().remove("a:1", false, false).unwrap();
    fixture.close();
    // The newer release is back: it reads its names, and keeps those that were added meanwhile.
    fs::write(root.join("repositories.json.unreadable.0"), names).unwrap();
    fixture.reopen();
    for name in ["a:1", "b:1"] {
        assert_eq!(fixture.store().resolve(name).unwrap().id, id, "{name}");
    }
    assert!(!root.join("repositories.json.unreadable.0").exists());
    fixture.close();
}
