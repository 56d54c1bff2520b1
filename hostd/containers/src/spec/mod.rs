//! A container's OCI `config.json`: a pure function of its specification and what was found on the
//! host.
//!
//! * [`check`]: whether a specification is one that can be kept and run.
//! * [`available`]: whether the host has what it asks for.
//! * [`capabilities`], [`limits`], [`mounts`]: parts of it in OCI's terms.

pub(crate) mod available;
pub(crate) mod capabilities;
pub(crate) mod check;
pub(crate) mod limits;
pub(crate) mod mounts;

use std::path::Path;

use keelson_model::spec::{
    Confinement, ContainerSpec, IpcMode, MountSpec, NamespaceMode, NamespaceSpec, NetworkMode,
    ProcessSpec, SystemCallFilter,
};
use keelson_model::users::UserRange;
use keelson_shim_protocol::INIT_PATH;
use serde_json::{Value, json};

use crate::apparmor;
use crate::devices::{self, BlockDevice, DeviceNode};
use crate::host::HostFacts;
use crate::user::User;

pub(crate) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The host's shared memory.
pub(crate) const HOST_MEMORY: &str = "/dev/shm";
/// The files that name the container and its resolver, on the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFiles<'a> {
    pub(crate) hostname: &'a Path,
    pub(crate) hosts: &'a Path,
    pub(crate) resolv_conf: &'a Path,
}

/// Paths of the namespaces of other containers that it joins.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JoinedPaths<'a> {
    pub(crate) users: Option<&'a Path>,
    pub(crate) network: Option<&'a Path>,
    pub(crate) pid: Option<&'a Path>,
    pub(crate) ipc: Option<&'a Path>,
}

/// From what config.json is made.
pub(crate) struct Input<'a> {
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) host_name: &'a str,
    /// The environment variables of its links.
    pub(crate) link_variables: &'a [String],
    pub(crate) user: &'a User,
    pub(crate) files: HostFiles<'a>,
    /// The mounts of its volumes.
    pub(crate) volumes: &'a [MountSpec],
    pub(crate) devices: &'a [DeviceNode],
    /// The block devices with limits, in the order of the limits.
    pub(crate) block_devices: &'a [BlockDevice],
    pub(crate) cgroup: &'a str,
    pub(crate) joined: JoinedPaths<'a>,
    /// Its shared memory for /dev/shm.
    pub(crate) shared_memory: Option<&'a Path>,
    /// The program of the init, if it has one.
    pub(crate) init: Option<&'a Path>,
    pub(crate) facts: &'a HostFacts,
}

/// Makes config.json.
pub(crate) fn build(input: &Input<'_>) -> Value {
    let spec = input.spec;
    let security = &spec.security;
    let capabilities = capabilities::granted(&security.capabilities, input.facts.capabilities);
    let mut linux = json!({
        "namespaces": namespaces(&spec.namespaces, input.joined),
        "cgroupsPath": input.cgroup,
        "resources": resources_with_devices(input),
        "devices": input.devices.iter().map(DeviceNode::to_oci).collect::<Vec<_>>(),
        "sysctl": sysctls(spec),
        "rootfsPropagation": mounts::root_propagation(&spec.mounts),
        "maskedPaths": security.hiding.masked,
        "readonlyPaths": security.hiding.read_only,
    });
    let mut annotations = json!(spec.annotations);
    if let Some(UserRange { base, size }) = spec.namespaces.users {
        let map = json!([{ "containerID": 0, "hostID": base, "size": size }]);
        set_member(&mut linux, "uidMappings", map.clone());
        set_member(&mut linux, "gidMappings", map);
    }
    match &security.system_calls {
        SystemCallFilter::BuiltIn => {
            set_member(&mut annotations, "io.keelson.seccomp", json!("default"));
        }
        SystemCallFilter::Profile(profile) => set_member(&mut linux, "seccomp", profile.clone()),
        SystemCallFilter::Unconfined => {}
    }
    let own_names = spec.namespaces.uts == NamespaceMode::Private;
    json!({
        "ociVersion": "1.2.0",
        "process": process(input, &capabilities),
        "root": { "path": "rootfs", "readonly": spec.root.read_only() },
        "hostname": if own_names { input.host_name } else { "" },
        "domainname": if own_names { spec.names.domain.as_str() } else { "" },
        "mounts": all_mounts(input),
        "annotations": annotations,
        "linux": linux,
    })
}

/// Sets a member of an object.
pub(crate) fn set_member(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

fn process(input: &Input<'_>, capabilities: &[String]) -> Value {
    let (spec, user) = (input.spec, input.user);
    let asked = &spec.process;
    let empty: &[String] = &[];
    // As execve(2) would have it: only root keeps what the bounding set allows.
    let held = if user.uid == 0 { capabilities } else { empty };
    let init: &[&str] = match input.init {
        Some(_) => &[INIT_PATH, "--"],
        None => &[],
    };
    let command = [&asked.command].into_iter().chain(&asked.args);
    let args: Vec<_> = init
        .iter()
        .copied()
        .chain(command.map(String::as_str))
        .collect();
    let rlimits: Vec<_> = spec.limits.rlimits.iter().map(limits::rlimit).collect();
    let mut process = json!({
        "terminal": asked.terminal.is_some(),
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": user.additional_gids,
        },
        "args": args,
        "env": environment(asked, input.host_name, &user.home, input.link_variables),
        "cwd": asked.working_directory,
        "capabilities": {
            "bounding": capabilities,
            "permitted": held,
            "effective": held,
        },
        "rlimits": rlimits,
        "noNewPrivileges": spec.security.no_new_privileges,
        "oomScoreAdj": spec.limits.memory.oom_score_adjustment,
    });
    if let Some(profile) = apparmor::profile(&spec.security, &input.facts.apparmor) {
        set_member(&mut process, "apparmorProfile", json!(profile));
    }
    if let Some((rows, columns)) = asked.terminal.and_then(|terminal| terminal.size) {
        set_member(
            &mut process,
            "consoleSize",
            json!({ "height": rows, "width": columns }),
        );
    }
    process
}

