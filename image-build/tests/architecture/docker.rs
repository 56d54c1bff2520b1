//! Docker's words and JSON stand in `hostd/api-docker`. The engine and those who build containers
//! for it without a client know none of them.

use std::fs;

use super::{root, sources};

/// Where none may stand; tests that speak to the API as clients do are elsewhere.
const FREE: [&str; 4] = [
    "hostd/containers/",
    "hostd/host-services/",
    "libs/model/",
    "libs/store/",
];

/// Marks of Docker's JSON. `host_config` is a member of `container.json`, which the first releases
/// need, and stands in the one file that writes it.
const MARKS: [&str; 6] = [
    "PascalCase",
    "HostConfig",
    "\"NetworkMode",
    "\"RestartPolicy",
    "network_mode",
    "host_config",
];

#[test]
fn the_engine_knows_no_words_of_docker_s() {
    let mut wrong = Vec::new();
    for path in sources() {
        let name = path.to_string_lossy().into_owned();
        // The machine's own configuration has the same name.
        let machine = name == "libs/model/src/host.rs";
        if machine || !FREE.iter().any(|directory| name.starts_with(directory)) {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let found = MARKS.iter().find(|mark| line.contains(*mark));
            let document = matches!(
                name.as_str(),
                "hostd/containers/src/document.rs"
                    | "hostd/containers/src/create.rs"
                    | "hostd/containers/src/old.rs"
                    | "hostd/containers/src/quarantine.rs"
            );
            if let Some(mark) = found
                && !(document && *mark == "host_config")
            {
                wrong.push(format!("{name}:{}: {mark}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
