//! The contents of containers, through the `docker` command: diff, commit, export and sizes.

mod common;

use common::{Host, image};

/// A container that has changed things and has ended.
fn changed(host: &Host, name: &str) {
    host.docker(&[
        "run",
        "--name",
        name,
        "--network=none",
        "-e",
        "A=1",
        "--label=tier=front",
        "busybox",
        "sh",
        "-c",
        "rm -r /root; mkdir /made; echo text > /made/file; ln /made/file /made/link; \
         chmod 700 /tmp; echo more >> /etc/group",
    ])
    .ok();
}

#[test]
fn diff_names_every_change() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&["create", "--name=new", "busybox"]).ok();
    assert_eq!(host.docker(&["diff", "new"]).ok(), "");
    host.docker(&["run", "--name=idle", "--network=none", "busybox", "true"])
        .ok();
    assert_eq!(host.docker(&["diff", "idle"]).ok(), "");
    changed(&host, "busy");
    assert_eq!(
        host.docker(&["diff", "busy"]).ok(),
        "C /etc\nC /etc/group\nA /made\nA /made/file\nA /made/link\nD /root\nC /tmp"
    );
    host.docker(&["diff", "nobody"])
        .fails_with("No such container: nobody");
    let (status, body) = host.get("/containers/idle/changes");
    assert_eq!((status, body.trim()), (200, "null"));
    // Volumes are no part of the root file system.
    host.docker(&[
        "run",
        "--name=volume",
        "--network=none",
        "-v/root",
        "busybox",
        "touch",
        "/root/data",
    ])
    .ok();
    assert!(!host.docker(&["diff", "volume"]).ok().contains("data"));
}

#[test]
fn a_commit_makes_an_image_that_runs() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    changed(&host, "busy");
    let id = host
        .docker(&[
            "commit",
            "-a=me",
            "-m=because",
            "-c=CMD [\"cat\", \"/made/link\"]",
            "-c=ENV B=$A-2",
            "-c=HEALTHCHECK --interval=5s CMD true",
            "busy",
            "team/made:1",
        ])
        .ok();
    assert_eq!(
        host.docker(&["run", "--rm", "--network=none", "team/made:1"])
            .ok(),
        "text"
    );
    let look = |format: &str| host.docker(&["inspect", "-f", format, "team/made:1"]).ok();
    assert_eq!(look("{{.Id}}"), id);
    assert_eq!(look("{{.Author}} {{.Comment}}"), "me because");
    assert_eq!(look("{{index .Config.Labels \"tier\"}}"), "front");
    assert_eq!(look("{{.Config.Healthcheck.Interval}}"), "5s");
    let env = look("{{json .Config.Env}}");
    assert!(
        env.contains("\"A=1\"") && env.contains("\"B=1-2\""),
        "{env}"
    );
    let history = host
        .docker(&[
            "history",
            "--no-trunc",
            "--format={{.CreatedBy}}|{{.Comment}}",
            "team/made:1",
        ])
        .ok();
    assert!(history.starts_with("sh -c rm -r /root"), "{history}");
    assert!(history.lines().next().unwrap().ends_with("|because"));
    assert!(history.ends_with("COPY busybox|"), "{history}");

    // The parent's layers are shared, and it cannot go before its child.
    host.docker(&["rm", "busy"]).ok();
    host.docker(&["rmi", "-f", "busybox"]).ok();
    assert_eq!(
        host.docker(&["run", "--rm", "--network=none", "team/made:1", "true"])
            .code,
        0
    );
    host.docker(&["create", "--name=same", "team/made:1"]).ok();
    let same = host.docker(&["commit", "same"]).ok();
    assert_eq!(
        host.docker(&["inspect", "-f", "{{.Config.Healthcheck.Interval}}", &same])
            .ok(),
        "5s"
    );
    let layers = |image: &str| {
        host.docker(&["inspect", "-f", "{{len .RootFS.Layers}}", image])
            .ok()
    };
    assert_eq!((layers(&id), layers(&same)), ("2".into(), "2".into()));
}

#[test]
fn a_running_container_is_paused_for_a_commit() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host
        .docker(&["run", "-d", "--network=none", "busybox", "sleep", "1000"])
        .ok();
    host.docker(&["exec", &id, "touch", "/there"]).ok();
    host.docker(&["commit", &id, "one"]).ok();
    host.docker(&["commit", "--pause=false", &id, "two"]).ok();
    assert_eq!(
        host.docker(&["inspect", "-f", "{{.State.Status}}", &id])
            .ok(),
        "running"
    );
    let events = host.events_of("container");
    let last: Vec<String> = events
        .iter()
        .map(|event| {
            let image = event["Actor"]["Attributes"]["imageRef"].as_str();
            format!(
                "{} {}",
                event["Action"].as_str().unwrap(),
                image.unwrap_or("-")
            )
        })
        .skip_while(|line| !line.starts_with("pause"))
        .collect();
    assert_eq!(
        last,
        [
            "pause -",
            "unpause -",
            "commit one:latest",
            "commit two:latest"
        ]
    );
    assert_eq!(
        host.docker(&["run", "--rm", "--network=none", "one", "ls", "/there"])
            .ok(),
        "/there"
    );
    host.docker(&["rm", "-f", &id]).ok();
}

