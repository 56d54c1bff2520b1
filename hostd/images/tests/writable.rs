//! A container's writable layer: its changes, its archive, and the image that is made from it, over
//! an overlay that the kernel mounts.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::seen::{Seen, see};
use common::{Fixture, Tar, docker_archive, is_root};
use hostd_images::{
    ChangeKind, CommitOptions, ContainerDefaults, ImageError, ImageId, RootfsLayers, WritableLayer,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// cap_net_raw=ep, version 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A container's root file system.
struct Overlay {
    layer: WritableLayer,
    merged: PathBuf,
}

impl Overlay {
    fn new(folder: &Path, lower: RootfsLayers) -> Self {
        let path = |name: &str| {
            let path = folder.join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (upper, work, merged) = (path("upper"), path("work"), path("merged"));
        let stack: Vec<_> = lower
            .lower
            .iter()
            .map(|folder| folder.to_str().unwrap())
            .collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off",
            stack.join(":"),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount(
            "overlay",
            &merged,
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        Self {
            layer: WritableLayer {
                upper,
                lower,
                volumes: BTreeSet::new(),
            },
            merged,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.merged.join(name)
    }

    /// The changes as `docker diff` prints them.
    fn diff(&self) -> Vec<String> {
        self.layer
            .changes()
            .unwrap()
            .into_iter()
            .map(|change| {
                let kind = match change.kind {
                    ChangeKind::Added => 'A',
                    ChangeKind::Modified => 'C',
                    ChangeKind::Deleted => 'D',
                };
                format!("{kind} {}", String::from_utf8_lossy(&change.path))
            })
            .collect()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(&self.merged, UnmountFlags::DETACH).unwrap();
    }
}

/// Everything visible below a directory. The number of links of directories is left out, because it
/// differs between file systems.
fn contents(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = see(root);
    seen.remove(Path::new(""));
    for entry in seen.values_mut() {
        if entry.target.is_none() && entry.content.is_none() {
            entry.links = 0;
        }
    }
    seen
}

fn same(seen: &BTreeMap<PathBuf, Seen>, wanted: &BTreeMap<PathBuf, Seen>) {
    for (path, wanted) in wanted {
        assert_eq!(seen.get(path), Some(wanted), "{}", path.display());
    }
    assert_eq!(seen.len(), wanted.len());
}

async fn image(fixture: &Fixture) -> ImageId {
    let below = Tar::new()
        .directory("etc/", 0o755)
        .file("etc/passwd", b"root\n", 0o644)
        .file("etc/group", b"root\n", 0o644)
        .directory("old/", 0o755)
        .directory("old/sub/", 0o700)
        .file("old/sub/file", b"old", 0o644)
        .file("old/other", b"old", 0o644)
        .directory("gone/", 0o755)
        .file("gone/file", b"gone", 0o644)
        .directory("to-file/", 0o755)
        .file("to-file/inside", b"x", 0o644)
        .file("to-directory", b"x", 0o644)
        .directory("kept/", 0o755)
        .file("kept/file", b"kept", 0o644)
        .finish();
    let above = Tar::new()
        .file("old/above", b"above", 0o644)
        .file("etc/group", b"root\nusers\n", 0o644)
        .file(".wh.never", b"", 0)
        .finish();
    let loaded = fixture
        .load(&docker_archive("base", &[below, above], "sh"))
        .await
        .unwrap();
    loaded[0].id
}

/// One of each possible change of a root file system.
fn change(overlay: &Overlay) {
    let path = |name: &str| overlay.path(name);
    fs::remove_dir_all(path("gone")).unwrap();
    fs::remove_dir_all(path("old")).unwrap();
    fs::create_dir(path("old")).unwrap();
    fs::write(path("old/new"), "new").unwrap();
    fs::remove_dir_all(path("to-file")).unwrap();
    fs::write(path("to-file"), "file").unwrap();
    fs::remove_file(path("to-directory")).unwrap();
    fs::create_dir(path("to-directory")).unwrap();
    fs::write(path("to-directory/inside"), "y").unwrap();
    fs::write(path("etc/passwd"), "root\nme\n").unwrap();
    fs::create_dir_all(path("new/deep")).unwrap();
    fs::write(path("new/deep/a"), vec![b'a'; 600_000]).unwrap();
    fs::hard_link(path("new/deep/a"), path("new/b")).unwrap();
    symlink("../../../../../../etc/shadow", path("new/link")).unwrap();
    symlink("t".repeat(300), path(&"n".repeat(200))).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("new/null", FileType::CharacterDevice, makedev(1, 3));
    node("new/disk", FileType::BlockDevice, makedev(259, 70_000));
    node("new/pipe", FileType::Fifo, 0);
    fs::write(path("new/tool"), "#!").unwrap();
    chown(path("new/tool"), Some(1000), Some(4_000_000_000)).unwrap();
    fs::set_permissions(path("new/tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    let attribute = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path(name), key, value, XattrFlags::empty()).unwrap();
    };
    attribute("new/tool", "security.capability", &CAPABILITY);
    attribute("new/deep", "user.note", &[0, 10, 255]);
    let sparse = fs::File::create(path("new/sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(&[b's'; 10_000], 5_000_003).unwrap();
    sparse.set_len(20 << 20).unwrap();
    // Archives have whole seconds.
    let time = fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000));
    let mut left = vec![overlay.layer.upper.clone()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
        }
        fs::File::open(&folder).unwrap().set_times(time).unwrap();
    }
    let status = Command::new("find")
        .arg(&overlay.layer.upper)
        .args(["-not", "-type", "d", "-not", "-perm", "0"])
        .args(["-exec", "touch", "-h", "-d", "@1600000000", "{}", "+"])
        .status()
        .unwrap();
    assert!(status.success());
}

fn options(parent: ImageId) -> CommitOptions {
    CommitOptions {
        parent,
        reference: Some("made:1".to_owned()),
        author: "somebody".to_owned(),
        comment: "why".to_owned(),
        command: "sh -c x".to_owned(),
        defaults: ContainerDefaults::default(),
        changes: vec!["CMD [\"new\"]".to_owned()],
        container: ContainerDefaults::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_found() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let id = image(&fixture).await;
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let overlay = Overlay::new(work.path(), fixture.store().mount(&id).unwrap());
    assert_eq!(overlay.diff(), [""; 0]);
    change(&overlay);
    let long = format!("A /{}", "n".repeat(200));
    let mut wanted = vec![
        "C /etc",
        "C /etc/passwd",
        "D /gone",
        "A /new",
        "A /new/b",
        "A /new/deep",
        "A /new/deep/a",
        "A /new/disk",
        "A /new/link",
        "A /new/null",
        "A /new/pipe",
        "A /new/sparse",
        "A /new/tool",
        &long,
        "C /old",
        "D /old/above",
        "A /old/new",
        "D /old/other",
        "D /old/sub",
        "C /to-file",
        "C /to-directory",
        "A /to-directory/inside",
    ];
    wanted.sort_by_key(|line| line[2..].replace('/', "\0"));
    assert_eq!(overlay.diff(), wanted);
    // Both names of one file are one file.
    let size = overlay.layer.size().unwrap();
    assert_eq!(size, 600_000 + (20 << 20) + 2 + 3 + 4 + 1 + 8);
    fs::create_dir(overlay.path("volume")).unwrap();
    fs::write(overlay.path("volume/data"), "x").unwrap();
    let mut layer = overlay.layer.clone();
    layer.volumes = BTreeSet::from(["/volume".to_owned()]);
    let changes = layer.changes().unwrap();
    assert!(changes.iter().any(|change| change.path == b"/volume"));
    assert!(!changes.iter().any(|change| change.path == b"/volume/data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_it_looks_the_same() {
    if !is_root() {
        return;
    }
    for directories in [false, true] {
        let fixture = Fixture::new(directories);
        let store = fixture.store();
        let id = image(&fixture).await;
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let overlay = Overlay::new(&work.path().join("1"), store.mount(&id).unwrap());
        change(&overlay);
        let new = tokio::task::block_in_place(|| {
            store.commit(&overlay.layer, options(id), &|| true).unwrap()
        });
        assert_eq!(new.references, ["made:1"]);
        let new = new.id;
        let image = store.resolve("made:1").unwrap();
        assert_eq!((image.id, image.parent), (new, Some(id)));
        assert_eq!(image.layers.len(), 3);
        assert!(image.layers[2].size < 1 << 20, "the holes are no data");
        let last = image.config.history.last().unwrap();
        assert_eq!(last.created_by.as_deref(), Some("sh -c x"));
        assert_eq!(last.comment.as_deref(), Some("why"));
        assert!(!last.empty_layer);
        assert_eq!(image.config.config.cmd.as_deref().unwrap(), ["new"]);
        let again = Overlay::new(&work.path().join("2"), store.mount(&new).unwrap());
        assert_eq!(again.diff(), [""; 0]);
        same(&contents(&again.merged), &contents(&overlay.merged));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_it_unpacks_to_the_same() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let id = image(&fixture).await;
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let overlay = Overlay::new(work.path(), fixture.store().mount(&id).unwrap());
    change(&overlay);
    let archive = work.path().join("archive.tar");
    let file = fs::File::create(&archive).unwrap();
    let mut at = 0;
    let mut send = |piece: bytes::Bytes| {
        file.write_all_at(&piece, at).unwrap();
        at += piece.len() as u64;
        true
    };
    overlay.layer.export(&mut send).unwrap();
    let unpacked = work.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let status = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&archive)
        .arg("-C")
        .arg(&unpacked)
        .status()
        .unwrap();
    assert!(status.success());
    same(&contents(&unpacked), &contents(&overlay.merged));
    // A reader that goes away ends it.
    let gone = overlay.layer.export(&mut |_| false);
    assert!(matches!(gone, Err(ImageError::Interrupted(_))), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changed_is_no_layer() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let store = fixture.store();
    let id = image(&fixture).await;
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let overlay = Overlay::new(work.path(), store.mount(&id).unwrap());
    // Mount points that the runtime makes; making one copies its directory up.
    for folder in ["proc", "sys", "dev"] {
        fs::create_dir(overlay.path(folder)).unwrap();
    }
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        fs::write(overlay.path(file), "").unwrap();
    }
    assert_eq!(overlay.diff(), [""; 0]);
    let before = fixture.objects().len();
    tokio::task::block_in_place(|| store.commit(&overlay.layer, options(id), &|| true)).unwrap();
    let image = store.resolve("made:1").unwrap();
    assert_eq!(image.layers.len(), 2);
    assert!(image.config.history.last().unwrap().empty_layer);
    // A configuration and a record.
    assert_eq!(fixture.objects().len(), before + 2);
    fs::write(overlay.path("etc/hosts"), "own").unwrap();
    assert_eq!(overlay.diff(), ["C /etc", "A /etc/hosts"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_leaves_nothing() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let store = fixture.store();
    let id = image(&fixture).await;
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let overlay = Overlay::new(work.path(), store.mount(&id).unwrap());
    let before = fixture.objects();
    let refused = |change: &dyn Fn(&mut CommitOptions), wanted: bool| {
        let mut options = options(id);
        change(&mut options);
        let result =
            tokio::task::block_in_place(|| store.commit(&overlay.layer, options, &|| wanted));
        result.unwrap_err().to_string()
    };
    assert!(refused(&|_| {}, false).contains("removed"));
    assert!(
        refused(&|o| o.changes = vec!["RUN x".to_owned()], true).contains("not a valid change")
    );
    assert!(refused(&|o| o.reference = Some("A".to_owned()), true).contains("lowercase"));
    fs::write(overlay.path(".wh.evil"), "").unwrap();
    assert!(refused(&|_| {}, true).contains(".wh.evil"));
    fs::remove_file(overlay.path(".wh.evil")).unwrap();
    let mut deep = overlay.merged.clone();
    for depth in 1..300 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
        if depth == 256 {
            // This depth still works.
            assert_eq!(overlay.diff().len(), depth);
        }
    }
    assert!(refused(&|_| {}, true).contains("too deep"));
    assert_eq!(fixture.objects(), before);
}

/// A file is worth more than one of its attributes.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_no_archive_holds_are_left_out() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(false);
    let store = fixture.store();
    let id = image(&fixture).await;
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let overlay = Overlay::new(work.path(), store.mount(&id).unwrap());
    fs::write(overlay.path("file"), "content").unwrap();
    fs::create_dir(overlay.path("folder")).unwrap();
    let upper = |name: &str| overlay.layer.upper.join(name);
    for name in ["file", "folder"] {
        for attribute in [
            "user.a=b",
            "user.plain",
            "trusted.x=",
            "user.=",
            "user.new\nline",
        ] {
            rustix::fs::setxattr(upper(name), attribute, b"1", XattrFlags::empty()).unwrap();
        }
    }
    let mut archive = Vec::new();
    let mut send = |piece: bytes::Bytes| {
        archive.extend_from_slice(&piece);
        true
    };
    tokio::task::block_in_place(|| overlay.layer.export(&mut send)).unwrap();
    assert!(archive.ends_with(&[0; 1024]));
    let names = ["user.new\nline".to_owned(), "user.plain".to_owned()];
    tokio::task::block_in_place(|| store.commit(&overlay.layer, options(id), &|| true)).unwrap();
    let made = store.resolve("made:1").unwrap().id;
    let layers = store.mount(&made).unwrap();
    let again = tempfile::tempdir_in("/var/tmp").unwrap();
    let again = Overlay::new(again.path(), layers);
    assert_eq!(fs::read(again.path("file")).unwrap(), b"content");
    for name in ["file", "folder"] {
        let found: Vec<String> = common::seen::xattrs(&again.path(name))
            .into_keys()
            .collect();
        assert_eq!(found, names, "{name}");
    }
}
