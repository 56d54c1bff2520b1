//! Answers match the description of the Docker Engine API: paths, methods, statuses, members,
//! types, enumerations and formats. Nothing that it does not describe is answered.

mod common;
#[path = "description/members.rs"]
mod members;

use common::description::Description;
use common::registry::{Registry, Wants};
use common::{Host, image, is_root};
use serde_json::{Value, json};

/// A host with an image of two names, an unnamed one, and a container that has written.
fn stocked() -> (Description, Host) {
    stocked_on(Host::start_networked(&[]))
}

fn stocked_on(host: Host) -> (Description, Host) {
    host.load_busybox();
    host.docker(&["tag", "busybox", "team/app:1"]).ok();
    host.docker_with(&["import", "-"], &image::rootfs()).ok();
    let script = "echo 1 > /made; rm /etc/group; sleep 1000";
    let run = ["run", "-d", "--name=it", "--network=none", "--label=a=b"];
    host.docker(&[&run[..], &["busybox", "sh", "-c", script]].concat())
        .ok();
    (Description::read(), host)
}

/// The value of a query parameter.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn own_platform() -> String {
    let architecture = match cfg!(target_arch = "aarch64") {
        true => "arm64",
        false => "amd64",
    };
    encoded(&json!({"os": "linux", "architecture": architecture}).to_string())
}

#[test]
fn the_system() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    for path in ["/info", "/version", "/system/df", "/system/df?type=image"] {
        api.get(&host, path);
    }
    assert_eq!(api.succeed(&host, "GET", "/_ping", b"").body, b"OK");
    assert!(api.succeed(&host, "HEAD", "/_ping", b"").body.is_empty());
    let events = api.succeed(&host, "GET", "/events?since=0&until=0.1", b"");
    assert!(api.lines(&events, "EventMessage").is_empty());
    host.docker(&["rm", "-f", "it"]).ok();
    let until = jiff::Timestamp::now().as_second() + 1;
    let path = format!("/events?since=0&until={until}");
    let events = api.lines(&api.succeed(&host, "GET", &path, b""), "EventMessage");
    assert!(events.len() > 5, "{events:?}");
    for (path, status) in [
        ("/system/df?type=x", 400),
        ("/events?since=x", 400),
        ("/events?since=5&until=3", 400),
        ("/events?filters=x", 400),
    ] {
        assert_eq!(api.send(&host, "GET", path, b"").status, status, "{path}");
    }
}

