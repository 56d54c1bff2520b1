//! A container sees the same files of a layer that `tar x` makes from its archive, in both
//! backends.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use common::seen::see;
use common::tree::{Overlay, make_tree, mounted, run};
use common::{Fixture, Tar, busybox_layer, docker_archive, is_root};
use hostd_images::Digest;

fn check_index(fixture: &Fixture, layer: &[u8]) {
    let folder = fixture.root().join("layers").join(Digest::of(layer).hex());
    let output = Command::new("fsck.erofs")
        .arg(format!("--device={}", folder.join("layer.tar").display()))
        .arg(folder.join("index.erofs"))
        .output();
    match output {
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            // Older versions support only blocks of the page size. The kernel's own checks remain.
            if message.contains("blksize 512 isn't supported") {
                keelson_testing::skip("fsck.erofs that knows blocks of 512 bytes", message.trim());
            } else {
                assert!(output.status.success(), "{message}");
            }
        }
        Err(error) => keelson_testing::skip("fsck.erofs", error),
    }
    assert_eq!(fs::read(folder.join("layer.tar")).unwrap(), layer);
}

async fn same_as_tar(directories: bool) {
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    make_tree(&source);
    for (number, options) in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--xattrs", "--xattrs-include=*"],
        &[
            "--format=posix",
            "--sparse",
            "--sparse-version=0.0",
            "--xattrs",
            "--xattrs-include=*",
        ],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ]
    .into_iter()
    .enumerate()
    {
        let tar = run(Command::new("tar")
            .args(options)
            .arg("-C")
            .arg(&source)
            .args(["-c", "."]));
        let path = work.path().join("layer.tar");
        fs::write(&path, &tar).unwrap();
        let extracted = work.path().join(format!("extracted-{number}"));
        fs::create_dir(&extracted).unwrap();
        run(Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
            .arg(&path)
            .arg("-C")
            .arg(&extracted));
        let fixture = Fixture::new(directories);
        let rootfs = mounted(&fixture, std::slice::from_ref(&tar)).await;
        let expected = see(&extracted);
        let found = see(&rootfs.lower[0]);
        for (path, expected) in &expected {
            assert_eq!(found.get(path), Some(expected), "{path:?} with {options:?}");
        }
        assert_eq!(found.len(), expected.len());
        if !directories {
            check_index(&fixture, &tar);
        }
    }
}

#[tokio::test]
async fn a_directory_holds_what_tar_extracts() {
    if is_root() {
        same_as_tar(true).await;
    }
}

#[tokio::test]
async fn an_index_shows_what_tar_extracts() {
    if is_root() {
        same_as_tar(false).await;
    }
}

#[tokio::test]
async fn layers_hide_and_replace_what_is_below() {
    if !is_root() {
        return;
    }
    let lower = Tar::new()
        .directory("kept", 0o755)
        .file("kept/a", b"lower a", 0o644)
        .file("kept/b", b"lower b", 0o644)
        .directory("cleared", 0o755)
        .file("cleared/old", b"old", 0o644)
        .directory("replaced", 0o755)
        .file("replaced/old", b"old", 0o644)
        .file("becomes-directory", b"file", 0o644)
        .directory("becomes-file", 0o755)
        .file("becomes-file/x", b"x", 0o644)
        .directory("gone", 0o755)
        .file("gone/x", b"x", 0o644)
        .file("gone-file", b"x", 0o644)
        .finish();
    let upper = Tar::new()
        .file("kept/.wh.a", b"", 0o644)
        .file("kept/c", b"upper c", 0o644)
        .directory("cleared", 0o700)
        .file("cleared/.wh..wh..opq", b"", 0o644)
        .file("cleared/new", b"new", 0o644)
        .file(".wh.replaced", b"", 0o644)
        .directory("replaced", 0o755)
        .file("replaced/new", b"new", 0o644)
        .directory("becomes-directory", 0o755)
        .file("becomes-file", b"file", 0o644)
        .file(".wh.gone", b"", 0o644)
        .hard_link(".wh.gone-file", "kept/c")
        .file(".wh..wh.aufs", b"", 0o644)
        .directory(".wh..wh.plnk/", 0o700)
        .file(".wh..wh.plnk/12.34", b"linked", 0o644)
        .hard_link("one", ".wh..wh.plnk/12.34")
        .hard_link("kept/two", "/.wh..wh.plnk/12.34")
        .finish();
    for directories in [true, false] {
        let fixture = Fixture::new(directories);
        let rootfs = mounted(&fixture, &[busybox_layer(), lower.clone(), upper.clone()]).await;
        assert_eq!(rootfs.lower.len(), 3);
        let overlay = Overlay::new(&rootfs);
        let root = overlay.path();
        let names = |folder: &str| {
            let mut names: Vec<_> = fs::read_dir(root.join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("kept"), ["b", "c", "two"]);
        let links = [root.join("one"), root.join("kept/two")];
        let inode = |path: &std::path::PathBuf| {
            use std::os::unix::fs::MetadataExt;
            let status = fs::metadata(path).unwrap();
            (status.ino(), status.nlink())
        };
        assert_eq!(inode(&links[0]), inode(&links[1]));
        assert_eq!(inode(&links[0]).1, 2);
        assert!(
            links
                .iter()
                .all(|link| fs::read(link).unwrap() == b"linked")
        );
        assert!(!names(".").iter().any(|name| name.starts_with(".wh.")));
        assert_eq!(names("cleared"), ["new"]);
        assert_eq!(names("replaced"), ["new"]);
        assert_eq!(names("becomes-directory"), [""; 0]);
        assert_eq!(fs::read(root.join("becomes-file")).unwrap(), b"file");
        assert_eq!(
            names(""),
            [
                "becomes-directory",
                "becomes-file",
                "bin",
                "cleared",
                "etc",
                "kept",
                "one",
                "replaced",
                "tmp"
            ]
        );
        assert_eq!(
            fs::metadata(root.join("cleared")).unwrap().mode() & 0o777,
            0o700
        );
        // Its programs run.
        let output =
            run(Command::new("chroot")
                .arg(&root)
                .args(["/bin/sh", "-c", "echo $((6*7))"]));
        assert_eq!(output, b"42\n");
        fs::write(root.join("kept/b"), b"copied up").unwrap();
        assert_eq!(fs::read(root.join("kept/b")).unwrap(), b"copied up");
        // The layers may be released while the overlay holds them.
        drop(rootfs);
        common::assert_no_mounts(&fixture.run());
        assert_eq!(fs::read(root.join("cleared/new")).unwrap(), b"new");
    }
}

#[tokio::test]
async fn mounts_are_shared_counted_and_made_again() {
    if !is_root() {
        return;
    }
    let mut fixture = Fixture::new(false);
    let loaded = fixture
        .load(&docker_archive("test", &[busybox_layer()], "sh"))
        .await
        .unwrap();
    let id = loaded[0].id;
    assert_eq!(
        fixture.store().backend(),
        "erofs",
        "this kernel can mount EROFS from files"
    );
    let first = fixture.store().mount(&id).unwrap();
    let second = fixture.store().mount(&id).unwrap();
    assert_eq!(first.lower, second.lower);
    drop(first);
    assert!(second.lower[0].join("bin/busybox").exists());
    let removed = fixture.store().remove("test", false, false).unwrap();
    assert_eq!(removed.len(), 2, "the layer is still mounted: {removed:?}");
    drop(second);
    common::assert_no_mounts(&fixture.run());

    // Kept objects are deleted by the next removal or start.
    fixture.reopen();
    assert_eq!(fixture.objects(), Vec::<PathBuf>::new());
}
