//! Limits of containers: those that this machine's cgroup v2 has are really set, the others are
//! refused by name.

mod common;

use common::{Setup, Shim, can_run, cgroup_root};
use keelson_shim_protocol::{Request, Response};
use serde_json::{Value, json};

fn has(controller: &str) -> bool {
    let text = std::fs::read_to_string(cgroup_root().join("cgroup.controllers"));
    text.unwrap()
        .split_whitespace()
        .any(|name| name == controller)
}

fn setup(resources: &Value) -> Setup {
    let mut setup = Setup::new(&["sleep", "1000"]);
    setup.config["linux"]["resources"] = resources.clone();
    setup
}

fn file(shim: &Shim, name: &str) -> String {
    let text = std::fs::read_to_string(shim.cgroup().join(name)).unwrap();
    text.trim().to_owned()
}

fn update(shim: &Shim, resources: Value) -> Result<(), String> {
    match shim.call(&Request::Update { resources }) {
        Response::Done => Ok(()),
        Response::Failed { message, .. } => Err(message),
        other => panic!("{other:?}"),
    }
}

/// Limits by controller, with the file and the value that show them.
fn limits() -> [(&'static str, Value, &'static str, &'static str); 9] {
    [
        (
            "memory",
            json!({"memory": {"limit": 67_108_864}}),
            "memory.max",
            "67108864",
        ),
        (
            "memory",
            json!({"memory": {"reservation": 1_048_576}}),
            "memory.low",
            "1048576",
        ),
        (
            "memory",
            json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}}),
            "memory.swap.max",
            "0",
        ),
        (
            "cpu",
            json!({"cpu": {"quota": 50_000, "period": 100_000}}),
            "cpu.max",
            "50000 100000",
        ),
        ("cpu", json!({"cpu": {"shares": 512}}), "cpu.weight", "20"),
        ("cpu", json!({"cpu": {"idle": 1}}), "cpu.idle", "1"),
        ("cpuset", json!({"cpu": {"cpus": "0"}}), "cpuset.cpus", "0"),
        ("pids", json!({"pids": {"limit": 44}}), "pids.max", "44"),
        (
            "hugetlb",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            "hugetlb.2MB.max",
            "4194304",
        ),
    ]
}

#[test]
fn every_limit_is_set_or_refused_with_its_controller() {
    if !can_run() {
        return;
    }
    for (controller, resources, name, value) in limits() {
        let setup = setup(&resources);
        if has(controller) {
            assert_eq!(file(&setup.create(), name), value, "{resources}");
        } else {
            let message = setup.fails();
            assert!(message.contains("linux.resources."), "{message}");
            assert!(message.contains(&format!("{controller:?}")), "{message}");
        }
    }
}

#[test]
fn limits_of_a_running_container_change() {
    if !can_run() {
        return;
    }
    let shim = setup(&json!({})).create();
    shim.start();
    for (controller, resources, name, value) in limits() {
        match update(&shim, resources.clone()) {
            Ok(()) => assert_eq!(file(&shim, name), value, "{resources}"),
            Err(message) => {
                assert!(!has(controller), "{resources}: {message}");
                assert!(message.contains(&format!("{controller:?}")), "{message}");
            }
        }
    }
    if has("pids") {
        update(&shim, json!({"pids": {"limit": -1}})).unwrap();
        assert_eq!(file(&shim, "pids.max"), "max");
    }
    let message = update(&shim, json!({"devices": [{"allow": true}]})).unwrap_err();
    assert!(message.contains("linux.resources.devices"), "{message}");
}

