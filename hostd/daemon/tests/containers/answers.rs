//! What list, inspect and info answer: Docker's filters, and values that are true.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Host, is_root, wait_until};

#[track_caller]
fn get(host: &Host, path: &str) -> Value {
    let (status, body) = host.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    let start = body.find(['{', '[']).unwrap();
    let mut values = serde_json::Deserializer::from_str(&body[start..]).into_iter::<Value>();
    values.next().unwrap().unwrap()
}

fn encoded(filters: &Value) -> String {
    filters
        .to_string()
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect()
}

#[track_caller]
fn names(host: &Host, filters: Value) -> String {
    let list = get(
        host,
        &format!("/containers/json?all=1&filters={}", encoded(&filters)),
    );
    let mut names: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["Names"][0].as_str().unwrap()[1..].to_owned())
        .collect();
    names.sort();
    names.join(" ")
}

#[test]
fn filters_mean_what_dockers_mean() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host.docker(&[
        "run",
        "--name",
        "web-1",
        "--label",
        "tier=front",
        "--expose",
        "8080",
        "-v",
        "/etc:/e:ro",
        "busybox",
        "sh",
        "-c",
        "touch /x; exit 3",
    ]);
    assert_eq!(id.code, 3);
    host.docker(&["commit", "web-1", "child"]).ok();
    host.docker(&[
        "create",
        "--name",
        "web-22",
        "--label",
        "tier=back",
        "child",
        "true",
    ])
    .ok();
    host.docker(&[
        "run",
        "-d",
        "--name",
        "db",
        "--network",
        "host",
        "busybox",
        "sleep",
        "60",
    ])
    .ok();
    let id = host.docker(&["inspect", "-f", "{{.Id}}", "db"]).ok();
    for (filters, wanted) in [
        (json!({"name": ["^web-[0-9]$"]}), "web-1"),
        (json!({"name": ["web.[0-9]+"]}), "web-1 web-22"),
        (json!({"name": ["^/(db|web-22)$"]}), "db web-22"),
        (json!({"name": ["["]}), ""),
        (json!({"name": ["[", "db"]}), "db"),
        (json!({"name": {"b": true}}), "db web-1 web-22"),
        (json!({"id": [&id[..7]]}), "db"),
        (json!({"id": [&id[7..20]]}), ""),
        (json!({"ancestor": ["busybox"]}), "db web-1 web-22"),
        (json!({"ancestor": ["child"]}), "web-22"),
        (json!({"ancestor": ["nothing"]}), ""),
        (json!({"exited": ["3"]}), "web-1"),
        (json!({"exited": ["0"]}), ""),
        (json!({"status": ["running", "created"]}), "db web-22"),
        (json!({"label": ["tier=front"]}), "web-1"),
        (json!({"label": ["tier", "tier=back"]}), "web-22"),
        (json!({"volume": ["/e"]}), "web-1"),
        (json!({"volume": ["/etc"]}), "web-1"),
        (json!({"network": ["host"]}), "db"),
        (json!({"health": ["none"]}), "db web-1 web-22"),
        (json!({"health": ["healthy"]}), ""),
        (json!({"expose": ["8000-8100/tcp"]}), "web-1 web-22"),
        (json!({"expose": ["8080/udp"]}), ""),
        (json!({"publish": ["8080"]}), ""),
        (json!({"is-task": ["true"]}), ""),
        (json!({"is-task": ["false"]}), "db web-1 web-22"),
        (json!({"before": ["db"]}), "web-1 web-22"),
        (json!({"since": ["web-1"]}), "db web-22"),
    ] {
        assert_eq!(names(&host, filters.clone()), wanted, "{filters}");
    }
    for (filters, status, words) in [
        (
            json!({"status": ["gone"]}),
            400,
            "invalid filter 'status=gone'",
        ),
        (json!({"exited": ["x"]}), 400, "invalid filter"),
        (
            json!({"health": ["x"]}),
            400,
            "unrecognised filter value for health: x",
        ),
        (
            json!({"is-task": ["maybe"]}),
            400,
            "invalid filter 'is-task",
        ),
        (json!({"expose": ["80:80"]}), 400, "should not contain ':'"),
        (json!({"colour": ["red"]}), 400, "invalid filter 'colour'"),
        (json!({"label!": ["a"]}), 400, "invalid filter 'label!'"),
        (json!({"before": ["nobody"]}), 404, "No such container"),
    ] {
        let (found, body) = host.get(&format!("/containers/json?filters={}", encoded(&filters)));
        assert_eq!(found, status, "{filters}: {body}");
        assert!(body.contains(words), "{filters}: {body}");
    }
}

