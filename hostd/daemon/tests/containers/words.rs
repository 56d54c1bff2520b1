//! Refused requests, with the status and the words that clients match on.

use serde_json::{Value, json};

use crate::common::{Host, wait_until};

/// Status and `message` of the answer to a request.
fn ask(host: &Host, method: &str, path: &str, body: &Value) -> (u16, String) {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let (status, answer) = host.send(method, path, &body);
    let answer: Value = serde_json::from_str(answer.trim()).unwrap_or_default();
    let message = answer["message"].as_str().or(answer["Id"].as_str());
    (status, message.unwrap_or_default().to_owned())
}

fn create(host: &Host, body: &Value) -> String {
    let (status, id) = ask(host, "POST", "/containers/create", body);
    assert_eq!(status, 201, "{id}");
    id
}

#[test]
fn refusals_have_the_words_that_clients_match() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let none = json!({"NetworkMode": "none"});
    let sleeper = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "KILL", "HostConfig": none,
    });
    let idle = create(&host, &sleeper);
    let runs = create(&host, &sleeper);
    let post = |path: String, body: Value| ask(&host, "POST", &path, &body);
    let on = |id: &str, what: &str| format!("/containers/{id}/{what}");
    let refused = |(status, message): (u16, String), wanted: u16, words: &str| {
        assert!(
            status == wanted && message.contains(words),
            "{status} {message:?}, not {wanted} {words:?}"
        );
    };
    let start = |id: &str| post(on(id, "start"), Value::Null);

    refused(
        post(
            "/containers/create".to_owned(),
            json!({"Image": "missing", "HostConfig": none}),
        ),
        404,
        "No such image: missing:latest",
    );
    refused(
        post(on(&idle, "kill"), Value::Null),
        409,
        &format!("container {idle} is not running"),
    );
    refused(
        post(on(&idle, "exec"), json!({"Cmd": ["true"]})),
        409,
        &format!("container {idle} is not running"),
    );
    refused(
        post(on(&idle, "start"), json!({"Binds": ["/a:/b"]})),
        400,
        "removed in v1.24",
    );

    // Curl and old clients send an empty object.
    assert_eq!(post(on(&runs, "start"), json!({})).0, 204);
    assert_eq!(start(&runs).0, 304);
    refused(
        ask(
            &host,
            "DELETE",
            &format!("/containers/{runs}"),
            &Value::Null,
        ),
        409,
        "container is running: stop the container before removing or force remove",
    );
    for (body, words) in [
        (json!({}), "No exec command specified"),
        (
            json!({"Cmd": ["true"], "User": "nobody9"}),
            "unable to find user nobody9",
        ),
    ] {
        refused(post(on(&runs, "exec"), body), 400, words);
    }
    refused(
        post("/exec/0123/start".to_owned(), json!({})),
        404,
        "No such exec instance: 0123",
    );
    let (_, exec) = post(on(&runs, "exec"), json!({"Cmd": ["true"], "Tty": true}));
    refused(
        post(format!("/exec/{exec}/resize?h=9&w=9"), Value::Null),
        400,
        "exec process is not started",
    );
    let begin = || post(format!("/exec/{exec}/start"), json!({"Detach": true}));
    assert_eq!(begin().0, 200);
    wait_until("the second start is refused for good", || {
        begin() == (409, format!("exec command {exec} has already run"))
    });
    for (query, words) in [
        ("h=x&w=1", "invalid resize height \"x\""),
        ("h=1", "invalid resize width \"\""),
    ] {
        refused(
            post(on(&runs, &format!("resize?{query}")), Value::Null),
            400,
            words,
        );
    }
    refused(
        post(on(&runs, "wait?condition=x"), Value::Null),
        400,
        "invalid condition: \"x\"",
    );

    // Options without an effect cause a warning, as at the creation of a container.
    let (status, body) = host.send("POST", &on(&runs, "update"), r#"{"OomKillDisable":true}"#);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("OomKillDisable discarded."), "{body}");

    assert_eq!(post(on(&runs, "pause"), Value::Null).0, 204);
    refused(
        post(on(&runs, "pause"), Value::Null),
        409,
        "is already paused",
    );
    refused(
        start(&runs),
        409,
        "cannot start a paused container, try unpause instead",
    );
    refused(
        ask(
            &host,
            "DELETE",
            &format!("/containers/{runs}"),
            &Value::Null,
        ),
        409,
        "container is paused and must be unpaused first",
    );
    refused(
        post(on(&runs, "exec"), json!({"Cmd": ["true"]})),
        409,
        "is paused, unpause the container before exec",
    );
    assert_eq!(post(on(&runs, "unpause"), Value::Null).0, 204);
    refused(
        post(on(&runs, "unpause"), Value::Null),
        409,
        "is not paused",
    );

    let wrong = |kind: &str, options: &str| {
        let mount = json!({"Type": kind, "Source": "/tmp", "Target": "/a", options: {}});
        json!({"Image": "busybox", "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}})
    };
    refused(
        post(
            "/containers/create".to_owned(),
            wrong("bind", "VolumeOptions"),
        ),
        400,
        "VolumeOptions must not be specified on mount type \"bind\"",
    );
    // Older clients sent them, and were not refused.
    create_at(&host, "/v1.41", &wrong("bind", "VolumeOptions"));
}

fn create_at(host: &Host, version: &str, body: &Value) {
    let (status, said) = ask(host, "POST", &format!("{version}/containers/create"), body);
    assert_eq!(status, 201, "{said}");
}

/// A failed start: status, exit code and words decide the exit code of the docker command.
#[test]
fn a_failed_start_says_what_is_wrong() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    for (command, binds, code, words) in [
        ("nope", None, 127, "executable file not found"),
        ("/etc/nope", None, 127, "no such file or directory"),
        ("/etc", None, 126, "permission denied"),
        (
            "true",
            Some("/etc/hostname:/etc"),
            127,
            "Are you trying to mount a directory onto a file (or vice-versa)?",
        ),
    ] {
        let id = create(
            &host,
            &json!({
                "Image": "busybox", "Cmd": [command],
                "HostConfig": {"NetworkMode": "none", "Binds": binds.map(|bind| [bind])},
            }),
        );
        let path = format!("/containers/{id}/start");
        let (status, message) = ask(&host, "POST", &path, &Value::Null);
        assert!(
            status == 400 && message.contains(words),
            "{status} {message}"
        );
        let shown = host.docker(&["inspect", "--format", "{{json .State}}", &id]);
        let state: Value = serde_json::from_str(&shown.ok()).unwrap();
        assert_eq!(state["ExitCode"], code, "{state}");
        assert_eq!(state["Status"], "created", "{state}");
        assert_eq!(state["Error"], message.as_str());
    }
}

#[test]
fn one_of_two_simultaneous_prunes_is_refused() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
    let prune = || host.send("POST", "/containers/prune", "");
    let refused = (0..10).any(|_| {
        for _ in 0..20 {
            create(&host, &body);
        }
        // Of those that start together, the first one is busy for a while.
        let answers = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(prune)).collect();
            let all = all.into_iter().map(|one| one.join().unwrap());
            all.collect::<Vec<_>>()
        });
        for (status, message) in &answers {
            match status {
                200 => {}
                409 => assert!(
                    message.contains("a prune operation is already running"),
                    "{message}"
                ),
                _ => panic!("{status} {message}"),
            }
        }
        assert!(
            answers.iter().any(|(status, _)| *status == 200),
            "{answers:?}"
        );
        answers.iter().any(|(status, _)| *status == 409)
    });
    assert!(refused);
    assert_eq!(prune().0, 200);
    assert_eq!(host.docker(&["ps", "-aq"]).ok(), "");
}