/// The environment: what every process of a container has, overridden by what was asked for.
pub(crate) fn environment(
    process: &ProcessSpec,
    host_name: &str,
    home: &str,
    link_variables: &[String],
) -> Vec<String> {
    let mut environment = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={host_name}")];
    if process.terminal.is_some() {
        environment.push("TERM=xterm".to_owned());
    }
    environment.extend_from_slice(link_variables);
    merge_environment(&mut environment, &process.env);
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(format!("HOME={home}"));
    }
    environment
}

/// Lets later entries replace those of the same name; a name without `=` removes.
pub fn merge_environment(into: &mut Vec<String>, from: &[String]) {
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

fn namespaces(namespaces: &NamespaceSpec, joined: JoinedPaths<'_>) -> Vec<Value> {
    let host = NamespaceMode::Host;
    let network = namespaces.network == NetworkMode::Host;
    [
        ("user", namespaces.users.is_none(), joined.users),
        ("mount", false, None),
        ("pid", namespaces.pid == host, joined.pid),
        ("network", network, joined.network),
        ("ipc", namespaces.ipc == IpcMode::Host, joined.ipc),
        ("uts", namespaces.uts == host, None),
        ("cgroup", namespaces.cgroup == host, None),
    ]
    .into_iter()
    .filter_map(|(kind, of_host, path)| match path {
        Some(path) => Some(json!({ "type": kind, "path": path })),
        None => (!of_host).then(|| json!({ "type": kind })),
    })
    .collect()
}

fn sysctls(spec: &ContainerSpec) -> Value {
    let mut sysctls = spec.sysctls.clone();
    let joined = spec.namespaces.donors.network.is_some();
    if spec.namespaces.network != NetworkMode::Host && !joined {
        // As in Docker: ping and ports below 1024 need no capabilities in a separate namespace. The
        // kernel accepts only groups that exist in the user namespace.
        let users = spec.namespaces.users;
        let last = users.map_or(i32::MAX as u32, |users| users.size.saturating_sub(1));
        for (name, value) in [
            ("net.ipv4.ip_unprivileged_port_start", "0".to_owned()),
            ("net.ipv4.ping_group_range", format!("0 {last}")),
        ] {
            sysctls.entry(name.to_owned()).or_insert(value);
        }
    }
    json!(sysctls)
}

fn all_mounts(input: &Input<'_>) -> Vec<Value> {
    let spec = input.spec;
    let access = match spec.security.confinement {
        Confinement::Privileged => "rw",
        Confinement::Confined => "ro",
    };
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
    let shared = match spec.namespaces.ipc {
        IpcMode::Host => Some(Path::new(HOST_MEMORY)),
        _ => input.shared_memory,
    };
    match (shared, spec.namespaces.ipc) {
        (Some(path), _) => list.push(mount(
            "/dev/shm",
            "bind",
            &path.to_string_lossy(),
            &["rbind", "nosuid", "noexec", "nodev"],
        )),
        (None, IpcMode::None) => {}
        (None, _) => {
            let size = format!("size={}", spec.limits.shm_size);
            list.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            ));
        }
    }
    // A mount that was asked for replaces one of these.
    let asked_for = |target: &str| {
        let target = Path::new(target);
        let mut all = spec.mounts.iter().chain(input.volumes);
        all.any(|mount| mount.target == target)
    };
    list.retain(|mount| {
        let target = mount.get("destination").and_then(Value::as_str);
        !target.is_some_and(asked_for)
    });
    for (path, destination) in [
        (input.files.resolv_conf, "/etc/resolv.conf"),
        (input.files.hostname, "/etc/hostname"),
        (input.files.hosts, "/etc/hosts"),
    ] {
        if !asked_for(destination) {
            let options: &[&str] = if spec.root.read_only() {
                &["rbind", "rprivate", "ro"]
            } else {
                &["rbind", "rprivate"]
            };
            list.push(mount(destination, "bind", &path.to_string_lossy(), options));
        }
    }
    let all = by_depth(spec.mounts.iter().chain(input.volumes));
    let own_users = spec.namespaces.users.is_some();
    list.extend(
        all.into_iter()
            .map(|mount| mounts::to_oci(mount, own_users)),
    );
    if let Some(program) = input.init {
        let options = ["bind", "ro", "nosuid", "nodev"];
        list.push(mount(
            INIT_PATH,
            "bind",
            &program.to_string_lossy(),
            &options,
        ));
    }
    list
}

/// Sorts mounts so that none hides another.
pub(crate) fn by_depth<'a>(mounts: impl Iterator<Item = &'a MountSpec>) -> Vec<&'a MountSpec> {
    let mut mounts: Vec<_> = mounts.collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts
}

fn resources_with_devices(input: &Input<'_>) -> Value {
    let mut resources = limits::for_start(&input.spec.limits);
    if let Some(block) = limits::block_io(&input.spec.limits.io, input.block_devices) {
        resources.insert("blockIO".to_owned(), block);
    }
    let rule = |allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| json!({ "allow": allow, "type": kind, "major": major, "minor": minor, "access": access });
    let rules = if input.spec.security.confinement == Confinement::Privileged {
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
        rules.extend(input.spec.device_rules.iter().map(devices::rule));
        rules
    };
    resources.insert("devices".to_owned(), Value::Array(rules));
    Value::Object(resources)
}

#[cfg(test)]
mod tests;
