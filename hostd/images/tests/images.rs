//! Loading, naming, importing and removing images.

mod common;

use common::{Fixture, Tar, busybox_layer, docker_archive, gzip, is_root, oci_archive, zstd};
use hostd_images::{Digest, Holder, ImageAction, ImageError, ImportOptions, Removed};

#[tokio::test]
async fn a_docker_archive_becomes_an_image() {
    if !is_root() {
        return;
    }
    let mut fixture = Fixture::new(false);
    let mut events = fixture.store().subscribe();
    let layers = [busybox_layer(), Tar::new().file("b", b"b", 0o600).finish()];
    let archive = docker_archive("busybox", &layers, "sh");
    let loaded = fixture.load(&archive).await.unwrap();
    assert_eq!(loaded[0].references, ["busybox:latest"]);
    let event = events.recv().await.unwrap();
    assert_eq!(event.action, ImageAction::Load);
    assert_eq!(event.labels, [("a".to_owned(), "b".to_owned())]);

    for reopen in [false, true] {
        if reopen {
            fixture.reopen();
        }
        let store = fixture.store();
        let image = store.resolve("busybox").unwrap();
        assert_eq!(image.id, loaded[0].id);
        assert_eq!(image.repo_tags, ["busybox:latest"]);
        assert_eq!(
            image.size,
            layers.iter().map(|layer| layer.len() as u64).sum::<u64>()
        );
        assert_eq!(image.created, 1_767_323_045);
        assert_eq!(image.config.config.cmd.as_deref().unwrap(), ["sh"]);
        assert_eq!(Digest::of(&image.raw_config), image.id);
        for name in [
            image.id.to_string(),
            image.id.hex(),
            image.id.short(),
            "docker.io/library/busybox:latest".to_owned(),
        ] {
            assert_eq!(store.resolve(&name).unwrap().id, image.id, "{name}");
        }
        assert!(matches!(
            store.resolve("busybox:1"),
            Err(ImageError::NotFound(name)) if name == "busybox:1"
        ));
        assert_eq!(store.list().len(), 1);
    }
}

#[tokio::test]
async fn every_format_and_compression_gives_the_same_image() {
    if !is_root() {
        return;
    }
    let layers = [busybox_layer(), Tar::new().file("b", b"b", 0o600).finish()];
    let docker = docker_archive("a:1", &layers, "sh");
    let plain: fn(&[u8]) -> Vec<u8> = <[u8]>::to_vec;
    let archives = [
        docker.clone(),
        gzip(&docker),
        zstd(&docker),
        docker_archive("a:1", &layers.clone().map(|layer| gzip(&layer)), "sh"),
        oci_archive("docker.io/library/a:1", &layers, plain),
        oci_archive("docker.io/library/a:1", &layers, gzip),
        gzip(&oci_archive("docker.io/library/a:1", &layers, zstd)),
    ];
    let expected = {
        let fixture = Fixture::new(false);
        fixture.load(&docker).await.unwrap();
        fixture.store().resolve("a:1").unwrap()
    };
    for (number, archive) in archives.iter().enumerate() {
        let fixture = Fixture::new(false);
        let loaded = fixture.load(archive).await;
        // A configuration that names the compressed layers as its own is a wrong one.
        if number == 3 {
            let error = loaded.unwrap_err().to_string();
            assert!(
                error.contains("0/layer.tar") && error.contains("a:1"),
                "{error}"
            );
            continue;
        }
        assert_eq!(loaded.unwrap()[0].references, ["a:1"]);
        let image = fixture.store().resolve("a:1").unwrap();
        assert_eq!(image.id, expected.id, "archive {number}");
        assert_eq!(image.layers, expected.layers);
    }
}

