//! Progress of load, push and pull: as JSON, and as the bars that the `docker` command draws.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::registry::{Registry, Wants};
use common::{Host, image, is_root, run};
use serde_json::Value;

/// Runs `docker …` on a terminal of 120 columns, and returns the terminal's contents.
fn on_terminal(host: &Host, arguments: &[&str]) -> String {
    let docker = host.docker_command(arguments);
    let words: Vec<_> = std::iter::once(docker.get_program())
        .chain(docker.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let mut command = Command::new("script");
    command.args(["-qec", &format!("stty cols 120; {}", words.join(" "))]);
    command.arg("/dev/null").env_clear();
    for (name, value) in docker.get_envs() {
        command.env(name, value.unwrap());
    }
    command.env("TERM", "xterm");
    run(&mut command, b"").ok()
}

/// The statuses of the steps of one answer, and the identifiers of the layers in it.
fn steps(answer: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut statuses, mut layers) = (BTreeSet::new(), BTreeSet::new());
    for line in answer.lines() {
        let Ok(step) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(status) = step["status"].as_str() else {
            continue;
        };
        statuses.insert(status.to_owned());
        if let Some(id) = step["id"].as_str().filter(|id| id.len() == 12) {
            layers.insert(id.to_owned());
        }
        if step["progressDetail"]["total"].is_u64() {
            let bar = step["progress"].as_str().unwrap();
            assert!(bar.starts_with('[') && bar.contains('>'), "{line}");
        }
    }
    (statuses, layers)
}

fn post(host: &Host, path: &str) -> String {
    let (status, body) = host.http(&format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(status, 200, "{body}");
    body
}

#[test]
fn a_load_draws_bars() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let file = host.path().join("image.tar");
    // Random bytes, so that it takes a few steps.
    let mut seed = 1_u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    })
    .take(6 << 20)
    .collect();
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    layer.append_data(&mut header, "data", &bytes[..]).unwrap();
    let archive = image::archive("big:1", &layer.into_inner().unwrap(), None);
    std::fs::write(&file, archive).unwrap();
    let shown = on_terminal(&host, &["load", "-i", file.to_str().unwrap()]);
    assert!(shown.contains("Loading layer [==="), "{shown}");
    assert!(shown.contains("Loaded image: big:1"), "{shown}");
    // One line for the layer, from its first byte to its last.
    let mut parts: Vec<&str> = shown.split(": Loading layer").collect();
    parts.pop();
    let layers: BTreeSet<_> = parts.iter().map(|part| &part[part.len() - 12..]).collect();
    assert_eq!(layers.len(), 1, "{layers:?}");
}

#[test]
fn push_and_pull_report_the_same_as_docker() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let registry = Registry::start(&Wants::default());
    host.load_busybox();
    let name = registry.name("box");
    host.docker(&["tag", "busybox", &format!("{name}:1")]).ok();
    let (told, layers) = steps(&post(&host, &format!("/images/{name}/push?tag=1")));
    for status in ["Preparing", "Pushing", "Pushed"] {
        assert!(told.contains(status), "{told:?}");
    }
    assert!(
        told.contains(&format!("The push refers to repository [{name}]")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|line| line.starts_with("1: digest: sha256:")),
        "{told:?}"
    );
    assert_eq!(layers.len(), 1);
    let (again, _) = steps(&post(&host, &format!("/images/{name}/push?tag=1")));
    assert!(again.contains("Layer already exists"), "{again:?}");

    host.docker(&["rmi", "busybox", &format!("{name}:1")]).ok();
    let pull = format!("/images/create?fromImage={name}&tag=1");
    let (told, layers) = steps(&post(&host, &pull));
    for status in ["Pulling fs layer", "Download complete", "Pull complete"] {
        assert!(told.contains(status), "{told:?}");
    }
    assert!(
        told.contains(&format!("Status: Downloaded newer image for {name}:1")),
        "{told:?}"
    );
    assert!(told.contains("Pulling from box"), "{told:?}");
    assert_eq!(layers.len(), 1);
    let (again, _) = steps(&post(&host, &pull));
    assert!(
        again.contains(&format!("Status: Image is up to date for {name}:1")),
        "{again:?}"
    );
    let shown = on_terminal(&host, &["push", &format!("{name}:1")]);
    assert!(shown.contains("Layer already exists"), "{shown}");
}
