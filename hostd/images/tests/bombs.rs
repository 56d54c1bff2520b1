//! Small archives that would keep the machine busy for ever, or make images that no kernel can
//! mount.

mod common;

use common::{Fixture, Tar, config, is_root};
use hostd_images::Digest;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

async fn refused(archive: &[u8], words: &[&str]) {
    let fixture = Fixture::new(false);
    let error = fixture.load(archive).await.unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
    assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
}

/// The blobs of an archive.
struct Blobs(Tar);

impl Blobs {
    fn add(&mut self, bytes: &[u8], media_type: &str) -> Value {
        let digest = Digest::of(bytes);
        let path = format!("blobs/sha256/{}", digest.hex());
        let tar = std::mem::replace(&mut self.0, Tar::new());
        self.0 = tar.file(&path, bytes, 0o644);
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }
}

/// Indexes that name each other `width` times, three deep: `width`³ manifests in all.
fn nested(blobs: &mut Blobs, width: usize) -> Vec<u8> {
    let config = blobs.add(
        &config(&[], "sh"),
        "application/vnd.oci.image.config.v1+json",
    );
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
    let mut below = blobs.add(manifest.to_string().as_bytes(), MANIFEST);
    let mut index = String::new();
    for depth in 0..3 {
        if depth > 0 {
            below = blobs.add(index.as_bytes(), INDEX);
        }
        index = json!({"schemaVersion": 2, "manifests": vec![&below; width]}).to_string();
    }
    index.into_bytes()
}

#[tokio::test]
async fn indexes_that_name_each_other_many_times_are_refused() {
    if !is_root() {
        return;
    }
    let mut blobs = Blobs(Tar::new());
    let index = nested(&mut blobs, 3000);
    let archive = blobs.0.file("index.json", &index, 0o644).finish();
    refused(&archive, &["image \"sha256:", "too often"]).await;
}

#[tokio::test]
async fn indexes_beside_a_manifest_are_read_once() {
    if !is_root() {
        return;
    }
    let mut blobs = Blobs(Tar::new());
    let index = nested(&mut blobs, 3000);
    let names: Vec<_> = (0..2000).map(|number| format!("bomb:{number}")).collect();
    let configuration = Digest::of(&config(&[], "sh"));
    let path = format!("blobs/sha256/{}", configuration.hex());
    let list: Vec<_> = names
        .iter()
        .map(|name| json!({"Config": path, "RepoTags": [name], "Layers": []}))
        .collect();
    let list = serde_json::to_vec(&list).unwrap();
    let archive = blobs
        .0
        .file("index.json", &index, 0o644)
        .file("manifest.json", &list, 0o644)
        .finish();
    let fixture = Fixture::new(false);
    let loaded = fixture.load(&archive).await.unwrap();
    // One image with all of its names.
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].references, names);
}

#[tokio::test]
async fn one_large_configuration_for_many_images_is_refused() {
    if !is_root() {
        return;
    }
    let mut large: Value = serde_json::from_slice(&config(&[], "sh")).unwrap();
    large["comment"] = "x".repeat(3 << 20).into();
    let list = vec![json!({"Config": "c.json", "RepoTags": ["bomb:1"], "Layers": []}); 1000];
    let archive = Tar::new()
        .file("c.json", large.to_string().as_bytes(), 0o644)
        .file("manifest.json", &serde_json::to_vec(&list).unwrap(), 0o644)
        .finish();
    refused(&archive, &["bomb:1", "too often"]).await;
}

#[tokio::test]
async fn more_layers_than_can_be_mounted_are_refused() {
    if !is_root() {
        return;
    }
    let layers: Vec<_> = (0..501)
        .map(|number| Tar::new().file(&format!("f{number}"), b"", 0o644).finish())
        .collect();
    let archive = common::docker_archive("high:1", &layers, "sh");
    refused(&archive, &["high:1", "501 layers", "at most 500"]).await;
    let archive = common::docker_archive("high:1", &layers[..500], "sh");
    let fixture = Fixture::new(false);
    let loaded = fixture.load(&archive).await.unwrap();
    let rootfs = fixture.store().mount(&loaded[0].id).unwrap();
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for directory in &rootfs.lower {
        fsconfig_set_string(&overlay, "lowerdir+", directory).unwrap();
    }
    fsconfig_create(&overlay).unwrap();
}
