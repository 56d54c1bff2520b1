use std::collections::BTreeSet;

use keelson_model::spec::{
    BindMount, CapabilitySet, DeviceAccess, DeviceKind, DeviceRule, Donors, Hiding, MountKind,
    MountSpec, PidsLimit, Propagation, ReadOnly, RootSpec, TerminalSpec, TmpfsMount,
};

use super::*;

const FULL: u64 = (1 << 41) - 1;

struct Case {
    spec: ContainerSpec,
    user: User,
    devices: Vec<DeviceNode>,
}

impl Default for Case {
    fn default() -> Self {
        let root = RootSpec::Image {
            id: "sha256:0".to_owned(),
            name: "box".to_owned(),
            read_only: false,
        };
        let mut spec = ContainerSpec::new(root, "sh");
        let usual = ["CHOWN", "KILL", "SETUID"].map(str::to_owned);
        spec.security.capabilities = CapabilitySet::Only(BTreeSet::from(usual));
        Self {
            spec,
            user: User {
                uid: 0,
                gid: 0,
                additional_gids: vec![0],
                home: "/root".to_owned(),
            },
            devices: Vec::new(),
        }
    }
}

impl Case {
    /// The namespaces of the specification's donors, under invented paths.
    fn joined(&self) -> JoinedPaths<'static> {
        let donors = &self.spec.namespaces.donors;
        let path = |path, given| Some(Path::new(path)).filter(|_| given);
        JoinedPaths {
            users: path(
                "/proc/1/fd/6",
                self.spec.namespaces.users.is_some() && *donors != Donors::default(),
            ),
            network: path("/proc/1/fd/8", donors.network.is_some()),
            pid: path("/proc/1/fd/9", donors.pid.is_some()),
            ipc: path("/proc/1/fd/7", donors.ipc.is_some()),
        }
    }

    fn config(&self) -> Value {
        check::check(&self.spec, Path::new("/var/lib/keelson")).unwrap();
        build(&Input {
            spec: &self.spec,
            host_name: "0123456789ab",
            link_variables: &[],
            user: &self.user,
            files: HostFiles {
                hostname: Path::new("/r/hostname"),
                hosts: Path::new("/r/hosts"),
                resolv_conf: Path::new("/r/resolv.conf"),
            },
            volumes: &[MountSpec {
                target: "/data".into(),
                kind: MountKind::Bind(BindMount {
                    source: "/r/volume".into(),
                    create_source: false,
                    recursive: true,
                    read_only: ReadOnly::No,
                    propagation: Propagation::RecursivePrivate,
                    mapped: true,
                }),
            }],
            devices: &self.devices,
            cgroup: "/keelson/user/x",
            block_devices: &[],
            joined: self.joined(),
            shared_memory: Some(Path::new("/r/shm")).filter(|_| {
                let namespaces = &self.spec.namespaces;
                namespaces.donors.ipc.is_some() || namespaces.ipc == IpcMode::Shareable
            }),
            init: self.spec.process.init.then_some(Path::new("/r/init")),
            facts: &HostFacts {
                capabilities: FULL,
                ..HostFacts::default()
            },
        })
    }
}

fn destinations(spec: &Value) -> Vec<&str> {
    spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect()
}

fn kinds(spec: &Value) -> Vec<&str> {
    spec["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|namespace| namespace["type"].as_str().unwrap())
        .collect()
}

#[test]
fn the_default_container_is_confined() {
    let spec = Case::default().config();
    assert_eq!(spec["annotations"]["io.keelson.seccomp"], "default");
    assert_eq!(
        kinds(&spec),
        ["mount", "pid", "network", "ipc", "uts", "cgroup"]
    );
    let process = &spec["process"];
    assert_eq!(
        process["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        process["capabilities"]["effective"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(process["cwd"], "/");
    assert_eq!(
        process["env"],
        json!([DEFAULT_PATH, "HOSTNAME=0123456789ab", "HOME=/root"])
    );
    assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), 12);
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
    assert!(spec["linux"]["resources"].get("memory").is_none());
    assert_eq!(
        destinations(&spec),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/sys",
            "/sys/fs/cgroup",
            "/dev/mqueue",
            "/dev/shm",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/etc/hosts",
            "/data",
        ]
    );
    assert_eq!(spec["mounts"][3]["options"][3], "ro");
}

