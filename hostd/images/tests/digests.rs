//! Pull, save, load, push: every digest stays the same.

mod common;

use std::sync::Arc;

use common::client::{pull, push};
use common::server::{Remote, Server};
use common::storage::Storage;
use common::{Fixture, Tar, busybox_layer, docker_archive, is_root, oci_archive, zstd};
use hostd_images::{Digest, ImageStore, ImageStoreOptions};

fn layers() -> Vec<Vec<u8>> {
    let more = Tar::new().file("etc/motd", b"hello\n", 0o644).finish();
    vec![busybox_layer(), more]
}

/// An image whose layers are compressed as no engine would do it.
fn odd_image() -> Remote {
    let mut remote = Remote::new(&layers());
    let blobs = [zstd(&layers()[0]), strange_gzip(&layers()[1])];
    let sizes = blobs.clone().map(|blob| (Digest::of(&blob), blob.len()));
    let config_size = remote.blobs[&remote.config].len();
    let text = String::from_utf8(remote.manifest_of(&sizes, config_size)).unwrap();
    remote.manifest = text.replacen("+gzip", "+zstd", 1).into_bytes();
    remote.layers = sizes.iter().map(|(digest, _)| *digest).collect();
    remote
        .blobs
        .extend(blobs.map(|blob| (Digest::of(&blob), blob)));
    remote
}

