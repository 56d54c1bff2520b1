//! Broken or malicious archives: each causes an error that names what is wrong, and leaves nothing
//! behind.

mod common;

use common::{
    Fixture, Tar, busybox_layer, config, docker_archive, gzip, is_root, oci_archive, zstd,
};
use hostd_images::{Digest, ImageError, Removed};
use proptest::prelude::*;
use serde_json::json;
use tar::EntryType;

/// Loads and expects a refusal with these words, and an empty store.
async fn refused(what: &str, archive: &[u8], words: &[&str]) {
    let fixture = Fixture::new(false);
    let error = match fixture.load(archive).await {
        Ok(loaded) => panic!("{what}: was loaded as {loaded:?}"),
        Err(error) => error,
    };
    let text = error.to_string();
    for word in words {
        assert!(
            text.contains(word),
            "{what}: {text:?} does not say {word:?}"
        );
    }
    assert!(
        matches!(error, ImageError::Archive(_) | ImageError::Interrupted(_)),
        "{what}: {error:?}"
    );
    assert!(fixture.store().list().is_empty(), "{what}");
    assert!(
        fixture.objects().is_empty(),
        "{what}: {:?}",
        fixture.objects()
    );
}

fn archive_of(layer: Vec<u8>) -> Vec<u8> {
    docker_archive("bad:1", &[layer], "sh")
}

