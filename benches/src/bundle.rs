//! A bundle like those that dockerd makes, which every runtime takes.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use keelson_testing::CAPABILITIES;
use serde_json::{Value, json};

/// The paths that are hidden from a container.
pub const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// The read-only paths.
pub const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The files that Docker binds into every container.
pub const FILES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// How the bundle requests the seccomp filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Docker's default profile written out, as dockerd does.
    Written,
    /// By our runtime's annotation, as hostd does.
    Named,
}

/// Makes a root file system of busybox.
///
/// # Errors
/// busybox is missing or the directory can't be written.
pub fn make_root(directory: &Path) -> Result<()> {
    for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        std::fs::create_dir_all(directory.join(name))?;
    }
    keelson_testing::busybox::install(&directory.join("bin/busybox"))?;
    for name in ["sh", "true", "sleep"] {
        symlink("busybox", directory.join("bin").join(name))?;
    }
    for name in FILES {
        std::fs::write(directory.join("etc").join(name), "")?;
    }
    Ok(())
}

/// The root file system as an archive, for engines to import.
///
/// # Errors
/// As for [`make_root`].
pub fn image() -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    make_root(directory.path())?;
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all(".", directory.path())?;
    Ok(archive.into_inner()?)
}

/// Writes a bundle that runs `command` in a root file system, and returns its directory.
///
/// # Errors
/// The directory can't be written.
pub fn write(
    directory: &Path,
    root: &Path,
    id: &str,
    command: &[&str],
    filter: Filter,
) -> Result<PathBuf> {
    let bundle = directory.join(id);
    std::fs::create_dir_all(&bundle)?;
    for name in FILES {
        std::fs::write(bundle.join(name), "127.0.0.1 localhost\n")?;
    }
    let config = config(&bundle, root, id, command, filter);
    std::fs::write(bundle.join("config.json"), config.to_string())?;
    Ok(bundle)
}

/// Leaves a bundle's container in the cgroup namespace of the host.
///
/// # Errors
/// The bundle can't be read or written.
pub fn share_cgroups(bundle: &Path) -> Result<()> {
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let namespaces = config.pointer_mut("/linux/namespaces");
    let namespaces = namespaces.and_then(Value::as_array_mut);
    let namespaces = namespaces.context("a bundle without namespaces")?;
    namespaces.retain(|namespace| namespace.get("type") != Some(&json!("cgroup")));
    std::fs::write(path, config.to_string())?;
    Ok(())
}

/// `config.json` as dockerd writes it for a container with default options.
fn config(bundle: &Path, root: &Path, id: &str, command: &[&str], filter: Filter) -> Value {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["ro", "nosuid", "noexec", "nodev"],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
        ),
    ];
    for name in FILES {
        let source = bundle.join(name);
        let to = format!("/etc/{name}");
        mounts.push(mount(
            &to,
            "bind",
            &source.to_string_lossy(),
            &["rbind", "rprivate"],
        ));
    }
    let kinds = ["mount", "network", "uts", "pid", "ipc", "cgroup"];
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
            "args": command,
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOSTNAME=bench", "HOME=/root"
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES
            },
            "oomScoreAdj": 0
        },
        "root": {"path": root},
        "hostname": "bench",
        "mounts": mounts,
        "linux": {
            "sysctl": {
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": "0 2147483647"
            },
            "cgroupsPath": format!("/{id}"),
            "namespaces": namespaces,
            "resources": {"devices": device_rules()},
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY
        }
    });
    let (place, value) = match filter {
        Filter::Written => {
            let bounding: Vec<String> = CAPABILITIES.map(str::to_owned).to_vec();
            let profile = keelson_runtime::check::default_profile(&bounding);
            ("/linux", json!({"seccomp": profile}))
        }
        Filter::Named => (
            "",
            json!({"annotations": {"io.keelson.seccomp": "default"}}),
        ),
    };
    if let (Some(Value::Object(into)), Value::Object(members)) = (config.pointer_mut(place), value)
    {
        into.extend(members);
    }
    config
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn device_rules() -> Vec<Value> {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for (major, minor) in [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)] {
        rules.push(json!({
            "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"
        }));
    }
    rules.push(json!({"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"}));
    rules
}
