//! Compose, both generations. There are no networks of containers yet, so each service is without.

use serde_json::Value;

use crate::common::clients::Project;
use crate::common::{Done, wait_until};

const FILE: &str = r#"
name: shop
x-all: &all
  image: busybox
  network_mode: none
  stop_signal: SIGKILL
services:
  store:
    <<: *all
    command: ["sh", "-c", "echo store is up; echo goods > /goods/item; touch /tmp/ready; while :; do sleep 1; done"]
    labels: {tier: "back"}
    volumes: ["goods:/goods"]
    healthcheck:
      test: ["CMD-SHELL", "test -e /tmp/ready"]
      interval: 100ms
  front:
    <<: *all
    command: ["sh", "-c", "echo front sees $$(cat /etc/greeting) $$(cat /run/secrets/word) $$(cat /goods/item); while :; do sleep 1; done"]
    depends_on:
      store: {condition: service_healthy}
      once: {condition: service_completed_successfully}
    configs: [{source: greeting, target: /etc/greeting}]
    secrets: [word]
    volumes: ["goods:/goods:ro"]
    environment: {LEVEL: "${LEVEL:-low}"}
  once:
    <<: *all
    command: ["true"]
  extra:
    <<: *all
    profiles: [more]
    command: ["sleep", "1000"]
  sick:
    <<: *all
    profiles: [sick]
    command: ["sleep", "1000"]
    healthcheck: {test: ["CMD", "false"], interval: 50ms, retries: 2}
  waits:
    <<: *all
    profiles: [sick]
    command: ["true"]
    depends_on: {sick: {condition: service_healthy}}
configs: {greeting: {file: ./greeting}}
secrets: {word: {file: ./word}}
volumes: {goods: {labels: {tier: back}}}
"#;

/// The identifier of a service's container.
#[track_caller]
fn id(project: &Project<'_>, service: &str) -> String {
    project.run(&["ps", "-aq", service]).ok()
}

#[test]
fn compose_through_a_projects_life() {
    let Some(host) = crate::host() else { return };
    let Some(project) = Project::new(&host) else {
        return;
    };
    project.write("compose.yaml", FILE);
    project.write("greeting", "hello");
    project.write("word", "sesame");
    project.run(&["up", "-d"]).ok();

    // The order of the starts, and the settings of the services.
    let logs = project.run(&["logs", "--no-color", "--no-log-prefix", "front"]);
    // Before it stands what clears a line of a terminal.
    let logs = logs.ok();
    assert!(logs.ends_with("front sees hello sesame goods"), "{logs:?}");
    let store = id(&project, "store");
    let services = project.run(&["ps", "--services", "--status=running"]).ok();
    let mut services: Vec<&str> = services.lines().collect();
    services.sort_unstable();
    assert_eq!(services, ["front", "store"]);
    assert_eq!(
        project
            .run(&["exec", "-T", "store", "sh", "-c", "exit 3"])
            .code,
        3
    );
    let out = project.run(&["run", "--rm", "-T", "--no-deps", "store", "echo", "once"]);
    assert_eq!(out.ok(), "once");
    assert!(project.run(&["top", "store"]).ok().contains("sleep"));
    labels(&host, &project);
    let status = project.run(&["ps", "--format=json", "store"]).ok();
    assert!(status.contains("\"Health\":\"healthy\""), "{status}");
    let volume = ["volume", "ls", "-q", "--filter=label=tier=back"];
    assert_eq!(host.docker(&volume).ok().trim(), "shop_goods");

    // A service that is not healthy delays those that wait for it.
    let sick = project.run(&["--profile=sick", "up", "-d", "waits"]);
    assert!(
        sick.code != 0 && sick.stderr.contains("is unhealthy"),
        "{}",
        sick.stderr
    );
    project
        .run(&["--profile=sick", "rm", "-fs", "sick", "waits"])
        .ok();

    // Files into a service and out of it.
    project.write("note", "remember");
    project.run(&["cp", "note", "store:/tmp/note"]).ok();
    let read = project.run(&["exec", "-T", "store", "cat", "/tmp/note"]);
    assert_eq!(read.ok(), "remember");

    // Nothing changed: nothing is made again. One service changed: only that one is made again.
    let front = id(&project, "front");
    project.run(&["up", "-d"]).ok();
    assert_eq!(id(&project, "front"), front);
    project.write(".env", "LEVEL=high\n");
    project.run(&["up", "-d"]).ok();
    assert_ne!(id(&project, "front"), front);
    assert_eq!(id(&project, "store"), store);
    let level = project.run(&["exec", "-T", "front", "sh", "-c", "echo $LEVEL"]);
    assert_eq!(level.ok(), "high");

    // More of one, fewer again; a profile.
    project
        .run(&["up", "-d", "--no-recreate", "--scale=store=3"])
        .ok();
    assert_eq!(id(&project, "store").lines().count(), 3);
    project
        .run(&["up", "-d", "--no-recreate", "--scale=store=1"])
        .ok();
    assert_eq!(id(&project, "store"), store);
    assert_eq!(id(&project, "extra"), "");
    project.run(&["--profile=more", "up", "-d"]).ok();
    assert_ne!(id(&project, "extra"), "");

    project.run(&["restart", "-t", "0", "store"]).ok();
    project.run(&["pause", "store"]).ok();
    project.run(&["unpause", "store"]).ok();
    project.run(&["stop", "store"]).ok();
    project.run(&["start", "store"]).ok();
    project.run(&["kill", "extra"]).ok();
    project.run(&["rm", "-f", "extra"]).ok();

    project.run(&["--profile=more", "down"]).ok();
    assert_eq!(host.docker(&volume).ok().trim(), "shop_goods");
    project.run(&["--profile=more", "down", "-v"]).ok();
    assert_eq!(host.docker(&["ps", "-aq"]).ok(), "");
    assert_eq!(host.docker(&["volume", "ls", "-q"]).ok(), "");
}

