//! User namespaces: root in a container is nobody on the host, and the owners of files are right on
//! both sides.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::common::{Done, Host, is_root, wait_until};

/// A range that no other test and no ordinary machine uses.
pub(crate) const BASE: u32 = 700_000;
pub(crate) const ON: &str = "[engine.user_namespaces]\nenabled = true\nbase = 700000\n";

fn configure(host: &mut Host, text: &str) {
    let config = host.path().join("config/etc/keelson");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("host.toml"), text).unwrap();
    host.stop_daemon();
    host.start_daemon();
}

/// A host whose containers have user namespaces.
fn start() -> Option<Host> {
    if !is_root() {
        return None;
    }
    let mut host = Host::start();
    configure(&mut host, ON);
    host.load_busybox();
    Some(host)
}

fn run(host: &Host, more: &[&str], script: &str) -> Done {
    host.docker(&[&["run", "--rm"], more, &["busybox", "sh", "-c", script]].concat())
}

/// Runs a container until its script reports that it is up.
fn up(host: &Host, name: &str, more: &[&str], script: &str) {
    let script = format!("{script}; echo up; exec sleep 1000");
    let begin = ["run", "-d", "--name", name];
    let end = ["busybox", "sh", "-c", &script];
    host.docker(&[&begin[..], more, &end].concat()).ok();
    wait_until(name, || host.docker(&["logs", name]).stdout.contains("up"));
}

fn inspect(host: &Host, name: &str, format: &str) -> String {
    host.docker(&["inspect", "-f", format, name]).ok()
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (found.uid(), found.gid())
}

/// The writable layer of a container.
fn upper(host: &Host, name: &str) -> PathBuf {
    let id = inspect(host, name, "{{.Id}}");
    host.path()
        .join("root/engine/containers")
        .join(id)
        .join("upper")
}

/// Names and owners in the archive of a path.
fn copied(host: &Host, source: &str) -> Vec<(String, u64, u64)> {
    let copied = host.docker_command(&["cp", source, "-"]).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let mut copied = tar::Archive::new(&copied.stdout[..]);
    let entries = copied.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        let path = entry.path().unwrap().display().to_string();
        (path, header.uid().unwrap(), header.gid().unwrap())
    });
    entries.collect()
}

