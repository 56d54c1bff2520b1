//! Events as clients of every version read them, and answers that differ by the client's version.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Host, PATIENCE};

/// Events of a container and its volume, in order, by their actions.
fn told(host: &Host) -> Vec<Value> {
    let kinds = ["container", "volume"];
    let lines = host.events();
    let events = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| kinds.iter().any(|kind| event["Type"] == *kind))
        .collect()
}

fn actions(events: &[Value]) -> String {
    let names = events.iter().map(|event| match event["Type"].as_str() {
        Some("volume") => format!("volume {}", event["Action"].as_str().unwrap()),
        _ => event["Action"].as_str().unwrap().to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}

#[test]
fn events_come_in_order_with_what_clients_read_of_them() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let labels = ["--label=a.b=c d", "--label=com.docker.compose.oneoff=False"];
    let run = ["run", "-d", "--name=one", "--network=none", "-v=data:/d"];
    let script = "trap 'exit 3' TERM; while :; do sleep 0.05; done";
    let command = ["busybox", "sh", "-c", script];
    let id = host.docker(&[&run[..], &labels, &command].concat()).ok();
    host.docker(&["stop", "one"]).ok();
    host.docker(&["start", "one"]).ok();
    host.docker(&["restart", "-t=0", "one"]).ok();
    host.docker(&["rename", "one", "two"]).ok();
    host.docker(&["pause", "two"]).ok();
    host.docker(&["unpause", "two"]).ok();
    host.docker(&["kill", "-s=KILL", "two"]).ok();
    host.docker(&["rm", "two"]).ok();
    let events = told(&host);
    let all = actions(&events);
    for order in [
        "volume create, create",
        "volume mount, start",
        "kill, die",
        "rename, pause, unpause, kill, die",
    ] {
        assert!(all.contains(order), "{order} in {all}");
    }
    let last = |action: &str| {
        let found = events.iter().rev().find(|event| event["Action"] == action);
        found.unwrap_or_else(|| panic!("{action} in {all}")).clone()
    };
    let position = |action: &str| {
        let mut all = events.iter();
        all.position(|event| event["Action"] == action).unwrap()
    };
    assert!(position("die") < position("stop"), "{all}");
    let restart = position("restart");
    assert_eq!(actions(&events[restart - 1..restart]), "start", "{all}");

    // What old clients read, and nothing else.
    let created = last("create");
    assert_eq!(created["status"], "create");
    assert_eq!(created["id"], id.as_str());
    assert_eq!(created["from"], "busybox");
    assert_eq!(created["scope"], "local");
    let attributes = |action: &str| last(action)["Actor"]["Attributes"].clone();
    for action in ["create", "start", "kill", "die", "stop", "destroy"] {
        let attributes = attributes(action);
        assert_eq!(attributes["a.b"], "c d", "{action}: {attributes}");
        assert_eq!(attributes["com.docker.compose.oneoff"], "False");
        assert_eq!(attributes["image"], "busybox");
        assert!(!attributes["name"].as_str().unwrap().starts_with('/'));
    }
    assert_eq!(attributes("kill")["signal"], "9");
    assert_eq!(attributes("die")["exitCode"], "137");
    let duration = attributes("die")["execDuration"].clone();
    assert!(
        duration
            .as_str()
            .is_some_and(|text| text.parse::<u64>().is_ok()),
        "{duration}"
    );
    assert_eq!(attributes("rename")["oldName"], "/one");
    assert_eq!(attributes("rename")["name"], "two");

    // One for each kind that is pruned, beside those of the objects.
    host.docker(&["create", "--name=gone", "busybox"]).ok();
    host.docker(&["container", "prune", "-f"]).ok();
    host.docker(&["volume", "prune", "-af"]).ok();
    let events = told(&host);
    for (kind, single) in [("container", "destroy"), ("volume", "destroy")] {
        let of_kind: Vec<_> = events
            .iter()
            .filter(|event| event["Type"] == kind)
            .collect();
        let [.., before, prune] = of_kind.as_slice() else {
            panic!("{kind}: {of_kind:?}");
        };
        assert_eq!(
            (&before["Action"], &prune["Action"]),
            (&single.into(), &"prune".into())
        );
        assert_eq!(prune["Actor"]["ID"], "");
        let reclaimed = prune["Actor"]["Attributes"]["reclaimed"].as_str().unwrap();
        assert!(reclaimed.parse::<u64>().is_ok(), "{prune}");
    }
}

/// Sends a wait, and reads what comes at once.
fn wait(host: &Host, version: &str) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    write!(
        stream,
        "POST /v{version}/containers/it/wait HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut bytes = vec![0; 4096];
    let length = match stream.read(&mut bytes) {
        Ok(length) => length,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            0
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    (stream, text)
}

#[test]
fn older_clients_are_answered_as_they_expect() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "USR1",
        "HostConfig": {"NetworkMode": "none", "Annotations": {"a": "b"}}});
    let create = |name: &str| {
        let path = format!("/containers/create?name={name}");
        assert_eq!(host.send("POST", &path, &body.to_string()).0, 201);
        let path = format!("/containers/{name}/start");
        assert_eq!(host.send("POST", &path, "").0, 204);
    };
    create("it");
    // Old clients get the head with the end, new ones as soon as the wait is registered.
    let (mut old, at_once) = wait(&host, "1.29");
    assert_eq!(at_once, "");
    let (mut new, at_once) = wait(&host, "1.30");
    assert!(at_once.starts_with("HTTP/1.1 200 "), "{at_once}");
    host.docker(&["kill", "it"]).ok();
    for stream in [&mut old, &mut new] {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("\"StatusCode\":137"), "{rest}");
    }

    // A signal in a stop is for new clients: SIGKILL would be the end at once.
    let signals = |name: &str| {
        let events = host.events_of("container");
        let kills = events.iter().filter(|event| {
            event["Action"] == "kill" && event["Actor"]["Attributes"]["name"] == name
        });
        kills
            .map(|event| {
                event["Actor"]["Attributes"]["signal"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    for (version, name, first) in [("1.41", "former", "10"), ("1.42", "latter", "9")] {
        create(name);
        let path = format!("/v{version}/containers/{name}/stop?t=1&signal=KILL");
        assert_eq!(host.send("POST", &path, "").0, 204);
        assert_eq!(signals(name)[0], first, "{version}");
    }

    for (version, query, status) in [("1.41", "type=x", 200), ("1.42", "type=x", 400)] {
        let (found, text) = host.get(&format!("/v{version}/system/df?{query}"));
        assert_eq!(found, status, "{text}");
    }
    let notes = |version: &str| {
        let (_, text) = host.get(&format!("/v{version}/containers/json?all=1"));
        let list: Vec<Value> = serde_json::from_str(&text).unwrap();
        list[0]["HostConfig"].get("Annotations").cloned()
    };
    assert_eq!(
        (notes("1.45"), notes("1.46")),
        (None, Some(json!({"a": "b"})))
    );
    let (status, text) = host.get("/containers/it/logs");
    assert_eq!(status, 400);
    assert!(
        text.contains("you must choose at least one stream"),
        "{text}"
    );
    let mac = r#"{"Image":"busybox","MacAddress":"02:42:ac:11:00:09"}"#;
    for (version, warnings) in [("1.43", 0), ("1.44", 1)] {
        let (status, text) = host.send("POST", &format!("/v{version}/containers/create"), mac);
        let made: Value = serde_json::from_str(&text).unwrap();
        let warned = made["Warnings"].as_array().unwrap();
        let warned = warned
            .iter()
            .filter(|text| text.as_str().unwrap().contains("MacAddress"));
        assert_eq!((status, warned.count()), (201, warnings), "{text}");
    }
    let long = json!({"Image": "busybox", "Hostname": "h".repeat(65)}).to_string();
    assert_eq!(host.send("POST", "/containers/create", &long).0, 400);
}