#[test]
fn files_are_set_by_name() {
    if !can_run() {
        return;
    }
    if has("hugetlb") {
        let shim = setup(&json!({"unified": {"hugetlb.2MB.rsvd.max": "2097152"}})).create();
        assert_eq!(file(&shim, "hugetlb.2MB.rsvd.max"), "2097152");
    }
    for (name, reason) in [
        ("nothing.here", "\"nothing\""),
        ("../x.y", "not a cgroup file"),
    ] {
        let message = setup(&json!({"unified": {name: "1"}})).fails();
        assert!(message.contains("linux.resources.unified"), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn limits_that_version_2_does_not_have_are_refused_by_name() {
    if !can_run() {
        return;
    }
    for (resources, member) in [
        (json!({"memory": {"kernel": 1_048_576}}), "memory.kernel"),
        (
            json!({"memory": {"kernelTCP": 1_048_576}}),
            "memory.kernelTCP",
        ),
        (
            json!({"memory": {"disableOOMKiller": true}}),
            "memory.disableOOMKiller",
        ),
        (
            json!({"cpu": {"realtimeRuntime": 1000}}),
            "cpu.realtimeRuntime",
        ),
        (
            json!({"blockIO": {"leafWeight": 100}}),
            "blockIO.leafWeight",
        ),
        (json!({"network": {"classID": 5}}), "network"),
    ] {
        let message = setup(&resources).fails();
        assert!(
            message.contains(&format!("linux.resources.{member}")),
            "{message}"
        );
    }
}

#[test]
fn labels_and_the_like_that_this_kernel_lacks_are_refused_by_name() {
    if !can_run() {
        return;
    }
    for (pointer, value, member) in [
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        ("/linux/mountLabel", json!("a:b:c:s0"), "linux.mountLabel"),
        (
            "/process/selinuxLabel",
            json!("a:b:c:s0"),
            "process.selinuxLabel",
        ),
        (
            "/process/apparmorProfile",
            json!("some"),
            "process.apparmorProfile",
        ),
    ] {
        let enabled = match member {
            "process.selinuxLabel" => std::path::Path::new("/sys/fs/selinux/enforce").exists(),
            "process.apparmorProfile" => std::path::Path::new("/sys/module/apparmor").exists(),
            _ => false,
        };
        if enabled {
            continue;
        }
        let mut setup = setup(&json!({}));
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        setup.config.pointer_mut(parent).unwrap()[name] = value;
        let message = setup.fails();
        assert!(message.contains(member), "{message}");
    }
}

#[test]
fn an_additional_process_runs_in_the_requested_cgroup() {
    if !can_run() {
        return;
    }
    let mut setup = setup(&json!({}));
    // For additional processes only.
    setup.config["process"]["execCPUAffinity"] = json!({"final": "0"});
    let shim = setup.create();
    shim.start();
    let run = |name: &str, affinity: Value| {
        let process = json!({"args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
            "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
            "execCPUAffinity": affinity});
        match shim.exec(name, process) {
            Ok((text, _)) => text.split_whitespace().last().unwrap().to_owned(),
            Err(message) => message,
        }
    };
    assert_eq!(run("one", json!({"final": "0"})), "0");
    assert_eq!(run("two", json!({"initial": "0"})), "0");
    let message = run("three", json!({"final": "zero"}));
    assert!(
        message.contains("process.execCPUAffinity.final"),
        "{message}"
    );
    let message = run("four", json!({"initial": "1000"}));
    assert!(
        message.contains("process.execCPUAffinity.initial"),
        "{message}"
    );
}

#[test]
fn settings_that_need_a_cgroup_are_refused_without_one() {
    if !can_run() {
        return;
    }
    let without = |change: fn(&mut Value)| {
        let mut setup = Setup::new(&["true"]);
        setup.config["linux"]["cgroupsPath"] = json!(null);
        change(&mut setup.config);
        setup
    };
    let refused = |change: fn(&mut Value), member: &str| {
        let message = without(change).fails();
        assert!(message.contains(member), "{message}");
        assert!(message.contains("linux.cgroupsPath"), "{message}");
    };
    // The usual device rules of a process that may make devices.
    refused(|_| {}, "linux.resources.devices");
    refused(
        |config| config["linux"]["resources"] = json!({"pids": {"limit": 9}}),
        "linux.resources.pids.limit",
    );
    let taken: [fn(&mut Value); 4] = [
        |config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_CHOWN"]);
            }
        },
        |config| {
            let all = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
            config["linux"]["uidMappings"] = all.clone();
            config["linux"]["gidMappings"] = all;
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "user"}));
        },
        |config| config["linux"]["resources"]["devices"] = json!([{"allow": true}]),
        |config| config["linux"]["resources"] = json!({"cpu": {"shares": 1024}}),
    ];
    for change in taken {
        without(change).create().start();
    }
}
