//! Mounts that show ids through mappings.

mod common;

use std::os::unix::fs::MetadataExt;

use common::{Setup, can_run};
use serde_json::{Value, json};

/// A container that runs a script. It has bind mounts of two host directories, of user 0 and of
/// user 1000. `mount` is their entry without source and destination.
fn setup(script: &str, mount: &Value) -> Setup {
    let mut setup = Setup::new(&["sh", "-c", script]);
    let directory = setup.directory.path().join("shared");
    std::fs::create_dir_all(directory.join("below")).unwrap();
    for (name, owner) in [("of-0", 0), ("of-1000", 1000)] {
        std::fs::write(directory.join(name), "").unwrap();
        std::os::unix::fs::chown(directory.join(name), Some(owner), Some(owner)).unwrap();
    }
    let mut mount = mount.clone();
    mount["type"] = json!("bind");
    mount["source"] = json!(directory);
    mount["destination"] = json!("/mnt");
    setup.config["mounts"].as_array_mut().unwrap().push(mount);
    setup
}

#[test]
fn owners_are_shown_and_stored_through_the_mapping() {
    if !can_run() {
        return;
    }
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 2000}]);
    let mount = json!({"options": ["rbind", "idmap"], "uidMappings": map, "gidMappings": map});
    let mut setup = setup(
        "stat -c %u:%g /mnt/of-0 /mnt/of-1000; echo x > /mnt/made; stat -c %u /mnt/made",
        &mount,
    );
    setup.config["process"]["user"] = json!({"uid": 5000, "gid": 5000});
    let directory = setup.directory.path().join("shared");
    let shim = setup.create();
    shim.start();
    assert_eq!(shim.wait().code, 0, "{}", shim.output());
    assert_eq!(shim.output(), "5000:5000\n6000:6000\n5000\n");
    assert_eq!(std::fs::metadata(directory.join("made")).unwrap().uid(), 0);
}

#[test]
fn the_option_alone_takes_the_containers_mappings() {
    if !can_run() {
        return;
    }
    let mount = json!({"options": ["bind", "ridmap"]});
    let map = json!([{"containerID": 0, "hostID": 300_000, "size": 65536}]);
    let mut setup = setup("stat -c %u /mnt/of-0 /mnt/of-1000; touch /mnt/made", &mount);
    let directory = setup.directory.path().join("shared");
    let message = setup.fails();
    assert!(message.contains("uidMappings"), "{message}");
    let linux = &mut setup.config["linux"];
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    let namespaces = linux["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    // The root belongs to the host's root user, and everything is there already.
    for name in ["mnt", "dev/pts", "dev/shm", "dev/mqueue"] {
        std::fs::create_dir_all(setup.directory.path().join("lower").join(name)).unwrap();
    }
    setup.spec.rootfs = keelson_shim_protocol::Rootfs::Directory {
        path: setup.directory.path().join("lower"),
    };
    let shim = setup.create();
    shim.start();
    assert_eq!(shim.wait().code, 0, "{}", shim.output());
    assert_eq!(shim.output(), "0\n1000\n");
    assert_eq!(std::fs::metadata(directory.join("made")).unwrap().uid(), 0);
}

#[test]
fn half_a_mapping_is_refused_by_name() {
    if !can_run() {
        return;
    }
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 1}]);
    let message = setup("true", &json!({"options": ["bind"], "gidMappings": map})).fails();
    assert!(message.contains(".uidMappings"), "{message}");
    let map = json!([{"containerID": 0, "hostID": 5000}]);
    let mount = json!({"options": ["bind"], "gidMappings": map, "uidMappings": map});
    let message = setup("true", &mount).fails();
    assert!(
        message.contains("mounts[7].uidMappings") || message.contains("mounts[7].gidMappings"),
        "{message}"
    );
}
