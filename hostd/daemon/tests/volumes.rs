//! Volumes, through the `docker` command and plain requests.

mod common;
#[path = "volumes/plugins.rs"]
mod plugins;

use std::path::PathBuf;

use common::{Host, is_root, wait_until};
use serde_json::{Value, json};

/// An image with content, an owner and a mode at a path that is a volume.
fn load_seeded(host: &Host) {
    host.load_busybox();
    let script = "mkdir -p /data/deep; echo seed > /data/file; ln -s file /data/link; \
                  chown 5:6 /data /data/file; chmod 1770 /data";
    host.docker(&[
        "run",
        "--name=seed",
        "--network=none",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    host.docker(&["commit", "-c=VOLUME /data", "seed", "seeded"])
        .ok();
    host.docker(&["rm", "seed"]).ok();
}

fn run(host: &Host, options: &[&str], script: &str) -> String {
    let mut args = vec!["run", "--rm", "--network=none"];
    args.extend(options);
    args.extend(["sh", "-c", script]);
    host.docker(&args).ok()
}

fn volumes(host: &Host) -> Vec<String> {
    let list = host.docker(&["volume", "ls", "-q"]).ok();
    list.lines().map(str::to_owned).collect()
}

#[test]
fn a_volume_outlives_its_containers() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    assert_eq!(
        host.docker(&["volume", "create", "--label=a=b", "data"])
            .ok(),
        "data"
    );
    run(&host, &["-v", "data:/d", "busybox"], "echo kept > /d/file");
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(
        run(&host, &["-v", "data:/d:ro", "busybox"], "cat /d/file"),
        "kept"
    );
    let denied = host.docker(&[
        "run",
        "--rm",
        "--network=none",
        "-v",
        "data:/d:ro",
        "busybox",
        "touch",
        "/d/x",
    ]);
    denied.fails_with("Read-only file system");
    let shown: Value = serde_json::from_str(&host.get("/volumes/data").1).unwrap();
    assert_eq!(shown["Driver"], "local");
    assert_eq!(shown["Labels"]["a"], "b");
    assert_eq!(shown["Options"], Value::Null);
    assert_eq!(shown["Scope"], "local");
    let mountpoint = PathBuf::from(shown["Mountpoint"].as_str().unwrap());
    assert_eq!(
        std::fs::read_to_string(mountpoint.join("file")).unwrap(),
        "kept\n"
    );

    let id = host
        .docker(&[
            "create",
            "-v",
            "data:/d",
            "--mount=type=volume,src=other,dst=/o,readonly",
            "busybox",
        ])
        .ok();
    let text = host
        .docker(&["inspect", "-f", "{{json .Mounts}}", &id])
        .ok();
    let mounts: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(mounts.len(), 2);
    assert_eq!(mounts[0]["Type"], "volume");
    assert_eq!(mounts[0]["Name"], "data");
    assert_eq!(mounts[0]["Source"], mountpoint.to_str().unwrap());
    assert_eq!(mounts[0]["Mode"], "z");
    assert_eq!(
        (&mounts[0]["RW"], &mounts[1]["RW"]),
        (&true.into(), &false.into())
    );
    let found = host
        .docker(&["ps", "-aq", "--no-trunc", "--filter=volume=data"])
        .ok();
    assert_eq!(found, id);
    let in_use = format!("remove data: volume is in use - [{id}]");
    host.docker(&["volume", "rm", "data"]).fails_with(&in_use);
    // Also held by containers that were found again.
    host.kill_daemon();
    host.start_daemon();
    host.docker(&["volume", "rm", "data"]).fails_with(&in_use);
    let dangling = |wanted: &str| {
        let filter = format!("--filter=dangling={wanted}");
        host.docker(&["volume", "ls", "-q", &filter]).ok()
    };
    assert_eq!(
        (dangling("true").as_str(), dangling("false").as_str()),
        ("", "data\nother")
    );
    host.docker(&["rm", "-v", &id]).ok();
    // Named volumes are kept.
    assert_eq!(volumes(&host), ["data", "other"]);
    host.docker(&["volume", "rm", "data", "other"]).ok();
    assert!(!mountpoint.exists());
    host.docker(&["volume", "rm", "data"])
        .fails_with("get data: no such volume");
    host.docker(&["volume", "rm", "-f", "data"]).ok();
}

#[test]
fn a_new_volume_gets_the_images_content() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    load_seeded(&host);
    let look = "stat -c '%u:%g %a' /data /data/file; cat /data/link; ls /data | wc -l";
    let whole = "5:6 1770\n5:6 644\nseed\n3";
    assert_eq!(run(&host, &["seeded"], look), whole);
    // At creation, not at the start.
    host.docker(&["create", "--name=cc", "-v", "data:/data", "seeded"])
        .ok();
    assert_eq!(
        run(&host, &["-v", "data:/x", "busybox"], "cat /x/file"),
        "seed"
    );
    assert_eq!(run(&host, &["-v", "data:/data", "seeded"], look), whole);
    // Nothing is copied into a volume with content, or with `nocopy`.
    run(&host, &["-v", "full:/x", "busybox"], "touch /x/other");
    assert_eq!(
        run(&host, &["-v", "full:/data", "seeded"], "ls /data"),
        "other"
    );
    assert_eq!(
        run(&host, &["-v", "empty:/data:nocopy", "seeded"], "ls /data"),
        ""
    );
    let option = "type=volume,src=empty2,dst=/data,volume-nocopy";
    assert_eq!(run(&host, &["--mount", option, "seeded"], "ls /data"), "");
    // A read-only root doesn't matter.
    assert_eq!(
        run(
            &host,
            &["--read-only", "seeded"],
            "touch /data/new; ls /data | wc -l"
        ),
        "4"
    );
}