#[tokio::test]
async fn broken_archives_are_refused() {
    if !is_root() {
        return;
    }
    let layer = busybox_layer();
    let good = archive_of(layer.clone());
    refused("nothing", b"", &["empty"]).await;
    refused("text", &b"hello ".repeat(1000), &["tar header"]).await;
    refused("no manifest", &layer, &["manifest.json", "import"]).await;
    refused("lz4", b"\x04\x22\x4d\x18 and so on", &["lz4"]).await;
    refused("broken bzip2", b"BZh91AY&SY and so on", &["decompressed"]).await;
    refused("broken xz", b"\xfd7zXZ\0 and so on", &["decompressed"]).await;
    for part in [3, 10, 700] {
        let cut = &good[..good.len() * part / 1000];
        refused("cut off", cut, &["cut off"]).await;
    }
    let squeezed = gzip(&good);
    refused(
        "cut gzip",
        &squeezed[..squeezed.len() / 2],
        &["decompressed"],
    )
    .await;
    let squeezed = zstd(&good);
    refused(
        "cut zstd",
        &squeezed[..squeezed.len() / 2],
        &["decompressed"],
    )
    .await;
    // What follows may still be valid deflate, and then other bytes come out: the archive is wrong.
    let mut garbled = gzip(&good);
    let middle = garbled.len() / 2;
    garbled[middle..middle + 64].fill(0xaa);
    refused("garbled gzip", &garbled, &["the image archive cannot be"]).await;

    // One flipped bit, in the layer's data.
    let mut flipped = good.clone();
    let at = flipped
        .windows(8)
        .position(|bytes| bytes == b"root:x:0")
        .unwrap();
    flipped[at] ^= 1;
    refused(
        "flipped bit",
        &flipped,
        &["bad:1", "0/layer.tar", "corrupt", "sha256:"],
    )
    .await;

    let manifest = |text: &str| {
        Tar::new()
            .file("manifest.json", text.as_bytes(), 0o644)
            .finish()
    };
    refused("bad JSON", &manifest("[{"), &["manifest.json"]).await;
    refused("no images", &manifest("[]"), &["names no image"]).await;
    refused(
        "missing configuration",
        &manifest(r#"[{"Config":"c.json","RepoTags":["bad:1"],"Layers":[]}]"#),
        &["bad:1", "c.json", "not in the archive"],
    )
    .await;
    refused(
        "bad name",
        &manifest(r#"[{"Config":"c.json","RepoTags":["BAD"],"Layers":[]}]"#),
        &["BAD", "not valid"],
    )
    .await;
    let with_config = |config: &[u8], layers: &str| {
        let manifest = format!(r#"[{{"Config":"c","RepoTags":["bad:1"],"Layers":{layers}}}]"#);
        Tar::new()
            .file("c", config, 0o644)
            .file("manifest.json", manifest.as_bytes(), 0o644)
            .finish()
    };
    let good_config = config(&[layer], "sh");
    refused(
        "missing layer",
        &with_config(&good_config, r#"["l"]"#),
        &["bad:1", "\"l\"", "not in"],
    )
    .await;
    refused(
        "too few layers",
        &with_config(&good_config, "[]"),
        &["bad:1", "0 layers", "has 1"],
    )
    .await;
    refused(
        "layer is text",
        &with_config(&good_config, r#"["c"]"#),
        &["not a tar"],
    )
    .await;
    refused(
        "no configuration",
        &with_config(b"{}", "[]"),
        &["bad:1", "configuration"],
    )
    .await;
    let windows = br#"{"os":"windows","rootfs":{"type":"layers"}}"#;
    refused(
        "windows",
        &with_config(windows, "[]"),
        &["windows", "linux"],
    )
    .await;
}

#[tokio::test]
async fn broken_layouts_are_refused() {
    if !is_root() {
        return;
    }
    let good = oci_archive("docker.io/library/bad:1", &[busybox_layer()], gzip);
    let replace = |from: &str, to: &str| {
        let mut bytes = good.clone();
        let from = from.as_bytes();
        let at = bytes
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    refused(
        "wrong manifest",
        &replace("\"layers\":", "\"layerz\":"),
        &["bad:1", "corrupt"],
    )
    .await;
    refused(
        "wrong config",
        &replace("2026-01-02", "2026-01-03"),
        &["bad:1", "corrupt"],
    )
    .await;
    refused(
        "not an index",
        &replace("\"manifests\":", "\"manifestz\":"),
        &["index.json"],
    )
    .await;
    let digest = Digest::of(b"not there");
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
    ]});
    let archive = Tar::new()
        .file("index.json", index.to_string().as_bytes(), 0o644)
        .finish();
    refused(
        "missing manifest",
        &archive,
        &[&digest.hex(), "not in the archive"],
    )
    .await;
    let index = index.to_string().replace(
        "\"size\":1",
        r#""size":1,"platform":{"os":"linux","architecture":"s390x"}"#,
    );
    let archive = Tar::new()
        .file("index.json", index.as_bytes(), 0o644)
        .finish();
    refused("other machine", &archive, &["no image for linux/"]).await;
}

#[tokio::test]
async fn hostile_layers_are_refused() {
    if !is_root() {
        return;
    }
    let file = |name: &str| Tar::new().file(name, b"x", 0o644);
    let many = (0..21_000).fold(Tar::new(), |tar, number| {
        tar.file(&format!("f{number}"), b"", 0o644)
    });
    let deep = format!("{}x", "d/".repeat(300));
    for (what, layer, words) in [
        (
            "climbing path",
            file("../x").finish(),
            &["../x", "out of the root"][..],
        ),
        (
            "hidden climbing",
            file("a/../../x").finish(),
            &["out of the root"],
        ),
        (
            "below a file",
            file("a").file("a/b", b"", 0o644).finish(),
            &["a/b", "not a directory"],
        ),
        (
            "hard link to nothing",
            Tar::new().hard_link("a", "/etc/shadow").finish(),
            &["/etc/shadow", "no such file in this layer"],
        ),
        (
            "hard link that climbs",
            Tar::new().hard_link("a", "../../etc/shadow").finish(),
            &["out of the root"],
        ),
        (
            "hard link to a directory",
            Tar::new()
                .directory("d", 0o755)
                .hard_link("a", "d")
                .finish(),
            &["directory"],
        ),
        (
            "links in a circle",
            Tar::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", b"", 0o644)
                .finish(),
            &["too many symbolic links"],
        ),
        (
            "unknown type",
            Tar::new()
                .entry("a", EntryType::new(b'V'), "", b"", |_| {})
                .finish(),
            &["'V'"],
        ),
        (
            "device number",
            Tar::new()
                .entry("a", EntryType::Char, "", b"", |header| {
                    header.set_device_major(0o777_777).unwrap();
                })
                .finish(),
            &["device number"],
        ),
        (
            "root as a file",
            file(".").finish(),
            &["root must be a directory"],
        ),
        ("whiteout of nothing", file(".wh.").finish(), &["whiteout"]),
        ("inside a whiteout", file(".wh.a/b").finish(), &["whiteout"]),
        ("too many entries", many.finish(), &["20000 entries"]),
        (
            "endless pax records",
            Tar::new()
                .pax(&[("comment", &vec![b'x'; 2 << 20])])
                .file("a", b"", 0o644)
                .finish(),
            &["limit"],
        ),
        (
            "pax number",
            Tar::new()
                .pax(&[("uid", b"root")])
                .file("a", b"", 0o644)
                .finish(),
            &["uid", "root"],
        ),
        (
            "pax time",
            Tar::new()
                .pax(&[("mtime", b"soon")])
                .file("a", b"", 0o644)
                .finish(),
            &["mtime", "soon"],
        ),
        (
            "attribute too large",
            Tar::new()
                .pax(&[("SCHILY.xattr.user.a", &vec![b'x'; 70_000])])
                .file("a", b"", 0o644)
                .finish(),
            &["user.a", "too large"],
        ),
        (
            "sparse map outside of the file",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.map", b"0,1,100,50"),
                    ("GNU.sparse.size", b"120"),
                ])
                .file("a", &[0; 51], 0o644)
                .finish(),
            &["sparse map"],
        ),
        (
            "directories without end",
            Tar::new()
                .pax(&[("path", deep.as_bytes())])
                .file("a", b"", 0o644)
                .finish(),
            &["too many directories"],
        ),
    ] {
        refused(
            what,
            &archive_of(layer),
            &[&["bad:1", "0/layer.tar"][..], words].concat(),
        )
        .await;
    }
    // 20 MiB of zeros in about 20 KiB; the tests' stores allow 16 MiB.
    let bomb = Tar::new().file("zeros", &vec![0; 20 << 20], 0o644).finish();
    let archive = oci_archive("docker.io/library/bomb:1", &[bomb], gzip);
    refused("bomb", &archive, &["bomb:1", "16777216 bytes"]).await;
}

#[tokio::test]
async fn odd_but_harmless_layers_stay_inside() {
    if !is_root() {
        return;
    }
    let layer = Tar::new()
        .file("/absolute", b"1", 0o644)
        .symlink("escape", "../../../../..")
        .file("escape/through-link", b"2", 0o644)
        .symlink("away", "/made")
        .file("away/x", b"3", 0o644)
        .file("twice", b"old", 0o644)
        .hard_link("other-name", "twice")
        .file("twice", b"new", 0o600)
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
        .directory("plain", 0o755)
        .finish();
    for directories in [true, false] {
        let fixture = Fixture::new(directories);
        let loaded = fixture.load(&archive_of(layer.clone())).await.unwrap();
        let rootfs = fixture.store().mount(&loaded[0].id).unwrap();
        let root = &rootfs.lower[0];
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        assert_eq!(read("absolute"), "1");
        assert_eq!(read("through-link"), "2");
        assert_eq!(read("made/x"), "3");
        assert_eq!(read("twice"), "new");
        assert_eq!(read("other-name"), "old");
        let target = std::fs::read_link(root.join("escape")).unwrap();
        assert_eq!(target.to_str(), Some("../../../../.."));
        let mut list = [0; 256];
        let length = rustix::fs::listxattr(root.join("plain"), &mut list[..]).unwrap();
        assert_eq!(
            length, 0,
            "overlayfs's own attributes must not come from a layer"
        );
    }
}

/// A reader that fails in the middle, like a broken connection.
struct Broken<'a>(&'a [u8]);