#[tokio::test]
async fn names_move_and_removal_follows_docker() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let store = fixture.store();
    let layer = Tar::new().file("a", b"a", 0o644).finish();
    let first = fixture
        .load(&docker_archive("a:1", std::slice::from_ref(&layer), "one"))
        .await
        .unwrap()[0]
        .id;
    store.tag("a:1", "b").unwrap();
    store.tag(&first.short(), "registry.example/c:2").unwrap();
    assert!(matches!(store.tag("a:1", "A"), Err(ImageError::Invalid(_))));
    assert!(matches!(store.tag("x", "b"), Err(ImageError::NotFound(_))));

    // Another image gets the name; the first keeps its other names.
    let second = fixture
        .load(&docker_archive("b", &[layer], "two"))
        .await
        .unwrap()[0]
        .id;
    assert_eq!(store.resolve("b").unwrap().id, second);
    assert_eq!(
        store.resolve(&first.hex()).unwrap().repo_tags,
        ["a:1", "registry.example/c:2"]
    );

    let error = store.remove(&first.hex(), false, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple \
             repositories",
            first.short()
        )
    );
    let removed = store.remove("registry.example/c:2", false, false).unwrap();
    assert_eq!(
        removed,
        [Removed::Untagged("registry.example/c:2".to_owned())]
    );

    let holder = || Holder::container(&"c0ffee".repeat(10));
    let (lease, image) = store.lease("a:1", holder()).unwrap();
    assert_eq!((lease.image(), image.id), (Some(first), first));
    assert_eq!(store.containers(&first), ["c0ffee".repeat(10)]);
    let error = store.remove("a:1", false, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container \
             c0ffeec0ffee is using its referenced image {}",
            first.short()
        )
    );
    let running = store.lease_again(Some(first), holder());
    running.ask(|| true);
    let error = store.remove(&first.hex(), true, false).unwrap_err();
    drop(running);
    assert!(
        error
            .to_string()
            .contains("(cannot be forced) - image is being used by running")
    );

    // Forced: the name is removed, the layers stay until the container is gone.
    let removed = store.remove("a:1", true, false).unwrap();
    assert_eq!(
        removed,
        [
            Removed::Untagged("a:1".to_owned()),
            Removed::Deleted(first.to_string())
        ]
    );
    assert!(store.resolve(&first.hex()).is_err());
    assert!(store.mount(&first).is_ok());
    drop(lease.clone());
    // The lease of another image's user changes nothing.
    drop(store.lease("b", holder()).unwrap());
    assert!(store.mount(&first).is_ok());
    drop(lease);
    common::until("the image is gone", || store.mount(&first).is_err());

    // The layer is shared with the second image, and is deleted with it.
    let removed = store.remove("b", false, false).unwrap();
    assert_eq!(removed.len(), 3);
    assert!(fixture.objects().is_empty(), "{:?}", fixture.objects());
}

#[tokio::test]
async fn prune_removes_what_nobody_needs() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let store = fixture.store();
    let layer = |text: &str| Tar::new().file("a", text.as_bytes(), 0o644).finish();
    let dangling = fixture
        .load(&docker_archive("", &[layer("1")], "one"))
        .await
        .unwrap()[0]
        .id;
    fixture
        .load(&docker_archive("b", &[layer("2")], "two"))
        .await
        .unwrap();
    // Objects that may belong to any image are kept, too.
    for image in [Some(dangling), None] {
        let _lease = store.lease_again(image, Holder::container(&"c".repeat(64)));
        assert_eq!(store.prune(false, &|_| true).unwrap().removed, []);
    }
    let pruned = store.prune(false, &|_| true).unwrap();
    assert_eq!(pruned.removed.len(), 2);
    assert_eq!(pruned.reclaimed, layer("1").len() as u64);
    assert_eq!(store.list().len(), 1);
    assert_eq!(store.prune(true, &|_| true).unwrap().removed.len(), 3);
    assert!(fixture.objects().is_empty());
    assert_eq!(store.disk_usage().layers, 0);
}

