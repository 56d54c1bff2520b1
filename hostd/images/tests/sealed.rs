//! Layers on a file system with fs-verity are sealed some time after they arrived.

mod common;

use std::fs::{self, File};
use std::time::{Duration, Instant};

use common::complete::assert_complete;
use common::{Fixture, Tar, docker_archive, is_root};
use keelson_sys::verity;

/// Longer than the store waits, even on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whether the file system of the tests' stores has fs-verity. The machine's own has.
fn is_supported(fixture: &Fixture) -> bool {
    let path = fixture.run().join("probe");
    fs::write(&path, "probe").unwrap();
    let result = verity::enable(&File::open(&path).unwrap());
    fs::remove_file(path).unwrap();
    if let Err(error) = result {
        keelson_testing::skip("fs-verity", error);
    }
    result.is_ok()
}

#[tokio::test]
async fn a_layer_is_sealed_read_and_removed() {
    if !is_root() {
        return;
    }
    let mut fixture = Fixture::new(false);
    if !is_supported(&fixture) {
        return;
    }
    let layer = Tar::new()
        .file("file", "sealed".repeat(5000).as_bytes(), 0o644)
        .finish();
    let id = fixture
        .load(&docker_archive("a:1", &[layer], "sh"))
        .await
        .unwrap()[0]
        .id;
    let image = fixture.store().resolve("a:1").unwrap();
    let directory = fixture.root().join("layers");
    let directory = directory.join(image.layers[0].diff_id.hex());
    let deadline = Instant::now() + PATIENCE;
    while !directory.join("seal.json").exists() {
        assert!(Instant::now() < deadline, "the layer is not sealed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for name in ["layer.tar", "index.erofs"] {
        let path = directory.join(name);
        let measured = verity::measure(&File::open(&path).unwrap()).unwrap();
        assert!(measured.is_some(), "{name}");
        assert!(File::options().write(true).open(&path).is_err(), "{name}");
    }
    fixture.reopen();
    assert_complete(&fixture, "sealed");
    // Replaced by another file, which is protected as well.
    let tar = directory.join("layer.tar");
    let mut other = fs::read(&tar).unwrap();
    other[600] ^= 1;
    fs::remove_file(&tar).unwrap();
    fs::write(&tar, other).unwrap();
    verity::enable(&File::open(&tar).unwrap()).unwrap();
    let error = fixture.store().mount(&id).unwrap_err().to_string();
    assert!(
        error.contains(&image.layers[0].diff_id.to_string()),
        "{error}"
    );
    assert!(error.contains("layer.tar"), "{error}");
    fixture.store().remove("a:1", false, false).unwrap();
    assert!(fixture.objects().is_empty());
}
