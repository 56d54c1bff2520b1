use keelson_model::spec::{BindMount, ReadOnly, Rlimit, RlimitKind, RootSpec, TmpfsMount};

use super::*;

const ENGINE: &str = "/var/lib/keelson";

fn spec(change: impl FnOnce(&mut ContainerSpec)) -> ContainerSpec {
    let root = RootSpec::Image {
        id: "sha256:0".to_owned(),
        name: "box".to_owned(),
        read_only: false,
    };
    let mut spec = ContainerSpec::new(root, "sh");
    change(&mut spec);
    spec
}

fn error(change: impl FnOnce(&mut ContainerSpec)) -> String {
    check(&spec(change), Path::new(ENGINE))
        .unwrap_err()
        .to_string()
}

fn tmpfs(target: &str) -> MountSpec {
    MountSpec {
        target: target.into(),
        kind: MountKind::Tmpfs(TmpfsMount::default()),
    }
}

fn bind(source: &str, propagation: Propagation) -> MountSpec {
    MountSpec {
        target: "/t".into(),
        kind: MountKind::Bind(BindMount {
            source: source.into(),
            create_source: false,
            recursive: true,
            read_only: ReadOnly::No,
            propagation,
            mapped: false,
        }),
    }
}

#[test]
fn the_plainest_container_is_sound() {
    check(&spec(|_| {}), Path::new(ENGINE)).unwrap();
}

#[test]
fn every_contradiction_is_named() {
    type Change = fn(&mut ContainerSpec);
    let cases: [(&str, Change); 26] = [
        ("no command", |s| s.process.command.clear()),
        ("zero byte", |s| s.process.args = vec!["a\0".to_owned()]),
        ("environment", |s| s.process.env = vec!["=x".to_owned()]),
        ("working directory", |s| {
            "a/b".clone_into(&mut s.process.working_directory);
        }),
        ("Env: ", |s| s.process.env = vec!["x".repeat(200_000)]),
        ("hostname", |s| {
            s.names.hostname = HostName::Given("a b".to_owned());
        }),
        ("domainname", |s| s.names.domain = "x".repeat(65)),
        ("DNS search", |s| s.names.dns_search = vec![String::new()]),
        ("clean absolute path", |s| s.mounts = vec![tmpfs("/a/../b")]),
        ("clean absolute path", |s| s.mounts = vec![tmpfs("/")]),
        ("clean absolute path", |s| s.mounts = vec![tmpfs("/a/")]),
        ("Duplicate mount point: /a", |s| {
            s.mounts = vec![tmpfs("/a"), tmpfs("/a")];
        }),
        ("hidden", |s| s.mounts = vec![tmpfs("/a/b"), tmpfs("/a")]),
        ("Duplicate mount point: /a", |s| {
            s.mounts = vec![tmpfs("/a")];
            s.anonymous_volumes = vec!["/a".into()];
        }),
        ("must be absolute", |s| {
            s.mounts = vec![bind("a", Propagation::RecursivePrivate)];
        }),
        ("6MB", |s| s.limits.memory.limit = Some(1 << 20)),
        ("Memoryswap", |s| {
            s.limits.memory.swap = MemorySwap::Together(1 << 30);
        }),
        ("oom", |s| s.limits.memory.oom_score_adjustment = 1001),
        ("period", |s| s.limits.cpu.period = Some(5)),
        ("cpuset mems", |s| {
            "3-1".clone_into(&mut s.limits.cpu.memory_nodes);
        }),
        ("/dev/shm", |s| s.limits.shm_size = 0),
        ("not in a namespace", |s| {
            s.sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
        }),
        ("host network", |s| {
            s.namespaces.network = NetworkMode::Host;
            s.sysctls = [("net.ipv4.x".to_owned(), "1".to_owned())].into();
        }),
        ("AutoRemove", |s| {
            s.auto_remove = true;
            s.restart = RestartPolicy::Always;
        }),
        ("invalid signal", |s| s.stop.signal = Some(32)),
        ("reserved", |s| {
            s.annotations = [("io.keelson.seccomp".to_owned(), String::new())].into();
        }),
    ];
    for (word, change) in cases {
        let message = error(change);
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn rlimits_are_ordered_and_given_once() {
    let limit = |soft, hard| Rlimit {
        kind: RlimitKind::Nofile,
        soft,
        hard,
    };
    let message = error(|s| s.limits.rlimits = vec![limit(u64::MAX, 5)]);
    assert!(message.ends_with("-1 > 5"), "{message}");
    let message = error(|s| s.limits.rlimits = vec![limit(1, 2), limit(1, 2)]);
    assert!(message.contains("given twice"), "{message}");
}

#[test]
fn the_engines_directory_is_not_bound_as_private() {
    for (source, propagation) in [
        ("/var", Propagation::Private),
        ("/var/lib/keelson/engine", Propagation::RecursivePrivate),
        ("/", Propagation::Shared),
    ] {
        let message = error(|s| s.mounts = vec![bind(source, propagation)]);
        assert!(message.contains("within the daemon root"), "{message}");
    }
    for (source, propagation) in [
        ("/var/lib/keelson2", Propagation::Private),
        ("/", Propagation::RecursiveSlave),
        ("/var/lib/keelson/engine", Propagation::RecursiveShared),
    ] {
        let fine = spec(|s| s.mounts = vec![bind(source, propagation)]);
        check(&fine, Path::new(ENGINE)).unwrap();
    }
}
