//! Whether this program runs in an ordinary user's namespaces, and which file systems can't be
//! mounted there.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

static INSIDE: AtomicBool = AtomicBool::new(false);

/// Records that this program runs inside the namespaces.
pub(crate) fn set_inside() {
    INSIDE.store(true, Ordering::Relaxed);
}

/// Whether this program runs inside the namespaces.
pub(crate) fn is_inside() -> bool {
    INSIDE.load(Ordering::Relaxed)
}

/// Changes a configuration as engines of ordinary users do: a user can't mount a procfs or sysfs of
/// a host namespace, so the host's is bound instead.
pub(crate) fn bind_what_cannot_be_mounted(config: &mut Value) {
    for (namespace, kind) in [("pid", "proc"), ("network", "sysfs")] {
        let mut listed = config["linux"]["namespaces"]
            .as_array()
            .into_iter()
            .flatten();
        if listed.any(|entry| entry["type"] == namespace) {
            continue;
        }
        let mounts = config.get_mut("mounts").and_then(Value::as_array_mut);
        for mount in mounts
            .into_iter()
            .flatten()
            .filter(|mount| mount["type"] == kind)
        {
            mount["type"] = json!("none");
            mount["source"] = mount["destination"].clone();
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_systems_are_bound_for_shared_namespaces() {
        let mounts = json!([
            {"destination": "/proc", "type": "proc"},
            {"destination": "/sys", "type": "sysfs"},
        ]);
        let namespaces = json!([{"type": "pid"}]);
        let mut config = json!({"mounts": mounts, "linux": {"namespaces": namespaces}});
        bind_what_cannot_be_mounted(&mut config);
        assert_eq!(config["mounts"][0], mounts[0]);
        assert_eq!(config["mounts"][1]["source"], "/sys");
        let mut odd = json!(["no object"]);
        bind_what_cannot_be_mounted(&mut odd);
        assert_eq!(odd, json!(["no object"]));
    }
}