/// Gzip without compression and with a name.
fn strange_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new()
        .filename("layer.tar")
        .mtime(7)
        .write(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

async fn save(fixture: &Fixture, name: &str) -> Vec<u8> {
    let mut archive = Vec::new();
    let saved = fixture.store().save(&[name.to_owned()]).unwrap();
    saved.write_to(&mut archive).await.unwrap();
    archive
}

async fn serve_storage() -> (Arc<Storage>, Server) {
    let storage = Arc::new(Storage::default());
    let honest = Arc::clone(&storage);
    let server = Server::start(move |seen| honest.answer(seen)).await;
    (storage, server)
}

/// Whether a registry has the image with exactly the same bytes.
fn assert_same(storage: &Storage, repository: &str, remote: &Remote) {
    let (_, manifest) = storage.manifest(repository, "latest");
    assert_eq!(manifest, remote.manifest);
    let mut wanted = remote.layers.clone();
    wanted.push(remote.config);
    wanted.sort();
    assert_eq!(storage.blobs(repository), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_image_is_pushed_elsewhere_unchanged() {
    if !is_root() {
        return;
    }
    let remote = odd_image();
    let source = remote.serve().await;
    let fixture = Fixture::new(false);
    pull(&fixture, &source.name("odd")).await.unwrap();
    let (storage, target) = serve_storage().await;
    let copy = target.name("copy");
    fixture.store().tag(&source.name("odd"), &copy).unwrap();
    assert_eq!(
        push(&fixture, &copy).await.unwrap().digest,
        Digest::of(&remote.manifest)
    );
    assert_same(&storage, "copy", &remote);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pull_save_load_and_push_keep_every_digest() {
    if !is_root() {
        return;
    }
    let remote = odd_image();
    let source = remote.serve().await;
    let first = Fixture::new(false);
    pull(&first, &source.name("odd")).await.unwrap();
    let (storage, target) = serve_storage().await;
    let copy = target.name("copy");
    first.store().tag(&source.name("odd"), &copy).unwrap();
    let archive = save(&first, &copy).await;

    let second = Fixture::new(false);
    second.load(&archive).await.unwrap();
    assert_eq!(
        push(&second, &copy).await.unwrap().digest,
        Digest::of(&remote.manifest)
    );
    assert_same(&storage, "copy", &remote);
    // Saved again it is the same archive.
    assert_eq!(save(&second, &copy).await, archive);
    // Existing layers are not stored again, and nothing is lost.
    let objects = second.objects();
    second.load(&archive).await.unwrap();
    assert_eq!(second.objects(), objects);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_layers_of_a_registry_stay_plain() {
    if !is_root() {
        return;
    }
    let mut remote = Remote::new(&layers());
    let sizes: Vec<_> = layers()
        .iter()
        .map(|layer| (Digest::of(layer), layer.len()))
        .collect();
    let config_size = remote.blobs[&remote.config].len();
    let text = String::from_utf8(remote.manifest_of(&sizes, config_size)).unwrap();
    remote.manifest = text.replace("+gzip", "").into_bytes();
    remote.layers = sizes.iter().map(|(digest, _)| *digest).collect();
    for layer in layers() {
        remote.blobs.insert(Digest::of(&layer), layer);
    }
    let source = remote.serve().await;
    let first = Fixture::new(false);
    pull(&first, &source.name("plain")).await.unwrap();
    let (storage, target) = serve_storage().await;
    let copy = target.name("copy");
    first.store().tag(&source.name("plain"), &copy).unwrap();
    let second = Fixture::new(false);
    second.load(&save(&first, &copy).await).await.unwrap();
    push(&second, &copy).await.unwrap();
    assert_same(&storage, "copy", &remote);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_archive_changes_no_digests() {
    if !is_root() {
        return;
    }
    let remote = Remote::new(&layers());
    let source = remote.serve().await;
    let fixture = Fixture::new(false);
    pull(&fixture, &source.name("a")).await.unwrap();
    // The same image with plain layers and without a manifest, and as a layout with other blobs.
    let (storage, target) = serve_storage().await;
    let plain = docker_archive(&target.name("plain:latest"), &layers(), "sh");
    fixture.load(&plain).await.unwrap();
    let other = oci_archive(&target.name("other:latest"), &layers(), zstd);
    fixture.load(&other).await.unwrap();
    assert_eq!(fixture.store().list().len(), 1);
    for repository in ["plain", "other"] {
        push(&fixture, &target.name(repository)).await.unwrap();
        assert_same(&storage, repository, &remote);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_blobs_layers_are_compressed_always_alike() {
    if !is_root() {
        return;
    }
    let remote = odd_image();
    let source = remote.serve().await;
    let (storage, target) = serve_storage().await;
    let mut digests = Vec::new();
    let mut sizes = Vec::new();
    for repository in ["one", "two"] {
        let mut fixture = Fixture::new(false);
        let options = ImageStoreOptions {
            keep_compressed: false,
            ..ImageStoreOptions::default()
        };
        fixture.store = None;
        let store = ImageStore::open_with(&fixture.root(), &fixture.run(), options).unwrap();
        fixture.store = Some(store);
        pull(&fixture, &source.name("odd")).await.unwrap();
        let name = target.name(repository);
        fixture.store().tag(&source.name("odd"), &name).unwrap();
        digests.push(push(&fixture, &name).await.unwrap().digest);
        sizes.push(fixture.store().disk_usage().layers);
        let archive = save(&fixture, &name).await;
        let kept = Fixture::new(false);
        kept.load(&archive).await.unwrap();
        assert_eq!(push(&kept, &name).await.unwrap().digest, digests[0]);
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], Digest::of(&remote.manifest));
    assert_eq!(storage.blobs("one"), storage.blobs("two"));
    let plain: usize = layers().iter().map(Vec::len).sum();
    assert_eq!(sizes, [plain as u64; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_blobs_count_and_go_with_their_layers() {
    if !is_root() {
        return;
    }
    let remote = odd_image();
    let blobs: usize = remote.layers.iter().map(|id| remote.blobs[id].len()).sum();
    let plain: usize = layers().iter().map(Vec::len).sum();
    let source = remote.serve().await;
    let mut fixture = Fixture::new(false);
    pull(&fixture, &source.name("odd")).await.unwrap();
    fixture.reopen();
    let used = fixture.store().disk_usage().layers;
    assert_eq!(used, (blobs + plain) as u64);
    let pruned = fixture.store().prune(true, &|_| true).unwrap();
    assert_eq!(pruned.reclaimed, used);
    assert!(fixture.objects().is_empty());
}
