use std::collections::BTreeMap;
use std::sync::LazyLock;

use keelson_model::error::ErrorKind;
use keelson_model::json::Json;
use keelson_model::spec::{
    CapabilitySet, Confinement, Hiding, HostName, Limits, LogMarks, LogSpec, NetworkMode,
    RestartPolicy, Stdin, SystemCallFilter,
};
use keelson_model::users::UserRange;
use serde_json::{Value, json};

use super::complete::Completed;
use super::*;
use crate::wire::{Config, HostConfig};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn facts() -> HostFacts {
    HostFacts {
        controllers: ["memory", "cpu", "cpuset", "pids"]
            .map(str::to_owned)
            .into(),
        cpus: 2,
        capabilities: (1 << 41) - 1,
        cgroup_mount: None,
        thermal: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()],
        ..HostFacts::default()
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

fn root() -> RootSpec {
    RootSpec::Image {
        id: "sha256:0".to_owned(),
        name: "box".to_owned(),
        read_only: false,
    }
}

static RUNTIMES: LazyLock<Runtimes> =
    LazyLock::new(|| Runtimes::new(Path::new("/usr/bin/keelson-runtime"), &BTreeMap::new()));

fn ground(facts: &HostFacts) -> Ground<'_> {
    Ground {
        facts,
        engine: Path::new("/var/lib/keelson"),
        machine: "machine",
        runtimes: &RUNTIMES,
        default_network: "bridge",
        init: false,
        users: None,
    }
}

fn read(value: &Value) -> CreateBody {
    CreateBody::read(Json::parse(value.to_string().as_bytes()).unwrap()).unwrap()
}

/// The whole way.
fn body(value: Value) -> Result<Understood, ApiError> {
    understand(ID, read(&value), root(), Some(&image()), ground(&facts()))
}

/// What is shown.
fn completed(value: Value) -> Result<Completed, ApiError> {
    body(value.clone())?;
    complete::complete(ID, read(&value), Some(&image()), ground(&facts()))
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
    let completed = completed(from_docker()).unwrap();
    assert_eq!(completed.command, "/entry");
    assert_eq!(completed.args, ["default"]);
    assert_eq!(completed.config.hostname, "0123456789ab");
    assert_eq!(completed.config.working_dir, "/srv");
    assert_eq!(completed.host.network_mode, "bridge");
    assert_eq!(completed.host.shm_size, 64 << 20);
    assert!(completed.warnings.is_empty(), "{:?}", completed.warnings);
}

#[test]
fn what_inspect_shows_can_be_created_again() {
    let first = body(from_docker()).unwrap();
    let again = CreateBody {
        config: serde_json::from_str(&first.shown.config).unwrap(),
        host_config: serde_json::from_str(&first.shown.host).unwrap(),
        ..CreateBody::default()
    };
    let again = understand(ID, again, root(), Some(&image()), ground(&facts())).unwrap();
    assert_eq!(again, first);
}

#[test]
fn the_default_is_confined() {
    let spec = body(from_docker()).unwrap().spec;
    let security = &spec.security;
    assert_eq!(security.confinement, Confinement::Confined);
    assert_eq!(security.system_calls, SystemCallFilter::BuiltIn);
    let mut hiding = Hiding::usual();
    hiding.masked.extend(facts().thermal);
    assert_eq!(security.hiding, hiding);
    assert!(
        matches!(&security.capabilities, CapabilitySet::Only(names) if names.len() == 14),
        "{security:?}"
    );
    assert_eq!(spec.namespaces.network, NetworkMode::Bridge);
    let privileged = body(json!({"HostConfig": {"Privileged": true}})).unwrap();
    let security = privileged.spec.security;
    assert_eq!(security.confinement, Confinement::Privileged);
    assert_eq!(security.capabilities, CapabilitySet::All);
    assert_eq!(security.system_calls, SystemCallFilter::Unconfined);
    assert_eq!(security.hiding, Hiding::default());
    let open = json!({"HostConfig": {"SecurityOpt": ["systempaths=unconfined"]}});
    assert_eq!(body(open).unwrap().spec.security.hiding, Hiding::default());
}

