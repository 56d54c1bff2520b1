//! A full or read-only disk: the error says what failed, where, and what to do. Nothing is left
//! behind, and the store goes on working.

mod common;

use std::fs::File;
use std::io::Write;

use common::complete::assert_complete;
use common::disk::SmallDisk;
use common::server::Remote;
use common::{Fixture, Tar, docker_archive, gzip};
use hostd_images::{ImageError, ImportOptions, PullOptions};

const MIB: usize = 1 << 20;

/// A layer of this many bytes.
fn layer(bytes: usize) -> Vec<u8> {
    Tar::new().file("data", &vec![b'd'; bytes], 0o644).finish()
}

/// Checks that the error says what failed, that the disk is full, how much is free, and what to do.
fn assert_explained(error: &ImageError, words: &[&str]) {
    let text = error.to_string();
    let usual = [
        "No space left",
        "MiB were free",
        "inodes",
        "prune",
        "try again",
    ];
    for word in words.iter().chain(&usual) {
        let parts: Vec<_> = word.split(" were ").collect();
        assert!(
            parts.iter().all(|part| text.contains(part)),
            "{text:?} does not say {word:?}"
        );
    }
    assert_eq!(error.kind().http_status(), 500, "{text}");
}

/// Writes a file until there is no room for another byte.
fn fill(disk: &SmallDisk) {
    let mut file = File::create(disk.path().join("filler")).unwrap();
    for size in [65_536, 1024, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    // Small files and directories take blocks of their own.
    for number in 0.. {
        if std::fs::create_dir(disk.path().join(format!("filler-{number}"))).is_err() {
            break;
        }
    }
}

fn empty(disk: &SmallDisk) {
    for entry in std::fs::read_dir(disk.path()).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str() {
            Some("filler") => std::fs::remove_file(path).unwrap(),
            Some(name) if name.starts_with("filler-") => std::fs::remove_dir(path).unwrap(),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_too_large_for_the_disk_leaves_nothing() {
    for directories in [false, true] {
        let Some(disk) = SmallDisk::new(24) else {
            return;
        };
        let mut fixture = Fixture::on(&disk.path().join("engine"), directories);
        let store = fixture.store();
        let small = docker_archive("small:1", &[layer(MIB)], "sh");
        fixture.load(&small).await.unwrap();
        let large = vec![layer(MIB), layer(14 * MIB), layer(12 * MIB)];

        let archive = docker_archive("large:1", &large, "sh");
        let error = fixture.load(&archive).await.unwrap_err();
        assert_explained(&error, &["/layer.tar"]);
        assert_complete(&fixture, "after a load");

        let options = ImportOptions {
            reference: Some("large:1".to_owned()),
            ..ImportOptions::default()
        };
        std::fs::write(disk.path().join("filler"), vec![1; 10 * MIB]).unwrap();
        let archive = gzip(&layer(15 * MIB));
        let error = store.import(&archive[..], options).await.unwrap_err();
        assert_explained(&error, &["cannot import large:1"]);
        empty(&disk);
        assert_complete(&fixture, "after an import");

        let remote = Remote::new(&large);
        let server = remote.serve().await;
        let name = server.name("large:latest");
        let (progress, _receiver) = tokio::sync::mpsc::channel(1000);
        let error = store
            .pull(&name, PullOptions::default(), progress)
            .await
            .unwrap_err();
        assert_explained(&error, &[&name, "layer sha256:"]);
        assert_complete(&fixture, "after a pull");

        let second = docker_archive("second:1", &[layer(2 * MIB)], "sh");
        fixture.load(&second).await.unwrap();
        assert_eq!(store.list().len(), 2);
        assert_complete(&fixture, "after a smaller load");
        fixture.close();
    }
}

#[tokio::test]
async fn images_can_be_removed_from_a_full_disk() {
    for directories in [false, true] {
        let Some(disk) = SmallDisk::new(24) else {
            return;
        };
        let mut fixture = Fixture::on(&disk.path().join("engine"), directories);
        for name in ["one:1", "two:1"] {
            let size = MIB + name.len();
            fixture
                .load(&docker_archive(name, &[layer(size)], name))
                .await
                .unwrap();
        }
        fill(&disk);
        let third = docker_archive("three:1", &[layer(100)], "sh");
        let error = fixture.load(&third).await.unwrap_err();
        assert_explained(&error, &[]);
        let store = fixture.store();
        store.remove("one:1", false, false).unwrap();
        assert_eq!(store.list().len(), 1);
        // Enough room for a smaller image, with everything else still on the disk.
        fixture.objects();
        fixture.load(&third).await.unwrap();
        assert_complete(&fixture, "on a full disk");
        empty(&disk);
        fixture.reopen();
        assert_eq!(fixture.store().list().len(), 2);
        assert_complete(&fixture, "after the next start");
        fixture.close();
    }
}

#[tokio::test]
async fn a_store_opens_on_a_full_disk() {
    let Some(disk) = SmallDisk::new(24) else {
        return;
    };
    let mut fixture = Fixture::on(&disk.path().join("engine"), false);
    fixture
        .load(&docker_archive("one:1", &[layer(MIB)], "sh"))
        .await
        .unwrap();
    fixture.close();
    fill(&disk);
    fixture.reopen();
    assert_eq!(fixture.store().backend(), "erofs");
    let image = fixture.store().resolve("one:1").unwrap();
    let rootfs = fixture.store().mount(&image.id).unwrap();
    assert!(rootfs.lower[0].join("data").exists());
    drop(rootfs);
    fixture.store().remove("one:1", false, false).unwrap();
    assert!(fixture.store().list().is_empty());
    fixture.close();
}

#[tokio::test]
async fn a_read_only_disk_is_explained_and_still_read() {
    let Some(mut disk) = SmallDisk::new(24) else {
        return;
    };
    let mut fixture = Fixture::on(&disk.path().join("engine"), false);
    let one = docker_archive("one:1", &[layer(1000)], "one");
    let id = fixture.load(&one).await.unwrap()[0].id;
    disk.fail();
    let two = docker_archive("two:1", &[layer(2000)], "two");
    for error in [
        fixture.load(&two).await.unwrap_err(),
        fixture.store().tag("one:1", "other:1").unwrap_err(),
        fixture.store().remove("one:1", false, false).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("read-only") && text.contains("kernel's log"),
            "{text}"
        );
    }
    let rootfs = fixture.store().mount(&id).unwrap();
    assert_eq!(
        std::fs::read(rootfs.lower[0].join("data")).unwrap().len(),
        1000
    );
    drop(rootfs);
    fixture.close();
    disk.mount_again();
    fixture.reopen();
    fixture.load(&two).await.unwrap();
    assert_complete(&fixture, "writable again");
    fixture.close();
}
