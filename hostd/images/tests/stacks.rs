//! Random stacks of layers: both backends produce the same tree. If the layers are unambiguous, it
//! is the tree that `umoci unpack` makes.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::seen::{Seen, see};
use common::tree::{Overlay, unpack};
use common::{Fixture, Random, Tar, docker_archive, is_root, rounds};
use tar::EntryType;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The objects of the layers below, by path: a directory or anything else.
type Known = BTreeMap<String, bool>;

/// Makes layers whose meaning is the same for every engine: each directory on a path has an entry in
/// the same layer, paths go through no links, and hard links lead to files of the same layer.
struct Sane<'r> {
    random: &'r mut Random,
    known: Known,
}

/// The current layer.
struct Layer {
    tar: Tar,
    /// Directories with an entry in this layer.
    entered: BTreeSet<String>,
    /// The paths that this layer adds or hides: engines disagree about a path that one layer both
    /// hides and adds.
    touched: BTreeSet<String>,
    files: Vec<String>,
}

fn below<'a>(known: &'a Known, path: &str) -> Vec<&'a String> {
    let prefix = format!("{path}/");
    known
        .keys()
        .filter(|known| known.starts_with(&prefix))
        .collect()
}

impl Sane<'_> {
    fn pick(&mut self, limit: usize) -> usize {
        self.random.below(limit as u64) as usize
    }

    fn layer(&mut self) -> Vec<u8> {
        let mut layer = Layer {
            tar: Tar::new()
                .pax(&[("mtime", b"1700000000")])
                .directory("./", 0o755),
            entered: BTreeSet::new(),
            touched: BTreeSet::new(),
            files: Vec::new(),
        };
        for _ in 0..2 + self.pick(14) {
            self.step(&mut layer);
        }
        layer.tar.finish()
    }

    fn step(&mut self, layer: &mut Layer) {
        // A random existing directory, at a random depth.
        let mut folder = String::new();
        while self.pick(3) > 0 {
            let inside: Vec<String> = self
                .known
                .iter()
                .filter(|(path, is_directory)| {
                    **is_directory
                        && path.strip_prefix(&folder).is_some_and(|rest| {
                            !rest.is_empty() && !rest.trim_start_matches('/').contains('/')
                        })
                })
                .map(|(path, _)| path.clone())
                .collect();
            if inside.is_empty() {
                break;
            }
            folder = inside[self.pick(inside.len())].clone();
        }
        let name = NAMES[self.pick(NAMES.len())];
        let path = match folder.is_empty() {
            true => name.to_owned(),
            false => format!("{folder}/{name}"),
        };
        let prefix = format!("{path}/");
        let busy = |touched: &String| *touched == path || touched.starts_with(&prefix);
        if layer.touched.iter().any(busy) {
            return;
        }
        self.enter(layer, &folder);
        layer.touched.insert(path.clone());
        let mode = [0o644, 0o755, 0o4711, 0o2750, 0o600, 0o1777][self.pick(6)];
        let is_directory = self.known.get(&path).copied();
        let kind = self.pick(12);
        let tar = std::mem::replace(&mut layer.tar, Tar::new());
        let time = format!(
            "{}.{:09}",
            1_600_000_000 + self.pick(1000),
            self.pick(1_000_000_000)
        );
        let with_time = |tar: Tar| tar.pax(&[("mtime", time.as_bytes())]);
        layer.tar = match kind {
            0 | 1 if is_directory.is_some() => {
                let hidden = match folder.is_empty() {
                    true => format!(".wh.{name}"),
                    false => format!("{folder}/.wh.{name}"),
                };
                self.forget(&path);
                self.known.remove(&path);
                tar.file(&hidden, b"", 0)
            }
            2 if is_directory == Some(true) => {
                self.forget(&path);
                layer.entered.insert(path.clone());
                with_time(tar)
                    .directory(&path, mode)
                    .file(&format!("{path}/.wh..wh..opq"), b"", 0)
            }
            3..=5 => {
                layer.entered.insert(path.clone());
                // A directory in the place of another object hides only that.
                self.known.insert(path.clone(), true);
                with_time(tar).directory(&path, mode)
            }
            6 if !layer.files.is_empty() => {
                let target = layer.files[self.pick(layer.files.len())].clone();
                self.put(&path);
                tar.hard_link(&path, &target)
            }
            7 => {
                self.put(&path);
                tar.symlink(&path, ["a", "../b", "/c/d", "nowhere"][self.pick(4)])
            }
            8 => {
                self.put(&path);
                with_time(tar).entry(&path, EntryType::Fifo, "", b"", |_| {})
            }
            9 => {
                self.put(&path);
                with_time(tar).entry(&path, EntryType::Char, "", b"", |header| {
                    header.set_device_major(1).unwrap();
                    header.set_device_minor(3).unwrap();
                })
            }
            _ => {
                self.put(&path);
                layer.files.push(path.clone());
                let size = [0, 1, 511, 512, 513, 5000, 70_000][self.pick(7)];
                let data: Vec<u8> = (0..size).map(|at| (at * 7 + kind) as u8).collect();
                let number = self.pick(3).to_string();
                tar.pax(&[
                    ("mtime", time.as_bytes()),
                    ("SCHILY.xattr.user.number", number.as_bytes()),
                ])
                .file(&path, &data, mode)
            }
        };
    }

    /// Gives every directory on the way an entry.
    fn enter(&mut self, layer: &mut Layer, folder: &str) {
        let ends = folder.match_indices('/').map(|(at, _)| at);
        for end in ends.chain((!folder.is_empty()).then_some(folder.len())) {
            let path = &folder[..end];
            if layer.entered.insert(path.to_owned()) {
                layer.touched.insert(path.to_owned());
                let mode = [0o755, 0o700, 0o1777][self.pick(3)];
                let tar = std::mem::replace(&mut layer.tar, Tar::new());
                layer.tar = tar.directory(path, mode);
            }
        }
    }

    fn put(&mut self, path: &str) {
        self.forget(path);
        self.known.insert(path.to_owned(), false);
    }

    /// Forgets what is inside.
    fn forget(&mut self, path: &str) {
        for gone in below(&self.known, path)
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
        {
            self.known.remove(&gone);
        }
    }
}