#[test]
fn a_container_gets_the_volumes_of_another() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    load_seeded(&host);
    let bind = format!("{}:/b", host.path().display());
    host.docker(&[
        "create",
        "--name=cc",
        "-v",
        "named:/n",
        "-v",
        &bind,
        "seeded",
    ])
    .ok();
    let script = "ls -d /b/root; cat /data/file; echo x > /n/x; echo y > /data/y; ls /data | wc -l";
    let seen = run(&host, &["--volumes-from=cc", "seeded"], script);
    assert!(seen.ends_with("seed\n4"), "{seen}");
    // No other volumes were removed with it.
    assert_eq!(
        run(
            &host,
            &["--volumes-from=cc:ro", "busybox"],
            "cat /n/x /data/y"
        ),
        "x\ny"
    );
    host.docker(&[
        "run",
        "--rm",
        "--volumes-from=cc:ro",
        "busybox",
        "touch",
        "/n/z",
    ])
    .fails_with("Read-only file system");
    // Volumes that were requested by name stay.
    assert_eq!(
        run(
            &host,
            &["--volumes-from=cc", "-v", "own:/n", "busybox"],
            "ls /n"
        ),
        ""
    );
    let body = r#"{"Image":"busybox","HostConfig":{"VolumesFrom":["nobody"]}}"#;
    let (status, text) = host.send("POST", "/containers/create", body);
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("No such container: nobody"), "{text}");
}