#[test]
fn networks_volumes_and_plugins() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    let list = api.get(&host, "/networks");
    let names: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|n| &n["Name"])
        .collect();
    assert_eq!(names, ["bridge", "host", "none"]);
    let none = api.get(&host, "/networks/none");
    let id = none["Id"].as_str().unwrap();
    assert_eq!(id.len(), 64);
    let container = api.get(&host, "/containers/it/json");
    let end = &container["NetworkSettings"]["Networks"]["none"];
    assert_eq!(end["NetworkID"], id);
    let connected = &none["Containers"][container["Id"].as_str().unwrap()];
    assert_eq!(connected["Name"], "it");
    assert_eq!(connected["EndpointID"], end["EndpointID"]);
    assert_eq!(api.get(&host, &format!("/networks/{}", &id[..12])), none);
    let filtered = |filters: &str| {
        let list = api.get(&host, &format!("/networks?filters={}", encoded(filters)));
        let list = list.as_array().unwrap().clone();
        list.iter()
            .map(|n| n["Name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(filtered(r#"{"driver":["null"]}"#), ["none"]);
    assert_eq!(filtered(r#"{"name":{"^host$":true}}"#), ["host"]);
    assert_eq!(
        filtered(&format!(r#"{{"id":["{}"]}}"#, &id[..12])),
        ["none"]
    );
    for nothing in [
        r#"{"type":["custom"]}"#,
        r#"{"scope":["swarm"]}"#,
        r#"{"label":["a"]}"#,
        r#"{"dangling":["true"]}"#,
    ] {
        assert!(filtered(nothing).is_empty(), "{nothing}");
    }
    let in_none = format!(
        "/containers/json?filters={}",
        encoded(&format!(r#"{{"network":["{id}"]}}"#))
    );
    assert_eq!(api.get(&host, &in_none).as_array().unwrap().len(), 1);
    let volumes = api.get(&host, "/volumes");
    assert_eq!(volumes, json!({"Volumes": [], "Warnings": null}));
    assert_eq!(api.get(&host, "/plugins"), json!([]));
    for (path, status) in [
        ("/networks/bridge?scope=swarm", 404),
        ("/networks/none?verbose=x", 400),
        ("/volumes/none", 404),
        ("/networks?filters={\"x\":[\"y\"]}", 400),
        ("/networks?filters={\"type\":[\"y\"]}", 400),
        ("/volumes?filters={\"dangling\":[\"y\"]}", 400),
        ("/plugins?filters={\"enabled\":[\"y\"]}", 400),
        ("/plugins?filters={\"enabled\":[\"true\"]}", 200),
    ] {
        assert_eq!(api.send(&host, "GET", path, b"").status, status, "{path}");
    }
    let bridge = api.get(&host, "/networks/bridge");
    assert_eq!(
        bridge["Options"]["com.docker.network.bridge.name"],
        "docker0"
    );
    let pools = api.get(&host, "/info")["DefaultAddressPools"].clone();
    assert_eq!(pools[0], json!({"Base": "172.17.0.0/16", "Size": 16}));
}

#[test]
fn networks_are_created_and_removed() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    let send = |method: &str, path: &str, body: Value| {
        let answer = api.send(&host, method, path, body.to_string().as_bytes());
        (answer.status, answer.json())
    };
    let subnet = json!({"Subnet": "10.93.7.0/24", "Gateway": "10.93.7.9"});
    let body = json!({
        "Name": "front",
        "Internal": true,
        "IPAM": {"Config": [subnet]},
        "Labels": {"com.docker.compose.network": "front"},
        "Options": {"com.docker.network.bridge.enable_icc": "false", "foo": "bar"},
    });
    let (status, made) = send("POST", "/networks/create", body.clone());
    assert_eq!((status, &made["Warning"]), (201, &json!("")));
    let front = api.get(&host, "/networks/front");
    assert_eq!(front["Id"], made["Id"]);
    assert_eq!(front["IPAM"]["Config"], json!([subnet]));
    assert_eq!(front["Labels"], body["Labels"]);
    assert_eq!(front["Options"], body["Options"]);
    let message = |answer: &Value| answer["message"].as_str().unwrap().to_owned();
    let (status, answer) = send("POST", "/networks/create", body);
    assert_eq!(status, 409);
    assert_eq!(message(&answer), "network with name front already exists");
    for (body, status, words) in [
        (
            json!({"Name": "bridge"}),
            403,
            "operation is not permitted on predefined bridge network",
        ),
        (
            json!({"Name": "x", "Driver": "overlay"}),
            403,
            "This node is not a swarm manager.",
        ),
        (
            json!({"Name": "x", "Driver": "weave"}),
            404,
            "plugin \"weave\" not found",
        ),
        (json!({}), 400, "invalid name: name is empty"),
        (
            json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.1.1.1/24"}]}}),
            400,
            "invalid network config:\ninvalid subnet 10.1.1.1/24: it should be 10.1.1.0/24",
        ),
        (
            json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.93.0.0/16"}]}}),
            403,
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
    ] {
        let (found, answer) = send("POST", "/networks/create", body);
        assert_eq!(found, status, "{answer}");
        assert!(message(&answer).starts_with(words), "{answer}");
    }
    let (status, answer) = send("DELETE", "/networks/host", Value::Null);
    assert_eq!(status, 403);
    assert_eq!(
        message(&answer),
        "host is a pre-defined network and cannot be removed"
    );
    let (status, _) = send("POST", "/networks/create", json!({"Name": "unused"}));
    assert_eq!(status, 201);
    let pruned = format!(
        "/networks/prune?filters={}",
        encoded(r#"{"label!":["com.docker.compose.network"]}"#)
    );
    assert_eq!(
        send("POST", &pruned, Value::Null).1,
        json!({"NetworksDeleted": ["unused"]})
    );
    // As in Docker, although its own description says otherwise.
    let (_, nothing) = host.http(&format!("POST {pruned} HTTP/1.0\r\n\r\n"));
    assert_eq!(nothing.trim(), r#"{"NetworksDeleted":null}"#);
    assert_eq!(
        api.send(&host, "DELETE", "/networks/front", b"").status,
        204
    );
    let (status, answer) = send("DELETE", "/networks/front", Value::Null);
    assert_eq!(
        (status, message(&answer).as_str()),
        (404, "network front not found")
    );
}

#[test]
fn images() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    let list = api.get(
        &host,
        "/images/json?all=1&digests=1&manifests=1&shared-size=1",
    );
    assert_eq!(list.as_array().unwrap().len(), 2);
    for image in list.as_array().unwrap() {
        let id = image["Id"].as_str().unwrap();
        api.get(&host, &format!("/images/{id}/json"));
        api.get(&host, &format!("/images/{id}/json?manifests=1"));
        api.get(&host, &format!("/images/{id}/history"));
    }
    for path in [
        "/images/json",
        "/images/team/app:1/json",
        "/images/team/app:1/history",
    ] {
        api.get(&host, path);
        api.get(&host, &format!("{path}?platform={}", own_platform()));
    }
    let saved = api.succeed(&host, "GET", "/images/busybox/get", b"");
    api.succeed(
        &host,
        "GET",
        "/images/get?names=busybox&names=team/app:1",
        b"",
    );
    let loaded = api.succeed(&host, "POST", "/images/load", &saved.body);
    assert!(!api.lines(&loaded, "CreateImageInfo").is_empty());
    let import = "/images/create?fromSrc=-&repo=imported&tag=1&message=m&changes=CMD%20sh";
    let imported = api.succeed(&host, "POST", import, &image::rootfs());
    assert_eq!(api.lines(&imported, "CreateImageInfo").len(), 1);
    let full = "/images/create?fromSrc=-&repo=full&changes=USER%20a&changes=ENV%20A=b\
                &changes=EXPOSE%2080&changes=VOLUME%20/v&changes=LABEL%20a=b\
                &changes=ENTRYPOINT%20x&changes=WORKDIR%20/w&changes=ONBUILD%20RUN%20x\
                &changes=STOPSIGNAL%20SIGINT&changes=HEALTHCHECK%20CMD%20true";
    api.succeed(&host, "POST", full, &image::rootfs());
    api.get(&host, "/images/full/json");
    api.succeed(&host, "POST", "/images/busybox/tag?repo=other&tag=2", b"");
    let commit = "/commit?container=it&repo=made&author=me&comment=c&changes=USER%20nobody";
    api.succeed(&host, "POST", commit, br#"{"Cmd":["true"]}"#);
    api.get(&host, "/images/made/json");
    let removed = api.succeed(&host, "DELETE", "/images/made", b"").json();
    assert!(removed.as_array().unwrap().len() >= 2, "{removed}");
    api.succeed(&host, "DELETE", "/images/imported:1?force=1&noprune=1", b"");
    for filters in [
        r#"{"dangling":["true"]}"#,
        r#"{"dangling":["false"]}"#,
        "{}",
    ] {
        let path = format!("/images/prune?filters={}", encoded(filters));
        api.succeed(&host, "POST", &path, b"");
    }
}

#[test]
fn refusals_about_images() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    // Their error is the last step of the answer, as in Docker.
    let steps = |path: &str, body: &[u8], definition: &str| {
        let answer = api.send(&host, "POST", path, body);
        assert_eq!(answer.status, 200, "{path}");
        let lines = api.lines(&answer, definition);
        let last = lines.last().unwrap();
        let words = last["error"].as_str().unwrap().to_owned();
        assert_eq!(last["errorDetail"]["message"], *words);
        (lines, words)
    };
    for (path, repository, words) in [
        (
            "/images/none/push?tag=1",
            "docker.io/library/none",
            "An image does not exist locally with the tag: none",
        ),
        (
            "/images/localhost:1/none/push",
            "localhost:1/none",
            "An image does not exist locally with the tag: localhost:1/none",
        ),
        (
            "/images/team/app/push?tag=none",
            "docker.io/team/app",
            "tag does not exist: team/app:none",
        ),
    ] {
        let (lines, told) = steps(path, b"", "PushImageInfo");
        let first = format!("The push refers to repository [{repository}]");
        assert_eq!(lines.first().unwrap()["status"], *first);
        assert_eq!(told, words, "{path}");
        assert_eq!(lines.len(), 2, "{lines:?}");
    }
    for path in ["/images/load", "/images/load?quiet=0"] {
        for body in [&b""[..], b"garbage", &[7; 5000]] {
            let (lines, told) = steps(path, body, "CreateImageInfo");
            assert!(!told.is_empty() && lines.len() == 1, "{lines:?}");
        }
    }
    // None of several platforms is taken silently.
    let twice = format!("platform={0}&platform={0}", own_platform());
    for (method, path) in [
        ("GET", "/images/busybox/get?"),
        ("GET", "/images/get?names=busybox&"),
        ("POST", "/images/load?"),
    ] {
        let path = format!("{path}{twice}");
        let answer = api.send(&host, method, &path, b"");
        assert_eq!(answer.status, 400, "{path}");
        let words = answer.json()["message"].to_string();
        assert!(words.contains("multiple platform parameters"), "{words}");
    }
    for (method, path, status) in [
        ("GET", "/images/json?filters=x", 400),
        ("GET", "/images/none/json", 404),
        ("GET", "/images/none/history", 404),
        ("GET", "/images/none/get", 404),
        ("GET", "/images/get?names=none", 404),
        ("GET", "/images/busybox/json?platform=x", 400),
        ("GET", "/images/search", 400),
        ("POST", "/images/none/tag?repo=x", 404),
        ("POST", "/images/busybox/tag?repo=X", 400),
        ("POST", "/images/create", 400),
        ("POST", "/images/create?fromImage=X", 400),
        ("POST", "/images/prune?filters=x", 400),
        ("POST", "/commit?container=none", 404),
        ("POST", "/auth", 400),
        ("DELETE", "/images/none", 404),
        ("DELETE", "/images/busybox", 200),
        ("DELETE", "/images/team/app:1", 409),
        ("GET", "/distribution/X/json", 400),
    ] {
        let answer = api.send(&host, method, path, b"");
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

#[test]
fn registries() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(&Wants {
        login: true,
        ..Wants::default()
    });
    // The registry is in the machine's network namespace.
    let (api, host) = stocked_on(Host::start());
    let name = registry.name("app");
    host.docker(&["tag", "busybox", &name]).ok();
    let login = |password: &str| {
        json!({"username": "keeper", "password": password,
            "serveraddress": format!("localhost:{}", registry.port)})
        .to_string()
    };
    let auth = |password: &str| api.send(&host, "POST", "/auth", login(password).as_bytes());
    assert_eq!(auth("secret").status, 200);
    // The answer of Docker if the registry itself refuses, and no token server.
    let refused = auth("wrong");
    assert_eq!(refused.status, 500);
    let words = format!(
        "login attempt to http://localhost:{}/v2/ failed with status: 401 Unauthorized",
        registry.port
    );
    assert_eq!(refused.json()["message"], *words);
    let pushed = api.send(&host, "POST", &format!("/images/{name}/push"), b"");
    assert_eq!(pushed.status, 200);
    let lines = api.lines(&pushed, "PushImageInfo");
    assert!(lines.last().unwrap()["error"].is_string(), "{lines:?}");
    host.docker(&[
        "login",
        "-u=keeper",
        "-p=secret",
        &format!("localhost:{}", registry.port),
    ])
    .ok();
    host.docker(&["push", &name]).ok();
    let inspected = api.send(&host, "GET", &format!("/distribution/{name}/json"), b"");
    assert_eq!(inspected.status, 401);

    let open = Registry::start(&Wants::default());
    let name = open.name("app");
    host.docker(&["tag", "busybox", &name]).ok();
    let pushed = api.succeed(&host, "POST", &format!("/images/{name}/push"), b"");
    api.lines(&pushed, "PushImageInfo");
    api.get(&host, &format!("/distribution/{name}/json"));
    let pulled = api.succeed(
        &host,
        "POST",
        &format!("/images/create?fromImage={name}&tag=latest"),
        b"",
    );
    assert!(!api.lines(&pulled, "CreateImageInfo").is_empty());
    let missing = format!("/images/create?fromImage={name}&tag=none");
    assert_eq!(api.send(&host, "POST", &missing, b"").status, 404);
    let list: Value = api.get(&host, "/images/json?digests=1");
    assert!(list.to_string().contains("sha256:"), "{list}");
}

#[test]
fn containers() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    for path in [
        "/containers/json",
        "/containers/json?all=1&size=1",
        "/containers/it/json",
        "/containers/it/json?size=1",
        "/containers/it/top",
        "/containers/it/changes",
        "/containers/it/stats?stream=0",
        "/containers/it/stats?stream=0&one-shot=1",
    ] {
        api.get(&host, path);
    }
    api.succeed(&host, "GET", "/containers/it/logs?stdout=1", b"");
    api.succeed(&host, "GET", "/containers/it/export", b"");
    let wanted =
        br#"{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}}"#;
    let made = api.succeed(&host, "POST", "/containers/create?name=other", wanted);
    assert_eq!(made.status, 201);
    for path in [
        "start",
        "pause",
        "unpause",
        "restart?t=0",
        "kill",
        "rename?name=more",
    ] {
        api.succeed(&host, "POST", &format!("/containers/other/{path}"), b"");
    }
    api.succeed(&host, "POST", "/containers/more/wait", b"");
    api.get(&host, "/containers/more/stats?stream=0");
    assert_eq!(
        api.send(&host, "POST", "/containers/more/stop", b"").status,
        304
    );
    api.succeed(
        &host,
        "POST",
        "/containers/more/update",
        br#"{"RestartPolicy":{"Name":"no"}}"#,
    );
    let exec = br#"{"Cmd":["true"],"AttachStdout":true}"#;
    let exec = api
        .succeed(&host, "POST", "/containers/it/exec", exec)
        .json();
    let id = exec["Id"].as_str().unwrap();
    api.succeed(
        &host,
        "POST",
        &format!("/exec/{id}/start"),
        br#"{"Detach":true}"#,
    );
    api.get(&host, &format!("/exec/{id}/json"));
    for (method, path, status) in [
        ("GET", "/containers/none/json", 404),
        ("GET", "/containers/none/stats", 404),
        ("GET", "/containers/it/stats?one-shot=1", 400),
        ("GET", "/containers/json?filters=x", 400),
        ("POST", "/containers/create", 400),
        ("POST", "/containers/none/start", 404),
        ("POST", "/containers/more/kill", 409),
        ("POST", "/containers/more/rename?name=it", 409),
        ("DELETE", "/containers/it", 409),
        ("DELETE", "/containers/more", 204),
        ("DELETE", "/containers/none", 404),
        ("GET", "/exec/none/json", 404),
    ] {
        let answer = api.send(&host, method, path, b"");
        assert_eq!(answer.status, status, "{method} {path}");
    }
}