#[test]
fn bad_commits_are_refused() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&["create", "--name=it", "busybox"]).ok();
    for (arguments, text) in [
        (&["nobody"][..], "No such container: nobody"),
        (&["-c=RUN true", "it"], "run is not a valid change command"),
        (
            &["-c=HEALTHCHECK true", "it"],
            "Unknown type \"true\" in HEALTHCHECK",
        ),
        (&["it", "Upper"], "must be lowercase"),
    ] {
        let done = host.docker(&[&["commit"], arguments].concat());
        done.fails_with(text);
    }
    let (status, body) = host
        .http("POST /commit HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status, 400, "{body}");
    assert_eq!(host.docker(&["images", "-q"]).ok().lines().count(), 1);
}

#[test]
fn an_export_can_be_imported() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    changed(&host, "busy");
    let file = host.path().join("export.tar");
    let file = file.to_str().unwrap();
    host.docker(&["export", "-o", file, "busy"]).ok();
    let mut archive = tar::Archive::new(std::fs::File::open(file).unwrap());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert!(names.contains(&"made/file".to_owned()), "{names:?}");
    assert!(names.contains(&"bin/busybox".to_owned()), "{names:?}");
    assert!(
        !names.iter().any(|name| name.starts_with("root")),
        "{names:?}"
    );
    host.docker(&[
        "import",
        "-c=SHELL [\"sh\", \"-ec\"]",
        "-c=CMD cat /made/link",
        file,
        "again",
    ])
    .ok();
    assert_eq!(
        host.docker(&["run", "--rm", "--network=none", "again"])
            .ok(),
        "text"
    );
    host.docker(&["export", "nobody"])
        .fails_with("No such container: nobody");
}

#[test]
fn sizes_are_those_of_the_files() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&[
        "run",
        "--name=it",
        "--network=none",
        "busybox",
        "sh",
        "-c",
        "head -c 5000 /dev/zero > /a; ln /a /b; ln -s /bin /c",
    ])
    .ok();
    let size = host
        .docker(&["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "it"])
        .ok();
    let (written, whole) = size.split_once(' ').unwrap();
    assert_eq!(written, "5000");
    assert!(whole.parse::<u64>().unwrap() > image::rootfs().len() as u64 / 2);
    let list = host.docker(&["ps", "-as", "--format={{.Size}}"]).ok();
    assert!(list.starts_with("5kB (virtual "), "{list}");
}

#[test]
fn what_does_not_run_is_pruned() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let create = |arguments: &[&str]| {
        let start = ["create", "--network=none"];
        host.docker(&[&start, arguments, &["busybox", "sleep", "1000"]].concat())
            .ok()
    };
    host.docker(&[
        "run",
        "-d",
        "--name=alive",
        "--network=none",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    host.docker(&[
        "run",
        "--name=ended",
        "--network=none",
        "busybox",
        "sh",
        "-c",
        "head -c 5000 /dev/zero > /a",
    ])
    .ok();
    let ended = host.docker(&["inspect", "-f={{.Id}}", "ended"]).ok();
    let kept = create(&["--label=keep=1", "--name=kept"]);
    let prune = |filters: &str| {
        let (status, text) = host.http(&format!(
            "POST /v1.51/containers/prune?filters={filters} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        ));
        (
            status,
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        )
    };
    // {"until":["1h"]}
    let (status, none) = prune("%7B%22until%22%3A%5B%221h%22%5D%7D");
    assert_eq!(status, 200);
    assert!(none["ContainersDeleted"].is_null());
    // {"label!":["keep"]}
    let (_, one) = prune("%7B%22label!%22%3A%5B%22keep%22%5D%7D");
    assert_eq!(one["ContainersDeleted"], serde_json::json!([ended]));
    assert_eq!(one["SpaceReclaimed"], 5000);
    let text = host.docker(&["container", "prune", "-f"]).ok();
    assert!(text.contains(&kept), "{text}");
    assert_eq!(
        host.docker(&["ps", "-a", "--format={{.Names}}"]).ok(),
        "alive"
    );
    for (filters, words) in [
        (
            "%7B%22colour%22%3A%5B%22x%22%5D%7D",
            "invalid filter 'colour'",
        ),
        (
            "%7B%22until%22%3A%5B%22x%22%5D%7D",
            "invalid filter 'until=x'",
        ),
    ] {
        let (status, error) = prune(filters);
        assert_eq!(status, 400);
        assert_eq!(error["message"], words);
    }
    let events = host.events_of("container");
    let prunes: Vec<_> = events
        .iter()
        .filter(|event| event["Action"] == "prune")
        .collect();
    assert_eq!(prunes.len(), 3);
    assert_eq!(prunes[1]["Actor"]["ID"], "");
    let attributes = serde_json::json!({"reclaimed": "5000"});
    assert_eq!(prunes[1]["Actor"]["Attributes"], attributes);
    let destroyed = |event: &&serde_json::Value| event["Action"] == "destroy";
    assert_eq!(events.iter().filter(destroyed).count(), 2);
    host.docker(&["rm", "-f", "alive"]).ok();
}
