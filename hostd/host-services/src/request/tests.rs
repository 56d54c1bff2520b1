use keelson_model::spec::{Confinement, Propagation, RootSpec};

use super::*;

const TEXT: &str = r#"
    description = "time"
    command = ["/bin/d", "-n"]
    environment = { A = "b" }
    network = "host"
    capabilities = ["CAP_SYS_TIME"]
    devices = ["/dev/there", "/dev/absent"]
    apparmor = "own"
    [[mounts]]
    source = "{state}/data"
    target = "/data"
    writable = true
    [[mounts]]
    source = "/absent"
    target = "/x"
    optional = true
    [resources]
    memory = 8000000
    pids = 5
    millicpus = 250
    [health]
    command = ["/bin/ok"]
    interval = 7
    [log]
    max_files = 2
"#;

fn image() -> ServiceImage {
    ServiceImage {
        root: RootSpec::System {
            path: "/usr/r.erofs".into(),
            lower: vec!["/usr/base.erofs".into()],
            read_only: true,
        },
        command: vec!["/bin/usual".to_owned()],
        environment: vec!["A=a".to_owned(), "B=b".to_owned()],
        user: String::new(),
        working_directory: String::new(),
        fingerprint: 0,
    }
}

fn make(text: &str, exists: impl Fn(&str) -> bool) -> Result<ContainerSpec, DefinitionError> {
    let definition = Definition {
        config: toml::from_str(text).unwrap(),
        places: [("mounts".to_owned(), "/x.toml:3".to_owned())].into(),
    };
    let ground = Ground {
        image: &image(),
        state: Path::new("/var/s/time"),
        engine: Path::new("/var"),
        apparmor: true,
        fingerprint: "f",
    };
    container("time", &definition, ground, exists)
}

#[test]
fn a_service_has_what_it_lists_and_no_more() {
    let made = make(TEXT, |path| path == "/dev/there").unwrap();
    assert_eq!(made.root, image().root);
    assert_eq!(made.process.command, "/bin/d");
    assert_eq!(made.process.args, ["-n"]);
    assert_eq!(made.process.env, ["A=b", "B=b"]);
    let security = &made.security;
    assert_eq!(security.confinement, Confinement::Confined);
    assert!(security.no_new_privileges);
    assert_eq!(security.apparmor, AppArmor::Named("own".to_owned()));
    let only = CapabilitySet::Only(["SYS_TIME".to_owned()].into());
    assert_eq!(security.capabilities, only);
    assert_eq!(made.namespaces.network, NetworkMode::Host);
    assert_eq!(made.restart, RestartPolicy::Never);
    let targets: Vec<_> = made.mounts.iter().map(|mount| &mount.target).collect();
    assert_eq!(targets, ["/data", "/run", "/tmp"].map(Path::new).each_ref());
    let MountKind::Bind(bind) = &made.mounts[0].kind else {
        panic!("{:?}", made.mounts);
    };
    assert_eq!(bind.source, Path::new("/var/s/time/data"));
    assert_eq!(bind.read_only, ReadOnly::No);
    assert_eq!(bind.propagation, Propagation::RecursiveSlave);
    assert_eq!(made.devices.len(), 1);
    assert_eq!(made.limits.memory.limit, Some(8_000_000));
    assert_eq!(made.limits.pids, PidsLimit::AtMost(5));
    assert_eq!(made.limits.cpu.quota, Some(25_000));
    let health = made.health.as_ref().unwrap();
    assert_eq!(health.interval, Duration::from_secs(7));
    assert!(matches!(
        made.log,
        LogSpec::Files {
            max_files: Some(2),
            ..
        }
    ));
    hostd_containers::check(&made, Path::new("/var")).unwrap();
}

#[test]
fn the_image_says_what_the_configuration_does_not() {
    let made = make("", |_| true).unwrap();
    assert_eq!(made.process.command, "/bin/usual");
    assert_eq!(made.process.env, ["A=a", "B=b"]);
    assert_eq!(made.namespaces.network, NetworkMode::None);
    assert_eq!(made.limits.pids, PidsLimit::NotGiven);
    assert_eq!(made.security.apparmor, AppArmor::Usual);
    assert_eq!(
        made.security.capabilities,
        CapabilitySet::Only(BTreeSet::new())
    );
    hostd_containers::check(&made, Path::new("/var")).unwrap();
}

#[test]
fn what_is_wrong_is_named() {
    for (text, field) in [
        ("network = 'moon'", "services.time.network"),
        (
            "capabilities = ['CAP_FLY']",
            "services.time.capabilities[0]",
        ),
        (
            "[[mounts]]\nsource = '/absent'\ntarget = '/x'",
            "services.time.mounts[0].source",
        ),
        (
            "[[mounts]]\nsource = '/a'\ntarget = '/x'\ncreate = true\n\
             [[mounts]]\nsource = '/b'\ntarget = '/x'\ncreate = true",
            "services.time.mounts[1].target",
        ),
    ] {
        let error = make(text, |_| false).unwrap_err();
        assert_eq!(error.field, field);
        assert_eq!(error.place, "/x.toml:3");
        assert!(!error.message.is_empty() && !error.remedy.is_empty());
    }
}
