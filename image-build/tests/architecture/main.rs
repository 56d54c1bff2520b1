//! The shape of the source tree, held by tests: which crate may use which (docs/architecture.md),
//! where `unsafe` may stand, how long a file may be, how tests are skipped, and whose code may be
//! in it at all ([`supply_chain`]).

mod docker;
mod errors;
mod features;
mod indexes;
mod modules;
mod names;
mod supply_chain;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Which of our crates each of our crates may use, tests included. A crate that is missing here
/// fails the test, so that a new one gets its place deliberately.
const ALLOWED: &[(&str, &[&str])] = &[
    ("keelson-sys", &[]),
    ("keelson-linux", &[]),
    ("keelson-cgroup", &["keelson-linux"]),
    ("keelson-model", &[]),
    ("keelson-netlink", &["keelson-model", "keelson-sys"]),
    ("keelson-nftables", &["keelson-netlink"]),
    ("keelson-resolver-protocol", &[]),
    (
        "keelson-resolver",
        &["keelson-sys", "keelson-resolver-protocol"],
    ),
    ("keelson-files", &[]),
    ("keelson-blocking", &[]),
    ("keelson-lease", &[]),
    ("keelson-shim-protocol", &[]),
    ("keelson-config", &["keelson-model", "keelson-files"]),
    ("keelson-http", &["keelson-blocking", "keelson-model"]),
    ("keelson-log", &["keelson-sys"]),
    ("keelson-journal", &["keelson-log", "keelson-model"]),
    ("keelson-tracing", &["keelson-model"]),
    ("keelson-oci", &["keelson-sys", "keelson-model"]),
    (
        "keelson-registry",
        &["keelson-blocking", "keelson-model", "keelson-oci"],
    ),
    ("keelson-store", &["keelson-sys", "keelson-files"]),
    (
        "init",
        &[
            "keelson-cgroup",
            "keelson-linux",
            "keelson-sys",
            "keelson-model",
            "keelson-config",
            "keelson-files",
        ],
    ),
    (
        "keelson-configure",
        &["keelson-linux", "keelson-model", "keelson-config"],
    ),
    (
        "keelson-console",
        &["keelson-model", "keelson-config", "keelson-files"],
    ),
    (
        "keelson-provision",
        &[
            "keelson-model",
            "keelson-config",
            "keelson-files",
            // By tests only.
            "keelson-netlink",
        ],
    ),
    (
        "netcfg",
        &[
            "keelson-linux",
            "keelson-netlink",
            "keelson-sys",
            "keelson-model",
            "keelson-config",
            "keelson-files",
            "keelson-tracing",
        ],
    ),
    (
        "keelson-runtime",
        &[
            "keelson-cgroup",
            "keelson-linux",
            "keelson-sys",
            "keelson-model",
            "keelson-log",
            "keelson-shim-protocol",
        ],
    ),
    (
        "hostd-images",
        &[
            "keelson-sys",
            "keelson-blocking",
            "keelson-lease",
            "keelson-model",
            "keelson-store",
            "keelson-oci",
            "keelson-registry",
        ],
    ),
    (
        "hostd-containers",
        &[
            "keelson-linux",
            "keelson-blocking",
            "keelson-cgroup",
            "keelson-files",
            "keelson-sys",
            "keelson-model",
            "keelson-store",
            "keelson-log",
            "keelson-oci",
            "keelson-shim-protocol",
            "hostd-images",
            "hostd-networks",
            "hostd-volumes",
        ],
    ),
    (
        "hostd-networks",
        &[
            "keelson-blocking",
            "keelson-sys",
            "keelson-lease",
            "keelson-model",
            "keelson-netlink",
            "keelson-nftables",
            "keelson-resolver-protocol",
            "keelson-store",
        ],
    ),
    (
        "hostd-volumes",
        &["keelson-lease", "keelson-model", "keelson-store"],
    ),
    (
        "hostd-host-services",
        &[
            "keelson-blocking",
            "keelson-model",
            "hostd-images",
            "hostd-containers",
        ],
    ),
    (
        "hostd-logs",
        &[
            "keelson-blocking",
            "keelson-journal",
            "keelson-model",
            "keelson-store",
            "keelson-sys",
            "keelson-tracing",
            "hostd-containers",
        ],
    ),
    (
        "hostd-api-docker",
        &[
            "keelson-http",
            "keelson-model",
            "keelson-oci",
            "keelson-registry",
            "hostd-images",
            "hostd-containers",
            "hostd-networks",
            "hostd-volumes",
        ],
    ),
    (
        "hostd-api-host",
        &[
            "keelson-http",
            "keelson-model",
            "keelson-blocking",
            "keelson-config",
            "keelson-store",
            "hostd-images",
            "hostd-containers",
            "hostd-host-services",
            "hostd-logs",
        ],
    ),
    (
        "hostd",
        &[
            "keelson-blocking",
            "keelson-http",
            "keelson-linux",
            "keelson-sys",
            "keelson-model",
            "keelson-config",
            "keelson-store",
            "keelson-tracing",
            "hostd-images",
            "hostd-containers",
            "hostd-host-services",
            "hostd-logs",
            "hostd-api-docker",
            "hostd-api-host",
        ],
    ),
    ("hostctl", &["keelson-model", "keelson-store"]),
    ("keelson-testing", &[]),
    (
        "keelson-fuzz",
        &[
            "hostd-api-docker",
            "hostd-containers",
            "hostd-images",
            "keelson-cgroup",
            "keelson-config",
            "keelson-journal",
            "keelson-linux",
            "keelson-log",
            "keelson-oci",
            "keelson-provision",
            "keelson-registry",
            "keelson-resolver",
            "keelson-resolver-protocol",
            "keelson-runtime",
            "keelson-shim-protocol",
            "netcfg",
        ],
    ),
    (
        "qemu-tests",
        &["keelson-model", "keelson-sys", "keelson-testing"],
    ),
    ("conformance", &["keelson-testing"]),
    (
        "keelson-benches",
        &[
            "keelson-cgroup",
            "keelson-linux",
            "keelson-log",
            "keelson-model",
            "keelson-netlink",
            "keelson-sys",
            "keelson-oci",
            "keelson-runtime",
            "keelson-shim-protocol",
            "keelson-testing",
        ],
    ),
    (
        "image-build",
        &[
            "qemu-tests",
            "keelson-model",
            "keelson-sys",
            "keelson-testing",
        ],
    ),
];