#[test]
fn a_privileged_container_is_not() {
    let mut case = Case::default();
    let security = &mut case.spec.security;
    security.confinement = Confinement::Privileged;
    security.capabilities = CapabilitySet::All;
    security.system_calls = SystemCallFilter::Unconfined;
    security.hiding = Hiding::default();
    let spec = case.config();
    assert!(spec["annotations"].as_object().unwrap().is_empty());
    assert!(spec["linux"].get("seccomp").is_none());
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"]["readonlyPaths"], json!([]));
    assert_eq!(
        spec["linux"]["resources"]["devices"],
        json!([{ "allow": true, "access": "rwm" }])
    );
    assert_eq!(spec["mounts"][3]["options"][3], "rw");
    let bounding = &spec["process"]["capabilities"]["bounding"];
    assert_eq!(bounding.as_array().unwrap().len(), 41);
}

#[test]
fn users_other_than_root_hold_nothing() {
    let mut case = Case::default();
    case.user.uid = 33;
    let capabilities = case.config()["process"]["capabilities"].clone();
    assert_eq!(capabilities["effective"], json!([]));
    assert_eq!(capabilities["bounding"].as_array().unwrap().len(), 3);
}

#[test]
fn the_host_s_namespaces() {
    let mut case = Case::default();
    case.spec.namespaces = NamespaceSpec {
        network: NetworkMode::Host,
        ipc: IpcMode::Host,
        uts: NamespaceMode::Host,
        cgroup: NamespaceMode::Host,
        pid: NamespaceMode::Host,
        users: None,
        donors: Donors::default(),
    };
    let spec = case.config();
    assert_eq!(kinds(&spec), ["mount"]);
    assert_eq!(spec["linux"]["sysctl"], json!({}));
    assert_eq!(spec["hostname"], "");
}

#[test]
fn namespaces_of_other_containers() {
    let mut case = Case::default();
    case.spec.namespaces.donors = Donors {
        network: Some("a".to_owned()),
        pid: Some("b".to_owned()),
        ipc: Some("c".to_owned()),
    };
    let linux = case.config()["linux"].clone();
    let namespaces = linux["namespaces"].as_array().unwrap();
    for (kind, path) in [
        ("network", "/proc/1/fd/8"),
        ("pid", "/proc/1/fd/9"),
        ("ipc", "/proc/1/fd/7"),
    ] {
        let wanted = json!({"type": kind, "path": path});
        assert!(namespaces.contains(&wanted), "{namespaces:?}");
    }
    assert_eq!(namespaces.len(), 6);
    // Only the owner of a network namespace may set its parameters.
    assert_eq!(linux["sysctl"], json!({}));
    let config = case.config();
    let mounts = config["mounts"].as_array().unwrap();
    let memory = mounts
        .iter()
        .find(|mount| mount["destination"] == "/dev/shm");
    assert_eq!(memory.unwrap()["source"], "/r/shm");
}

#[test]
fn user_namespaces() {
    let mut case = Case::default();
    case.spec.namespaces.users = Some(UserRange {
        base: 100_000,
        size: 65_536,
    });
    let config = case.config();
    assert_eq!(kinds(&config)[0], "user");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let linux = &config["linux"];
    assert_eq!((&linux["uidMappings"], &linux["gidMappings"]), (&map, &map));
    assert_eq!(linux["sysctl"]["net.ipv4.ping_group_range"], "0 65535");
    // The engine's own files are mounted with the same mappings.
    let options = |config: &Value| {
        let mounts = config["mounts"].as_array().unwrap().clone();
        let volume = mounts
            .into_iter()
            .find(|mount| mount["destination"] == "/data");
        volume.unwrap()["options"].to_string()
    };
    assert!(options(&config).contains("idmap"), "{config}");
    assert!(!options(&Case::default().config()).contains("idmap"));
    case.spec.namespaces.donors.network = Some("a".to_owned());
    let namespaces = case.config()["linux"]["namespaces"].clone();
    assert_eq!(
        namespaces[0],
        json!({"type": "user", "path": "/proc/1/fd/6"})
    );
}

