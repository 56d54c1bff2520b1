//! `features` and `spec`.

use std::io::Write;
use std::path::PathBuf;

use keelson_linux::capability;
use serde_json::{Value, json};

use super::arguments::{Arguments, read};
use crate::failure::{Failure, Step};
use crate::sandbox::options;
use crate::seccomp;
use crate::spec::{HookKind, NamespaceKind};

/// `features`: what this program supports, as the specification's features document.
pub(crate) fn print() -> Result<u8, Failure> {
    let document = document();
    println!("{document:#}");
    Ok(0)
}

/// Made from the same tables that the runtime works with.
fn document() -> Value {
    fn names<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
        table.iter().map(|(name, _)| *name).collect()
    }
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": HookKind::ALL.map(HookKind::as_str),
        "mountOptions": options::names(),
        "linux": {
            "namespaces": names(&NamespaceKind::NAMES),
            "capabilities": capability::names(u64::MAX),
            "cgroup": {
                "v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": names(seccomp::ACTIONS),
                "operators": names(seccomp::OPERATORS),
                "archs": names(seccomp::ARCHITECTURES),
                "knownFlags": names(seccomp::FLAGS),
                "supportedFlags": names(seccomp::FLAGS),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {"io.keelson.runtime.version": env!("CARGO_PKG_VERSION")},
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

/// `spec`: writes a config.json to begin with.
pub(crate) fn write_spec(arguments: Arguments) -> Result<u8, Failure> {
    let mut bundle = PathBuf::from(".");
    let mut document = example();
    if !crate::cgroup::is_unified() {
        // As runc: where version 1 controllers are, a container sees their tree.
        remove_namespace(&mut document, "cgroup");
    }
    read(arguments, |name, rest| {
        match name {
            "--bundle" | "-b" => bundle = rest.value(name)?.into(),
            "--rootless" if rest.switch() => without_root(&mut document),
            "--rootless" => {}
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let path = bundle.join("config.json");
    let step = || format!("write {}", path.display());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .step(step)?;
    writeln!(file, "{document:#}").step(step)?;
    Ok(0)
}

/// Changes an example so that its root is the caller: in a user namespace of one user. It has no
/// network of its own and no limits, because both need rights outside of the namespace.
fn without_root(document: &mut Value) {
    let linux = &mut document["linux"];
    let own = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    linux["uidMappings"] = own(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = own(rustix::process::getegid().as_raw());
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    linux.as_object_mut().map(|linux| linux.remove("resources"));
    remove_namespace(document, "network");
    if let Some(mounts) = document["mounts"].as_array_mut() {
        for mount in mounts {
            match mount["destination"].as_str() {
                // Only the network namespace's owner can mount sysfs.
                Some("/sys") => {
                    *mount = json!({
                        "destination": "/sys", "type": "none", "source": "/sys",
                        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
                    });
                }
                // The user namespace has no group but 0.
                Some("/dev/pts") => {
                    if let Some(options) = mount["options"].as_array_mut() {
                        options.retain(|option| option != "gid=5");
                    }
                }
                _ => {}
            }
        }
    }
}

fn remove_namespace(document: &mut Value, kind: &str) {
    if let Some(namespaces) = document["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != kind);
    }
}

fn example() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "keelson",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use crate::spec::NamespaceKind;

    #[test]
    fn namespaces_are_called_as_they_are_read() {
        for (name, kind) in NamespaceKind::NAMES {
            let read: NamespaceKind = serde_json::from_value(name.into()).unwrap();
            assert_eq!(read, kind);
        }
        let features = super::document();
        assert_eq!(features["hooks"][1], "createRuntime");
    }

    #[test]
    fn the_example_is_a_valid_specification() {
        let text = super::example().to_string();
        crate::spec::parse(text.as_bytes()).unwrap();
    }
}