/// Compose finds its containers again by labels, in lists and in events.
fn labels(host: &crate::common::Host, project: &Project<'_>) {
    let front = id(project, "front");
    let text = host
        .docker(&["inspect", "-f", "{{json .Config.Labels}}", &front])
        .ok();
    let labels: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(labels["com.docker.compose.project"], "shop");
    assert_eq!(labels["com.docker.compose.oneoff"], "False");
    let filter = "/containers/json?filters=%7B%22label%22%3A%5B%22com.docker.compose.service%3Dfront%22%5D%7D";
    let (status, body) = host.get(filter);
    assert_eq!(status, 200);
    for value in labels.as_object().unwrap().values() {
        assert!(body.contains(&value.to_string()), "{value} of {body}");
    }
    let created = host
        .events_of("container")
        .into_iter()
        .find(|event| event["Action"] == "create" && event["Actor"]["ID"] == front.as_str());
    let attributes = &created.unwrap()["Actor"]["Attributes"];
    for (name, value) in labels.as_object().unwrap() {
        assert_eq!(&attributes[name], value, "{name}");
    }
}

const FORMER: &str = r#"
version: "2.4"
services:
  store:
    image: busybox
    network_mode: none
    stop_signal: SIGKILL
    command: ["sh", "-c", "echo store is up; while :; do sleep 1; done"]
  front:
    image: busybox
    network_mode: none
    stop_signal: SIGKILL
    command: ["sh", "-c", "echo front is up; while :; do sleep 1; done"]
    environment: {LEVEL: "${LEVEL:-low}"}
    depends_on: [store]
"#;

#[test]
fn compose_1_through_a_projects_life() {
    let Some(host) = crate::host() else { return };
    let Some(project) = Project::former(&host) else {
        return;
    };
    project.write("docker-compose.yml", FORMER);
    project.run(&["up", "-d"]).ok();
    let logs: Done = project.run(&["logs", "--no-color", "front"]);
    assert!(logs.ok().contains("front is up"));
    assert_eq!(
        project
            .run(&["exec", "-T", "store", "sh", "-c", "echo words"])
            .ok(),
        "words"
    );
    assert!(project.run(&["ps"]).ok().contains("Up"));

    let (store, front) = (id(&project, "store"), id(&project, "front"));
    project.run(&["up", "-d"]).ok();
    assert_eq!(
        (id(&project, "store"), id(&project, "front")),
        (store.clone(), front.clone())
    );
    // A changed service is made again.
    project.write(".env", "LEVEL=high\n");
    project.write(
        "docker-compose.yml",
        &FORMER.replace("store is up", "store is up again"),
    );
    project.run(&["up", "-d"]).ok();
    assert_ne!(id(&project, "store"), store);
    assert_ne!(id(&project, "front"), front);
    project.run(&["up", "-d", "--scale", "front=2"]).ok();
    assert_eq!(id(&project, "front").lines().count(), 2);
    project.run(&["restart", "-t", "0", "front"]).ok();
    project.run(&["down", "-v"]).ok();
    wait_until("nothing is left", || {
        host.docker(&["ps", "-aq"]).ok().is_empty()
    });
}