/// Layers of any entries in any order, with paths through links, directories without entries, and
/// objects that are hidden and added again.
fn wild(random: &mut Random) -> Vec<u8> {
    let mut pick = |limit: usize| random.below(limit as u64) as usize;
    let mut tar = Tar::new();
    for _ in 0..1 + pick(20) {
        let mut path = String::new();
        for _ in 0..pick(3) {
            path.push_str(["a", "b", "a", "link", "."][pick(5)]);
            path.push('/');
            if pick(20) == 0 {
                path.push_str("../");
            }
        }
        path.push_str(["a", "b", "f", "g", "\u{e4}", "new\nline", "link"][pick(7)]);
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        let folder = path[..path.len() - last.len()].to_owned();
        let mode = [0o644, 0o755, 0o4711, 0][pick(4)];
        let time = format!("{}.5", pick(100) as i64 - 50);
        let xattr = [
            "user.x",
            "trusted.x",
            "user.overlay.opaque",
            "trusted.overlay.opaque",
        ];
        let key = format!("SCHILY.xattr.{}", xattr[pick(4)]);
        if pick(3) == 0 {
            tar = tar.pax(&[("mtime", time.as_bytes()), (&key, b"y")]);
        }
        tar = match pick(12) {
            0 | 1 => tar.file(&format!("{folder}.wh.{last}"), b"", 0),
            2 => tar.file(&format!("{folder}.wh..wh..opq"), b"", 0),
            3..=5 => tar.directory(&format!("{folder}{}", ["a", "b"][pick(2)]), mode),
            6 => tar.symlink(
                &format!("{folder}link"),
                ["a", "b/g", "../..", "/a", "f"][pick(5)],
            ),
            7 => tar
                .file("linked", b"twice", mode)
                .hard_link(&path, "linked"),
            8 if pick(4) == 0 => tar.hard_link(&path, ["f", "a/f", "b", "link"][pick(4)]),
            8 => tar.entry(&path, EntryType::Fifo, "", b"", |_| {}),
            9 => tar.entry(&path, EntryType::Char, "", b"", |header| {
                header.set_device_minor(pick(2) as u32).unwrap();
            }),
            _ => tar.file(&path, &vec![b'x'; pick(1200)], mode),
        };
    }
    tar.finish()
}