#[tokio::test]
async fn an_import_makes_an_image_of_one_layer() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let layer = busybox_layer();
    let options = ImportOptions {
        reference: Some("mine:1".to_owned()),
        changes: vec!["CMD [\"true\"]".to_owned()],
        platform: Some("linux/arm64/v8".to_owned()),
        ..ImportOptions::default()
    };
    let id = fixture
        .store()
        .import(&gzip(&layer)[..], options)
        .await
        .unwrap();
    let image = fixture.store().resolve("mine:1").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.layers[0].diff_id, Digest::of(&layer));
    assert_eq!(image.config.config.cmd.as_deref().unwrap(), ["true"]);
    assert_eq!(image.config.architecture, "arm64");
    assert_eq!(
        image.config.history[0].comment.as_deref(),
        Some("Imported from -")
    );
    for (options, words) in [
        (
            ImportOptions {
                platform: Some("windows/amd64".to_owned()),
                ..ImportOptions::default()
            },
            "windows",
        ),
        (
            ImportOptions {
                changes: vec!["RUN x".to_owned()],
                ..ImportOptions::default()
            },
            "RUN",
        ),
    ] {
        let error = fixture
            .store()
            .import(&layer[..], options)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn saved_images_load_as_the_same_images() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let store = fixture.store();
    let base = busybox_layer();
    let more = Tar::new().file("more", &[1; 1000], 0o644).finish();
    fixture
        .load(&docker_archive("a:1", std::slice::from_ref(&base), "one"))
        .await
        .unwrap();
    fixture
        .load(&docker_archive("a:2", &[base, more.clone(), more], "two"))
        .await
        .unwrap();
    store.tag("a:2", "other:x").unwrap();
    let names = ["a".to_owned(), "other:x".to_owned()];
    let mut archive = Vec::new();
    let saved = store.save(&names).unwrap();
    saved.write_to(&mut archive).await.unwrap();
    // As a docker-archive, and without its manifest as an OCI layout.
    let at = archive
        .windows(13)
        .position(|window| window == b"manifest.json")
        .unwrap();
    let mut layout = archive.clone();
    layout[at..at + 13].copy_from_slice(b"manifest.jsom");
    // The checksum covers the name, whose last letter is one less.
    let digits = &mut layout[at + 148..at + 154];
    let sum = u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 8).unwrap() - 1;
    digits.copy_from_slice(format!("{sum:06o}").as_bytes());
    for archive in [archive, layout] {
        let other = Fixture::new(true);
        other.load(&archive).await.unwrap();
        for name in ["a:1", "a:2", "other:x"] {
            let image = other.store().resolve(name).unwrap();
            assert_eq!(image.id, store.resolve(name).unwrap().id);
        }
        let mut again = Vec::new();
        let saved = other.store().save(&names).unwrap();
        saved.write_to(&mut again).await.unwrap();
        assert_eq!(Digest::of(&again), {
            let mut first = Vec::new();
            store
                .save(&names)
                .unwrap()
                .write_to(&mut first)
                .await
                .unwrap();
            Digest::of(&first)
        });
    }
    assert!(matches!(
        store.save(&["missing".to_owned()]),
        Err(ImageError::NotFound(_))
    ));
    // By identifier there are no names.
    let id = store.resolve("a:1").unwrap().id;
    let mut archive = Vec::new();
    let saved = store.save(&[id.short()]).unwrap();
    saved.write_to(&mut archive).await.unwrap();
    let other = Fixture::new(false);
    let loaded = other.load(&archive).await.unwrap();
    assert_eq!((loaded[0].id, loaded[0].references.len()), (id, 0));
}

#[tokio::test]
async fn an_image_listed_twice_gets_both_names() {
    if !is_root() {
        return;
    }
    let layer = Tar::new().file("a", b"a", 0o644).finish();
    let config = common::config(std::slice::from_ref(&layer), "sh");
    let one = |name: &str| {
        format!(r#"{{"Config":"c.json","RepoTags":["{name}"],"Layers":["old/layer.tar"]}}"#)
    };
    let manifest = format!("[{},{}]", one("a:1"), one("b:2"));
    // Older writers store a layer once and link to it.
    let archive = Tar::new()
        .file("c.json", &config, 0o644)
        .file("./new/layer.tar", &layer, 0o644)
        .symlink("old/layer.tar", "../new/layer.tar")
        .file("manifest.json", manifest.as_bytes(), 0o644)
        .finish();
    let fixture = Fixture::new(false);
    let loaded = fixture.load(&archive).await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].references, ["a:1", "b:2"]);
    assert_eq!(
        fixture.store().resolve("b:2").unwrap().repo_tags,
        ["a:1", "b:2"]
    );
}

/// An archive of an OCI layout with these index entries; `blobs` are named by their digests.
fn layout(entries: &[serde_json::Value], blobs: &[Vec<u8>]) -> Vec<u8> {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
    let mut tar = Tar::new().file("index.json", index.to_string().as_bytes(), 0o644);
    for blob in blobs {
        let path = format!("blobs/sha256/{}", Digest::of(blob).hex());
        tar = tar.file(&path, blob, 0o644);
    }
    tar.finish()
}