#[test]
fn info_inspect_and_list_tell_what_is() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let info = get(&host, "/info");
    let default = host
        .docker(&[
            "create", "--expose", "80", "-w", "/a/../b/", "busybox", "sleep", "60",
        ])
        .ok();
    let shown = get(&host, &format!("/containers/{default}/json"));
    assert_eq!(
        shown["HostConfig"]["LogConfig"]["Type"],
        info["LoggingDriver"]
    );
    assert_eq!(shown["HostConfig"]["Runtime"], info["DefaultRuntime"]);
    assert_eq!(shown["Config"]["WorkingDir"], "/b");
    // Create accepts every listed runtime.
    let runtimes = info["Runtimes"].as_object().unwrap();
    for runtime in ["runc", "io.containerd.runc.v2"] {
        assert!(runtimes.contains_key(runtime), "{runtimes:?}");
    }
    for runtime in runtimes.keys() {
        host.docker(&["create", "--runtime", runtime, "busybox", "true"])
            .ok();
    }
    // Ports of running containers.
    let row = |id: &str| {
        let list = get(&host, "/containers/json?all=1");
        let rows = list.as_array().unwrap();
        rows.iter().find(|row| row["Id"] == id).unwrap().clone()
    };
    assert_eq!(row(&default)["Ports"], json!([]));
    host.docker(&["start", &default]).ok();
    assert_eq!(
        row(&default)["Ports"],
        json!([{"PrivatePort": 80, "Type": "tcp"}])
    );
    let shown = get(&host, &format!("/containers/{default}/json"));
    assert_eq!(shown["NetworkSettings"]["Ports"], json!({"80/tcp": null}));
    for file in ["HostsPath", "HostnamePath", "ResolvConfPath"] {
        // Not below /run: the container may write to it.
        let path = shown[file].as_str().unwrap();
        assert!(
            path.starts_with(host.path().join("root").to_str().unwrap()),
            "{path}"
        );
        assert!(std::path::Path::new(path).is_file());
    }
    let platform = &shown["ImageManifestDescriptor"]["platform"];
    assert_eq!(platform["os"], "linux");

    // A resize without a terminal, and ulimits of a container that exists.
    let post = |path: &str, body: &str| host.send("POST", path, body);
    assert_eq!(
        post(&format!("/containers/{default}/resize?h=9&w=9"), "").0,
        200
    );
    let ulimits = r#"{"Ulimits":[{"Name":"nofile","Soft":64,"Hard":64}]}"#;
    let (status, body) = post(&format!("/containers/{default}/update"), ulimits);
    assert_eq!(status, 200, "{body}");

    // Names.
    let machine = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let script = "hostname; echo $HOSTNAME; cat /etc/hostname";
    let named = host.docker(&[
        "run",
        "--rm",
        "--network",
        "host",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(named.ok(), format!("{machine}\n{machine}\n{machine}"));
    let both = ["create", "--uts", "host", "--hostname", "x", "busybox"];
    host.docker(&both)
        .fails_with("conflicting options: hostname and the UTS mode");
    // The host's queues, mounted there or not.
    let queues = host.docker(&[
        "run",
        "--rm",
        "--ipc",
        "host",
        "busybox",
        "ls",
        "-d",
        "/dev/mqueue",
    ]);
    assert_eq!(queues.ok(), "/dev/mqueue");

    // An image for another kind of machine.
    let import = ["import", "--platform", "linux/s390x", "-", "foreign"];
    host.docker_with(&import, &crate::common::image::rootfs())
        .ok();
    let created = host.docker(&["create", "foreign", "true"]);
    assert!(
        created
            .stderr
            .contains("The requested image's platform (linux/s390x) does not match"),
        "{}",
        created.stderr
    );
    let id = created.ok();
    let shown = get(&host, &format!("/containers/{id}/json"));
    let platform = &shown["ImageManifestDescriptor"]["platform"];
    assert_eq!(platform["architecture"], "s390x");
    let body = r#"{"Image":"foreign","Cmd":["true"]}"#;
    assert_eq!(post("/containers/create?platform=linux/s390x", body).0, 201);
    let (status, body) = post("/containers/create?platform=linux/amd64", body);
    assert_eq!(status, 404, "{body}");

    // Nothing of the engine's own directory is kept mounted by a container.
    let root = host.path().join("root").display().to_string();
    host.docker(&["create", "-v", &format!("{root}:/x:private"), "busybox"])
        .fails_with("must use either propagation mode");
    let bound = host
        .docker(&["create", "-v", &format!("{root}:/x"), "busybox"])
        .ok();
    let shown = get(&host, &format!("/containers/{bound}/json"));
    assert_eq!(shown["Mounts"][0]["Propagation"], "rslave");

    // Proxies, without their credentials.
    host.stop_daemon();
    host.start_daemon_with(&[
        ("HTTPS_PROXY", "http://me:secret@proxy.test:3128"),
        ("NO_PROXY", "a.test,b.test"),
    ]);
    let info = get(&host, "/info");
    assert_eq!(info["HttpsProxy"], "http://xxxxx:xxxxx@proxy.test:3128");
    assert_eq!(info["HttpProxy"], "");
    assert_eq!(info["NoProxy"], "a.test,b.test");
}

#[test]
fn users_are_those_that_the_container_sees() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let etc = host.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let passwd = etc.join("passwd");
    std::fs::write(
        &passwd,
        "root:x:0:0::/mounted:/bin/sh\nme:x:77:78::/home/me:\n",
    )
    .unwrap();
    std::fs::write(etc.join("group"), "us:x:99:me\n").unwrap();
    let file = format!("{}:/etc/passwd:ro", passwd.display());
    let directory = format!("{}:/etc:ro", etc.display());
    for (mount, groups) in [(&file, "78"), (&directory, "78 99")] {
        let run = |args: &[&str]| {
            let mut all = vec!["run", "--rm", "-v", mount.as_str()];
            all.extend(args);
            host.docker(&all).ok()
        };
        assert_eq!(run(&["busybox", "sh", "-c", "echo $HOME"]), "/mounted");
        let who = run(&[
            "-u",
            "me",
            "busybox",
            "sh",
            "-c",
            "echo $HOME; id -u; id -G",
        ]);
        assert_eq!(who, format!("/home/me\n77\n{groups}"));
    }
    host.docker(&[
        "run", "-d", "--name", "cc", "-v", &file, "busybox", "sleep", "60",
    ])
    .ok();
    let exec = |args: &[&str]| {
        let mut all = vec!["exec"];
        all.extend(args);
        host.docker(&all)
    };
    assert_eq!(exec(&["cc", "sh", "-c", "echo $HOME"]).ok(), "/mounted");
    assert_eq!(
        exec(&["-u", "me", "cc", "sh", "-c", "echo $HOME"]).ok(),
        "/home/me"
    );
    // As it is now, in the container's own files, too.
    std::fs::write(&passwd, "root:x:0:0::/later:/bin/sh\n").unwrap();
    assert_eq!(exec(&["cc", "sh", "-c", "echo $HOME"]).ok(), "/later");
    exec(&["-u", "me", "cc", "true"]).fails_with("unable to find user me");
    // A missing directory, and one that this user may not enter.
    let missing = exec(&["-w", "/missing", "cc", "true"]);
    assert!(
        matches!(missing.code, 126 | 127),
        "{} {}",
        missing.code,
        missing.stderr
    );
    host.docker(&["rm", "-f", "cc"]).ok();
}

