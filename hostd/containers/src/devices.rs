//! Device nodes of the host for `--device` and `--privileged`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use keelson_model::spec::{DeviceAccess, DeviceKind, DeviceRule, DeviceSpec};
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
    pub(crate) access: DeviceAccess,
}

/// A block device by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockDevice {
    pub(crate) major: u32,
    pub(crate) minor: u32,
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
            "access": letters(self.access),
        })
    }
}

/// A rule of `linux.resources.devices`.
pub(crate) fn rule(rule: &DeviceRule) -> Value {
    let kind = match rule.kind {
        DeviceKind::All => "a",
        DeviceKind::Character => "c",
        DeviceKind::Block => "b",
    };
    json!({
        "allow": true,
        "type": kind,
        "major": rule.major,
        "minor": rule.minor,
        "access": letters(rule.access),
    })
}

/// Everything that may be done with a device.
const ALL_ACCESS: DeviceAccess = DeviceAccess {
    read: true,
    write: true,
    make_node: true,
};

/// Letters of `rwm`, as in the OCI specification.
fn letters(access: DeviceAccess) -> String {
    [
        ('r', access.read),
        ('w', access.write),
        ('m', access.make_node),
    ]
    .into_iter()
    .filter_map(|(letter, allowed)| allowed.then_some(letter))
    .collect()
}

/// Examines a node, or all nodes below a directory.
pub(crate) fn resolve(device: &DeviceSpec) -> Result<Vec<DeviceNode>, EngineError> {
    let (host, inside, access) = (&device.source, &device.target, device.access);
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

/// The number of a block device.
pub(crate) fn block(path: &Path) -> Result<BlockDevice, EngineError> {
    let metadata = fs::metadata(path)
        .map_err(|error| EngineError::Invalid(format!("stat {}: {error}", path.display())))?;
    if !metadata.file_type().is_block_device() {
        return Err(EngineError::Invalid(format!(
            "{} is no block device, so reading and writing it can't be limited",
            path.display()
        )));
    }
    let number = metadata.rdev();
    Ok(BlockDevice {
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
    })
}

/// All nodes of the host, for privileged containers.
pub(crate) fn all() -> Vec<DeviceNode> {
    let mut nodes = Vec::new();
    collect(
        Path::new("/dev"),
        Path::new("/dev"),
        ALL_ACCESS,
        &mut nodes,
        0,
    );
    nodes
}

fn collect(
    host: &Path,
    inside: &Path,
    access: DeviceAccess,
    nodes: &mut Vec<DeviceNode>,
    depth: u32,
) {
    // A directory that vanishes or cannot be read has no devices.
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

fn node(metadata: &fs::Metadata, path: &Path, access: DeviceAccess) -> Option<DeviceNode> {
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
        access,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(source: &str, access: DeviceAccess) -> DeviceSpec {
        DeviceSpec {
            source: source.into(),
            target: "/dev/inside".into(),
            access,
        }
    }

    #[test]
    fn a_node_is_found() {
        let access = DeviceAccess {
            make_node: false,
            ..ALL_ACCESS
        };
        let nodes = resolve(&device("/dev/null", access)).unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].major, nodes[0].minor), (1, 3));
        assert_eq!(nodes[0].path, "/dev/inside");
        assert_eq!(nodes[0].to_rule()["access"], "rw");
        assert!(all().iter().any(|node| node.path == "/dev/null"));
    }

    #[test]
    fn what_is_not_a_device_is_refused() {
        assert!(resolve(&device("/dev/does-not-exist", ALL_ACCESS)).is_err());
        assert!(resolve(&device("/etc/passwd", ALL_ACCESS)).is_err());
    }
}