#[tokio::test]
async fn layout_entries_that_are_no_images_are_skipped() {
    if !is_root() {
        return;
    }
    use serde_json::{Value, json};
    const OCI: &str = "application/vnd.oci.image.";
    let layer = gzip(&busybox_layer());
    let config = common::config(&[busybox_layer()], "sh");
    let described = |bytes: &[u8], media_type: &str| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
    let manifest = |config: Value, layers: Vec<Value>, more: Value| {
        let mut manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        for (name, value) in more.as_object().unwrap() {
            manifest[name] = value.clone();
        }
        manifest.to_string().into_bytes()
    };
    let oci = |kind: &str| format!("{OCI}{kind}");
    let image = manifest(
        described(&config, &oci("config.v1+json")),
        vec![described(&layer, &oci("layer.v1.tar+gzip"))],
        json!({}),
    );
    let payload = b"{\"critical\":{}}".to_vec();
    let signature_config = json!({"architecture": "", "os": "", "config": null,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&payload)]}});
    let signature_config = signature_config.to_string().into_bytes();
    let signature = manifest(
        described(&signature_config, &oci("config.v1+json")),
        vec![described(
            &payload,
            "application/vnd.dev.cosign.simplesigning.v1+json",
        )],
        json!({}),
    );
    let bundle = manifest(
        described(b"{}", "application/vnd.oci.empty.v1+json"),
        vec![described(b"x", "application/octet-stream")],
        json!({"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"}),
    );
    let other_system = json!({"os": "windows", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": []}});
    let other_system = other_system.to_string().into_bytes();
    let windows = manifest(
        described(&other_system, &oci("config.v1+json")),
        vec![],
        json!({}),
    );
    let mut own = described(&image, &oci("manifest.v1+json"));
    own["annotations"] = json!({"org.opencontainers.image.ref.name": "img:1", "x": null});
    let entry = |bytes: &[u8]| described(bytes, &oci("manifest.v1+json"));
    let others = [
        entry(&signature),
        entry(&bundle),
        entry(&windows),
        json!({"mediaType": "application/vnd.oci.descriptor.v1+json", "digest": null}),
        json!({"mediaType": "x/y", "digest": Digest::of(b"not here"), "size": 3}),
        json!(null),
    ];
    let blobs = [
        layer,
        config,
        image.clone(),
        payload,
        signature_config,
        signature,
        bundle,
        b"{}".to_vec(),
        b"x".to_vec(),
        other_system,
        windows,
    ];
    for other in &others {
        let fixture = Fixture::new(true);
        let loaded = fixture
            .load(&layout(&[other.clone(), own.clone()], &blobs))
            .await;
        assert_eq!(loaded.unwrap()[0].references, ["img:1"], "{other}");
        // If it is the only entry, the error says why there is no image.
        let error = fixture
            .load(&layout(std::slice::from_ref(other), &blobs))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("has no image"), "{error}");
    }
}

#[tokio::test]
async fn old_and_odd_archives_are_loaded() {
    if !is_root() {
        return;
    }
    let layers = [busybox_layer(), Tar::new().file("b", b"b", 0o600).finish()];
    let fixture = Fixture::new(true);
    let mut padded = gzip(&docker_archive("padded:1", &layers, "sh"));
    padded.resize(padded.len().next_multiple_of(10_240), 0);
    fixture.load(&padded).await.unwrap();
    // A layer's directory that is a link, and a layer that is one.
    let config = common::config(&layers, "sh");
    let manifest = br#"[{"config":"c.json","REPOTAGS":"linked:1","Parent":null,
        "Layers":["current/0/layer.tar","two/layer.tar"]}]"#;
    let linked = Tar::new()
        .file("c.json", &config, 0o644)
        .symlink("current", "./images/")
        .symlink("two", "images/1")
        .symlink("images/1/layer.tar", "../../files/b.tar")
        .file("images/0/layer.tar", &layers[0], 0o644)
        .file("files/b.tar", &layers[1], 0o644)
        .file("manifest.json", manifest, 0o644)
        .finish();
    let loaded = fixture.load(&linked).await.unwrap();
    assert_eq!(loaded[0].references, ["linked:1"]);
    // Links that lead in a circle lead nowhere.
    let circle = Tar::new()
        .file("c.json", &config, 0o644)
        .symlink("a", "b")
        .symlink("b", "a")
        .file(
            "manifest.json",
            br#"[{"Config":"c.json","Layers":["a/layer.tar","b"]}]"#,
            0o644,
        )
        .finish();
    let error = fixture.load(&circle).await.unwrap_err().to_string();
    assert!(error.contains("a/layer.tar"), "{error}");
    // An image whose labels would be copied to every container and event.
    let label = "x".repeat(7 << 20);
    let large = String::from_utf8(config)
        .unwrap()
        .replacen("\"b\"", &format!("\"{label}\""), 1);
    let large = Tar::new()
        .file("c.json", large.as_bytes(), 0o644)
        .file("0.tar", &layers[0], 0o644)
        .file("1.tar", &layers[1], 0o644)
        .file(
            "manifest.json",
            br#"[{"Config":"c.json","Layers":["0.tar","1.tar"]}]"#,
            0o644,
        )
        .finish();
    let error = fixture.load(&large).await.unwrap_err().to_string();
    assert!(
        error.contains("config.Labels") && error.contains("1048576"),
        "{error}"
    );
}