#[test]
fn anonymous_volumes_are_removed_with_their_container_on_request() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    load_seeded(&host);
    run(&host, &["-v", "/more", "seeded"], "echo 1 > /more/x");
    assert_eq!(volumes(&host), [""; 0], "--rm removes them");
    host.docker(&["create", "--name=cc", "-v", "/more", "seeded"])
        .ok();
    let names = volumes(&host);
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.len() == 64));
    let (_, text) = host.get(&format!("/volumes/{}", names[0]));
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["Labels"]["com.docker.volume.anonymous"], "");
    // Another container uses one of them by its name.
    let other = format!("{}:/x", names[0]);
    host.docker(&["create", "--name=dd", "-v", &other, "busybox"])
        .ok();
    host.docker(&["rm", "-v", "cc"]).ok();
    assert_eq!(volumes(&host), [names[0].as_str()]);
    host.docker(&["rm", "-v", "dd"]).ok();
    assert_eq!(volumes(&host), [names[0].as_str()]);
    host.docker(&["create", "--name=ee", "seeded"]).ok();
    host.docker(&["rm", "ee"]).ok();
    host.docker(&["volume", "create", "named"]).ok();
    // Since 1.42 only anonymous ones.
    let (status, text) = host.send("POST", "/v1.42/volumes/prune", "");
    let pruned: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, pruned["VolumesDeleted"].as_array().unwrap().len()),
        (200, 2)
    );
    assert!(pruned["SpaceReclaimed"].as_u64().unwrap() >= 5);
    assert_eq!(volumes(&host), ["named"]);
    let (_, text) = host.send("POST", "/v1.41/volumes/prune", "");
    assert!(text.contains("named"), "{text}");
    assert_eq!(volumes(&host), [""; 0]);
}

#[test]
fn options_are_mounted_while_a_container_runs() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let source = host.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "of the host").unwrap();
    let device = format!("--opt=device={}", source.display());
    host.docker(&[
        "volume",
        "create",
        "--opt=type=none",
        "--opt=o=bind",
        &device,
        "bound",
    ])
    .ok();
    host.docker(&[
        "volume",
        "create",
        "--opt=type=tmpfs",
        "--opt=device=tmpfs",
        "--opt=o=size=1m,uid=7",
        "temporary",
    ])
    .ok();
    let options = ["-v", "bound:/b", "-v", "temporary:/t", "busybox"];
    let seen = run(
        &host,
        &options,
        "cat /b/file; stat -c %u /t; stat -f -c %T /t",
    );
    assert_eq!(seen, "of the host7\ntmpfs");
    let mounted = || {
        let text = std::fs::read_to_string(format!("/proc/{}/mountinfo", host.pid())).unwrap();
        text.lines()
            .filter(|line| line.contains("/engine/volumes/"))
            .count()
    };
    wait_until("nothing is mounted", || mounted() == 0);
    let mut args = vec!["run", "-d", "--name=cc", "--network=none"];
    args.extend(options);
    args.extend(["sleep", "1000"]);
    host.docker(&args).ok();
    assert_eq!(mounted(), 2);
    host.kill_daemon();
    host.start_daemon();
    let mounted = || {
        let text = std::fs::read_to_string(format!("/proc/{}/mountinfo", host.pid())).unwrap();
        text.lines()
            .filter(|line| line.contains("/engine/volumes/"))
            .count()
    };
    assert_eq!(mounted(), 2, "kept for a container that runs");
    host.docker(&["rm", "-f", "cc"]).ok();
    wait_until("nothing is mounted", || mounted() == 0);
    assert!(source.join("file").exists());
    host.docker(&[
        "volume",
        "create",
        "--opt=type=none",
        "--opt=o=bind",
        "--opt=device=/not/there",
        "bad",
    ])
    .ok();
    // The image has nothing to copy there, so it is only mounted at the start.
    host.docker(&["create", "--name=bad", "-v", "bad:/b", "busybox"])
        .ok();
    host.docker(&["start", "bad"])
        .fails_with("failed to mount local volume: mount /not/there:");
    host.docker(&["rm", "bad"]).ok();
    host.docker(&["volume", "rm", "bad", "bound", "temporary"])
        .ok();
    assert!(source.join("file").exists());
}

