use serde_json::json;

use super::*;

fn plain() -> ContainerSpec {
    let root = RootSpec::Image {
        id: "sha256:0".to_owned(),
        name: "box".to_owned(),
        read_only: false,
    };
    ContainerSpec::new(root, "sh")
}

#[test]
fn default_members_are_left_out_and_read_again() {
    let spec = plain();
    let written = json!(spec);
    let names: Vec<_> = written.as_object().unwrap().keys().collect();
    assert_eq!(names, ["namespaces", "process", "root", "security"]);
    assert_eq!(
        serde_json::from_value::<ContainerSpec>(written).unwrap(),
        spec
    );
}

#[test]
fn other_members_are_read_again() {
    let mut spec = plain();
    spec.process.terminal = Some(TerminalSpec {
        size: Some((24, 80)),
    });
    spec.process.stdin = Stdin::OpenOnce;
    spec.names.hostname = HostName::Given("ship".to_owned());
    spec.names.dns_servers = vec!["::1".parse().unwrap()];
    spec.mounts = vec![MountSpec {
        target: "/t".into(),
        kind: MountKind::Tmpfs(TmpfsMount {
            options: vec!["nodev".to_owned()],
            read_only: true,
        }),
    }];
    spec.exposed_ports = BTreeSet::from([Port {
        number: 53,
        protocol: Protocol::Udp,
    }]);
    spec.security.capabilities = CapabilitySet::All;
    spec.security.system_calls = SystemCallFilter::Profile(json!({"a": 1}));
    spec.limits.memory.swap = MemorySwap::Together(9);
    spec.limits.pids = PidsLimit::Unlimited;
    spec.limits.shm_size = 1;
    spec.log = LogSpec::Files {
        max_size: Some(u64::MAX),
        max_files: None,
        marks: LogMarks::default(),
    };
    spec.restart = RestartPolicy::OnFailure { attempts: None };
    spec.stop = StopSpec {
        signal: Some(2),
        patience: Patience::For(Duration::from_millis(1500)),
    };
    let text = json!(spec).to_string();
    assert_eq!(serde_json::from_str::<ContainerSpec>(&text).unwrap(), spec);
}
