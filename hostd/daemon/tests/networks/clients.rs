//! Clients that others wrote, with networks of containers.

use crate::common::clients::{Project, command, file, script};
use crate::common::{Host, wait_until};
use crate::{host, idle, inspect};

#[test]
fn python_sdk_with_networks() {
    let Some(host) = host() else { return };
    let Some(interpreter) = file("python/bin/python") else {
        return;
    };
    let done = script(command(&host, &interpreter), "networks.py", &[]);
    assert_eq!(done.ok(), "done");
}

#[test]
fn testcontainers_with_networks() {
    let Some(host) = host() else { return };
    let Some(interpreter) = file("python/bin/python") else {
        return;
    };
    let mut python = command(&host, &interpreter);
    // Their reaper is an image of its own.
    python.env("TESTCONTAINERS_RYUK_DISABLED", "true");
    let done = script(python, "ports.py", &[]);
    assert_eq!(done.ok(), "done");
}

#[test]
fn dockerode_with_networks() {
    let Some(host) = host() else { return };
    let (Some(node), Some(modules)) = (file("python/bin/node"), file("node/node_modules")) else {
        return;
    };
    let mut node = command(&host, &node);
    node.env("NODE_PATH", modules);
    assert_eq!(script(node, "networks.js", &[]).ok(), "done");
}

const SERVE: &str = "mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www";

/// Its default network, without a word about networks.
const FILE: &str = r#"
name: shop
x-all: &all
  image: busybox
  stop_signal: SIGKILL
services:
  store:
    <<: *all
    command: ["sh", "-c", "SERVE"]
    expose: ["80"]
    healthcheck:
      test: ["CMD-SHELL", "netstat -ltn | grep -q :80"]
      interval: 100ms
  front:
    <<: *all
    command: ["sh", "-c", "echo front got $$(wget -qO- http://store/); while :; do sleep 1; done"]
    depends_on: {store: {condition: service_healthy}}
    ports: ["127.0.0.1:8080:80"]
"#;

#[test]
fn compose_with_its_usual_network() {
    let Some(host) = host() else { return };
    let Some(project) = Project::new(&host) else {
        return;
    };
    let text = FILE.replace("SERVE", SERVE);
    project.write("compose.yaml", &text);
    project.run(&["up", "-d"]).ok();
    let logs = |service: &str| {
        let logs = project.run(&["logs", "--no-color", "--no-log-prefix", service]);
        logs.ok()
    };
    // The service answered as soon as it was healthy.
    wait_until("the front has asked", || {
        logs("front").contains("front got")
    });
    let store = inspect(&host, "shop-store-1");
    let name = store["Config"]["Hostname"].as_str().unwrap().to_owned();
    assert!(logs("front").contains(&format!("front got {name}")));
    let port = project.run(&["port", "front", "80"]).ok();
    assert_eq!(port, "127.0.0.1:8080");
    let once = project.run(&[
        "run",
        "--rm",
        "-T",
        "front",
        "sh",
        "-c",
        "wget -qO- http://store/",
    ]);
    assert_eq!(once.ok(), name);

    // All of a scaled service answer to its name.
    project
        .run(&["up", "-d", "--no-recreate", "--scale=store=3"])
        .ok();
    let look = [
        "exec",
        "-T",
        "front",
        "sh",
        "-c",
        "nslookup store | grep -c '^Address.*172'",
    ];
    wait_until("three have the name", || {
        project.run(&look).stdout.trim() == "3"
    });

    // Another network: what is in it is made again, and finds each other again.
    let moved =
        format!("{text}networks: {{default: {{ipam: {{config: [{{subnet: 10.77.0.0/24}}]}}}}}}\n");
    project.run(&["down"]).ok();
    project.write("compose.yaml", &moved);
    project.run(&["up", "-d"]).ok();
    let store = inspect(&host, "shop-store-1");
    let address = &store["NetworkSettings"]["Networks"]["shop_default"]["IPAddress"];
    assert!(
        address.as_str().unwrap().starts_with("10.77.0."),
        "{address}"
    );
    let asked = project.run(&["exec", "-T", "front", "sh", "-c", "wget -qO- http://store/"]);
    let name = store["Config"]["Hostname"].as_str().unwrap();
    assert_eq!(asked.ok(), name);

    // A changed service only: it keeps its name and its network.
    project.write("compose.yaml", &moved.replace("8080", "8081"));
    project.run(&["up", "-d"]).ok();
    assert_eq!(project.run(&["port", "front", "80"]).ok(), "127.0.0.1:8081");
    assert_eq!(inspect(&host, "shop-store-1")["Id"], store["Id"]);
    let asked = project.run(&["exec", "-T", "front", "sh", "-c", "wget -qO- http://store/"]);
    assert_eq!(asked.ok(), name);
    project.run(&["down", "-v"]).ok();
    let left = host.docker(&["network", "ls", "-q", "--filter=name=shop"]);
    assert_eq!(left.ok(), "");
}

