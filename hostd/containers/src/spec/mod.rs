//! A container's OCI `config.json`: a pure function of what was asked for and what was found.

pub(crate) mod capabilities;
pub(crate) mod mounts;
pub(crate) mod resources;
mod seccomp;
pub(crate) mod security;

use std::path::Path;

use keelson_model::container::{Config, HostConfig};
use serde_json::{Value, json};

use crate::EngineError;
use crate::devices::DeviceNode;
use crate::host::HostFacts;
use crate::user::User;

pub(crate) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of /dev/shm when a client does not say.
pub(crate) const DEFAULT_SHM: i64 = 64 << 20;

/// Paths that are hidden by default.
pub(crate) const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that are read-only by default.
pub(crate) const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The files that name the container and its resolver, on the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFiles<'a> {
    pub(crate) hostname: &'a Path,
    pub(crate) hosts: &'a Path,
    pub(crate) resolv_conf: &'a Path,
}

/// From what the specification is made.
pub(crate) struct Input<'a> {
    /// Completed from the image.
    pub(crate) config: &'a Config,
    /// Completed with defaults.
    pub(crate) host: &'a HostConfig,
    pub(crate) args: &'a [String],
    pub(crate) user: &'a User,
    pub(crate) files: HostFiles<'a>,
    pub(crate) mounts: &'a [mounts::Wanted],
    /// Folders on the host for volumes whose path the image does not have: source, destination.
    pub(crate) volumes: &'a [(std::path::PathBuf, String)],
    pub(crate) devices: &'a [DeviceNode],
    pub(crate) cgroup: &'a str,
    pub(crate) facts: &'a HostFacts,
}

/// Makes config.json.
pub(crate) fn build(input: &Input<'_>) -> Result<Value, EngineError> {
    let host = input.host;
    let set = capabilities::resolve(
        host.cap_add.as_deref().unwrap_or_default(),
        host.cap_drop.as_deref().unwrap_or_default(),
        host.privileged,
        input.facts.capabilities,
    )?;
    let capabilities = capabilities::names(set);
    let security = security::parse(
        host.security_opt.as_deref().unwrap_or_default(),
        &capabilities,
    )?;
    let unmasked = host.privileged || security.unmask;
    let mut linux = json!({
        "namespaces": namespaces(host),
        "cgroupsPath": input.cgroup,
        "resources": resources_with_devices(input),
        "devices": input.devices.iter().map(DeviceNode::to_oci).collect::<Vec<_>>(),
        "sysctl": sysctls(host),
        "rootfsPropagation": propagation(input.mounts),
        "maskedPaths": if unmasked { &[][..] } else { paths(&host.masked_paths) },
        "readonlyPaths": if unmasked { &[][..] } else { paths(&host.readonly_paths) },
    });
    let mut annotations = json!(host.annotations);
    match security.seccomp {
        security::Seccomp::Default if !host.privileged => {
            set_member(&mut annotations, "io.keelson.seccomp", json!("default"));
        }
        security::Seccomp::Profile(profile) => set_member(&mut linux, "seccomp", profile),
        _ => {}
    }
    Ok(json!({
        "ociVersion": "1.2.0",
        "process": process(input, &capabilities, security.no_new_privileges)?,
        "root": { "path": "rootfs", "readonly": host.readonly_rootfs },
        "hostname": if host.uts_mode == "host" { "" } else { &input.config.hostname },
        "domainname": if host.uts_mode == "host" { "" } else { &input.config.domainname },
        "mounts": all_mounts(input),
        "annotations": annotations,
        "linux": linux,
    }))
}

/// Sets a member of an object.
pub(crate) fn set_member(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

fn paths(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

fn process(
    input: &Input<'_>,
    capabilities: &[String],
    no_new_privileges: bool,
) -> Result<Value, EngineError> {
    let (config, host, user) = (input.config, input.host, input.user);
    let empty: &[String] = &[];
    // As execve(2) would have it: only root keeps what the bounding set allows.
    let held = if user.uid == 0 { capabilities } else { empty };
    let rlimits = host
        .ulimits
        .iter()
        .flatten()
        .map(resources::rlimit)
        .collect::<Result<Vec<_>, _>>()?;
    let mut process = json!({
        "terminal": config.tty,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": user.additional_gids,
        },
        "args": input.args,
        "env": environment(config, &user.home),
        "cwd": if config.working_dir.is_empty() { "/" } else { &config.working_dir },
        "capabilities": {
            "bounding": capabilities,
            "permitted": held,
            "effective": held,
        },
        "rlimits": rlimits,
        "noNewPrivileges": no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    });
    let [rows, columns] = host.console_size;
    if config.tty && rows > 0 && columns > 0 {
        set_member(
            &mut process,
            "consoleSize",
            json!({ "height": rows.min(65_535), "width": columns.min(65_535) }),
        );
    }
    Ok(process)
}

/// The environment: what every container has, overridden by what was asked for.
pub(crate) fn environment(config: &Config, home: &str) -> Vec<String> {
    let mut environment = vec![
        DEFAULT_PATH.to_owned(),
        format!("HOSTNAME={}", config.hostname),
    ];
    if config.tty {
        environment.push("TERM=xterm".to_owned());
    }
    merge_environment(&mut environment, &config.env);
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(format!("HOME={home}"));
    }
    environment
}

