//! Device nodes of the host for `--device` and `--privileged`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use keelson_model::container::DeviceMapping;
use serde_json::{Value, json};

use crate::EngineError;

/// A device node to make in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceNode {
    /// In the container.
    pub(crate) path: String,
    /// `c` or `b`.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Letters of `rwm`.
    pub(crate) access: String,
}

impl DeviceNode {
    pub(crate) fn to_oci(&self) -> Value {
        json!({
            "path": self.path,
            "type": self.kind.to_string(),
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        })
    }

    pub(crate) fn to_rule(&self) -> Value {
        json!({
            "allow": true,
            "type": self.kind.to_string(),
            "major": self.major,
            "minor": self.minor,
            "access": self.access,
        })
    }
}

/// Checks what needs no look at the host.
pub(crate) fn check(mapping: &DeviceMapping) -> Result<(), EngineError> {
    let access = &mapping.cgroup_permissions;
    if !mapping.path_on_host.starts_with('/') {
        return Err(EngineError::Invalid(format!(
            "invalid device: {:?} is not an absolute path",
            mapping.path_on_host
        )));
    }
    if !mapping.path_in_container.is_empty() && !mapping.path_in_container.starts_with('/') {
        return Err(EngineError::Invalid(format!(
            "invalid device: {:?} is not an absolute path",
            mapping.path_in_container
        )));
    }
    if access.bytes().any(|letter| !b"rwm".contains(&letter)) {
        return Err(EngineError::Invalid(format!(
            "invalid device mode: {access}"
        )));
    }
    Ok(())
}

/// Looks at a node, or at all nodes below a folder.
pub(crate) fn resolve(mapping: &DeviceMapping) -> Result<Vec<DeviceNode>, EngineError> {
    let host = Path::new(&mapping.path_on_host);
    let inside = if mapping.path_in_container.is_empty() {
        host
    } else {
        Path::new(&mapping.path_in_container)
    };
    let access = if mapping.cgroup_permissions.is_empty() {
        "rwm"
    } else {
        &mapping.cgroup_permissions
    };
    let metadata = fs::metadata(host).map_err(|error| {
        EngineError::Invalid(format!(
            "error gathering device information while adding custom device \"{}\": {error}",
            host.display()
        ))
    })?;
    let mut nodes = Vec::new();
    if metadata.is_dir() {
        collect(host, inside, access, &mut nodes, 0);
    } else if let Some(node) = node(&metadata, inside, access) {
        nodes.push(node);
    } else {
        return Err(EngineError::Invalid(format!(
            "error gathering device information while adding custom device \"{}\": not a device node",
            host.display()
        )));
    }
    Ok(nodes)
}

/// All nodes of the host, for privileged containers.
pub(crate) fn all() -> Vec<DeviceNode> {
    let mut nodes = Vec::new();
    collect(Path::new("/dev"), Path::new("/dev"), "rwm", &mut nodes, 0);
    nodes
}

fn collect(host: &Path, inside: &Path, access: &str, nodes: &mut Vec<DeviceNode>, depth: u32) {
    // A folder that vanishes or cannot be read has no devices.
    let Ok(entries) = fs::read_dir(host) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // The container has its own terminals, shared memory and message queues.
        if depth == 0
            && ["pts", "ptmx", "shm", "fd", "mqueue", "console", ".lxc"]
                .iter()
                .any(|own| name == *own)
        {
            continue;
        }
        let path: PathBuf = host.join(&name);
        let target = inside.join(&name);
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && depth < 8 {
            collect(&path, &target, access, nodes, depth + 1);
        } else if let Some(node) = node(&metadata, &target, access) {
            nodes.push(node);
        }
    }
}

fn node(metadata: &fs::Metadata, path: &Path, access: &str) -> Option<DeviceNode> {
    let kind = if metadata.file_type().is_char_device() {
        'c'
    } else if metadata.file_type().is_block_device() {
        'b'
    } else {
        return None;
    };
    Some(DeviceNode {
        path: path.to_string_lossy().into_owned(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, access: &str) -> DeviceMapping {
        DeviceMapping {
            path_on_host: host.to_owned(),
            path_in_container: "/dev/inside".to_owned(),
            cgroup_permissions: access.to_owned(),
        }
    }

    #[test]
    fn a_node_is_found() {
        let nodes = resolve(&mapping("/dev/null", "rw")).unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].major, nodes[0].minor), (1, 3));
        assert_eq!(nodes[0].path, "/dev/inside");
        assert_eq!(nodes[0].access, "rw");
        assert!(all().iter().any(|node| node.path == "/dev/null"));
    }

    #[test]
    fn what_is_not_a_device_is_refused() {
        assert!(resolve(&mapping("/dev/does-not-exist", "")).is_err());
        assert!(resolve(&mapping("/etc/passwd", "")).is_err());
        assert!(check(&mapping("null", "")).is_err());
        assert!(check(&mapping("/dev/null", "rwx")).is_err());
    }
}