const FORMER: &str = r#"
version: "2.4"
services:
  store:
    image: busybox
    stop_signal: SIGKILL
    command: ["sh", "-c", "SERVE"]
  front:
    image: busybox
    stop_signal: SIGKILL
    command: ["sleep", "100000"]
    links: ["store:depot"]
    ports: ["80"]
    networks: {default: {aliases: [www]}, inner: {}}
networks: {inner: {internal: true}}
"#;

#[test]
fn compose_1_with_networks() {
    let Some(host) = host() else { return };
    let Some(project) = Project::former(&host) else {
        return;
    };
    project.write("docker-compose.yml", &FORMER.replace("SERVE", SERVE));
    project.run(&["up", "-d"]).ok();
    let ask = |server: &str| {
        let line = format!("wget -qO- http://{server}/");
        project.run(&["exec", "-T", "front", "sh", "-c", &line])
    };
    for server in ["store", "depot"] {
        wait_until(server, || ask(server).code == 0);
    }
    let port = project.run(&["port", "front", "80"]).ok();
    assert!(port.starts_with("0.0.0.0:"), "{port}");
    let once = ["run", "--rm", "-T", "store", "sh", "-c", "ping -c1 -W3 www"];
    project.run(&once).ok();
    project.run(&["up", "-d", "--scale", "store=2"]).ok();
    let look = [
        "exec",
        "-T",
        "front",
        "sh",
        "-c",
        "nslookup store | grep -c '^Address.*172'",
    ];
    wait_until("two have the name", || {
        project.run(&look).stdout.trim() == "2"
    });
    project.run(&["restart", "-t", "0"]).ok();
    wait_until("it answers again", || ask("depot").code == 0);
    project.run(&["down", "-v"]).ok();
    let left = host.docker(&["network", "ls", "-q", "--filter=name=project"]);
    assert_eq!(left.ok(), "");
}

/// Links of the default network are removed by the name `CONTAINER/ALIAS`.
#[test]
fn a_link_is_removed() {
    let Some(mut host) = host() else { return };
    idle(&host, "db1", &[]);
    idle(&host, "web", &["--link=db1:db", "--link=db1:other"]);
    let hosts = |host: &Host| host.docker(&["exec", "web", "cat", "/etc/hosts"]).ok();
    assert!(hosts(&host).contains("db "), "{}", hosts(&host));
    host.docker(&["rm", "--link", "/web/db"]).ok();
    let left = hosts(&host);
    assert!(
        !left.contains("\tdb ") && left.contains("\tother "),
        "{left}"
    );
    let shown = inspect(&host, "web")["HostConfig"]["Links"].to_string();
    assert!(
        !shown.contains(":db\"") && shown.contains("other"),
        "{shown}"
    );
    for (name, status, words) in [
        ("web/db", 404, "No such container: web/db"),
        ("nobody/db", 404, "No such container: nobody"),
        ("web", 409, "cannot remove the default link name"),
    ] {
        let (got, text) = host.send("DELETE", &format!("/containers/{name}?link=1"), "");
        assert_eq!(got, status, "{text}");
        assert!(text.contains(words), "{text}");
    }
    host.kill_daemon();
    host.start_daemon();
    host.docker(&["rm", "--link", "web/other"]).ok();
    // Nobody waits for a container that it is not linked to any more.
    host.docker(&["rm", "-f", "db1"]).ok();
    host.docker(&["restart", "-t=0", "web"]).ok();
    host.docker(&["rm", "-f", "web"]).ok();
}
