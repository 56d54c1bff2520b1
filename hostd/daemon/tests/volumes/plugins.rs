//! Volumes of plugins.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::plugin::{Mood, Plugin};
use crate::common::{Host, is_root, wait_until};
use crate::{load_seeded, run, volumes};

fn shown(host: &Host, path: &str) -> Value {
    let (status, text) = host.get(path);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn sleeping(host: &Host, name: &str, options: &[&str]) -> String {
    let mut args = vec!["run", "-d", "--network=none", "--name", name];
    args.extend(options);
    args.extend(["busybox", "sleep", "1000"]);
    host.docker(&args).ok()
}

#[test]
fn a_plugin_keeps_volumes() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let plugin = Plugin::start(&host.plugins(), "shelf");
    plugin.add("foreign");
    host.docker(&["volume", "create", "own"]).ok();
    host.docker(&[
        "volume",
        "create",
        "-d=shelf",
        "--opt=a=b",
        "--label=c=d",
        "book",
    ])
    .ok();
    assert_eq!(plugin.count("VolumeDriver.Create book"), 1);
    // This finds the existing volume.
    host.docker(&["volume", "create", "-d=shelf", "book"]).ok();
    // Without an option, docker sends "local"; other clients omit the driver.
    let (status, text) = host.send("POST", "/volumes/create", r#"{"Name":"book"}"#);
    assert_eq!(status, 201, "{text}");
    assert_eq!(plugin.count("VolumeDriver.Create book"), 1);

    assert_eq!(volumes(&host), ["book", "foreign", "own"]);
    let of_plugin = host
        .docker(&["volume", "ls", "-q", "--filter=driver=shelf"])
        .ok();
    assert_eq!(of_plugin, "book\nforeign");
    let volume = shown(&host, "/volumes/book");
    assert_eq!(volume["Driver"], "shelf");
    assert_eq!(volume["Scope"], "global");
    assert_eq!(volume["Options"], json!({"a": "b"}));
    assert_eq!(volume["Labels"], json!({"c": "d"}));
    assert_eq!(volume["Status"], json!({"kept": "here"}));
    assert_eq!(volume["CreatedAt"], "2020-01-02T03:04:05Z");
    assert_eq!(
        volume["Mountpoint"],
        plugin.data("book").display().to_string()
    );
    assert_eq!(shown(&host, "/volumes/foreign")["Options"], Value::Null);
    assert_eq!(
        shown(&host, "/info")["Plugins"]["Volume"],
        json!(["local", "shelf"])
    );

    // Each container has its own use, also with several paths.
    let first = sleeping(&host, "first", &["-v=book:/x", "-v=book:/y:ro"]);
    let mount = "type=volume,src=book,dst=/z,volume-driver=shelf";
    let second = sleeping(&host, "second", &["--mount", mount]);
    let mut both = [first.clone(), second.clone()];
    both.sort();
    assert_eq!(plugin.users("book"), both);
    host.docker(&["exec", "first", "sh", "-c", "echo page > /x/1; cat /y/1"])
        .ok();
    assert_eq!(
        fs::read_to_string(plugin.data("book").join("1")).unwrap(),
        "page\n"
    );
    let mounts = shown(&host, &format!("/containers/{second}/json"));
    assert_eq!(mounts["Mounts"][0]["Driver"], "shelf");
    assert_eq!(mounts["Mounts"][0]["Source"], volume["Mountpoint"]);
    host.docker(&["volume", "rm", "book"])
        .fails_with("remove book: volume is in use");
    host.docker(&["stop", "-t=0", "first"]).ok();
    wait_until("the first use ends", || {
        plugin.users("book") == std::slice::from_ref(&second)
    });
    host.docker(&["start", "first"]).ok();
    assert_eq!(plugin.users("book"), both);
    assert_eq!(plugin.count(&format!("VolumeDriver.Mount book {first}")), 2);
    host.docker(&["rm", "-f", "first", "second"]).ok();
    wait_until("both uses end", || plugin.users("book").is_empty());

    // A volume without a name, and one whose name is a path.
    let seen = run(
        &host,
        &[
            "--volume-driver=shelf",
            "-v=/anonymous",
            "-v=server/a:/p",
            "busybox",
        ],
        "touch /p/x; ls /p",
    );
    assert_eq!(seen, "x");
    assert_eq!(volumes(&host), ["book", "foreign", "own", "server/a"]);
    // A prune only affects this host's disk.
    host.send("POST", "/v1.41/volumes/prune", "");
    assert_eq!(volumes(&host), ["book", "foreign", "server/a"]);
    assert_eq!(shown(&host, "/system/df?type=volume")["Volumes"], json!([]));
    host.docker(&["volume", "rm", "book", "foreign", "server/a"])
        .ok();
    assert!(!plugin.has("book") && !plugin.has("foreign"));
    assert_eq!(volumes(&host), [""; 0]);
    let events = host.events_of("volume");
    let of_book: Vec<_> = events
        .iter()
        .filter(|event| event["Actor"]["ID"] == "book")
        .map(|event| {
            assert_eq!(event["Actor"]["Attributes"]["driver"], "shelf");
            event["Action"].as_str().unwrap()
        })
        .collect();
    assert_eq!(of_book.first(), Some(&"create"));
    assert_eq!(of_book.last(), Some(&"destroy"));
}

#[test]
fn uses_outlive_hostd() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    load_seeded(&host);
    let plugin = Plugin::start(&host.plugins(), "shelf");
    let options = ["--volume-driver=shelf", "-v=book:/data"];
    let stays = sleeping(&host, "stays", &options);
    let ends = sleeping(&host, "ends", &options);
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(plugin.users("book").len(), 2);
    assert_eq!(plugin.count(&format!("VolumeDriver.Mount book {stays}")), 1);
    let inspected = shown(&host, &format!("/containers/{stays}/json"));
    assert_eq!(
        inspected["Mounts"][0]["Source"],
        plugin.data("book").display().to_string()
    );
    host.docker(&["exec", "-u=nobody", "stays", "true"]).ok();
    // It ends while no hostd runs.
    let pid = shown(&host, &format!("/containers/{ends}/json"))["State"]["Pid"].to_string();
    host.kill_daemon();
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    host.start_daemon();
    wait_until("the use ends", || {
        plugin.users("book") == std::slice::from_ref(&stays)
    });
    host.docker(&["rm", "-f", "stays"]).ok();
    wait_until("no use is left", || plugin.users("book").is_empty());
    host.docker(&["rm", "ends"]).ok();

    // The image's files are copied. The temporary use of this is removed, too.
    host.docker(&["create", "--volume-driver=shelf", "-v=new:/data", "seeded"])
        .ok();
    assert_eq!(
        fs::read_to_string(plugin.data("new").join("file")).unwrap(),
        "seed\n"
    );
    assert!(plugin.users("new").is_empty());

    // Killed while the plugin mounts.
    host.docker(&[
        "create",
        "--name=late",
        "--network=none",
        "-v=book:/x",
        "busybox",
        "true",
    ])
    .ok();
    plugin.set_mood(Mood::Silent);
    let mut starting = host.docker_command(&["start", "late"]);
    let mut starting = starting
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let id = host.docker(&["inspect", "-f={{.Id}}", "late"]).ok();
    wait_until("the plugin is asked", || {
        plugin.count(&format!("VolumeDriver.Mount book {id}")) == 1
    });
    host.kill_daemon();
    starting.wait().unwrap();
    plugin.set_mood(Mood::Works);
    host.start_daemon();
    wait_until("no use is left", || plugin.users("book").is_empty());
    host.docker(&["start", "-a", "late"]).ok();
    wait_until("no use is left", || plugin.users("book").is_empty());
}

