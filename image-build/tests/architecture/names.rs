//! The name of a public type has one meaning in each crate: no two of the crates that it uses,
//! itself included, have a public type of the same name, unless there is a reason.
//!
//! Sources are read as text. The lint `unreachable_pub` makes sure that `pub` at the start of a line
//! means public. Crates that no other crate sees together may use the same name: each package of
//! the workspace is checked separately.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::DependencyKind;

use super::{metadata, root, sources};

/// Names with several meanings, the files that have them, and the reason. The list is exact: a file
/// that no longer has the name fails the test, too.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[
    (
        "Address",
        &["libs/netlink/src/types.rs", "netcfg/src/model.rs"],
        "the kernel's address and the one that netcfg plans; `kernel` converts them",
    ),
    (
        "Link",
        &["libs/netlink/src/types.rs", "netcfg/src/model.rs"],
        "as for Address",
    ),
    (
        "Route",
        &["libs/netlink/src/types.rs", "netcfg/src/model.rs"],
        "as for Address",
    ),
    (
        "Mac",
        &[
            "libs/model/src/spec/network.rs",
            "libs/netlink/src/types.rs",
            "netcfg/src/dhcp/arp.rs",
        ],
        "aliases of the same type, six bytes",
    ),
    (
        "Answer",
        &[
            "hostd/api-docker/src/routes.rs",
            "hostd/api-host/src/state.rs",
        ],
        "each API's own future of an answer, with the same meaning",
    ),
    (
        "Handler",
        &[
            "hostd/api-docker/src/routes.rs",
            "hostd/api-host/src/state.rs",
        ],
        "each API's own function behind a route, with the same meaning",
    ),
    (
        "Change",
        &[
            "hostd/images/src/writable/mod.rs",
            "libs/model/src/json/mangle.rs",
        ],
        "the second is for tests only",
    ),
    (
        "Mount",
        &[
            "hostd/api-docker/src/wire/parts.rs",
            "libs/linux/src/mountinfo.rs",
        ],
        "Docker's JSON has Docker's names, and is always named with `wire`",
    ),
    (
        "RestartPolicy",
        &[
            "hostd/api-docker/src/wire/host.rs",
            "libs/model/src/spec.rs",
        ],
        "Docker's JSON has Docker's names, and is always named with `wire`",
    ),
    (
        "Prepared",
        &["libs/files/src/lib.rs", "libs/store/src/file.rs"],
        "the second is the first with the errors of its crate",
    ),
    (
        "Provisioned",
        &[
            "libs/model/src/host_api.rs",
            "qemu-tests/src/harness/provision.rs",
        ],
        "the second is the first after a test has read it",
    ),
    (
        "Request",
        &[
            "benches/src/engines/requests.rs",
            "libs/model/src/init.rs",
            "libs/netlink/src/batch/request.rs",
            "libs/resolver-protocol/src/message.rs",
            "libs/shim-protocol/src/message.rs",
            "netcfg/src/dhcp/message.rs",
            "resolver/src/query.rs",
        ],
        "messages of protocols, which are named with their module where two meet",
    ),
    (
        "Response",
        &[
            "libs/model/src/init.rs",
            "libs/shim-protocol/src/message.rs",
        ],
        "as for Request",
    ),
    (
        "Reply",
        &[
            "libs/resolver-protocol/src/message.rs",
            "netcfg/src/dhcp/message.rs",
        ],
        "as for Request; only fuzz targets see both",
    ),
    (
        "MessageError",
        &[
            "libs/resolver-protocol/src/message.rs",
            "netcfg/src/dhcp/message.rs",
        ],
        "as for Reply",
    ),
    (
        "Options",
        &["netcfg/src/daemon.rs", "resolver/src/run.rs"],
        "each program's own; only fuzz targets see both",
    ),
    (
        "Origin",
        &[
            "libs/resolver-protocol/src/container.rs",
            "netcfg/src/model.rs",
        ],
        "from where a server is asked, and where an address comes from; only fuzz targets see both",
    ),
    (
        "Refusal",
        &["resolver/src/query.rs", "runtime/src/check.rs"],
        "each program's own; only fuzz targets see both",
    ),
    (
        "AddressPool",
        &["hostd/networks/src/ipam/pools.rs", "libs/model/src/host.rs"],
        "the second is how the host's configuration writes the first",
    ),
    (
        "Monitor",
        &[
            "libs/netlink/src/monitor.rs",
            "libs/nftables/src/monitor.rs",
        ],
        "each reports changes of what its crate is for, and is named with it where two meet",
    ),
    (
        "Rule",
        &["libs/netlink/src/types.rs", "libs/nftables/src/rule.rs"],
        "the kernel's words for a rule of routing and one of a packet filter; no program uses both",
    ),
];

