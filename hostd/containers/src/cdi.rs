//! Devices described by vendors (Container Device Interface), such as `nvidia.com/gpu=all`.
//! Documents in the host's directories define what a container with such a device gets.
//!
//! | module | what it holds |
//! |---|---|
//! | [`document`] | one document: bytes to values, names checked |
//! | [`registry`] | the documents of all directories, and the devices by name |
//!
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>

mod document;
mod registry;

use keelson_model::spec::{DeviceAccess, DeviceSpec};
use serde_json::{Value, json};

pub(crate) use document::{Document, DocumentError, Edits};
pub(crate) use registry::{choose_one, find};

use crate::EngineError;
use crate::devices::{self, DeviceNode};
use crate::spec::{merge_environment, set_member};

/// A document, and the full names of its devices.
pub(crate) fn read(bytes: &[u8]) -> Result<(Document, Vec<String>), DocumentError> {
    let document = document::parse(bytes)?;
    let names = document.devices.iter();
    let names = names.map(|device| format!("{}={}", document.kind, device.name));
    let names = names.collect();
    Ok((document, names))
}

/// The nodes of a device, as found on this host. `user`: the owner of nodes that name none.
pub(crate) fn nodes(edits: &Edits, user: (u32, u32)) -> Result<Vec<DeviceNode>, EngineError> {
    let mut nodes = Vec::new();
    for asked in &edits.device_nodes {
        let letters = asked.permissions.as_deref().unwrap_or("rwm");
        let host = asked.host_path.as_ref().unwrap_or(&asked.path);
        let found = devices::resolve(&DeviceSpec {
            source: host.clone(),
            target: asked.path.clone(),
            access: DeviceAccess {
                read: letters.contains('r'),
                write: letters.contains('w'),
                make_node: letters.contains('m'),
            },
        })?;
        let own = |id: u32| (id > 0).then_some(id);
        nodes.extend(found.into_iter().map(|node| DeviceNode {
            mode: asked.file_mode.unwrap_or(node.mode),
            uid: asked.uid.or(own(user.0)).unwrap_or(node.uid),
            gid: asked.gid.or(own(user.1)).unwrap_or(node.gid),
            ..node
        }));
    }
    Ok(nodes)
}

/// Applies a device's changes to `config.json`, which already contains its nodes.
pub(crate) fn apply(edits: &Edits, config: &mut Value) {
    if let Some(env) = config.pointer_mut("/process/env") {
        let mut merged: Vec<String> = serde_json::from_value(env.take()).unwrap_or_default();
        merge_environment(&mut merged, &edits.env);
        *env = json!(merged);
    }
    if let Some(groups) = config
        .pointer_mut("/process/user/additionalGids")
        .and_then(Value::as_array_mut)
    {
        for gid in edits.additional_gids.iter().filter(|gid| **gid > 0) {
            if !groups.contains(&json!(gid)) {
                groups.push(json!(gid));
            }
        }
    }
    if let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) {
        mounts.extend(edits.mounts.iter().map(|mount| {
            json!({
                "source": mount.host_path,
                "destination": mount.container_path,
                "type": mount.kind.as_deref().unwrap_or("bind"),
                "options": mount.options,
            })
        }));
    }
    let mut hooks = config
        .get_mut("hooks")
        .map_or_else(|| json!({}), Value::take);
    for hook in &edits.hooks {
        let kind = hook.kind.as_str();
        let mut list = hooks
            .get_mut(kind)
            .map(Value::take)
            .unwrap_or_else(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({
                "path": hook.path,
                "args": hook.args,
                "env": hook.env,
                "timeout": hook.timeout,
            }));
        }
        set_member(&mut hooks, kind, list);
    }
    if hooks.as_object().is_some_and(|hooks| !hooks.is_empty()) {
        set_member(config, "hooks", hooks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_changes_the_configuration() {
        let edits = document::parse(
            r#"
cdiVersion: 0.6.0
kind: vendor.com/thing
devices: [{name: a, containerEdits: {env: [A=device], additionalGids: [0, 7]}}]
containerEdits:
  mounts: [{hostPath: /h, containerPath: /c, options: [ro, bind]}]
  hooks: [{hookName: createRuntime, path: /hook, args: [hook, x], timeout: 5}]
"#
            .as_bytes(),
        )
        .unwrap();
        let edits = registry::of_one(edits, &["vendor.com/thing=a"]);
        let mut config = json!({
            "process": {"env": ["A=image", "B=1"], "user": {"additionalGids": [3]}},
            "mounts": [],
        });
        apply(&edits, &mut config);
        let mount =
            json!({"source": "/h", "destination": "/c", "type": "bind", "options": ["ro", "bind"]});
        let hook = json!({"path": "/hook", "args": ["hook", "x"], "env": [], "timeout": 5});
        assert_eq!(
            config,
            json!({
                "process": {"env": ["A=device", "B=1"], "user": {"additionalGids": [3, 7]}},
                "mounts": [mount],
                "hooks": {"createRuntime": [hook]},
            })
        );
        let mut plain = json!({"process": {"env": []}});
        apply(&Edits::default(), &mut plain);
        assert_eq!(plain, json!({"process": {"env": []}}));
    }
}
