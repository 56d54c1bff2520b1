//! A tree with files of every kind, and overlays.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use hostd_images::RootfsLayers;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev};

use super::{Fixture, docker_archive};

/// A directory with one of everything.
pub(crate) fn make_tree(root: &Path) {
    let path = |name: &str| root.join(name);
    let write = |name: &str, data: &[u8], mode: u32| {
        fs::write(path(name), data).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for directory in ["dir/deep/er", "empty", "many", "private"] {
        fs::create_dir_all(path(directory)).unwrap();
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
    attribute("dir", "trusted.of-directory", b"yes");
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

/// The tree that umoci makes from the image `test:1`, through an archive that we save.
pub(crate) async fn unpack(fixture: &Fixture, work: &Path) -> PathBuf {
    let mut archive = Vec::new();
    let saved = fixture.store().save(&["test:1".to_owned()]).unwrap();
    saved.write_to(&mut archive).await.unwrap();
    let layout = work.join("layout");
    tar::Archive::new(&archive[..]).unpack(&layout).unwrap();
    let bundle = work.join("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:1", layout.display()))
        .arg(&bundle));
    bundle.join("rootfs")
}

pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The lower directories of an image of these layers. The archive is loaded from memory.
pub(crate) async fn mounted(fixture: &Fixture, layers: &[Vec<u8>]) -> RootfsLayers {
    let loaded = fixture
        .load(&docker_archive("test:1", layers, "sh"))
        .await
        .unwrap();
    fixture.store().mount(&loaded[0].id).unwrap()
}

/// An overlay of the layers, unmounted at its end.
pub(crate) struct Overlay(tempfile::TempDir);

impl Overlay {
    pub(crate) fn new(rootfs: &RootfsLayers) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let lower: Vec<_> = rootfs
            .lower
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let path = |name: &str| directory.path().join(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            path("upper"),
            path("work")
        );
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount(
            "overlay",
            directory.path().join("merged"),
            "overlay",
            rustix::mount::MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        Self(directory)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("merged")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}
