use keelson_model::container::{CreateBody, RestartPolicy};
use keelson_model::error::ErrorKind;
use keelson_model::json::Json;
use serde_json::{Value, json};

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const NAMES: HostNames<'_> = HostNames {
    own: ID.split_at(12).0,
    machine: "machine",
};

fn facts() -> HostFacts {
    HostFacts {
        controllers: ["memory", "cpu", "cpuset", "pids"]
            .map(str::to_owned)
            .into(),
        cpus: 2,
        capabilities: (1 << 41) - 1,
        cgroup_mount: None,
    }
}

fn image() -> ContainerDefaults {
    ContainerDefaults {
        env: Some(vec!["PATH=/bin".to_owned(), "A=image".to_owned()]),
        entrypoint: Some(vec!["/entry".to_owned()]),
        cmd: Some(vec!["default".to_owned()]),
        working_dir: "/srv".to_owned(),
        stop_signal: Some("SIGQUIT".to_owned()),
        ..ContainerDefaults::default()
    }
}

fn body(value: Value) -> Result<Completed, EngineError> {
    let document = Json::parse(value.to_string().as_bytes()).unwrap();
    let body = CreateBody::read(document).unwrap();
    complete(
        NAMES,
        body.config,
        body.host_config,
        &body.networking_config,
        Some(&image()),
        &facts(),
        &EngineConfig::default(),
    )
}

/// What docker 26 sends for `docker run busybox`, shortened to the members with values.
fn from_docker() -> Value {
    let text = r#"{
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true,
        "AttachStderr": true, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": [],
        "Cmd": null, "Image": "busybox", "Volumes": {}, "WorkingDir": "", "Entrypoint": null,
        "OnBuild": null, "Labels": {},
        "HostConfig": {
            "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}},
            "NetworkMode": "default", "PortBindings": {},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
            "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [50, 180], "CapAdd": null,
            "CapDrop": null, "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [],
            "ExtraHosts": null, "GroupAdd": null, "IpcMode": "", "Cgroup": "", "Links": null,
            "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
            "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
            "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
            "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
            "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [],
            "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
            "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
            "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0,
            "MemorySwap": 0, "MemorySwappiness": -1, "OomKillDisable": false, "PidsLimit": 0,
            "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
            "IOMaximumBandwidth": 0, "MaskedPaths": null, "ReadonlyPaths": null
        },
        "NetworkingConfig": {"EndpointsConfig": {"default": {
            "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "",
            "DriverOpts": null, "GwPriority": 0, "NetworkID": "", "EndpointID": "",
            "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "DNSNames": null
        }}}
    }"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_docker_sends_by_default_passes() {
    let completed = body(from_docker()).unwrap();
    assert_eq!(completed.path, "/entry");
    assert_eq!(completed.args, ["default"]);
    assert_eq!(completed.config.hostname, "0123456789ab");
    assert_eq!(completed.config.working_dir, "/srv");
    assert_eq!(completed.host.network_mode, "bridge");
    assert_eq!(completed.host.shm_size, 64 << 20);
    assert_eq!(completed.warnings.len(), 1, "{:?}", completed.warnings);
    assert!(completed.warnings[0].contains("loopback only"));
}

#[test]
fn what_inspect_shows_can_be_created_again() {
    let first = body(from_docker()).unwrap();
    let again = complete(
        NAMES,
        first.config.clone(),
        first.host.clone(),
        &NetworkingConfig::default(),
        Some(&image()),
        &facts(),
        &EngineConfig::default(),
    )
    .unwrap();
    assert_eq!(again, first);
}

#[test]
fn entry_point_and_command() {
    let words = |value: Value| {
        let completed = body(value).unwrap();
        let mut words = vec![completed.path];
        words.extend(completed.args);
        words
    };
    assert_eq!(words(json!({"Cmd": ["x"]})), ["/entry", "x"]);
    assert_eq!(words(json!({"Entrypoint": ["/e"]})), ["/e"]);
    assert_eq!(
        words(json!({"Entrypoint": ["/e"], "Cmd": ["x"]})),
        ["/e", "x"]
    );
    assert_eq!(words(json!({"Entrypoint": [""], "Cmd": ["x"]})), ["x"]);
    assert_eq!(words(json!({"Entrypoint": [], "Cmd": ["x"]})), ["x"]);
    let error = body(json!({"Entrypoint": [""]})).unwrap_err();
    assert_eq!(error.to_string(), "no command specified");
}