#[test]
fn a_failing_plugin_does_not_affect_others() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let plugin = Plugin::start(&host.plugins(), "shelf");
    let stuck = sleeping(&host, "stuck", &["--volume-driver=shelf", "-v=book:/x"]);
    host.docker(&[
        "create",
        "--restart=always",
        "--name=waits",
        "--network=none",
        "-v=book:/x",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    plugin.set_mood(Mood::Silent);
    let began = Instant::now();
    let (_, list) = host.get("/volumes");
    assert!(list.contains("no answer within 2 s"), "{list}");
    assert!(list.contains("\"book\""), "{list}");
    // From now on others are served at once.
    host.docker(&["volume", "create", "own"]).ok();
    assert_eq!(
        run(&host, &["-v=own:/x", "busybox"], "touch /x/y; ls /x"),
        "y"
    );
    let drivers = shown(&host, "/info")["Plugins"]["Volume"].clone();
    assert_eq!(drivers, json!(["local"]));
    let (_, list) = host.get("/volumes");
    assert!(list.contains("left out"), "{list}");
    host.docker(&["exec", "stuck", "ls", "/x"]).ok();
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    let mut starting = host.docker_command(&["start", "waits"]);
    let mut starting = starting
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // More requests than may wait.
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let socket = host.socket();
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
                let request = "GET /volumes/book HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
                stream.write_all(request.as_bytes()).unwrap();
                let mut text = String::new();
                let _ = stream.read_to_string(&mut text);
                text
            })
        })
        .collect();
    wait_until("some are refused", || {
        asked.iter().any(std::thread::JoinHandle::is_finished)
    });
    host.docker(&["run", "--rm", "--network=none", "busybox", "true"])
        .ok();
    // hostd's start does not wait for plugins.
    host.kill_daemon();
    starting.wait().unwrap();
    let texts: Vec<String> = asked
        .into_iter()
        .map(|asked| asked.join().unwrap())
        .collect();
    assert!(
        texts.iter().any(|text| text.starts_with("HTTP/1.1 503")),
        "{texts:?}"
    );
    let began = Instant::now();
    host.start_daemon();
    host.docker(&["ps"]).ok();
    assert!(began.elapsed() < Duration::from_secs(10));
    plugin.set_mood(Mood::Refuses);
    host.docker(&[
        "run",
        "--network=none",
        "-v=other:/x",
        "--volume-driver=shelf",
        "busybox",
    ])
    .fails_with("create other: VolumeDriver.Create: it does not want to");
    drop(plugin);
    host.docker(&["volume", "inspect", "book"])
        .fails_with("get book: error looking up volume plugin shelf: plugin \"shelf\" not found");
    assert_eq!(volumes(&host), ["book", "own"]);
    let inspected = shown(&host, &format!("/containers/{stuck}/json"));
    assert_eq!(inspected["State"]["Running"], true);
    host.docker(&["rm", "-f", "stuck", "waits"]).ok();
    host.docker(&["volume", "rm", "book"])
        .fails_with("plugin \"shelf\" not found");
    host.docker(&["volume", "rm", "-f", "book"]).ok();
    assert_eq!(volumes(&host), ["own"]);
}

