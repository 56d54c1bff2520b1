//! Control groups, version 2 only (`Documentation/admin-guide/cgroup-v2.rst`).

use std::path::Path;

use keelson_cgroup::controllers;

use crate::mount::{self, DATA_ONLY};

/// Where the hierarchy is mounted.
pub(crate) const ROOT: &str = keelson_cgroup::USUAL_MOUNT_POINT;

/// Mounts the hierarchy and enables every controller for the groups below the root.
///
/// `nsdelegate`: a cgroup namespace is a boundary that its processes can't move out of.
/// `memory_recursiveprot`: protection of a group covers the groups below it.
pub(crate) fn set_up() -> Vec<String> {
    let root = Path::new(ROOT);
    if !root.join("cgroup.controllers").exists() {
        let options = "nsdelegate,memory_recursiveprot";
        if let Err(error) = mount::mount("cgroup2", "cgroup2", root, DATA_ONLY, options) {
            return vec![error.to_string()];
        }
    }
    match controllers::enable_all_for_children(root) {
        Ok((_, refused)) => refused.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}