#[test]
fn the_client_s_environment_wins() {
    let completed = body(json!({"Env": ["A=client", "B=new", "PATH"]})).unwrap();
    assert_eq!(completed.config.env, ["A=client", "B=new", "PATH"]);
    let environment = spec::environment(&completed.config, "/");
    assert!(!environment.iter().any(|entry| entry.starts_with("PATH")));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (option, value) in [
        ("PortBindings", json!({"80/tcp": [{"HostPort": "8080"}]})),
        ("PublishAllPorts", json!(true)),
        ("PidMode", json!("host")),
        ("UsernsMode", json!("keep-id")),
        ("NetworkMode", json!("mine")),
        ("NetworkMode", json!("container:x")),
        ("IpcMode", json!("container:x")),
        ("DeviceRequests", json!([{"Driver": "nvidia"}])),
        ("Init", json!(true)),
        ("MemorySwappiness", json!(60)),
        ("OomKillDisable", json!(true)),
        ("BlkioWeight", json!(100)),
        ("StorageOpt", json!({"size": "1g"})),
        ("Links", json!(["a"])),
        ("VolumesFrom", json!(["a"])),
        ("KernelMemory", json!(1 << 30)),
    ] {
        let error = body(json!({"HostConfig": {option: value}})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotImplemented, "{option}");
        assert!(error.to_string().contains(option), "{error}");
    }
    for value in [
        json!({"Healthcheck": {"Test": ["CMD", "true"]}}),
        json!({"MacAddress": "02:00:00:00:00:01"}),
        json!({"NetworkingConfig": {"EndpointsConfig": {"other": {}}}}),
        json!({"NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["a"]}}}}),
        json!({"HostConfig": {"LogConfig": {"Type": "syslog"}}}),
        json!({"HostConfig": {"LogConfig": {"Config": {"labels": "a"}}}}),
        json!({"HostConfig": {"Binds": ["named:/data"]}}),
    ] {
        let error = body(value.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotImplemented, "{value}: {error}");
    }
    body(json!({"Healthcheck": {"Test": ["NONE"]}})).unwrap();
}

#[test]
fn bad_values_are_invalid_input() {
    for value in [
        json!({"Hostname": "-a"}),
        json!({"Hostname": "a b"}),
        json!({"Env": ["=x"]}),
        json!({"WorkingDir": "relative"}),
        json!({"StopSignal": "SIGNOPE"}),
        json!({"HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}),
        json!({"HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}}),
        json!({"HostConfig": {"RestartPolicy": {"Name": "always"}, "AutoRemove": true}}),
        json!({"HostConfig": {"Sysctls": {"kernel.panic": "1"}}}),
        json!({"HostConfig": {"Sysctls": {"net.ipv4.x": "1"}, "NetworkMode": "host"}}),
        json!({"HostConfig": {"Runtime": "runsc"}}),
        json!({"HostConfig": {"Dns": ["example"]}}),
        json!({"HostConfig": {"ExtraHosts": ["nocolon"]}}),
        json!({"HostConfig": {"ShmSize": -1}}),
        json!({"HostConfig": {"LogConfig": {"Config": {"max-size": "lots"}}}}),
        json!({"HostConfig": {"CapAdd": ["NOPE"]}}),
        json!({"HostConfig": {"LogConfig": {"Type": "mine"}}}),
        json!({"HostConfig": {"UTSMode": "mine"}}),
        json!({"HostConfig": {"IpcMode": "mine"}}),
        json!({"HostConfig": {"Annotations": {"io.keelson.seccomp": "default"}}}),
        json!({"HostConfig": {"Annotations": {"": "x"}}}),
        json!({"HostConfig": {"CgroupnsMode": "mine"}}),
    ] {
        let error = body(value.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{value}: {error}");
    }
}

#[test]
fn volumes_and_health_checks_of_the_image_are_warnings() {
    let mut image = image();
    image.volumes = Some([("/data/".to_owned(), json!({}))].into());
    image.healthcheck = Some(json!({"Test": ["CMD", "true"]}));
    let completed = complete(
        NAMES,
        Config::default(),
        HostConfig {
            network_mode: "none".to_owned(),
            restart_policy: RestartPolicy::default(),
            ..HostConfig::default()
        },
        &NetworkingConfig::default(),
        Some(&image),
        &facts(),
        &EngineConfig::default(),
    )
    .unwrap();
    assert_eq!(completed.volumes, ["/data"]);
    assert_eq!(completed.warnings.len(), 2);
}

#[test]
fn host_names() {
    let name = |value| body(value).map(|completed| completed.config.hostname);
    let with = |mode: &str, value: &str| json!({"Image": "x", "HostConfig": {mode: value}});
    assert_eq!(name(with("NetworkMode", "none")).unwrap(), ID[..12]);
    assert_eq!(name(with("NetworkMode", "host")).unwrap(), "machine");
    assert_eq!(name(with("UTSMode", "host")).unwrap(), "machine");
    let mut given = with("NetworkMode", "host");
    given["Hostname"] = json!("mine");
    assert_eq!(name(given).unwrap(), "mine");
    let mut given = with("UTSMode", "host");
    given["Hostname"] = json!("mine");
    let error = name(given).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        error.to_string(),
        "conflicting options: hostname and the UTS mode"
    );
}

#[test]
fn one_runtime_by_many_names_and_one_kind_of_log() {
    for runtime in crate::RUNTIMES.iter().chain(&[""]) {
        let completed = body(json!({"Image": "x", "HostConfig": {"Runtime": runtime}})).unwrap();
        let wanted = if runtime.is_empty() {
            "keelson"
        } else {
            runtime
        };
        assert_eq!(completed.host.runtime, wanted);
        assert_eq!(completed.host.log_config.r#type, "local");
    }
    assert!(body(json!({"Image": "x", "HostConfig": {"Runtime": "runsc"}})).is_err());
    let completed =
        body(json!({"Image": "x", "HostConfig": {"LogConfig": {"Type": "json-file"}}})).unwrap();
    let told = completed
        .warnings
        .iter()
        .any(|text| text.contains("json-file"));
    assert!(told, "{:?}", completed.warnings);
}

#[test]
fn working_directories_are_normalised() {
    for (given, kept) in [
        ("/a/../b//c/./", "/b/c"),
        ("/", "/"),
        ("//..", "/"),
        ("", "/srv"),
    ] {
        let completed = body(json!({"Image": "x", "WorkingDir": given})).unwrap();
        assert_eq!(completed.config.working_dir, kept);
    }
    assert!(body(json!({"Image": "x", "WorkingDir": "a/b"})).is_err());
}