/// Files by the name of a public type.
type Names = BTreeMap<String, BTreeSet<String>>;

/// The name of the public type that a line declares.
fn declared(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ")?;
    let rest = ["struct ", "enum ", "trait ", "type ", "union "]
        .iter()
        .find_map(|word| rest.strip_prefix(word))?;
    let end = rest
        .find(|character: char| !character.is_alphanumeric() && character != '_')
        .unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The public types in the sources of a package in this directory, relative to the root.
fn types_of(directory: &Path) -> Names {
    let mut names = Names::new();
    let src = directory.join("src");
    for path in sources() {
        let is_test = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
        if !path.starts_with(&src) || is_test {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        for name in text.lines().filter_map(declared) {
            let files = names.entry(name.to_owned()).or_default();
            files.insert(path.to_string_lossy().into_owned());
        }
    }
    names
}

#[test]
fn names_of_public_types_have_one_meaning() {
    let metadata = metadata();
    let packages: BTreeMap<String, Names> = metadata
        .workspace_packages()
        .iter()
        .map(|package| {
            let manifest = package.manifest_path.as_std_path();
            let directory = manifest.parent().expect("the directory of a package");
            let directory = directory.strip_prefix(root()).unwrap_or(directory);
            (package.name.to_string(), types_of(directory))
        })
        .collect();
    assert!(
        packages["keelson-oci"].contains_key("Digest"),
        "{packages:?}"
    );
    let mut doubled = Names::new();
    for package in metadata.workspace_packages() {
        let used = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal)
            .map(|dependency| dependency.name.as_str())
            .chain([package.name.as_str()]);
        let mut seen = Names::new();
        for names in used.filter_map(|name| packages.get(name)) {
            for (name, files) in names {
                seen.entry(name.clone()).or_default().extend(files.clone());
            }
        }
        for (name, files) in seen.into_iter().filter(|(_, files)| files.len() > 1) {
            doubled.entry(name).or_default().extend(files);
        }
    }
    let excepted: Names = EXCEPTIONS
        .iter()
        .map(|(name, files, reason)| {
            assert!(!reason.is_empty(), "{name} has no reason");
            let files = files.iter().map(|file| (*file).to_owned()).collect();
            ((*name).to_owned(), files)
        })
        .collect();
    let new: Vec<_> = doubled
        .iter()
        .filter(|(name, files)| excepted.get(*name) != Some(files))
        .collect();
    assert!(new.is_empty(), "rename one, or give a reason: {new:#?}");
    let gone: Vec<_> = excepted
        .keys()
        .filter(|name| !doubled.contains_key(*name))
        .collect();
    assert!(gone.is_empty(), "take these off the list: {gone:?}");
}

/// Inside of a crate, too, a type that other modules see has a name of its own, so that a reader who
/// searches for it finds one.
#[test]
fn names_of_types_between_modules_have_one_meaning() {
    let mut names = Names::new();
    for path in sources() {
        let is_test = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
        // Each file there is a program of its own.
        let is_program = path.iter().any(|part| part == "bin");
        if is_test || is_program {
            continue;
        }
        let Some(src) = path.ancestors().find(|above| above.ends_with("src")) else {
            continue;
        };
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        for line in text.lines() {
            let visible = ["pub(crate) ", "pub(super) "]
                .iter()
                .find_map(|start| line.strip_prefix(start))
                .map(|rest| format!("pub {rest}"));
            let name = visible
                .as_deref()
                .and_then(declared)
                .or_else(|| declared(line));
            if let Some(name) = name {
                let files = names
                    .entry(format!("{}: {name}", src.display()))
                    .or_default();
                files.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    names.retain(|_, files| files.len() > 1);
    let excepted: Names = EXCEPTIONS
        .iter()
        .map(|(name, files, _)| {
            let files = files.iter().map(|file| (*file).to_owned()).collect();
            ((*name).to_owned(), files)
        })
        .collect();
    names.retain(|name, files| {
        let plain = name.rsplit(' ').next().unwrap_or(name);
        excepted
            .get(plain)
            .is_none_or(|known: &BTreeSet<String>| !files.is_subset(known))
    });
    assert!(names.is_empty(), "rename one of each: {names:#?}");
}