/// What every crate's tests may use, but no program of the machine.
const FOR_TESTS: &str = "keelson-testing";

/// Crates that PID 1 must not link: it is one thread with one epoll loop.
const NOT_IN_INIT: &[&str] = &["tokio", "hyper", "rustls", "clap", "openssl-sys"];

/// The directories that may contain `unsafe`.
const UNSAFE_DIRECTORIES: &[&str] = &["libs/sys/", "runtime/"];

/// Longest source file, in lines.
const MAX_LINES: usize = 800;

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
        .expect("the package is a directory of the workspace")
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
            let name = dependency.name.as_str();
            let by_tests = dependency.kind == DependencyKind::Development && name == FOR_TESTS;
            if ours.contains(name) && !uses.contains(name) && !by_tests {
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

/// The interfaces of the netlink crates change often, so one crate of ours hides them.
#[test]
fn one_crate_speaks_netlink() {
    const OWNER: &str = "keelson-netlink";
    let mut users = BTreeSet::new();
    for package in metadata().workspace_packages() {
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if name.contains("netlink") && name != OWNER {
                users.insert(package.name.to_string());
            }
        }
    }
    assert_eq!(users, BTreeSet::from([OWNER.to_owned()]));
}

/// Every Rust file of the workspace, relative to its root.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the workspace") {
            let entry = entry.expect("an entry of a directory");
            let path = entry.path();
            let name = entry.file_name();
            let kind = entry.file_type().expect("the type of an entry");
            if kind.is_dir() && name != "target" && name != ".git" {
                directories.push(path);
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
        if UNSAFE_DIRECTORIES
            .iter()
            .any(|directory| name.starts_with(directory))
        {
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

/// A test that prints "skipped" and returns is green whatever it should show. A test that uses
/// `/bin/busybox` directly fails if another program has changed it.
#[test]
fn tests_are_skipped_and_take_busybox_in_one_way() {
    let mut wrong = Vec::new();
    for path in sources() {
        if path.starts_with("libs/testing") {
            continue;
        }
        let name = path.to_string_lossy().into_owned();
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_ascii_lowercase();
            // The words are put together here so that this file does not find itself.
            let skips = lower.contains(&["println!(\"", "skip"].concat());
            let file = ["\"/bin/", "busybox\""].concat();
            let takes = ["copy(", "read(", "open(", "path::new(", "command::new("]
                .iter()
                .any(|call| lower.contains(&format!("{call}{file}")));
            if skips || takes {
                wrong.push(format!("{name}:{}: use keelson-testing", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
