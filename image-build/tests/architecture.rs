//! The shape of the source tree, held by tests: which crate may use which (docs/architecture.md),
//! where `unsafe` may stand, how long a file may be, and which licences may be linked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Which of our crates each of our crates may use, tests included. A crate that is missing here
/// fails the test, so that a new one gets its place deliberately.
const ALLOWED: &[(&str, &[&str])] = &[
    ("keelson-sys", &[]),
    ("keelson-model", &[]),
    ("keelson-files", &[]),
    ("keelson-config", &["keelson-model", "keelson-files"]),
    ("keelson-log", &["keelson-sys"]),
    ("keelson-oci", &["keelson-sys", "keelson-model"]),
    ("keelson-registry", &["keelson-model", "keelson-oci"]),
    ("keelson-store", &["keelson-sys", "keelson-files"]),
    (
        "init",
        &[
            "keelson-sys",
            "keelson-model",
            "keelson-config",
            "keelson-files",
        ],
    ),
    (
        "netcfg",
        &[
            "keelson-sys",
            "keelson-model",
            "keelson-config",
            "keelson-files",
        ],
    ),
    (
        "keelson-runtime",
        &["keelson-sys", "keelson-model", "keelson-log"],
    ),
    (
        "hostd-images",
        &[
            "keelson-sys",
            "keelson-model",
            "keelson-store",
            "keelson-oci",
            "keelson-registry",
        ],
    ),
    (
        "hostd-containers",
        &[
            "keelson-sys",
            "keelson-model",
            "keelson-store",
            "keelson-log",
            "keelson-oci",
            "hostd-images",
        ],
    ),
    (
        "hostd-services",
        &["keelson-model", "hostd-images", "hostd-containers"],
    ),
    (
        "hostd-api-docker",
        &[
            "keelson-model",
            "keelson-oci",
            "keelson-registry",
            "hostd-images",
            "hostd-containers",
        ],
    ),
    (
        "hostd-api-host",
        &[
            "keelson-model",
            "keelson-store",
            "hostd-images",
            "hostd-containers",
            "hostd-services",
        ],
    ),
    (
        "hostd",
        &[
            "keelson-sys",
            "keelson-model",
            "keelson-config",
            "keelson-store",
            "hostd-images",
            "hostd-containers",
            "hostd-services",
            "hostd-api-docker",
            "hostd-api-host",
        ],
    ),
    ("hostctl", &["keelson-model", "keelson-store"]),
    ("qemu-tests", &["keelson-model", "keelson-sys"]),
    ("conformance", &[]),
    (
        "keelson-benches",
        &[
            "keelson-model",
            "keelson-sys",
            "keelson-oci",
            "keelson-runtime",
        ],
    ),
    (
        "image-build",
        &["qemu-tests", "keelson-model", "keelson-sys"],
    ),
];

/// Crates of which PID 1 must stay free: it is one thread with one epoll loop.
const NOT_IN_INIT: &[&str] = &["tokio", "hyper", "rustls", "clap", "openssl-sys"];

/// The folders in which `unsafe` may stand.
const UNSAFE_FOLDERS: &[&str] = &["libs/sys/", "runtime/"];

/// Longest source file, in lines.
const MAX_LINES: usize = 800;

/// Licences that may be linked into our binaries; deny.toml has the same list.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .expect("cargo metadata")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is a folder of the workspace")
        .to_owned()
}

#[test]
fn dependencies_point_down_only() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, uses)| (*name, uses.iter().copied().collect()))
        .collect();
    let ours: BTreeSet<&str> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(uses) = allowed.get(package.name.as_str()) else {
            wrong.push(format!("{} has no place in ALLOWED", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            if ours.contains(dependency.name.as_str()) && !uses.contains(dependency.name.as_str()) {
                wrong.push(format!("{} may not use {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every package that `start` links, itself included, leaving out what only builds and tests use.
fn linked(metadata: &Metadata, start: &PackageId) -> BTreeSet<PackageId> {
    let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = nodes
        .iter()
        .map(|node| {
            let normal = node.deps.iter().filter(|dependency| {
                dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal)
            });
            (&node.id, normal.map(|dependency| &dependency.pkg).collect())
        })
        .collect();
    let mut seen = BTreeSet::from([start.clone()]);
    let mut queue = VecDeque::from([start.clone()]);
    while let Some(id) = queue.pop_front() {
        for next in edges.get(&id).into_iter().flatten() {
            if seen.insert((*next).clone()) {
                queue.push_back((*next).clone());
            }
        }
    }
    seen
}

#[test]
fn pid_1_stays_small() {
    let metadata = metadata();
    let init = metadata
        .workspace_packages()
        .into_iter()
        .find(|package| package.name.as_str() == "init")
        .expect("the package init")
        .id
        .clone();
    let linked = linked(&metadata, &init);
    let forbidden: Vec<&str> = metadata
        .packages
        .iter()
        .filter(|package| linked.contains(&package.id))
        .map(|package| package.name.as_str())
        .filter(|name| NOT_IN_INIT.contains(name))
        .collect();
    assert!(forbidden.is_empty(), "init links {forbidden:?}");
}

#[test]
fn only_permissive_licences_are_linked() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata.workspace_packages() {
        seen.extend(linked(&metadata, &package.id));
    }
    for package in metadata.packages.iter().filter(|p| seen.contains(&p.id)) {
        let expression = package.license.clone().unwrap_or_default();
        if !licence_is_allowed(&expression) {
            wrong.push(format!(
                "{} {}: {expression:?}",
                package.name, package.version
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether an SPDX expression can be met with [`LICENCES`]: all sides of each AND, one of each OR.
fn licence_is_allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" AND ").all(|part| {
        part.split(" OR ")
            .any(|licence| LICENCES.contains(&licence.trim()))
    })
}

#[test]
fn licence_expressions_are_read() {
    assert!(licence_is_allowed("MIT OR GPL-3.0"));
    assert!(licence_is_allowed("Apache-2.0/MIT"));
    assert!(licence_is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!licence_is_allowed("GPL-3.0"));
    assert!(!licence_is_allowed("MIT AND GPL-3.0"));
    assert!(!licence_is_allowed(""));
}

/// Every Rust file of the workspace, relative to its root.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let entry = entry.expect("an entry of a folder");
            let path = entry.path();
            let name = entry.file_name();
            let kind = entry.file_type().expect("the type of an entry");
            if kind.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| e == "rs") {
                found.push(path.strip_prefix(root()).expect("below root").to_owned());
            }
        }
    }
    assert!(found.len() > 50, "only {} sources found", found.len());
    found
}

#[test]
fn unsafe_stands_in_two_places() {
    let mut wrong = Vec::new();
    for path in sources() {
        let name = path.to_string_lossy().into_owned();
        if UNSAFE_FOLDERS.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        // The words are put together here so that this file does not find itself.
        for word in [
            ["unsafe", " {"].concat(),
            ["allow(", "unsafe_code"].concat(),
        ] {
            if text.contains(&word) {
                wrong.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_readable() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
