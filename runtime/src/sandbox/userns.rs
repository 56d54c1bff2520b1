//! User namespaces: making one with its mappings, becoming its root, and the mounts' mappings.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keelson_sys::sandbox;
use keelson_sys::userns::{self as made, MakeError};

use super::options;
use crate::failure::{Failure, Step};
use crate::spec::{IdMapping, Mount, mappings};

/// Whether this program lacks the rights of the machine's root: it is an ordinary user's, or root in
/// a user namespace, as under rootless Podman.
pub(crate) fn is_restricted() -> bool {
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let map = || std::fs::read_to_string("/proc/self/uid_map");
        !rustix::process::geteuid().is_root() || map().is_ok_and(|map| !maps_everybody(&map))
    })
}

fn maps_everybody(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Creates a user namespace without a process; it exists only while the descriptor is open. It is
/// used for containers and for mounts.
pub(crate) fn make(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Failure> {
    let (uid_map, gid_map) = (mappings::text(uids), mappings::text(gids));
    match made::make(&uid_map, &gid_map) {
        Ok(made) => Ok(made),
        Err(MakeError::Clone(error)) => Err(error).step(|| "make a user namespace"),
        Err(MakeError::Open(error)) => Err(error).step(|| "open a user namespace"),
        Err(MakeError::Map(file, error)) => {
            let (member, text) = match file {
                "uid_map" => ("uidMappings", uid_map),
                _ => ("gidMappings", gid_map),
            };
            Err(error).step(|| format!("{member}: write {:?} to {file}", text.replace('\n', ", ")))
        }
    }
}

/// Becomes root of the user namespace that was entered. The host's groups were dropped before.
pub(crate) fn become_root() -> Result<(), Failure> {
    sandbox::set_group(0).step(|| "become group 0 of the user namespace")?;
    sandbox::set_user(0).step(|| "become user 0 of the user namespace")
}

/// Compares the mappings of an existing user namespace with those of config.json. Called inside the
/// namespace.
pub(crate) fn compare(uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Failure> {
    for (file, member, list) in [
        ("uid_map", "linux.uidMappings", uids),
        ("gid_map", "linux.gidMappings", gids),
    ] {
        if list.is_empty() {
            continue;
        }
        let path = format!("/proc/self/{file}");
        let text = std::fs::read_to_string(&path).step(|| format!("{member}: read {path}"))?;
        if !same(&text, list) {
            return Err(Failure::invalid(format!(
                "{member}: the user namespace of linux.namespaces maps otherwise"
            )));
        }
    }
    Ok(())
}

fn same(text: &str, list: &[IdMapping]) -> bool {
    let mut found: Vec<Vec<u32>> = text
        .lines()
        .map(|line| {
            let numbers = line.split_whitespace();
            numbers.filter_map(|number| number.parse().ok()).collect()
        })
        .collect();
    let mut wanted: Vec<Vec<u32>> = list
        .iter()
        .map(|mapping| vec![mapping.container, mapping.host, mapping.size])
        .collect();
    found.sort();
    wanted.sort();
    found == wanted
}

/// The user namespaces of id-mapped mounts, by the mount's position.
#[derive(Debug, Default)]
pub(crate) struct MountMaps(Vec<(usize, OwnedFd)>);

impl MountMaps {
    /// Makes the namespaces that the mounts need. `container` is the container's own user
    /// namespace.
    pub(crate) fn new(
        mounts: &[Mount],
        container: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Failure> {
        let mut maps = Vec::new();
        for (index, mount) in mounts.iter().enumerate() {
            if !mount.uid_mappings.is_empty() {
                let fd =
                    make(&mount.uid_mappings, &mount.gid_mappings).map_err(|failure| Failure {
                        message: format!("mounts[{index}]: {}", failure.message),
                        ..failure
                    })?;
                maps.push((index, fd));
            } else if mount.options.iter().any(|option| options::is_idmap(option)) {
                let container = container.ok_or_else(|| {
                    Failure::invalid(format!(
                        "mounts[{index}].uidMappings: is missing; an id-mapped mount of a container without a user namespace needs it"
                    ))
                })?;
                let fd = container
                    .try_clone_to_owned()
                    .step(|| "copy a descriptor")?;
                maps.push((index, fd));
            }
        }
        Ok(Self(maps))
    }

    /// The user namespace of a mount, when it is id-mapped.
    pub(crate) fn of(&self, index: usize) -> Option<BorrowedFd<'_>> {
        let mut maps = self.0.iter();
        maps.find(|(mount, _)| *mount == index)
            .map(|(_, fd)| fd.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_map_is_compared_without_order() {
        let list = [
            IdMapping {
                container: 0,
                host: 1000,
                size: 5,
            },
            IdMapping {
                container: 5,
                host: 9000,
                size: 1,
            },
        ];
        assert!(same("         5       9000          1\n 0 1000 5\n", &list));
        assert!(!same("         0       1000          5\n", &list));
    }
}
