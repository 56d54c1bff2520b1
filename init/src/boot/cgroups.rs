//! Control groups, version 2 only (`Documentation/admin-guide/cgroup-v2.rst`).

use std::fs;
use std::path::Path;

use crate::mount::{self, DATA_ONLY};

/// Where the hierarchy is mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// Mounts the hierarchy and hands every controller to the groups below the root.
///
/// `nsdelegate`: a cgroup namespace is a boundary that its inhabitants can't move out of.
/// `memory_recursiveprot`: protection of a group covers what lies below it.
pub(crate) fn set_up() -> Vec<String> {
    let root = Path::new(ROOT);
    if !root.join("cgroup.controllers").exists() {
        let options = "nsdelegate,memory_recursiveprot";
        if let Err(error) = mount::mount("cgroup2", "cgroup2", root, DATA_ONLY, options) {
            return vec![error.to_string()];
        }
    }
    delegate(root)
}

/// Enables each controller by itself: one that is refused must not keep the others away.
fn delegate(group: &Path) -> Vec<String> {
    let controllers = match fs::read_to_string(group.join("cgroup.controllers")) {
        Ok(text) => text,
        Err(error) => return vec![format!("read {ROOT}/cgroup.controllers: {error}")],
    };
    controllers
        .split_whitespace()
        .filter_map(|controller| {
            fs::write(
                group.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )
            .err()
            .map(|error| format!("enable cgroup controller {controller}: {error}"))
        })
        .collect()
}
