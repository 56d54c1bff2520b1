//! Controllers: `cpu`, `memory`, `pids`, ….
//!
//! A cgroup can use a controller when each cgroup above it, from the root downwards, has it in
//! `cgroup.subtree_control`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::CgroupError;
use crate::error::Step;

const AVAILABLE: &str = "cgroup.controllers";
const ENABLED: &str = "cgroup.subtree_control";

/// The controllers that a cgroup can use.
///
/// # Errors
/// `cgroup.controllers` can't be read.
pub fn available(group: &Path) -> Result<BTreeSet<String>, CgroupError> {
    read(group, AVAILABLE)
}

/// The controllers that the children of a cgroup can use.
///
/// # Errors
/// `cgroup.subtree_control` can't be read.
pub fn enabled_for_children(group: &Path) -> Result<BTreeSet<String>, CgroupError> {
    read(group, ENABLED)
}

/// Lets the children of a cgroup use a controller.
///
/// # Errors
/// The kernel refuses: the cgroup does not have the controller, or has processes of its own.
pub fn enable_for_children(group: &Path, controller: &str) -> Result<(), CgroupError> {
    let file = group.join(ENABLED);
    fs::write(&file, format!("+{controller}"))
        .step(|| format!("enable controller {controller} in {}", file.display()))
}

/// Lets the children of a cgroup use every controller that the cgroup has. Returns the controllers
/// that the children can use, and why the others can't be.
///
/// # Errors
/// The lists of controllers can't be read.
pub fn enable_all_for_children(
    group: &Path,
) -> Result<(BTreeSet<String>, Vec<CgroupError>), CgroupError> {
    let mut enabled = enabled_for_children(group)?;
    let mut refused = Vec::new();
    for controller in available(group)? {
        if enabled.contains(&controller) {
            continue;
        }
        // One at a time: the kernel refuses a whole write when it refuses one controller.
        match enable_for_children(group, &controller) {
            Ok(()) => drop(enabled.insert(controller)),
            Err(error) => refused.push(error),
        }
    }
    Ok((enabled, refused))
}

/// Lets a cgroup below `root` use a controller: enables it in each cgroup above, from `root`
/// downwards.
///
/// Somebody else may be enabling it at the same time. The kernel lists a controller at once, but its
/// files can't be opened until the write that enables it has ended. Another write of the same waits
/// for that one and changes nothing, so the cgroup right above is written to in any case.
///
/// # Errors
/// See [`enable_for_children`].
pub fn enable_from(root: &Path, group: &Path, controller: &str) -> Result<(), CgroupError> {
    let above = group.ancestors().skip(1);
    let mut above: Vec<&Path> = above.take_while(|path| path.starts_with(root)).collect();
    above.reverse();
    for path in above {
        if Some(path) == group.parent() || !lists(path, ENABLED, controller) {
            enable_for_children(path, controller)?;
        }
    }
    Ok(())
}

/// Whether a cgroup can use a controller. Its files may not be there yet: see [`enable_from`].
pub fn has(group: &Path, controller: &str) -> bool {
    lists(group, AVAILABLE, controller)
}

fn lists(group: &Path, file: &str, controller: &str) -> bool {
    fs::read_to_string(group.join(file))
        .is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
}

fn read(group: &Path, file: &str) -> Result<BTreeSet<String>, CgroupError> {
    let path = group.join(file);
    let text = fs::read_to_string(&path).step(|| format!("read {}", path.display()))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