/// An archive of one file.
fn archive(name: &str, owner: (u64, u64)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o640);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    builder.append_data(&mut header, name, &b"abc"[..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn root_inside_is_nobody_outside() {
    let Some(mut host) = start() else {
        return;
    };
    let (_, info) = host.get("/info");
    let info: Value = serde_json::from_str(&info).unwrap();
    let options = info["SecurityOptions"].as_array().unwrap();
    assert!(options.contains(&"name=userns".into()), "{options:?}");

    let script = "id -u; tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map; \
        stat -c %u:%g /etc/hosts /etc/passwd /bin/busybox /dev /dev/shm /proc/1; \
        echo '1.2.3.4 x' >>/etc/hosts && touch /new /dev/shm/x /tmp/y && echo >/dev/null && \
        cat /proc/sys/net/ipv4/ping_group_range | tr -s '\\t' ' '; ulimit -n";
    let limit = ["--ulimit", "nofile=10000:20000", "--tmpfs", "/tmp"];
    let seen = run(&host, &limit, script).ok();
    let map = format!(" 0 {BASE} 65536");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..3], ["0", &map, &map], "{seen}");
    assert_eq!(lines[3..9], ["0:0"; 6], "{seen}");
    assert_eq!(lines[9..], ["0 65535", "10000"], "{seen}");

    up(&host, "one", &["--user", "7:8"], "echo x >/tmp/mine");
    assert_eq!(owner(&upper(&host, "one").join("tmp/mine")), (7, 8));
    let pid = inspect(&host, "one", "{{.State.Pid}}");
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert_eq!(owner(&process), (BASE + 7, BASE + 8));
    let top = host.docker(&["top", "one"]).ok();
    assert!(top.contains(&(BASE + 7).to_string()), "{top}");

    // Further processes, also after the next hostd has adopted it, and as privileged root.
    let exec = |host: &Host, more: &[&str], script: &str| {
        let args = [&["exec"], more, &["one", "sh", "-c", script]].concat();
        host.docker(&args)
    };
    let who = "id -u; tr -s ' ' </proc/self/uid_map; stat -c %u /tmp/mine";
    let wanted = |user: &str| format!("{user}\n{map}\n7");
    assert_eq!(exec(&host, &[], who).ok(), wanted("7"));
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(exec(&host, &["-u", "0"], who).ok(), wanted("0"));
    let mount = "mount -t tmpfs x /mnt 2>&1 || mkdir -p /mnt && mount -t tmpfs x /mnt; id -u";
    let privileged = exec(&host, &["--privileged", "-u", "0"], mount).ok();
    assert!(privileged.ends_with('0'), "{privileged}");
    // Actions that need the host's root are refused.
    let node = exec(
        &host,
        &["--privileged", "-u", "0"],
        "busybox mknod /null c 1 3",
    );
    node.fails_with("not permitted");
    let (status, stats) = host.get("/containers/one/stats?stream=0&one-shot=1");
    assert_eq!(status, 200);
    let usage: Value = serde_json::from_str(stats.trim()).unwrap();
    assert_eq!(usage["name"], "/one");
    host.docker(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(exec(&host, &[], who).ok(), wanted("7"));

    // The committed image has the owners that the container saw.
    host.docker(&["commit", "one", "made"]).ok();
    let look = [
        "run",
        "--rm",
        "--userns=host",
        "made",
        "busybox",
        "stat",
        "-c",
        "%u:%g",
        "/tmp/mine",
    ];
    assert_eq!(host.docker(&look).ok(), "7:8");
    // A user that is not mapped.
    run(&host, &["--user", "70000"], "true").fails_with("70000");

    // A later setting applies to later containers.
    configure(&mut host, "");
    host.docker(&["start", "one"]).ok();
    assert_eq!(exec(&host, &[], who).ok(), wanted("7"));
    let seen = run(&host, &[], "tr -s ' ' </proc/self/uid_map").ok();
    assert_eq!(seen, " 0 0 4294967295".trim());
}

#[test]
fn namespaces_of_the_host_are_refused() {
    let Some(host) = start() else {
        return;
    };
    for (option, words) in [
        (
            "--privileged",
            "privileged mode is incompatible with user namespaces",
        ),
        (
            "--network=host",
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (
            "--pid=host",
            "cannot share the host PID namespace when user namespaces are enabled",
        ),
    ] {
        run(&host, &[option], "true").fails_with(words);
        run(&host, &[option, "--userns=host"], "true").ok();
    }
    let map = "tr -s ' ' </proc/self/uid_map";
    assert_eq!(run(&host, &["--userns=host"], map).ok(), "0 0 4294967295");
    for option in [
        "--ipc=host",
        "--uts=host",
        "--cgroupns=host",
        "--network=none",
        "--init",
    ] {
        let seen = run(
            &host,
            &[option],
            &format!("{map}; test -d /sys/fs/cgroup; ls /dev/shm"),
        )
        .ok();
        assert!(seen.contains(&BASE.to_string()), "{option}: {seen}");
    }
    let body = r#"{"Image":"busybox","HostConfig":{"UsernsMode":"keep-id"}}"#;
    let (status, message) = host.send("POST", "/containers/create", body);
    assert_eq!(status, 400, "{message}");
    assert!(
        message.contains("invalid user namespace mode: keep-id"),
        "{message}"
    );
}

#[test]
fn volumes_belong_to_the_container_and_binds_to_the_host() {
    let Some(host) = start() else {
        return;
    };
    // An image with a directory of another user, from which a volume is filled.
    let script = "mkdir -p /data/sub && echo x >/data/sub/file && chown -R 5:6 /data";
    host.docker(&["run", "--name", "step", "busybox", "sh", "-c", script])
        .ok();
    host.docker(&["commit", "step", "filled"]).ok();
    let look = "stat -c '%n %u:%g' /data /data/sub/file /data/own; ls -ld /data | cut -c1-10";
    let script = format!("echo own >/data/own && chmod 600 /data/own; {look}");
    let mount = ["-v", "vol:/data"];
    let args = [
        &["run", "--rm"],
        &mount[..],
        &["filled", "sh", "-c", &script],
    ]
    .concat();
    let inside = host.docker(&args).ok();
    assert!(
        inside.contains("/data 5:6\n/data/sub/file 5:6\n/data/own 0:0"),
        "{inside}"
    );
    // A container with the host's users sees the same, because the disk has these owners.
    let of_host = run(&host, &["-v", "vol:/data", "--userns=host"], look);
    assert_eq!(of_host.ok(), inside);
    let data = host.path().join("root/engine/volumes/vol/_data");
    assert_eq!(owner(&data.join("sub/file")), (5, 6));
    assert_eq!(owner(&data.join("own")), (0, 0));
    let part = "type=volume,source=vol,target=/part,volume-subpath=sub";
    let seen = run(
        &host,
        &["--mount", part],
        "stat -c %u /part/file && echo x >/part/new && stat -c %u /part/new",
    );
    assert_eq!(seen.ok(), "5\n0");

    // A bind shows the host's owners, and new files in it belong to the remapped user.
    let shared = host.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(shared.join("secret"), "of the host").unwrap();
    fs::set_permissions(shared.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let bind = format!("{}:/bind", shared.display());
    let script =
        "stat -c %u /bind/secret; echo x >/bind/made; stat -c %u /bind/made; cat /bind/secret";
    let seen = run(&host, &["-v", &bind], script);
    assert_eq!(seen.stdout, "65534\n0\n");
    assert!(seen.stderr.contains("ermission denied"), "{}", seen.stderr);
    assert_eq!(owner(&shared.join("made")), (BASE, BASE));
    // A missing source is created for the container.
    let missing = host.path().join("a/b/c");
    let bind = format!("{}:/bind", missing.display());
    run(&host, &["-v", &bind], "echo x >/bind/made").ok();
    assert_eq!(owner(&missing), (BASE, BASE));
    assert_eq!(owner(&host.path().join("a")), (BASE, BASE));

    // The same applies to a volume on a directory of the host, which is filled for the container.
    let device = host.path().join("device");
    fs::create_dir(&device).unwrap();
    let device_option = format!("device={}", device.display());
    host.docker(&[
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind",
        "-o",
        &device_option,
        "elsewhere",
    ])
    .ok();
    let args = [
        "run",
        "--rm",
        "-v",
        "elsewhere:/data",
        "filled",
        "busybox",
        "stat",
        "-c",
        "%u:%g",
        "/data/sub/file",
    ];
    assert_eq!(host.docker(&args).ok(), "5:6");
    assert_eq!(owner(&device.join("sub/file")), (BASE + 5, BASE + 6));

    // An image.
    let image = "type=image,source=filled,target=/image";
    let seen = run(
        &host,
        &["--mount", image],
        "stat -c %u:%g /image/data/sub/file /image/bin",
    );
    assert_eq!(seen.ok(), "5:6\n0:0");
}

#[test]
fn copies_have_the_owners_that_the_container_sees() {
    let Some(host) = start() else {
        return;
    };
    let shared = host.path().join("shared");
    fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(BASE), Some(BASE)).unwrap();
    let bind = format!("{}:/bind", shared.display());
    let more = [
        "-v",
        &bind,
        "-v",
        "vol:/vol",
        "--tmpfs",
        "/memory",
        "--user",
        "9:9",
        "--mount",
        "type=image,source=busybox,target=/image",
    ];
    let script = "true";
    up(&host, "one", &more, script);
    let root = |script: &str| host.docker(&["exec", "-u", "0", "one", "sh", "-c", script]);
    let put = |to: &str, owner| {
        let to = format!("one:{to}");
        host.docker_with(&["cp", "-", &to], &archive("file", owner))
    };
    let everywhere = ["/", "/bind", "/vol"];
    // While it runs, and while it does not.
    for (name, owner_in) in [("running", (3, 4)), ("stopped", (5, 6))] {
        for directory in everywhere {
            put(directory, owner_in).ok();
        }
        if name == "running" {
            put("/memory", owner_in).ok();
            let seen = root("stat -c %u:%g /memory/file /file /bind/file /vol/file").ok();
            assert_eq!(seen.replace('\n', " "), "3:4 3:4 3:4 3:4");
            assert_eq!(
                copied(&host, "one:/memory/file"),
                [("file".to_owned(), 3, 4)]
            );
        }
        let on_disk = (owner_in.0 as u32, owner_in.1 as u32);
        assert_eq!(owner(&upper(&host, "one").join("file")), on_disk, "{name}");
        let data = host.path().join("root/engine/volumes/vol/_data/file");
        assert_eq!(owner(&data), on_disk, "{name}");
        let outside = (BASE + on_disk.0, BASE + on_disk.1);
        assert_eq!(owner(&shared.join("file")), outside, "{name}");
        for directory in everywhere {
            let path = format!("one:{}/file", directory.trim_end_matches('/'));
            let wanted = [("file".to_owned(), owner_in.0, owner_in.1)];
            assert_eq!(copied(&host, &path), wanted, "{name} {path}");
        }
        assert_eq!(
            copied(&host, "one:/etc/hosts"),
            [("hosts".to_owned(), 0, 0)]
        );
        let image = copied(&host, "one:/image/etc/passwd");
        assert_eq!(image, [("passwd".to_owned(), 0, 0)], "{name}");
        if name == "running" {
            host.docker(&["stop", "-t", "0", "one"]).ok();
        }
    }
    host.docker(&["start", "one"]).ok();
    let seen = root("stat -c %u:%g /file /bind/file /vol/file").ok();
    assert_eq!(seen.replace('\n', " "), "5:6 5:6 5:6");
    // Files given to the container's user, and to a user that is not mapped.
    let file = host.path().join("given");
    fs::write(&file, "x").unwrap();
    let give = |to: &str| {
        use std::io::Write;
        let body = archive("given", (0, 0));
        let mut stream = std::os::unix::net::UnixStream::connect(host.socket()).unwrap();
        let head = format!(
            "PUT /containers/one/archive?path={to}&copyUIDGID=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), &body].concat())
            .unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    };
    give("/");
    give("/bind");
    let seen = root("stat -c %u:%g /given /bind/given").ok();
    assert_eq!(seen, "9:9\n9:9");
    put("/", (70_000, 0)).fails_with("does not exist in the container's user namespace");
    // The complete container as an archive.
    let export = host.docker_command(&["export", "one"]).output().unwrap();
    let mut export = tar::Archive::new(&export.stdout[..]);
    let file = export.entries().unwrap().map(Result::unwrap);
    let mut file = file.filter(|entry| entry.path().unwrap() == Path::new("file"));
    assert_eq!(file.next().unwrap().header().uid().unwrap(), 5);
}

/// Attributes that name users: file capabilities, and access control lists.
#[test]
fn attributes_name_users_of_the_container() {
    let Some(host) = start() else {
        return;
    };
    up(&host, "one", &[], "true");
    // cap_net_raw+ep, revision 2; user 5 may read.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let entry = |tag: u8, mode: u8, id: u32| [&[tag, 0, mode, 0][..], &id.to_le_bytes()].concat();
    let list = [
        vec![2, 0, 0, 0],
        entry(0x01, 6, u32::MAX),
        entry(0x02, 4, 5),
        entry(0x04, 4, u32::MAX),
        entry(0x10, 4, u32::MAX),
        entry(0x20, 0, u32::MAX),
    ]
    .concat();
    let mut records = Vec::new();
    for (name, value) in [
        ("security.capability", &capability[..]),
        ("system.posix_acl_access", &list),
        ("user.note", b"kept"),
    ] {
        let rest = [format!(" SCHILY.xattr.{name}=").as_bytes(), value, b"\n"].concat();
        let digits = (1..9).find(|digits| (rest.len() + digits).to_string().len() == *digits);
        let length = rest.len() + digits.unwrap();
        records.extend([length.to_string().as_bytes(), &rest].concat());
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(records.len() as u64);
    builder
        .append_data(&mut header, "pax", &records[..])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o640);
    builder
        .append_data(&mut header, "file", &b"abc"[..])
        .unwrap();
    let archive = builder.into_inner().unwrap();
    for state in ["running", "stopped"] {
        host.docker_with(&["cp", "-", "one:/"], &archive).ok();
        let file = upper(&host, "one").join("file");
        let on_disk = |name: &str| {
            let mut value = [0; 256];
            let length = rustix::fs::getxattr(&file, name, &mut value[..]).unwrap();
            value[..length].to_vec()
        };
        assert_eq!(on_disk("security.capability"), capability, "{state}");
        assert_eq!(on_disk("system.posix_acl_access"), list, "{state}");
        let out = host
            .docker_command(&["cp", "one:/file", "-"])
            .output()
            .unwrap();
        let mut out = tar::Archive::new(&out.stdout[..]);
        let mut file = out.entries().unwrap().next().unwrap().unwrap();
        let found: Vec<(String, Vec<u8>)> = file
            .pax_extensions()
            .unwrap()
            .unwrap()
            .map(|extension| {
                let extension = extension.unwrap();
                (
                    extension.key().unwrap().to_owned(),
                    extension.value_bytes().to_vec(),
                )
            })
            .collect();
        for (name, value) in [
            ("security.capability", &capability[..]),
            ("system.posix_acl_access", &list),
            ("user.note", b"kept"),
        ] {
            let key = format!("SCHILY.xattr.{name}");
            let wanted = (key, value.to_vec());
            assert!(found.contains(&wanted), "{state} {name}: {found:?}");
        }
        if state == "running" {
            host.docker(&["stop", "-t", "0", "one"]).ok();
        }
    }
}

#[test]
fn a_container_that_joins_another_one_has_its_users() {
    let Some(mut host) = start() else {
        return;
    };
    let shareable = ["--ipc", "shareable", "--sysctl", "net.ipv4.ip_forward=1"];
    up(
        &host,
        "donor",
        &shareable,
        "echo shared >/dev/shm/file; hostname >/tmp/name",
    );
    let namespaces =
        |what: &str| format!("readlink /proc/self/ns/user; readlink /proc/self/ns/{what}");
    let all = ["net", "pid", "ipc"];
    let join = |host: &Host, round: usize| {
        for (option, what) in ["--network", "--pid", "--ipc"].into_iter().zip(all) {
            let of_donor = host
                .docker(&["exec", "donor", "sh", "-c", &namespaces(what)])
                .ok();
            let mode = format!("{option}=container:donor");
            let seen = run(host, &[&mode], &namespaces(what)).ok();
            assert_eq!(seen, of_donor, "{option} {round}");
        }
        let modes = all.map(|what| match what {
            "net" => "--network=container:donor",
            "pid" => "--pid=container:donor",
            _ => "--ipc=container:donor",
        });
        let script = "cat /dev/shm/file /proc/sys/net/ipv4/ip_forward; ls -d /sys/class/net/lo; ps | grep -c '[s]leep 1000'; echo x >>/etc/hosts";
        let seen = run(host, &modes, script).ok();
        assert_eq!(
            seen.replace('\n', " "),
            "shared 1 /sys/class/net/lo 1",
            "{round}"
        );
    };
    join(&host, 0);
    host.kill_daemon();
    host.start_daemon();
    join(&host, 1);
    // The host's root may join, but a process can't have two user namespaces.
    run(
        &host,
        &["--userns=host", "--network=container:donor"],
        "true",
    )
    .ok();
    up(&host, "other", &["--ipc", "shareable"], "true");
    run(
        &host,
        &["--network=container:donor", "--ipc=container:other"],
        "true",
    )
    .fails_with("has another user namespace");
    up(&host, "hosts", &["--userns=host"], "true");
    run(&host, &["--network=container:hosts"], "true")
        .fails_with("its users are others on the host");
}

#[test]
fn an_invalid_range_is_refused_by_name() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    for (text, word) in [
        ("base = 0", "engine.user_namespaces.base"),
        ("size = 10", "engine.user_namespaces.size"),
        ("base = 4294960000", "engine.user_namespaces.size"),
        ("sizes = 1", "sizes"),
    ] {
        configure(
            &mut host,
            &format!("[engine.user_namespaces]\nenabled = true\n{text}\n"),
        );
        let (_, info) = host.get("/info");
        let info: Value = serde_json::from_str(&info).unwrap();
        let warnings = info["Warnings"].to_string();
        assert!(warnings.contains(word), "{text}: {warnings}");
    }
}
