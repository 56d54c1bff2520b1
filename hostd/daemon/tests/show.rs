//! Requests that show images: lists with filters, inspection, history, disk usage, events.

mod common;

use common::{Host, image, is_root};
use serde_json::{Value, json};

/// A host with busybox, a child of it without a name, a named child of that, and an import.
fn stocked() -> Host {
    let host = Host::start();
    host.load_busybox();
    for (from, change, to) in [
        ("busybox", "LABEL step=1", "team/app:1"),
        ("team/app:1", "LABEL step=2 kind=app", "team/app:2"),
    ] {
        host.docker(&["run", "--name=it", "--network=none", from, "touch", "/new"])
            .ok();
        host.docker(&["commit", "-c", change, "it", to]).ok();
        host.docker(&["rm", "it"]).ok();
    }
    host.docker(&["rmi", "team/app:1"]).ok();
    host.docker_with(&["import", "-", "imported:1"], &image::rootfs())
        .ok();
    host
}

fn json(host: &Host, path: &str) -> Value {
    let (status, body) = host.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// A filter in a query string.
fn filters(json: &str) -> String {
    json.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn filters_choose_images() {
    if !is_root() {
        return;
    }
    let host = stocked();
    let list = |arguments: &[&str]| {
        let format = ["images", "--format={{.Repository}}:{{.Tag}}"];
        let mut names: Vec<_> = host
            .docker(&[&format, arguments].concat())
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        names.sort();
        names.join(" ")
    };
    let all = "busybox:latest imported:1 team/app:2";
    assert_eq!(list(&[]), all);
    assert_eq!(list(&["-a"]), format!("<none>:<none> {all}"));
    assert_eq!(list(&["--filter=label=step"]), "team/app:2");
    assert_eq!(list(&["--filter=label=step=1"]), "");
    assert_eq!(list(&["--filter=since=busybox"]), "imported:1 team/app:2");
    assert_eq!(list(&["--filter=before=team/app:2"]), "busybox:latest");
    assert_eq!(list(&["--filter=reference=*/app"]), "team/app:2");
    assert_eq!(list(&["--filter=until=2024-12-31"]), "busybox:latest");
    assert_eq!(list(&["--filter=until=1h"]), "busybox:latest");
    // Of several the earliest counts, in any order.
    let (early, late) = ("--filter=until=2024-12-31", "--filter=until=2099-01-01");
    assert_eq!(list(&[late]), all);
    assert_eq!(list(&[early, late]), "busybox:latest");
    assert_eq!(list(&[late, early]), "busybox:latest");
    assert_eq!(list(&["--filter=dangling=true"]), "");
    host.docker(&["images", "--filter=until=never"])
        .fails_with("invalid filter 'until=never'");
    host.docker(&["images", "--filter=colour=red"])
        .fails_with("invalid filter 'colour'");
    host.docker(&["images", "--filter=since=nothing"])
        .fails_with("No such image: nothing");
    let old = json(&host, "/v1.40/images/json?filter=imported");
    assert_eq!(old.as_array().unwrap().len(), 1);
}

#[test]
fn manifests_platforms_and_shared_sizes() {
    if !is_root() {
        return;
    }
    let host = stocked();
    host.docker(&["create", "--name=user", "busybox"]).ok();
    let listed = json(&host, "/v1.51/images/json?shared-size=1&manifests=1");
    let of = |name: &str| {
        let named = |image: &&Value| image["RepoTags"][0] == name;
        listed.as_array().unwrap().iter().find(named).unwrap()
    };
    let (busybox, app) = (of("busybox:latest"), of("team/app:2"));
    assert_eq!(busybox["SharedSize"], busybox["Size"]);
    assert!(app["SharedSize"].as_u64() > busybox["Size"].as_u64());
    assert_eq!(of("imported:1")["Containers"], -1);
    let manifest = &busybox["Manifests"][0];
    assert_eq!(manifest["Available"], true);
    assert_eq!(manifest["ID"], busybox["Descriptor"]["digest"]);
    assert_eq!(
        manifest["ImageData"]["Containers"][0]
            .as_str()
            .unwrap()
            .len(),
        64
    );
    let without = json(&host, "/v1.46/images/json?manifests=1");
    assert!(without[0].get("Manifests").is_none() && without[0].get("Descriptor").is_none());

    let inspected = json(&host, "/v1.51/images/busybox/json?manifests=1");
    assert_eq!(&inspected["Manifests"][0], manifest);
    let descriptor = &inspected["Descriptor"];
    assert_eq!(descriptor, &busybox["Descriptor"]);
    assert_eq!(descriptor["digest"], manifest["ID"]);
    assert!(descriptor["mediaType"].is_string() && descriptor["size"].as_u64() > Some(0));
    let former = json(&host, "/v1.47/images/busybox/json");
    assert!(former.get("Descriptor").is_none(), "{former}");
    let own = filters(r#"{"os":"linux"}"#);
    let other = filters(r#"{"os":"linux","architecture":"s390x"}"#);
    for path in ["json", "history", "get"] {
        let answer =
            |platform: &str| host.get(&format!("/v1.51/images/busybox/{path}?platform={platform}"));
        assert_eq!(answer(&own).0, 200, "{path}");
        let (status, body) = answer(&other);
        assert_eq!(status, 404, "{path}");
        let words = "image with reference busybox was found but does not provide the specified platform (linux/s390x)";
        assert!(body.contains(words), "{body}");
        assert_eq!(answer("x").0, 400, "{path}");
    }
    let both = host.get(&format!(
        "/v1.51/images/busybox/json?manifests=1&platform={own}"
    ));
    assert_eq!(both.0, 400, "{}", both.1);
    let delete = |platform: &str| {
        host.http(&format!(
            "DELETE /v1.51/images/imported:1?platforms={platform} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
    };
    assert_eq!(delete(&other).0, 404);
    assert_eq!(delete(&own).0, 200);
}

#[test]
fn disk_usage_counts_everything() {
    if !is_root() {
        return;
    }
    let host = stocked();
    host.docker(&[
        "run",
        "--name=it",
        "--network=none",
        "busybox",
        "sh",
        "-c",
        "echo 12345 > /f",
    ])
    .ok();
    let usage = json(&host, "/v1.51/system/df");
    assert_eq!(usage["Images"].as_array().unwrap().len(), 3);
    let containers: Vec<_> = usage["Images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["Containers"].as_i64().unwrap())
        .collect();
    assert_eq!(containers.iter().sum::<i64>(), 1);
    assert_eq!(usage["Containers"][0]["SizeRw"], 6);
    let stored = usage["LayersSize"].as_u64().unwrap();
    assert!(stored > 1 << 20, "{stored}");
    assert_eq!(usage["Volumes"], Value::Array(Vec::new()));
    let only = json(&host, "/v1.51/system/df?type=container");
    assert!(only.get("Images").is_none() && only["Containers"].is_array());
    assert_eq!(host.get("/v1.51/system/df?type=x").0, 400);
    let table = host.docker(&["system", "df"]).ok();
    let images = table
        .lines()
        .find(|line| line.starts_with("Images"))
        .unwrap();
    let numbers: Vec<_> = images.split_whitespace().collect();
    assert_eq!(numbers[1..3], ["3", "1"], "{table}");
    let verbose = host.docker(&["system", "df", "-v"]).ok();
    assert!(
        verbose.contains("SHARED SIZE") && verbose.contains("6B"),
        "{verbose}"
    );
}

#[test]
fn prune_by_label_and_time() {
    if !is_root() {
        return;
    }
    let host = stocked();
    let prune = |filters: &[&str]| {
        let done = host.docker(&[&["image", "prune", "-af"], filters].concat());
        done.ok();
        host.docker(&["images", "-q"]).ok().lines().count()
    };
    assert_eq!(prune(&["--filter=until=1h", "--filter=label=step"]), 3);
    assert_eq!(
        prune(&["--filter=label!=kind", "--filter=until=2030-01-01"]),
        1
    );
    let twice = [
        "image",
        "prune",
        "-f",
        "--filter=until=1h",
        "--filter=until=2h",
    ];
    host.docker(&twice)
        .fails_with("more than one until filter specified");
    host.docker(&["image", "prune", "-f", "--filter=until=x"])
        .fails_with("invalid filter 'until=x'");
    host.docker(&["image", "prune", "-f", "--filter=colour=x"])
        .fails_with("invalid filter 'colour'");
    assert_eq!(prune(&[]), 0);
    let pruned = host.events_of("image");
    let last = pruned.last().unwrap();
    assert_eq!(last["Action"], "prune");
    let reclaimed = last["Actor"]["Attributes"]["reclaimed"].as_str().unwrap();
    assert!(reclaimed.parse::<u64>().unwrap() > 1 << 20);
}

#[test]
fn events_tell_what_happened_to_images() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host.docker(&["images", "-q", "--no-trunc"]).ok();
    host.docker(&["tag", "busybox", "team/other:1"]).ok();
    let file = host.path().join("saved.tar");
    host.docker(&["save", "-o", file.to_str().unwrap(), "busybox"])
        .ok();
    host.docker_with(&["import", "-", "imported:1"], &image::rootfs())
        .ok();
    let imported = host
        .docker(&["images", "-q", "--no-trunc", "imported"])
        .ok();
    host.docker(&["rmi", "imported:1"]).ok();
    let events: Vec<String> = host
        .events_of("image")
        .iter()
        .map(|event| {
            assert_eq!(event["scope"], "local");
            assert_eq!(event["id"], event["Actor"]["ID"]);
            let text = |value: &Value| {
                value
                    .as_str()
                    .unwrap()
                    .replace(&id, "B")
                    .replace(&imported, "I")
            };
            let actor = &event["Actor"];
            format!(
                "{} {} {}",
                text(&event["Action"]),
                text(&actor["ID"]),
                text(&actor["Attributes"]["name"])
            )
        })
        .collect();
    assert_eq!(
        events,
        [
            "load B B",
            "tag B team/other:1",
            "save B B",
            "tag I imported:1",
            "import I I",
            "untag I I",
            "delete I I",
        ]
    );
    let labels = &host.events_of("image")[0]["Actor"]["Attributes"];
    assert_eq!(labels["made.by"], "test");
}

#[test]
fn removal_conflicts_are_explained() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host.docker(&["images", "-q"]).ok();
    host.docker(&["tag", "busybox", "other"]).ok();
    host.docker(&["rmi", &id])
        .fails_with("(must be forced) - image is referenced in multiple repositories");
    host.docker(&["rmi", "other"]).ok();
    let user = host.docker(&["create", "busybox"]).ok();
    host.docker(&["rmi", "busybox"]).fails_with(&format!(
        "conflict: unable to remove repository reference \"busybox\" (must force) - container {} is using its referenced image {id}",
        &user[..12]
    ));
    host.docker(&["rmi", &id]).fails_with(&format!(
        "conflict: unable to delete {id} (must be forced) - image is being used by stopped container {}",
        &user[..12]
    ));
    host.docker(&["rm", &user]).ok();
    let run = host
        .docker(&["run", "-d", "--network=none", "busybox", "sleep", "1000"])
        .ok();
    host.docker(&["rmi", "-f", &id]).fails_with(&format!(
        "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {}",
        &run[..12]
    ));
    host.docker(&["rm", "-f", &run]).ok();
    for (path, status, text) in [
        ("/images/nothing:1/json", 404, "No such image: nothing:1"),
        (
            "/images/nothing/history",
            404,
            "No such image: nothing:latest",
        ),
        ("/images/Upper/json", 400, "lowercase"),
        ("/images/json?filters=x", 400, "invalid filter:"),
        ("/images/get", 400, "names"),
    ] {
        let (found, body) = host.get(path);
        assert_eq!(found, status, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
}

/// `docker info` shows what a create grants, and an inspect shows the same.
#[test]
fn info_shows_what_create_grants() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let (status, info) = host.get("/info");
    assert_eq!(status, 200);
    let info: Value = serde_json::from_str(&info).unwrap();
    let create = |options: Value| -> (u16, Value) {
        let body = json!({"Image": "busybox", "HostConfig": options}).to_string();
        let (status, answer) = host.send("POST", "/containers/create", &body);
        (status, serde_json::from_str(&answer).unwrap())
    };
    let inspect = |created: &Value| -> Value {
        let id = created["Id"].as_str().unwrap();
        let (_, text) = host.get(&format!("/containers/{id}/json"));
        serde_json::from_str(&text).unwrap()
    };
    // The defaults.
    let (_, usual) = create(json!({}));
    let usual = inspect(&usual);
    assert_eq!(usual["HostConfig"]["Runtime"], info["DefaultRuntime"]);
    assert_eq!(
        usual["HostConfig"]["LogConfig"]["Type"],
        info["LoggingDriver"]
    );
    assert_eq!(usual["Driver"], info["Driver"]);
    assert_eq!(usual["HostConfig"]["CgroupnsMode"], "private");
    assert_eq!(info["SecurityOptions"][1], "name=cgroupns");
    // Every name, and no other.
    let runtimes = info["Runtimes"].as_object().unwrap();
    for name in ["keelson", "runc", "io.containerd.runc.v2"] {
        assert!(runtimes.contains_key(name), "{name}");
    }
    for name in runtimes.keys() {
        let (status, answer) = create(json!({"Runtime": name}));
        assert_eq!(status, 201, "{name}: {answer}");
        assert_eq!(inspect(&answer)["HostConfig"]["Runtime"], **name);
    }
    assert_eq!(create(json!({"Runtime": "unheard"})).0, 400);
    let drivers = info["Plugins"]["Log"].as_array().unwrap();
    assert!(drivers.contains(&info["LoggingDriver"]));
    for driver in drivers {
        let (status, answer) = create(json!({"LogConfig": {"Type": driver}}));
        assert_eq!(status, 201, "{driver}: {answer}");
    }
    assert_eq!(create(json!({"LogConfig": {"Type": "unheard"}})).0, 400);
    // The engine's own controllers decide both.
    for (member, option) in [
        ("MemoryLimit", json!({"Memory": 64 << 20})),
        ("CPUShares", json!({"CpuShares": 512})),
        ("CPUSet", json!({"CpusetCpus": "0"})),
        ("PidsLimit", json!({"PidsLimit": 10})),
    ] {
        let (status, answer) = create(option);
        assert_eq!(status, 201, "{member}: {answer}");
        assert_eq!(
            info[member],
            !answer["Warnings"].to_string().contains("discarded"),
            "{member}: {answer}"
        );
    }
    assert_eq!(info["CgroupVersion"], "2");
}