/// Both stores, one of each kind.
struct Pair([Fixture; 2]);

impl Pair {
    fn new() -> Self {
        Self([Fixture::new(false), Fixture::new(true)])
    }

    /// The tree of the image in both, or the refusals of both.
    async fn trees(&self, layers: &[Vec<u8>]) -> [Result<BTreeMap<PathBuf, Seen>, String>; 2] {
        let archive = docker_archive("test:1", layers, "sh");
        let mut trees = Vec::new();
        for fixture in &self.0 {
            let tree = match fixture.load(&archive).await {
                Ok(loaded) => {
                    let rootfs = fixture.store().mount(&loaded[0].id).unwrap();
                    let overlay = Overlay::new(&rootfs);
                    let mut tree = see(&overlay.path());
                    // The directory of the writable layer on top.
                    tree.remove(Path::new(""));
                    Ok(tree)
                }
                Err(error) => Err(error.to_string()),
            };
            trees.push(tree);
        }
        trees.try_into().unwrap()
    }

    fn clear(&self) {
        for fixture in &self.0 {
            let _ = fixture.store().remove("test:1", true, false);
        }
    }
}

/// The differences between two trees, as text for people.
fn differences(one: &BTreeMap<PathBuf, Seen>, other: &BTreeMap<PathBuf, Seen>) -> Vec<String> {
    let paths: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    paths
        .into_iter()
        .filter(|path| one.get(*path) != other.get(*path))
        .map(|path| {
            format!(
                "{path:?}: {:?}\n   not {:?}",
                one.get(path),
                other.get(path)
            )
        })
        .collect()
}

/// For examining a failure: where the layers were written.
fn keep(layers: &[Vec<u8>]) -> String {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap().keep();
    for (number, layer) in layers.iter().enumerate() {
        fs::write(folder.join(format!("{number}.tar")), layer).unwrap();
    }
    folder.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_backends_agree_on_any_stack() {
    if !is_root() {
        return;
    }
    let mut random = Random::new("any stack");
    let pair = Pair::new();
    let mut taken = 0;
    for _ in 0..rounds(40) {
        let layers: Vec<_> = (0..1 + random.below(3))
            .map(|_| wild(&mut random))
            .collect();
        let [index, folder] = pair.trees(&layers).await;
        match (&index, &folder) {
            (Ok(index), Ok(folder)) => {
                let different = differences(index, folder);
                assert!(
                    different.is_empty(),
                    "{}: {}",
                    keep(&layers),
                    different.join("\n")
                );
                taken += 1;
            }
            _ => assert_eq!(index, folder, "{}", keep(&layers)),
        }
        pair.clear();
    }
    eprintln!("{taken} stacks were accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn unambiguous_stacks_are_what_umoci_unpacks() {
    if !is_root() {
        return;
    }
    if Command::new("umoci").arg("--version").output().is_err() {
        keelson_testing::skip("umoci", "it is not installed");
        return;
    }
    let mut random = Random::new("sane stack");
    let pair = Pair::new();
    for _ in 0..rounds(10) {
        let mut sane = Sane {
            random: &mut random,
            known: Known::new(),
        };
        let layers: Vec<_> = (0..4).map(|_| sane.layer()).collect();
        let [index, folder] = pair.trees(&layers).await.map(Result::unwrap);
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut expected = see(&unpack(&pair.0[0], work.path()).await);
        expected.remove(Path::new(""));
        for mut found in [index, folder] {
            for seen in expected.values_mut().chain(found.values_mut()) {
                // If a file has names in several layers, overlayfs counts only some of them.
                seen.links = 0;
            }
            let different = differences(&found, &expected);
            assert!(
                different.is_empty(),
                "{}: {}",
                keep(&layers),
                different.join("\n")
            );
        }
        pair.clear();
    }
}
