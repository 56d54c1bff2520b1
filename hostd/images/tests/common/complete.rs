//! Checks that must hold for a store after anything that may have happened to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hostd_images::{Digest, Image};

use super::Fixture;

/// Every listed image is complete to its last byte and can be used, and nothing else exists.
pub(crate) fn assert_complete(fixture: &Fixture, when: &str) {
    let root = fixture.root();
    let mut expected: BTreeSet<PathBuf> = ["images.lock", "repositories.json", "reserve"]
        .iter()
        .map(|name| root.join(name))
        .collect();
    for image in fixture.store().list() {
        assert_image(fixture, &image, when);
        expected.insert(root.join("blobs").join(image.id.hex()));
        let record = root.join("images").join(format!("{}.json", image.id.hex()));
        if let Some(manifest) = manifest_of(&record) {
            let path = root.join("blobs").join(manifest.hex());
            let found = Digest::of(&std::fs::read(&path).unwrap());
            assert_eq!(found, manifest, "{when}");
            expected.insert(path);
        }
        expected.insert(record);
        for layer in &image.layers {
            let directory = root.join("layers").join(layer.diff_id.hex());
            files_below(&directory.join("root"), &mut expected);
            for name in [
                "layer.json",
                "layer.tar",
                "layer.blob",
                "index.erofs",
                "seal.json",
            ] {
                expected.insert(directory.join(name));
            }
        }
    }
    // Objects are deleted in the background.
    fixture.objects();
    let mut found = BTreeSet::new();
    files_below(&root, &mut found);
    let left: Vec<_> = found.difference(&expected).collect();
    assert!(left.is_empty(), "{when}: left on disk: {left:?}");
}

fn assert_image(fixture: &Fixture, image: &Image, when: &str) {
    let store = fixture.store();
    assert_eq!(Digest::of(&image.raw_config), image.id, "{when}");
    for name in &image.repo_tags {
        assert_eq!(store.resolve(name).unwrap().id, image.id, "{when}");
    }
    let rootfs = store.mount(&image.id).unwrap();
    let mut seen = 0;
    for (lower, layer) in rootfs.lower.iter().rev().zip(&image.layers) {
        let directory = fixture.root().join("layers").join(layer.diff_id.hex());
        let tar = std::fs::read(directory.join("layer.tar")).unwrap();
        assert_eq!(Digest::of(&tar), layer.diff_id, "{when}");
        // The mount shows the files of the archive.
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            // The tar crate does not expand sparse files.
            let is_sparse = entry.pax_extensions().unwrap().is_some_and(|mut records| {
                records.any(|record| record.unwrap().key() == Ok("GNU.sparse.map"))
            });
            if entry.header().entry_type().is_file() && !is_sparse {
                let mut data = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
                let path = lower.join(entry.path().unwrap());
                assert!(std::fs::read(&path).unwrap() == data, "{when}: {path:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "{when}");
}

/// All files (not directories) below a directory. The directory need not exist.
fn files_below(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            // A directory for an object that no longer exists is a leak, too.
            assert_ne!(entry.file_name(), "probe");
            files_below(&entry.path(), found);
        } else {
            found.insert(entry.path());
        }
    }
}

/// The member `manifest` of an image's record.
fn manifest_of(record: &Path) -> Option<Digest> {
    fn find(document: &serde_json::Value) -> Option<Digest> {
        let members = document.as_object()?;
        match members.get("manifest") {
            Some(manifest) => manifest.as_str()?.parse().ok(),
            None => members.values().find_map(find),
        }
    }
    find(&serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap())
}