#[test]
fn output_outlives_the_container() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let mut command = host.docker_command(&[
        "run",
        "--rm",
        "busybox",
        "head",
        "-c",
        "30000000",
        "/dev/zero",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // Nobody reads until it is gone.
    wait_until("it is removed", || {
        std::thread::sleep(Duration::from_millis(100));
        host.docker(&["ps", "-aq"]).ok().is_empty()
    });
    let mut bytes = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bytes.len(), 30_000_000);
    // And then its files are deleted.
    let trash = host.path().join("root/engine/containers/.trash");
    wait_until("the trash is empty", || {
        std::fs::read_dir(&trash).unwrap().count() == 0
    });
}

#[test]
fn attaching_with_the_log_before_the_start_waits() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host
        .docker(&["create", "busybox", "sh", "-c", "echo one; echo two >&2"])
        .ok();
    for past in ["", "one\ntwo\n"] {
        let path = format!("/containers/{id}/attach?logs=1&stream=1&stdout=1&stderr=1");
        let request = format!("POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
        let body = std::thread::scope(|scope| {
            let attached = scope.spawn(|| host.http(&request));
            std::thread::sleep(Duration::from_millis(300));
            assert!(!attached.is_finished(), "it waits for the start");
            host.docker(&["start", &id]).ok();
            attached.join().unwrap().1
        });
        let text: String = body.split(|c: char| c.is_control() && c != '\n').collect();
        assert_eq!(text, format!("{past}one\ntwo\n"));
        host.docker(&["wait", &id]).ok();
    }
    // One frame for each line, however it was written.
    let id = host
        .docker(&["run", "-d", "busybox", "printf", "a\\nb\\nc"])
        .ok();
    host.docker(&["wait", &id]).ok();
    let (_, body) = host.get(&format!("/containers/{id}/logs?stdout=1"));
    let frames = body.matches("\u{1}\0\0\0").count();
    assert_eq!(frames, 3, "{body:?}");
    // The start of an exec decides its framing.
    host.docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "60"])
        .ok();
    for (tty, framed) in [("true", false), ("false", true)] {
        let post = |path: &str, body: &str| host.send("POST", path, body);
        let (_, made) = post(
            "/containers/cc/exec",
            r#"{"Cmd":["echo","hi"],"AttachStdout":true}"#,
        );
        let made: Value =
            serde_json::from_str(&made[made.find('{').unwrap()..=made.rfind('}').unwrap()])
                .unwrap();
        let start = format!(r#"{{"Tty":{tty}}}"#);
        let (status, body) = post(
            &format!("/exec/{}/start", made["Id"].as_str().unwrap()),
            &start,
        );
        assert_eq!(status, 200);
        assert_eq!(body.starts_with('\u{1}'), framed, "{body:?}");
        assert!(body.ends_with("hi\n"));
    }
}