/// Lets later entries replace those of the same name; a name without `=` removes.
pub(crate) fn merge_environment(into: &mut Vec<String>, from: &[String]) {
    for entry in from {
        let name = entry.split('=').next().unwrap_or_default();
        let same = |other: &String| other.split('=').next() == Some(name);
        if !entry.contains('=') {
            into.retain(|other| !same(other));
        } else if let Some(existing) = into.iter_mut().find(|other| same(other)) {
            existing.clone_from(entry);
        } else {
            into.push(entry.clone());
        }
    }
}

fn namespaces(host: &HostConfig) -> Vec<Value> {
    let mut kinds = vec!["mount", "pid"];
    for (kind, shared) in [
        ("network", host.network_mode == "host"),
        ("ipc", host.ipc_mode == "host"),
        ("uts", host.uts_mode == "host"),
        ("cgroup", host.cgroupns_mode == "host"),
    ] {
        if !shared {
            kinds.push(kind);
        }
    }
    kinds.iter().map(|kind| json!({ "type": kind })).collect()
}

fn sysctls(host: &HostConfig) -> Value {
    let mut sysctls = host.sysctls.clone();
    if host.network_mode != "host" {
        // As Docker: ping and ports below 1024 without capabilities, in a namespace of one's own.
        for (name, value) in [
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("net.ipv4.ping_group_range", "0 2147483647"),
        ] {
            sysctls
                .entry(name.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
    json!(sysctls)
}

/// Mounts that propagate need a root that does.
fn propagation(mounts: &[mounts::Wanted]) -> &'static str {
    let mut result = "rprivate";
    for mount in mounts {
        if let mounts::WantedKind::Bind { propagation, .. } = &mount.kind {
            match propagation.as_str() {
                "shared" | "rshared" => return "rshared",
                "slave" | "rslave" => result = "rslave",
                _ => {}
            }
        }
    }
    result
}

fn all_mounts(input: &Input<'_>) -> Vec<Value> {
    let host = input.host;
    let access = if host.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let mut list = vec![
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
            &["nosuid", "noexec", "nodev", access],
        ),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", access],
        ),
    ];
    // The queues of the namespace, also of the host's, whether or not they are mounted there.
    list.push(mount(
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ));
    if host.ipc_mode == "host" {
        list.push(mount(
            "/dev/shm",
            "bind",
            "/dev/shm",
            &["rbind", "nosuid", "noexec", "nodev"],
        ));
    } else {
        let size = format!(
            "size={}",
            if host.shm_size > 0 {
                host.shm_size
            } else {
                DEFAULT_SHM
            }
        );
        if host.ipc_mode != "none" {
            list.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            ));
        }
    }
    // A mount of the client's own replaces one of these.
    list.retain(|mount| {
        !input
            .mounts
            .iter()
            .any(|wanted| mount.get("destination") == Some(&json!(wanted.destination)))
    });
    for (path, destination) in [
        (input.files.resolv_conf, "/etc/resolv.conf"),
        (input.files.hostname, "/etc/hostname"),
        (input.files.hosts, "/etc/hosts"),
    ] {
        if !input
            .mounts
            .iter()
            .any(|wanted| wanted.destination == destination)
        {
            let options: &[&str] = if host.readonly_rootfs {
                &["rbind", "rprivate", "ro"]
            } else {
                &["rbind", "rprivate"]
            };
            list.push(mount(destination, "bind", &path.to_string_lossy(), options));
        }
    }
    for (source, destination) in input.volumes {
        list.push(mount(
            destination,
            "bind",
            &source.to_string_lossy(),
            &["rbind", "rprivate"],
        ));
    }
    list.extend(input.mounts.iter().map(mounts::Wanted::to_oci));
    list
}

fn resources_with_devices(input: &Input<'_>) -> Value {
    let mut resources = resources::to_oci(input.host);
    let rule = |allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| json!({ "allow": allow, "type": kind, "major": major, "minor": minor, "access": access });
    let rules = if input.host.privileged {
        vec![json!({ "allow": true, "access": "rwm" })]
    } else {
        let mut rules = vec![
            json!({ "allow": false, "access": "rwm" }),
            rule(true, "c", None, None, "m"),
            rule(true, "b", None, None, "m"),
        ];
        // null, zero, full, random, urandom, tty, console, ptmx and the pseudo terminals.
        for (major, minor) in [
            (1, Some(3)),
            (1, Some(5)),
            (1, Some(7)),
            (1, Some(8)),
            (1, Some(9)),
            (5, Some(0)),
            (5, Some(1)),
            (5, Some(2)),
            (136, None),
        ] {
            rules.push(rule(true, "c", Some(major), minor, "rwm"));
        }
        rules.extend(input.devices.iter().map(DeviceNode::to_rule));
        rules
    };
    resources.insert("devices".to_owned(), Value::Array(rules));
    Value::Object(resources)
}

#[cfg(test)]
mod tests;