#[test]
fn what_was_kept_in_docker_s_words_is_read_as_the_request_was() {
    for value in [
        from_docker(),
        json!({"HostConfig": {"Privileged": true, "NetworkMode": "host"}, "Tty": true}),
        json!({"Hostname": "ship", "StopTimeout": -1, "Volumes": {"/v": {}}, "HostConfig": {
            "Binds": ["/a:/b:ro", "/var/lib/keelson:/c"], "Tmpfs": {"/t": "ro,size=1m"},
            "Memory": 64 << 20, "CapAdd": ["NET_ADMIN"], "CapDrop": ["KILL"],
            "Devices": [{"PathOnHost": "/dev/null"}], "Ulimits": [{"Name": "nofile"}],
            "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": true,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 4},
            "LogConfig": {"Config": {"max-size": "1m"}}, "ExtraHosts": ["db:1.2.3.4"]}}),
    ] {
        let kept = body(value).unwrap();
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let process = &kept.spec.process;
        let old = hostd_containers::OldDocument {
            id: ID,
            root: root(),
            command: (&process.command, &process.args),
            config: &json(&kept.shown.config),
            host_config: &json(&kept.shown.host),
            // Changes of the host are checked at the next start.
            facts: &HostFacts::default(),
            engine: Path::new("/var/lib/keelson"),
        };
        // Volumes of those releases ended with their container, so they stay in its files.
        let mut expected = kept.spec.clone();
        let volumes = std::mem::take(&mut expected.volumes);
        expected.anonymous_volumes = volumes.into_iter().map(|mount| mount.target).collect();
        assert_eq!(read_old(&old).unwrap(), expected);
    }
}

/// Documents that the first release wrote. Each is readable, valid, and holds what the client asked
/// for.
#[test]
fn documents_of_the_first_release_are_read() {
    let mut seen = 0;
    for (name, text) in [
        ("plain", include_str!("../../tests/golden/plain.1.json")),
        ("binds", include_str!("../../tests/golden/binds.1.json")),
        ("tmpfs", include_str!("../../tests/golden/tmpfs.1.json")),
        ("devices", include_str!("../../tests/golden/devices.1.json")),
        ("limits", include_str!("../../tests/golden/limits.1.json")),
        (
            "security",
            include_str!("../../tests/golden/security.1.json"),
        ),
        (
            "privileged",
            include_str!("../../tests/golden/privileged.1.json"),
        ),
        (
            "restarts",
            include_str!("../../tests/golden/restarts.1.json"),
        ),
        ("always", include_str!("../../tests/golden/always.1.json")),
        ("service", include_str!("../../tests/golden/service.1.json")),
    ] {
        let document: Value = serde_json::from_str(text).unwrap();
        let word = |name: &str| document[name].as_str().unwrap();
        let args: Vec<String> = serde_json::from_value(document["args"].clone()).unwrap();
        let engine = Path::new("/var/lib/keelson");
        let spec = read_old(&hostd_containers::OldDocument {
            id: word("id"),
            root: match word("image_id") {
                "" => RootSpec::System {
                    path: word("image").into(),
                    lower: Vec::new(),
                    read_only: false,
                },
                id => RootSpec::Image {
                    id: id.to_owned(),
                    name: word("image").to_owned(),
                    read_only: false,
                },
            },
            command: (word("path"), &args),
            config: &document["config"],
            host_config: &document["host_config"],
            facts: &HostFacts::default(),
            engine,
        })
        .unwrap();
        check(&spec, engine).unwrap();
        if name != "service" {
            assert_eq!(spec.labels["of"], "image", "{name}");
            assert_eq!(spec.process.command, args_of(&document)[0], "{name}");
        }
        let security = &spec.security;
        let fits = match name {
            "plain" => {
                spec.names.hostname == HostName::OfContainer
                    && spec.anonymous_volumes == [Path::new("/vol")]
                    && security.hiding == Hiding::usual()
                    && spec.limits == Limits::default()
            }
            "binds" => spec.mounts.len() == 4 && spec.anonymous_volumes.len() == 2,
            "tmpfs" => {
                spec.root.read_only()
                    && spec.mounts.len() == 3
                    && spec.namespaces.network == NetworkMode::None
            }
            "devices" => spec.devices[0].target == Path::new("/dev/full2"),
            "limits" => {
                spec.limits.shm_size == 1 << 20
                    && spec.limits.rlimits[0].hard == 200
                    && spec.limits.memory.oom_score_adjustment == 500
                    && spec.stop.signal == Some(10)
                    && spec.log
                        == LogSpec::Files {
                            max_size: Some(1_000_000),
                            max_files: Some(3),
                            marks: LogMarks::default(),
                        }
            }
            "security" => {
                security.no_new_privileges
                    && security.hiding == Hiding::default()
                    && matches!(&security.system_calls, SystemCallFilter::Profile(_))
                    && matches!(&security.capabilities, CapabilitySet::Only(names)
                        if names.contains("NET_ADMIN") && !names.contains("KILL"))
            }
            "privileged" => {
                security.confinement == Confinement::Privileged
                    && spec.process.terminal.unwrap().size == Some((30, 90))
                    && spec.process.stdin == Stdin::OpenOnce
            }
            "restarts" => spec.restart == RestartPolicy::OnFailure { attempts: Some(2) },
            "always" => {
                spec.restart == RestartPolicy::Always
                    && spec.names.hostname == HostName::Given("ship".to_owned())
                    && spec.names.hosts[0].name == "db"
                    && spec.process.groups == ["33"]
            }
            "service" => {
                let only = CapabilitySet::Only(["SYS_TIME".to_owned()].into());
                spec.root.read_only()
                    && security.capabilities == only
                    && spec.mounts.len() == 3
                    && spec.devices.len() == 1
                    && spec.labels.contains_key("io.keelson.service.fingerprint")
            }
            other => panic!("{other}"),
        };
        assert!(fits, "{name}: {spec:#?}");
        seen += 1;
    }
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    assert_eq!(files.unwrap().count(), seen);
}