/// `docker top` with options of ps.
#[test]
fn processes_are_shown_by_the_columns_that_were_asked_for() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let run = [
        "run",
        "-d",
        "--name=it",
        "--network=none",
        "--stop-signal=KILL",
    ];
    let command = ["busybox", "sh", "-c", "sleep 1000 & exec sleep 2000"];
    host.docker(&[&run[..], &command].concat()).ok();
    let top = |options: &[&str]| {
        let shown = host.docker(&[&["top", "it"], options].concat()).ok();
        let rows = shown.lines().map(|line| {
            let words = line.split_whitespace();
            words.map(str::to_owned).collect::<Vec<_>>()
        });
        rows.collect::<Vec<_>>()
    };
    wait_until("both run", || top(&[]).len() == 3);
    let pid = host.docker(&["inspect", "-f={{.State.Pid}}", "it"]).ok();
    let first = |rows: &[Vec<String>], column: usize| {
        let row = rows.iter().find(|row| row.contains(&pid));
        row.unwrap_or_else(|| panic!("no {pid}: {rows:?}"))[column].clone()
    };
    assert_eq!(top(&[])[0][..3], ["UID", "PID", "PPID"]);
    assert_eq!(first(&top(&[]), 0), "root");
    let users = top(&["aux"]);
    assert_eq!(users[0][..4], ["USER", "PID", "%CPU", "%MEM"]);
    assert_eq!(users[0][10], "COMMAND");
    assert_eq!(first(&users, 10), "sleep");
    let chosen = top(&["-eo", "pid,ppid,comm,args"]);
    assert_eq!(chosen[0], ["PID", "PPID", "COMMAND", "COMMAND"]);
    assert_eq!(first(&chosen, 4), "2000");
    assert_eq!(chosen.len(), 3);
    let named = top(&["-o", "pid,rss=MEMORY"]);
    assert_eq!(named[0], ["PID", "MEMORY"]);
    assert!(first(&named, 1).parse::<u64>().unwrap() > 0);
    host.docker(&["top", "it", "-o", "pid,colour"])
        .fails_with("unknown column \"colour\"");
    host.docker(&["top", "it", "--forest"])
        .fails_with("unknown option");
    host.docker(&["rm", "-f", "it"]).ok();
    let (status, text) = host.get("/containers/it/top?ps_args=aux");
    assert_eq!(status, 404, "{text}");
}