impl tokio::io::AsyncRead for Broken<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.0.is_empty() {
            return std::task::Poll::Ready(Err(std::io::Error::other("connection reset")));
        }
        let length = buffer.remaining().min(self.0.len());
        let (now, later) = self.0.split_at(length);
        buffer.put_slice(now);
        self.0 = later;
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_broken_connection_leaves_nothing() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let archive = archive_of(busybox_layer());
    let (progress, _) = tokio::sync::mpsc::channel(1);
    for part in [0, 1, 5, 10] {
        let reader = Broken(&archive[..archive.len() * part / 10]);
        let error = fixture
            .store()
            .load(reader, progress.clone())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ImageError::Interrupted(_)),
            "{part}: {error:?}"
        );
    }
    // A client that goes away: the future is dropped.
    let (mut writer, reader) = tokio::io::duplex(1024);
    let load = fixture.store().load(reader, progress);
    let write = tokio::io::AsyncWriteExt::write_all(&mut writer, &archive[..archive.len() / 2]);
    tokio::select! {
        result = load => panic!("loaded half of an archive: {result:?}"),
        result = write => result.unwrap(),
    }
    // The thread notices at its next read.
    for _ in 0..500 {
        if fixture.objects().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
    assert!(fixture.store().list().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loads_mounts_and_removals_of_the_same_image_go_together() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let layers = [busybox_layer(), Tar::new().file("b", b"b", 0o600).finish()];
    let archive = std::sync::Arc::new(docker_archive("same:1", &layers, "sh"));
    let mut tasks = Vec::new();
    for number in 0..12 {
        let store = fixture.store().clone();
        let archive = std::sync::Arc::clone(&archive);
        tasks.push(tokio::spawn(async move {
            for _ in 0..3 {
                let loaded = common::load(&store, &archive).await.unwrap();
                match store.mount(&loaded[0].id) {
                    Ok(rootfs) => {
                        assert!(rootfs.lower[1].join("bin/busybox").exists());
                    }
                    Err(ImageError::NotFound(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                if number % 3 == 0 {
                    match store.remove("same:1", true, false) {
                        Ok(removed) => assert!(matches!(removed[0], Removed::Untagged(_))),
                        Err(ImageError::NotFound(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let loaded = fixture.load(&archive).await.unwrap();
    assert!(fixture.store().mount(&loaded[0].id).is_ok());
    fixture.store().remove("same:1", true, false).unwrap();
    assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Flipped, cut or doubled bytes cause an error or a complete image, never a panic; and nothing
    /// is left of a refused archive.
    #[test]
    fn mangled_archives_do_no_harm(at in 0_usize..4000, value: u8, cut in 0_usize..9000, squeeze: bool) {
        if keelson_testing::is_root() {
            let layer = Tar::new()
                .directory("d", 0o755)
                .pax(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"12.5")])
                .file("d/f", b"data", 0o644)
                .hard_link("d/g", "d/f")
                .symlink("s", "d")
                .finish();
            let mut archive = docker_archive("mangled:1", &[layer], "sh");
            let length = archive.len();
            archive[at % length] = value;
            archive.truncate(length.min(length * cut / 8000));
            if squeeze {
                archive = gzip(&archive);
            }
            let fixture = Fixture::new(false);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            match runtime.block_on(fixture.load(&archive)) {
                Ok(loaded) => {
                    prop_assert!(fixture.store().mount(&loaded[0].id).is_ok());
                }
                Err(_) => prop_assert!(fixture.objects().is_empty(), "{:?}", fixture.objects()),
            }
        }
    }
}