/// The mount of a part of a volume never leads out of the volume, survives a killed hostd, and ends
/// with the container. The removal of the container does not change the volume.
#[test]
fn a_part_of_a_volume_is_mounted() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let script = "mkdir -p /d/a/b; echo part > /d/a/b/file; ln -s /a/b /d/link; ln -s ../../../../etc /d/out";
    run(&host, &["-v", "data:/d", "busybox"], script);
    let create = |name: &str, subpath: &str| {
        let mount = json!({"Type": "volume", "Source": "data", "Target": "/x",
            "VolumeOptions": {"Subpath": subpath}});
        let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"],
            "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}});
        let path = format!("/containers/create?name={name}");
        let (status, text) = host.send("POST", &path, &body.to_string());
        assert_eq!(status, 201, "{text}");
    };
    create("cc", "link");
    create("out", "out");
    create("none", "none");
    for name in ["out", "none"] {
        host.docker(&["start", name])
            .fails_with("No such file or directory");
    }
    host.docker(&["start", "cc"]).ok();
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(host.docker(&["exec", "cc", "cat", "/x/file"]).ok(), "part");
    host.docker(&["rm", "-f", "cc", "out", "none"]).ok();
    assert_eq!(
        run(&host, &["-v", "data:/d", "busybox"], "cat /d/a/b/file"),
        "part"
    );
    let text = std::fs::read_to_string(format!("/proc/{}/mountinfo", host.pid())).unwrap();
    assert!(!text.contains("/volumes/"), "{text}");
}

#[test]
fn wrong_requests_get_dockers_error_texts() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    for (method, path, body, status, words) in [
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"a"}"#,
            400,
            "volume name is too short, names should be at least two alphanumeric characters",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"../a"}"#,
            400,
            "includes invalid characters for a local volume name",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"ab","Driver":"x"}"#,
            404,
            "plugin \\\"x\\\" not found",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"ab","DriverOpts":{"x":"y"}}"#,
            400,
            "invalid option: \\\"x\\\"",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":1}"#,
            400,
            "invalid JSON",
        ),
        (
            "POST",
            "/volumes/prune?filters={\"x\":[\"y\"]}",
            "",
            400,
            "invalid filter 'x'",
        ),
        ("PUT", "/volumes/ab", "{}", 503, "swarm is unavailable"),
        ("DELETE", "/volumes/ab", "", 404, "get ab: no such volume"),
        ("DELETE", "/volumes/ab?force=1", "", 204, ""),
        ("GET", "/volumes/ab", "", 404, "get ab: no such volume"),
        (
            "POST",
            "/containers/create",
            r#"{"Image":"busybox","HostConfig":{"Binds":["./data:/x"]}}"#,
            400,
            "If you intended to pass a host directory, use absolute path",
        ),
    ] {
        let (got, text) = host.send(method, path, body);
        assert_eq!(got, status, "{method} {path} {body}: {text}");
        assert!(text.contains(words), "{text}");
    }
    for (options, words) in [
        (
            &["-v", "ab:/x", "-v", "cd:/x"][..],
            "Duplicate mount point: /x",
        ),
        (
            &["-v", "ab:/x", "--tmpfs", "/x"],
            "Duplicate mount point: /x",
        ),
        (&["-v", "ab:/x:rslave"], "invalid mode: rslave"),
        (
            &["--volume-driver=x", "-v", "ab:/x"],
            "error looking up volume plugin x",
        ),
    ] {
        let mut args = vec!["create"];
        args.extend(options);
        args.push("busybox");
        host.docker(&args).fails_with(words);
    }
    for (source, subpath, words) in [
        ("", "a", "must not set Subpath when using anonymous volumes"),
        (
            "ab",
            "../a",
            "subpath must be a relative path within the volume",
        ),
        (
            "ab",
            "/a",
            "subpath must be a relative path within the volume",
        ),
    ] {
        let mount = json!({"Type": "volume", "Source": source, "Target": "/x",
            "VolumeOptions": {"Subpath": subpath}});
        let body = json!({"Image": "busybox", "HostConfig": {"Mounts": [mount]}}).to_string();
        let (status, text) = host.send("POST", "/containers/create", &body);
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(volumes(&host), [""; 0]);
}

