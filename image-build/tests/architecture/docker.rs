//! Docker's words and JSON belong to `hostd/api-docker`. The engine, and the crates that create
//! containers without a client, do not know them.

use std::fs;

use super::{root, sources};

/// The sources that must not contain them. Tests that use the API like clients are elsewhere.
const FREE: [&str; 4] = [
    "hostd/containers/",
    "hostd/host-services/",
    "libs/model/",
    "libs/store/",
];

/// Signs of Docker's JSON. `host_config` is allowed in one file, which writes it as a member of
/// `container.json` for the first releases.
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
