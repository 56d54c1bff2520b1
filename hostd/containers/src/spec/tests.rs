use std::path::PathBuf;

use super::*;

const FULL: u64 = (1 << 41) - 1;

struct Case {
    config: Config,
    host: HostConfig,
    user: User,
    devices: Vec<DeviceNode>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            config: Config {
                hostname: "0123456789ab".to_owned(),
                ..Config::default()
            },
            host: HostConfig {
                network_mode: "none".to_owned(),
                masked_paths: Some(MASKED_PATHS.map(str::to_owned).into()),
                readonly_paths: Some(READONLY_PATHS.map(str::to_owned).into()),
                ..HostConfig::default()
            },
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
    fn spec(&self) -> Value {
        let mounts = mounts::parse(&self.host).unwrap();
        build(&Input {
            config: &self.config,
            host: &self.host,
            args: &["sh".to_owned()],
            user: &self.user,
            files: HostFiles {
                hostname: Path::new("/r/hostname"),
                hosts: Path::new("/r/hosts"),
                resolv_conf: Path::new("/r/resolv.conf"),
            },
            mounts: &mounts,
            volumes: &[(PathBuf::from("/r/volume"), "/data".to_owned())],
            devices: &self.devices,
            cgroup: "/keelson/user/x",
            facts: &HostFacts {
                capabilities: FULL,
                ..HostFacts::default()
            },
        })
        .unwrap()
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
    let spec = Case::default().spec();
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
        14
    );
    assert_eq!(
        process["capabilities"]["effective"]
            .as_array()
            .unwrap()
            .len(),
        14
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
    case.host.privileged = true;
    let spec = case.spec();
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
    let capabilities = case.spec()["process"]["capabilities"].clone();
    assert_eq!(capabilities["effective"], json!([]));
    assert_eq!(capabilities["bounding"].as_array().unwrap().len(), 14);
}

#[test]
fn the_host_s_namespaces() {
    let mut case = Case::default();
    case.host.network_mode = "host".to_owned();
    case.host.ipc_mode = "host".to_owned();
    case.host.uts_mode = "host".to_owned();
    case.host.cgroupns_mode = "host".to_owned();
    let spec = case.spec();
    assert_eq!(kinds(&spec), ["mount", "pid"]);
    assert_eq!(spec["linux"]["sysctl"], json!({}));
    assert_eq!(spec["hostname"], "");
}

#[test]
fn a_client_s_mount_replaces_a_default_one() {
    let mut case = Case::default();
    case.host.tmpfs = [("/dev/shm".to_owned(), "size=1m".to_owned())].into();
    case.host.binds = Some(vec!["/my/hosts:/etc/hosts:ro".to_owned()]);
    let spec = case.spec();
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
    case.config.tty = true;
    case.host.console_size = [24, 80];
    case.host.pids_limit = Some(5);
    case.devices = vec![DeviceNode {
        path: "/dev/x".to_owned(),
        kind: 'c',
        major: 10,
        minor: 200,
        mode: 0o600,
        uid: 0,
        gid: 0,
        access: "rw".to_owned(),
    }];
    let spec = case.spec();
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
    let shm = |mode: &str| {
        let mut case = Case::default();
        mode.clone_into(&mut case.host.ipc_mode);
        let spec = case.spec();
        let own = kinds(&spec).contains(&"ipc");
        (own, destinations(&spec).contains(&"/dev/shm"))
    };
    assert_eq!(shm("private"), (true, true));
    assert_eq!(shm("shareable"), (true, true));
    assert_eq!(shm("none"), (true, false));
    assert_eq!(shm("host"), (false, true));
}