#[test]
fn events_and_disk_usage_include_volumes() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host
        .docker(&["create", "-v", "data:/d:ro", "busybox", "true"])
        .ok();
    host.docker(&["start", "-a", &id]).ok();
    let name = |event: &Value| event["Action"].as_str().unwrap().to_owned();
    let (_, text) = host.get("/system/df?type=volume");
    let used: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(used["Volumes"][0]["UsageData"]["RefCount"], 1);
    assert_eq!(used["Volumes"][0]["UsageData"]["Size"], 0);
    assert!(used.get("Images").is_none());
    host.docker(&["rm", &id]).ok();
    host.docker(&["volume", "rm", "data"]).ok();
    wait_until("all are told", || host.events_of("volume").len() >= 4);
    let events = host.events_of("volume");
    let actions: Vec<_> = events.iter().map(name).collect();
    assert_eq!(actions, ["create", "mount", "unmount", "destroy"]);
    assert!(events.iter().all(|event| event["Actor"]["ID"] == "data"));
    let mount = &events[1]["Actor"]["Attributes"];
    assert_eq!(mount["container"], id.as_str());
    assert_eq!(mount["destination"], "/d");
    assert_eq!(mount["driver"], "local");
    assert_eq!(mount["read/write"], "false");
}

/// After kills in the middle of creations, hostd shows the old or the new state, and everything can
/// be used.
#[test]
fn killed_creations_leave_the_old_or_the_new_state() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    load_seeded(&host);
    for round in 0..10 {
        let children: Vec<_> = (0..4)
            .map(|number| {
                let volume = format!("v{round}-{number}:/data");
                let mut command = host.docker_command(&["create", "-v", &volume, "seeded"]);
                command.stdout(std::process::Stdio::null());
                command.stderr(std::process::Stdio::null());
                command.spawn().unwrap()
            })
            .collect();
        // Kill at another moment in each round.
        std::thread::sleep(std::time::Duration::from_millis(7 * round));
        host.kill_daemon();
        for mut child in children {
            child.wait().unwrap();
        }
        host.start_daemon();
    }
    let ids = host.docker(&["ps", "-aq"]).ok();
    for id in ids.lines() {
        let text = host
            .docker(&["inspect", "-f", "{{range .Mounts}}{{.Source}}{{end}}", id])
            .ok();
        let source = PathBuf::from(text);
        assert_eq!(
            std::fs::read_to_string(source.join("file")).unwrap(),
            "seed\n"
        );
        host.docker(&["rm", id]).ok();
    }
    for name in volumes(&host) {
        let (_, text) = host.get(&format!("/volumes/{name}"));
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(shown.get("Status"), None, "{text}");
        let entries = std::fs::read_dir(shown["Mountpoint"].as_str().unwrap()).unwrap();
        let count = entries.count();
        assert!(count == 0 || count == 3, "{name}: {count}");
        host.docker(&["volume", "rm", &name]).ok();
    }
}

/// Containers are created with a volume that others keep removing: a created container has its
/// volume.
#[test]
fn removals_race_with_creations() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let body = r#"{"Image":"busybox","HostConfig":{"NetworkMode":"none","Binds":["raced:/x"]}}"#;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let (status, text) = host.send("POST", "/containers/create", body);
                    assert_eq!(status, 201, "{text}");
                    let made: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(host.get("/volumes/raced").0, 200);
                    let path = format!("/containers/{}", made["Id"].as_str().unwrap());
                    assert_eq!(host.send("DELETE", &path, "").0, 204);
                }
            });
            scope.spawn(|| {
                for _ in 0..60 {
                    let (status, text) = host.send("DELETE", "/volumes/raced", "");
                    assert!(matches!(status, 204 | 404 | 409), "{status} {text}");
                }
            });
        }
    });
}
