//! `config.json` for another runtime: extensions of our runtime are replaced by members of the OCI
//! specification.

use std::path::Path;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::seccomp::profile;
use crate::spec::SECCOMP_ANNOTATION;

/// The specification version that the other runtime gets. Older runtimes refuse later versions, and
/// no feature of those is used.
const VERSION: &str = "1.0.2";

/// Rewrites a configuration for a root file system that is mounted at `root`.
pub(super) fn rewrite(mut config: Value, root: &Path) -> Result<Value, Failure> {
    let seccomp = config
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
        .and_then(|annotations| annotations.remove(SECCOMP_ANNOTATION));
    set(&mut config, "", "ociVersion", json!(VERSION));
    set(&mut config, "/root", "path", json!(root));
    match seccomp.as_ref().and_then(Value::as_str) {
        None => {}
        Some("default") => {
            let bounding: Vec<String> = config
                .pointer("/process/capabilities/bounding")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect();
            let profile = serde_json::to_value(profile::default_profile(&bounding))
                .map_err(|error| Failure::internal(format!("built-in seccomp profile: {error}")))?;
            set(&mut config, "/linux", "seccomp", profile);
        }
        Some(other) => {
            return Err(Failure::invalid(format!(
                "annotations.{SECCOMP_ANNOTATION}: no built-in profile is named {other:?}"
            )));
        }
    }
    Ok(config)
}

/// Sets a member of an existing object.
fn set(config: &mut Value, object: &str, name: &str, value: Value) {
    if let Some(members) = config.pointer_mut(object).and_then(Value::as_object_mut) {
        members.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_only_our_runtime_understands_are_removed() {
        let config = json!({
            "annotations": {"io.keelson.seccomp": "default", "a": "b"},
            "root": {"path": "rootfs", "readonly": true},
            "process": {"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}},
            "linux": {"maskedPaths": ["/x"]},
        });
        let made = rewrite(config, Path::new("/r/root")).unwrap();
        assert_eq!(made["ociVersion"], "1.0.2");
        assert_eq!(made["annotations"], json!({"a": "b"}));
        assert_eq!(made["root"], json!({"path": "/r/root", "readonly": true}));
        assert_eq!(made["linux"]["maskedPaths"], json!(["/x"]));
        let seccomp = &made["linux"]["seccomp"];
        assert!(seccomp["defaultAction"].is_string(), "{seccomp}");
        let rules = seccomp["syscalls"].as_array().unwrap();
        let names = |rule: &Value| rule["names"].as_array().unwrap().clone();
        let allowed: Vec<Value> = rules.iter().flat_map(names).collect();
        assert!(allowed.contains(&json!("mount")), "by the capability");
        assert!(allowed.contains(&json!("read")));
    }

    #[test]
    fn a_profile_of_the_caller_is_kept() {
        let config = json!({"root": {}, "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}});
        let made = rewrite(config, Path::new("/r")).unwrap();
        assert_eq!(made["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ALLOW");
        let unknown = json!({"annotations": {"io.keelson.seccomp": "mine"}});
        assert!(rewrite(unknown, Path::new("/r")).is_err());
    }
}