#[test]
fn rules_for_devices_come_last() {
    let mut case = Case::default();
    case.spec.device_rules = vec![DeviceRule {
        kind: DeviceKind::Character,
        major: Some(42),
        minor: None,
        access: DeviceAccess {
            read: true,
            ..DeviceAccess::default()
        },
    }];
    let config = case.config();
    let rules = config["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(
        rules.last().unwrap(),
        &json!({"allow": true, "type": "c", "major": 42, "minor": null, "access": "r"})
    );
}

#[test]
fn a_mount_that_was_asked_for_replaces_a_default_one() {
    let mut case = Case::default();
    let bind = BindMount {
        source: "/my/hosts".into(),
        create_source: false,
        recursive: true,
        read_only: ReadOnly::Recursive,
        propagation: Propagation::RecursivePrivate,
        mapped: false,
    };
    case.spec.mounts = vec![
        MountSpec {
            target: "/dev/shm".into(),
            kind: MountKind::Tmpfs(TmpfsMount::default()),
        },
        MountSpec {
            target: "/etc/hosts".into(),
            kind: MountKind::Bind(bind),
        },
    ];
    let spec = case.config();
    let list = destinations(&spec);
    for path in ["/dev/shm", "/etc/hosts"] {
        assert_eq!(
            list.iter().filter(|other| **other == path).count(),
            1,
            "{path}"
        );
    }
    assert_eq!(spec["linux"]["rootfsPropagation"], "rprivate");
}

#[test]
fn terminals_devices_and_limits() {
    let mut case = Case::default();
    case.spec.process.terminal = Some(TerminalSpec {
        size: Some((24, 80)),
    });
    case.spec.limits.pids = PidsLimit::AtMost(5);
    case.devices = vec![DeviceNode {
        path: "/dev/x".to_owned(),
        kind: 'c',
        major: 10,
        minor: 200,
        mode: 0o600,
        uid: 0,
        gid: 0,
        access: keelson_model::spec::DeviceAccess {
            read: true,
            write: true,
            make_node: false,
        },
    }];
    let spec = case.config();
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(
        spec["process"]["consoleSize"],
        json!({"height": 24, "width": 80})
    );
    assert!(
        spec["process"]["env"]
            .as_array()
            .unwrap()
            .contains(&json!("TERM=xterm"))
    );
    assert_eq!(spec["linux"]["resources"]["pids"]["limit"], 5);
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules.last().unwrap()["access"], "rw");
    assert_eq!(spec["linux"]["devices"][0]["minor"], 200);
}

#[test]
fn environment_entries_replace_and_remove() {
    let mut environment = vec!["A=1".to_owned(), "B=2".to_owned()];
    let from = ["B=3", "C=4", "A", "D"].map(str::to_owned);
    merge_environment(&mut environment, &from);
    assert_eq!(environment, ["B=3", "C=4"]);
}

#[test]
fn without_ipc_there_is_no_shared_memory() {
    let shm = |mode| {
        let mut case = Case::default();
        case.spec.namespaces.ipc = mode;
        let config = case.config();
        let own = kinds(&config).contains(&"ipc");
        (own, destinations(&config).contains(&"/dev/shm"))
    };
    assert_eq!(shm(IpcMode::Private), (true, true));
    assert_eq!(shm(IpcMode::Shareable), (true, true));
    assert_eq!(shm(IpcMode::None), (true, false));
    assert_eq!(shm(IpcMode::Host), (false, true));
}