#[test]
fn names_belong_to_one_driver() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let plugin = Plugin::start(&host.plugins(), "shelf");
    host.docker(&["volume", "create", "own"]).ok();
    host.docker(&["volume", "create", "-d=shelf", "book"]).ok();
    for (body, status, words) in [
        (
            r#"{"Name":"own","Driver":"shelf"}"#,
            409,
            "create own: driver 'local' already has volume 'own': volume name must be unique",
        ),
        (
            r#"{"Name":"book","Driver":"local"}"#,
            409,
            "driver 'shelf' already has volume 'book'",
        ),
        (
            r#"{"Name":"new","Driver":"none"}"#,
            404,
            r#"create new: error looking up volume plugin none: plugin \"none\" not found"#,
        ),
        (
            r#"{"Name":"new","Driver":"../shelf"}"#,
            404,
            r#"plugin \"../shelf\" not found"#,
        ),
    ] {
        let (got, text) = host.send("POST", "/volumes/create", body);
        assert_eq!(got, status, "{text}");
        assert!(text.contains(words), "{text}");
    }
    // The error must not look like a missing image.
    let body = r#"{"Image":"busybox","HostConfig":{"Binds":["x1:/x"],"VolumeDriver":"none"}}"#;
    let (status, text) = host.send("POST", "/containers/create", body);
    assert_eq!(status, 400, "{text}");
    assert!(
        text.contains("error looking up volume plugin none"),
        "{text}"
    );
    // A volume that was not created here is found by its name alone.
    plugin.add("foreign");
    host.docker(&["create", "--name=cc", "-v=foreign:/x", "busybox"])
        .ok();
    let inspected = shown(&host, "/containers/cc/json");
    assert_eq!(inspected["Mounts"][0]["Driver"], "shelf");
    // It vanishes while a container uses it.
    plugin.lose("foreign");
    let (status, text) = host.send("POST", "/volumes/create", r#"{"Name":"foreign"}"#);
    assert_eq!(status, 409, "{text}");
    assert!(
        text.contains("the volume was not found in the driver"),
        "{text}"
    );
    host.docker(&["start", "cc"])
        .fails_with("error while mounting volume 'foreign': foreign is not here");
    host.docker(&["rm", "cc"]).ok();
    host.docker(&["volume", "create", "foreign"]).ok();
    assert_eq!(shown(&host, "/volumes/foreign")["Driver"], "local");
}
