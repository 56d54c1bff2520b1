//! What a container sees of a layer is what `tar x` makes of its archive, in both backends.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::seen::see;
use common::{Fixture, Tar, busybox_layer, docker_archive, is_root};
use hostd_images::{Digest, RootfsLayers};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev};

/// A folder with one of everything.
fn make_tree(root: &Path) {
    let path = |name: &str| root.join(name);
    let write = |name: &str, data: &[u8], mode: u32| {
        fs::write(path(name), data).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for folder in ["dir/deep/er", "empty", "many", "private"] {
        fs::create_dir_all(path(folder)).unwrap();
    }
    write("empty-file", b"", 0o000);
    write("one-byte", b"x", 0o644);
    write("block", &[7; 512], 0o600);
    write("odd", &vec![b'o'; 70_001], 0o640);
    write(
        "big",
        &(0..600_000_u32)
            .map(|n| (n * 7 / 3) as u8)
            .collect::<Vec<_>>(),
        0o644,
    );
    write("setuid", b"#!", 0o644);
    chown(path("setuid"), Some(1000), Some(70_000)).unwrap();
    fs::set_permissions(path("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(path("private"), fs::Permissions::from_mode(0o3700)).unwrap();
    chown(path("private"), Some(4_000_000_000), Some(5)).unwrap();
    write("a", b"linked", 0o644);
    fs::hard_link(path("a"), path("dir/deep/b")).unwrap();
    fs::hard_link(path("a"), path("empty/c")).unwrap();
    symlink("a", path("short")).unwrap();
    symlink("../../../../../etc/passwd", path("dir/out")).unwrap();
    symlink("t".repeat(90), path("longer")).unwrap();
    symlink("/t".repeat(1000), path("longest")).unwrap();
    for number in 0..400 {
        fs::write(path(&format!("many/file-{number}")), number.to_string()).unwrap();
    }
    for length in [99, 100, 101, 155, 255] {
        write(&"n".repeat(length), b"named", 0o644);
    }
    write("dir/ünï\u{1F600}", b"unicode", 0o644);
    fs::create_dir_all(path(&format!("{}/{}", "p".repeat(200), "q".repeat(200)))).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o660), device).unwrap();
    };
    node("null", FileType::CharacterDevice, makedev(1, 3));
    node("disk", FileType::BlockDevice, makedev(259, 70_000));
    node("pipe", FileType::Fifo, 0);
    let attribute = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path(name), key, value, XattrFlags::empty()).unwrap();
    };
    attribute("one-byte", "user.text", b"value");
    attribute("one-byte", "user.empty", b"");
    attribute("one-byte", "user.binary", &[0, 255, 10, 0]);
    attribute("odd", "user.large", &[b'v'; 3000]);
    attribute("dir", "trusted.of-folder", b"yes");
    attribute("short", "trusted.of-link", b"yes");
    // cap_net_raw=ep, version 2.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    attribute("setuid", "security.capability", &capability);
    let sparse = fs::File::create(path("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(&[b's'; 10_000], 1_000_003).unwrap();
    sparse.set_len(3_000_001).unwrap();
    let sparse = fs::File::create(path("only-hole")).unwrap();
    sparse.set_len(1_000_000).unwrap();
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The lower folders of an image of these layers. The archive is loaded from memory.
async fn mounted(fixture: &Fixture, layers: &[Vec<u8>]) -> RootfsLayers {
    let loaded = fixture
        .load(&docker_archive("test", layers, "sh"))
        .await
        .unwrap();
    fixture.store().mount(&loaded[0].id).unwrap()
}

fn check_index(fixture: &Fixture, layer: &[u8]) {
    let folder = fixture.root().join("layers").join(Digest::of(layer).hex());
    let output = Command::new("fsck.erofs")
        .arg(format!("--device={}", folder.join("layer.tar").display()))
        .arg(folder.join("index.erofs"))
        .output();
    match output {
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            // Older versions know blocks of the page's size only; the kernel's own checks remain.
            if message.contains("blksize 512 isn't supported") {
                eprintln!("SKIPPED: this fsck.erofs does not know blocks of 512 bytes");
            } else {
                assert!(output.status.success(), "{message}");
            }
        }
        Err(error) => eprintln!("SKIPPED: fsck.erofs: {error}"),
    }
    assert_eq!(fs::read(folder.join("layer.tar")).unwrap(), layer);
}

async fn same_as_tar(folders: bool) {
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
        let fixture = Fixture::new(folders);
        let rootfs = mounted(&fixture, std::slice::from_ref(&tar)).await;
        let expected = see(&extracted);
        let found = see(&rootfs.lower[0]);
        for (path, expected) in &expected {
            assert_eq!(found.get(path), Some(expected), "{path:?} with {options:?}");
        }
        assert_eq!(found.len(), expected.len());
        if !folders {
            check_index(&fixture, &tar);
        }
    }
}

#[tokio::test]
async fn a_folder_holds_what_tar_extracts() {
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

/// An overlay of the layers, unmounted at its end.
struct Overlay(tempfile::TempDir);

impl Overlay {
    fn new(rootfs: &RootfsLayers) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let lower: Vec<_> = rootfs
            .lower
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let path = |name: &str| folder.path().join(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            path("upper"),
            path("work")
        );
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount(
            "overlay",
            folder.path().join("merged"),
            "overlay",
            rustix::mount::MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("merged")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
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
        .file("becomes-folder", b"file", 0o644)
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
        .directory("becomes-folder", 0o755)
        .file("becomes-file", b"file", 0o644)
        .file(".wh.gone", b"", 0o644)
        .hard_link(".wh.gone-file", "kept/c")
        .file(".wh..wh.aufs", b"", 0o644)
        .finish();
    for folders in [true, false] {
        let fixture = Fixture::new(folders);
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
        assert_eq!(names("kept"), ["b", "c"]);
        assert_eq!(names("cleared"), ["new"]);
        assert_eq!(names("replaced"), ["new"]);
        assert_eq!(names("becomes-folder"), [""; 0]);
        assert_eq!(fs::read(root.join("becomes-file")).unwrap(), b"file");
        assert_eq!(
            names(""),
            [
                "becomes-file",
                "becomes-folder",
                "bin",
                "cleared",
                "etc",
                "kept",
                "replaced",
                "tmp"
            ]
        );
        assert_eq!(
            fs::metadata(root.join("cleared")).unwrap().mode() & 0o777,
            0o700
        );
        // What runs from it runs.
        let output =
            run(Command::new("chroot")
                .arg(&root)
                .args(["/bin/sh", "-c", "echo $((6*7))"]));
        assert_eq!(output, b"42\n");
        fs::write(root.join("kept/b"), b"copied up").unwrap();
        assert_eq!(fs::read(root.join("kept/b")).unwrap(), b"copied up");
        // The layers may be let go while the overlay holds them.
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
    let removed = fixture.store().remove("test", false, false, &[]).unwrap();
    assert_eq!(removed.len(), 2, "the layer is still mounted: {removed:?}");
    drop(second);
    common::assert_no_mounts(&fixture.run());

    // What was held back goes with the next removal or start.
    fixture.reopen();
    assert_eq!(fixture.objects(), Vec::<PathBuf>::new());
}