/// The command as the client wrote it.
fn args_of(document: &Value) -> Vec<String> {
    serde_json::from_value(document["config"]["Cmd"].clone()).unwrap()
}

#[test]
fn entry_point_and_command() {
    let words = |value: Value| {
        let process = body(value).unwrap().spec.process;
        let mut words = vec![process.command];
        words.extend(process.args);
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
    let asked = json!({"Env": ["A=client", "B=new", "PATH"]});
    assert_eq!(
        completed(asked.clone()).unwrap().config.env,
        ["A=client", "B=new", "PATH"]
    );
    let env = body(asked).unwrap().spec.process.env;
    assert_eq!(env, ["A=client", "B=new", "PATH"]);
}

#[test]
fn a_user_namespace_excludes_namespaces_of_the_host() {
    let users = Some(UserRange {
        base: 100_000,
        size: 65_536,
    });
    let asked = |host: Value| {
        let body = read(&json!({"HostConfig": host}));
        let facts = facts();
        let ground = Ground {
            users,
            ..ground(&facts)
        };
        understand(ID, body, root(), Some(&image()), ground)
    };
    assert_eq!(asked(json!({})).unwrap().spec.namespaces.users, users);
    for (host, words) in [
        (
            json!({"Privileged": true}),
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        ),
        (
            json!({"NetworkMode": "host"}),
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (
            json!({"PidMode": "host"}),
            "cannot share the host PID namespace when user namespaces are enabled",
        ),
    ] {
        let error = asked(host.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), words);
        let mut of_host = host;
        of_host["UsernsMode"] = json!("host");
        assert_eq!(asked(of_host).unwrap().spec.namespaces.users, None);
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let error = body(json!({"HostConfig": {"Cgroup": "x"}})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotImplemented);
    assert!(error.to_string().contains("Cgroup"), "{error}");
}

#[test]
fn networks_and_ports() {
    let Understood {
        spec,
        shown,
        warnings,
    } = body(json!({
        "HostConfig": {"NetworkMode": "mine", "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
    }))
    .unwrap();
    assert_eq!(spec.connections.unwrap()[0].network, "mine");
    assert_eq!(spec.published_ports.len(), 1);
    let exposed: Vec<_> = spec.exposed_ports.iter().map(|port| port.number).collect();
    assert!(exposed.contains(&80), "{exposed:?}");
    assert!(shown.host.contains("8080") && warnings.is_empty());
    let of_host = body(json!({
        "HostConfig": {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
    }))
    .unwrap();
    assert_eq!(of_host.spec.published_ports, []);
    assert_eq!(
        of_host.warnings,
        ["Published ports are discarded when using host network mode"]
    );
}

#[test]
fn devices_that_vendors_describe() {
    let asked = |request: serde_json::Value| {
        let asked = body(json!({"HostConfig": {"DeviceRequests": [request]}}));
        asked.map(|understood| understood.spec.described_devices)
    };
    let names = json!({"Driver": "cdi", "DeviceIDs": ["v.com/c=a", "v.com/c=b"]});
    assert_eq!(asked(names).unwrap(), ["v.com/c=a", "v.com/c=b"]);
    for (request, words) in [
        (
            json!({"Count": -1, "Capabilities": [["gpu"]]}),
            "could not select device driver \"\" with capabilities: [[gpu]]",
        ),
        (
            json!({"Driver": "cdi", "Count": 1}),
            "unexpected count in CDI device request",
        ),
        (
            json!({"Driver": "cdi", "Options": {"a": "b"}}),
            "unexpected options in CDI device request",
        ),
    ] {
        let error = asked(request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), words);
    }
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
        json!({"HostConfig": {"PidMode": "mine"}}),
        json!({"HostConfig": {"DeviceCgroupRules": ["x"]}}),
        json!({"HostConfig": {"StorageOpt": {"size": "1g"}}}),
        json!({"HostConfig": {"Annotations": {"io.keelson.seccomp": "default"}}}),
        json!({"HostConfig": {"Annotations": {"": "x"}}}),
        json!({"HostConfig": {"CgroupnsMode": "mine"}}),
    ] {
        let error = body(value.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{value}: {error}");
    }
}

#[test]
fn volumes_and_health_checks_of_the_image_are_used() {
    let mut image = image();
    image.volumes = Some([("/data/".to_owned(), json!({}))].into());
    image.healthcheck = Some(json!({"Test": ["CMD", "true"]}));
    let asked = CreateBody {
        config: Config::default(),
        host_config: HostConfig {
            network_mode: "none".to_owned(),
            ..HostConfig::default()
        },
        ..CreateBody::default()
    };
    let understood = understand(ID, asked, root(), Some(&image), ground(&facts())).unwrap();
    let volume = &understood.spec.volumes[0];
    assert!(volume.anonymous && volume.target == Path::new("/data"));
    let check = understood.spec.health.as_ref().unwrap();
    assert_eq!(check.command, ["true"]);
    // Clients see the complete check.
    assert!(understood.shown.config.contains("Healthcheck"));
    assert!(understood.warnings.is_empty());
}

#[test]
fn host_names() {
    let name = |value| completed(value).map(|completed| completed.config.hostname);
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
    let spec = |value| body(value).unwrap().spec.names.hostname;
    assert_eq!(spec(json!({"Image": "x"})), HostName::OfContainer);
    let machine = HostName::Given("machine".to_owned());
    assert_eq!(spec(with("NetworkMode", "host")), machine);
}

#[test]
fn one_runtime_by_many_names_and_one_kind_of_log() {
    let names = RUNTIMES.render();
    for runtime in names.keys().map(String::as_str).chain([""]) {
        let asked = json!({"Image": "x", "HostConfig": {"Runtime": runtime}});
        let completed = completed(asked).unwrap();
        let wanted = if runtime.is_empty() {
            "keelson"
        } else {
            runtime
        };
        assert_eq!(completed.host.runtime, wanted);
        assert_eq!(completed.host.log_config.r#type, "json-file");
    }
    assert!(body(json!({"Image": "x", "HostConfig": {"Runtime": "runsc"}})).is_err());
}

#[test]
fn working_directories_are_normalised() {
    for (given, kept) in [
        ("/a/../b//c/./", "/b/c"),
        ("/", "/"),
        ("//..", "/"),
        ("", "/srv"),
    ] {
        let completed = completed(json!({"Image": "x", "WorkingDir": given})).unwrap();
        assert_eq!(completed.config.working_dir, kept);
    }
    assert!(body(json!({"Image": "x", "WorkingDir": "a/b"})).is_err());
}

#[test]
fn thermal_throttling_of_processors_is_hidden() {
    let masked = |host: Value| {
        let completed = completed(json!({"Cmd": ["x"], "HostConfig": host})).unwrap();
        completed.host.masked_paths.unwrap()
    };
    let thermal = "/sys/devices/system/cpu/cpu0/thermal_throttle".to_owned();
    assert!(masked(json!({})).contains(&thermal));
    assert!(masked(json!({})).contains(&"/proc/interrupts".to_owned()));
    assert_eq!(masked(json!({"MaskedPaths": ["/x"]})), ["/x"]);
}
