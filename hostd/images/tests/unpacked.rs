//! A container sees the same files of an image that `umoci unpack` makes, in both backends.
//!
//! These cases are left out, because engines do not agree on them. This is what we do:
//! * Directories of a path that no entry of the layer names: umoci unpacks all layers to one place
//!   and keeps the attributes of lower layers. Docker unpacks each layer separately and makes the
//!   directories 0755 with owner root, which hides the lower layers' attributes. We do the same as
//!   Docker.
//! * Paths through a symbolic link that a lower layer made: umoci follows it; Docker, and we, make
//!   a directory of that name.
//! * A character device 0/0 in an archive: it is a whiteout of overlayfs, for Docker and for us.
//! * The time of the root directory: umoci leaves the time of unpacking. We use the archive's time,
//!   as Docker does.
//! * Extended attributes without a value: Go's reader of archives drops them, GNU tar and we keep
//!   them (trees.rs).
//! * How many links a file has whose other names an upper layer hid: overlayfs shows the lower
//!   layer's number. Instead, the test compares which visible names belong together.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::seen::{Seen, see};
use common::tree::{Overlay, make_tree, mounted, run, unpack};
use common::{Fixture, Tar, is_root};
use tar::EntryType;

/// Names of the same file.
fn groups(root: &Path, tree: &BTreeMap<PathBuf, Seen>) -> BTreeSet<BTreeSet<PathBuf>> {
    let mut by_inode: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for path in tree.keys() {
        let status = fs::symlink_metadata(root.join(path)).unwrap();
        if !status.is_dir() {
            let inode = (status.dev(), status.ino());
            by_inode.entry(inode).or_default().insert(path.clone());
        }
    }
    by_inode
        .into_values()
        .filter(|names| names.len() > 1)
        .collect()
}

fn tar_of(source: &Path, options: &[&str]) -> Vec<u8> {
    run(Command::new("tar")
        .args(options)
        .args(["--xattrs", "--xattrs-include=*", "-C"])
        .arg(source)
        .args(["-c", "."]))
}

/// Mounts the layers in both backends and compares the whole tree with umoci's.
async fn assert_same(layers: &[Vec<u8>]) {
    for directories in [false, true] {
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let fixture = Fixture::new(directories);
        let rootfs = mounted(&fixture, layers).await;
        let unpacked = unpack(&fixture, work.path()).await;
        let overlay = Overlay::new(&rootfs);
        let mut expected = see(&unpacked);
        let mut found = see(&overlay.path());
        assert_eq!(
            groups(&overlay.path(), &found),
            groups(&unpacked, &expected)
        );
        for (path, seen) in expected.iter_mut().chain(&mut found) {
            seen.links = 0;
            seen.xattrs.retain(|_, value| !value.is_empty());
            if path == Path::new("") {
                seen.time = (0, 0);
            }
        }
        let different: Vec<_> = expected
            .iter()
            .filter(|(path, expected)| found.get(*path) != Some(expected))
            .map(|(path, expected)| format!("{path:?}: {:?}, not {expected:?}", found.get(path)))
            .collect();
        assert!(different.is_empty(), "{}", different.join("\n"));
        let extra: Vec<_> = found
            .keys()
            .filter(|path| !expected.contains_key(*path))
            .collect();
        assert!(extra.is_empty(), "{extra:?}");
    }
}

fn has_umoci() -> bool {
    let found = Command::new("umoci").arg("--version").output().is_ok();
    if !found {
        keelson_testing::skip("umoci", "it is not installed");
    }
    found && is_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_layer_of_everything_is_what_umoci_unpacks() {
    if !has_umoci() {
        return;
    }
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    make_tree(&source);
    // Go's archive/tar, which umoci uses, reads sparse files of every format.
    for options in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        assert_same(&[tar_of(&source, options)]).await;
    }
}

/// A layer that changes the tree of [`make_tree`] in every possible way.
fn second() -> Vec<u8> {
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Tar::new()
        .pax(&[("mtime", b"1700000001.123456789")])
        .directory("./", 0o755)
        // Attributes only.
        .pax(&[("mtime", b"-5.5"), ("SCHILY.xattr.user.new", b"yes")])
        .directory("dir/", 0o711)
        .directory("dir/deep", 0o755)
        // One of three names of a file goes.
        .file("dir/deep/.wh.b", b"", 0)
        .directory("many", 0o755)
        .file("many/.wh..wh..opq", b"", 0)
        .file("many/file-1", b"another", 0o600)
        .directory("many/sub", 0o3777)
        // Files become directories, and directories become files.
        .file("empty", b"a file now", 0o4711)
        .directory("empty-file", 0o700)
        .file("empty-file/inside", b"x", 0o644)
        .directory("short", 0o755)
        .symlink("longer", "now-short")
        .entry("null", EntryType::Fifo, "", b"", |_| {})
        .entry("pipe", EntryType::Char, "", b"", |header| {
            header.set_device_major(5).unwrap();
            header.set_device_minor(1).unwrap();
        })
        .file(".wh.disk", b"", 0)
        .file(".wh.private", b"", 0)
        .directory("private", 0o755)
        .file("private/new", b"new", 0o644)
        // Several entries of one path: the last one counts, directories keep what is inside.
        .file("twice", b"first", 0o644)
        .file("twice", b"second", 0o755)
        .directory("again", 0o755)
        .file("again/kept", b"kept", 0o644)
        .directory("again", 0o700)
        .file("turned", b"file", 0o644)
        .directory("turned", 0o755)
        .file("turned/in", b"in", 0o644)
        // Links inside the layer, also to a name that is replaced later.
        .file("first", b"linked", 0o2755)
        .hard_link("second", "first")
        .hard_link("third", "./second")
        .file("first", b"replaced", 0o644)
        .pax(&[("SCHILY.xattr.security.capability", &capability)])
        .file("capable", b"#!", 0o755)
        .file("whited", b"x", 0o644)
        .finish()
}

/// And back again.
fn third() -> Vec<u8> {
    Tar::new()
        .directory("./", 0o755)
        .directory("empty", 0o755)
        .file("empty/back", b"a directory again", 0o644)
        .file("empty-file", b"a file again", 0o600)
        .symlink("short", "dir")
        .directory("turned", 0o755)
        .file("turned/.wh.in", b"", 0)
        .file(".wh.whited", b"", 0)
        .file(".wh.never-there", b"", 0)
        // Objects of the same layer stay, whichever entry comes first.
        .file(".wh.again", b"", 0)
        .directory("again", 0o755)
        .file("again/new", b"new", 0o644)
        .directory("many", 0o755)
        .file("many/late", b"late", 0o644)
        .file("many/.wh..wh..opq", b"", 0)
        .file(".wh..wh.plnk", b"", 0)
        .pax(&[("path", "l".repeat(200).as_bytes())])
        .directory("x", 0o755)
        .finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_layers_are_what_umoci_unpacks() {
    if !has_umoci() {
        return;
    }
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    make_tree(&source);
    let base = tar_of(&source, &["--format=posix", "--sparse"]);
    assert_same(&[base.clone(), second()]).await;
    assert_same(&[base, second(), third()]).await;
}
