//! Images through the `docker` command.

mod common;

use std::fs;

use common::{Host, image, is_root};

#[test]
fn load_list_tag_and_remove() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let list = host
        .docker(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
        .ok();
    let (name, id) = list.split_once(' ').unwrap();
    assert_eq!(name, "busybox:latest");
    let full = host.docker(&["inspect", "-f", "{{.Id}}", "busybox"]).ok();
    assert!(full.starts_with(&format!("sha256:{id}")), "{full} {id}");
    assert_eq!(
        host.docker(&[
            "inspect",
            "-f",
            "{{.Os}} {{index .Config.Cmd 0}} {{.Created}}",
            id
        ])
        .ok(),
        "linux sh 2024-05-06T07:08:09Z"
    );
    assert!(
        host.docker(&["history", "busybox"])
            .ok()
            .contains("COPY busybox")
    );

    host.docker(&["tag", "busybox", "team/box:1"]).ok();
    assert_eq!(host.docker(&["images", "-q", "team/*"]).ok(), id);
    assert_eq!(
        host.docker(&["rmi", "busybox"]).ok(),
        "Untagged: busybox:latest"
    );
    host.docker(&["create", "--name", "user", "team/box:1"])
        .ok();
    host.docker(&["rmi", "team/box:1"]).fails_with("conflict");
    host.docker(&["rm", "user"]).ok();
    let removed = host.docker(&["rmi", "team/box:1"]).ok();
    assert!(removed.contains("Untagged: team/box:1") && removed.contains("Deleted: sha256:"));
    assert_eq!(host.docker(&["images", "-q"]).ok(), "");
    host.docker(&["rmi", "team/box:1"])
        .fails_with("No such image");
}

#[test]
fn import_makes_an_image_that_runs() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let id = host
        .docker_with(
            &[
                "import",
                "-c",
                "CMD [\"echo\", \"imported\"]",
                "-",
                "mine:2",
            ],
            &image::rootfs(),
        )
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(host.docker(&["run", "--rm", "mine:2"]).ok(), "imported");
}

#[test]
fn what_was_saved_loads_again() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host.docker(&["images", "-q", "--no-trunc"]).ok();
    let file = host.path().join("saved.tar");
    let file = file.to_str().unwrap();
    host.docker(&["save", "-o", file, "busybox"]).ok();
    host.docker(&["rmi", "busybox"]).ok();
    let loaded = host.docker(&["load", "-i", file]).ok();
    assert_eq!(loaded, "Loaded image: busybox:latest");
    assert_eq!(host.docker(&["images", "-q", "--no-trunc"]).ok(), id);
    host.docker(&["save", "no-such-image"])
        .fails_with("No such image");
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let good = image::busybox("bad:1");
    let wrong_digest = image::archive(
        "bad:2",
        &image::rootfs(),
        Some("sha256:0000000000000000000000000000000000000000000000000000000000000000"),
    );
    let mut flipped = good.clone();
    let middle = flipped.len() / 3;
    flipped[middle] ^= 0xff;
    for (what, archive) in [
        ("not an archive", b"this is no archive".repeat(100)),
        ("empty", Vec::new()),
        ("cut short", good[..good.len() / 2].to_vec()),
        ("wrong digest", wrong_digest),
        ("flipped byte", flipped),
    ] {
        let done = host.docker_with(&["load"], &archive);
        assert_ne!(done.code, 0, "{what}: {}", done.stdout);
        assert!(!done.stderr.trim().is_empty(), "{what}");
        eprintln!("{what}: {}", done.stderr.trim());
    }
    assert_eq!(host.docker(&["images", "-aq"]).ok(), "");
    let layers = host.path().join("root/engine/layers");
    let left: Vec<_> = fs::read_dir(&layers)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().len() >= 64)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // Afterwards the store is as good as new.
    host.load_busybox();
    assert_eq!(
        host.docker(&["run", "--rm", "busybox", "echo", "fine"])
            .ok(),
        "fine"
    );
}
