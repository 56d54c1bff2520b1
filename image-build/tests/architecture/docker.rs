//! Docker's words and JSON belong to `hostd/api-docker`. The engine, its stores and all other
//! programs of the machine have types of their own.

use std::collections::BTreeMap;
use std::fs;

use super::{root, sources};

/// Where Docker's JSON belongs, and the crates that use the API like clients.
const DOCKER_S: &[&str] = &[
    "hostd/api-docker",
    "benches",
    "conformance",
    "fuzz",
    "image-build",
    "qemu-tests",
];

/// Signs of Docker's JSON, and of names that it gives to options.
const MARKS: &[&str] = &[
    "PascalCase",
    "HostConfig",
    "\"NetworkMode",
    "\"RestartPolicy",
    "network_mode",
    "host_config",
    "com.docker.",
];

/// Files with such signs, how many lines of them, and the reason. The list is exact.
const EXCEPTIONS: &[(&str, usize, &str)] = &[
    ("hostd/containers/src/document.rs", 4, FIRST_RELEASES),
    ("hostd/containers/src/create.rs", 1, FIRST_RELEASES),
    ("hostd/containers/src/old.rs", 1, FIRST_RELEASES),
    ("hostd/containers/src/quarantine.rs", 1, FIRST_RELEASES),
    ("hostd/networks/src/kernel/error.rs", 1, DRIVERS),
    ("hostd/networks/src/options/bridge.rs", 12, DRIVERS),
    ("hostd/networks/src/options/mod.rs", 2, DRIVERS),
    ("hostd/networks/src/options/parent.rs", 1, DRIVERS),
    ("libs/config/src/schema/engine.rs", 1, DRIVERS),
    (
        "hostd/volumes/src/name.rs",
        1,
        "the label by which clients know a volume without a name",
    ),
    ("hostd/volumes/src/plugins/address.rs", 1, PLUGINS),
    ("hostd/volumes/src/plugins/driver.rs", 4, PLUGINS),
    ("libs/oci/src/config.rs", 1, OCI),
    ("libs/oci/src/config/read.rs", 1, OCI),
    ("libs/oci/src/manifest/read.rs", 1, OCI),
];

const FIRST_RELEASES: &str = "a member of container.json that the first releases read";
const DRIVERS: &str =
    "options of a network's driver: a client gives them, and the document has them";
const PLUGINS: &str = "the protocol of volume plugins, which other programs speak";
const OCI: &str =
    "the image configuration of the OCI specification, and the list in image archives";

/// How many lines of a source have a sign. Tests are not counted.
fn lines_with_marks(text: &str) -> usize {
    let program = text.split("\n#[cfg(test)]\nmod tests {").next();
    let lines = program.unwrap_or(text).lines();
    lines
        .filter(|line| MARKS.iter().any(|mark| line.contains(mark)))
        .count()
}

#[test]
fn the_engine_knows_no_words_of_docker_s() {
    let mut found = BTreeMap::new();
    for path in sources() {
        let is_test = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
        if is_test || DOCKER_S.iter().any(|owner| path.starts_with(owner)) {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        match lines_with_marks(&text) {
            0 => {}
            lines => drop(found.insert(path.to_string_lossy().into_owned(), lines)),
        }
    }
    let excepted: BTreeMap<String, usize> = EXCEPTIONS
        .iter()
        .map(|(file, lines, reason)| {
            assert!(!reason.is_empty(), "{file} has no reason");
            ((*file).to_owned(), *lines)
        })
        .collect();
    assert_eq!(found, excepted);
}
