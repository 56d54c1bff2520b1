//! The program on imitated machines: NoCloud in directories and lines, and imitations of each
//! cloud's metadata service at its real address, in a network namespace of the test.

mod common;

use std::time::Duration;

use common::{Answers, Cloud, Imitation, may_run};

const CONFIG: &str = "#cloud-config\nhostname: told\n";

fn nocloud(machine: &Imitation, id: &str, user_data: &str) {
    machine.write(
        "seed/meta-data",
        &format!("instance-id: {id}\nlocal-hostname: meta\n"),
    );
    machine.write("seed/user-data", user_data);
    machine.write("proc/cmdline", "quiet ds=nocloud;s=/seed/");
}

#[test]
fn a_seed_is_applied_once_for_each_instance() {
    let machine = Imitation::new();
    nocloud(&machine, "i-1", CONFIG);
    assert_eq!(machine.run(None, &["local"]).code, 0);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("told"));
    let status = machine.status();
    assert_eq!(status["state"], "complete");
    assert_eq!(status["source"], "nocloud");
    assert_eq!(status["instance_id"], "i-1");
    machine.files_are_private();

    // The same instance with other words: not again, and it says so.
    nocloud(&machine, "i-1", "#cloud-config\nhostname: other\n");
    let run = machine.run(None, &["local"]);
    assert!(
        run.log.contains("has not: they are not applied again"),
        "{}",
        run.log
    );
    assert_eq!(machine.layer()["hostname"].as_str(), Some("told"));

    // A new one.
    nocloud(&machine, "i-2", "#cloud-config\nhostname: other\n");
    machine.run(None, &["local"]);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("other"));

    // The seed is gone: what it said stays.
    machine.write("proc/cmdline", "quiet");
    machine.run(None, &["local"]);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("other"));
    assert_eq!(machine.status()["state"], "complete");
}

#[test]
fn a_machine_without_a_source_gets_nothing() {
    let machine = Imitation::new();
    machine.write("proc/cmdline", "quiet");
    machine.write("sys/class/dmi/id/product_serial", "PC-7");
    assert_eq!(machine.run(None, &["local"]).code, 0);
    assert!(!machine.exists("host.toml"));
    assert_eq!(machine.status()["state"], "none");
}

#[test]
fn smbios_comes_before_the_command_line() {
    let machine = Imitation::new();
    nocloud(&machine, "i-1", CONFIG);
    machine.write("sys/class/dmi/id/product_uuid", "U-1");
    machine.write("seeds/U-1/meta-data", "");
    machine.write("seeds/U-1/user-data", "");
    machine.write(
        "sys/class/dmi/id/product_serial",
        "ds=nocloud;s=/seeds/__dmi.system-uuid__/;h=smbios;i=s-1",
    );
    machine.run(None, &["local"]);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("smbios"));
    assert_eq!(machine.status()["instance_id"], "s-1");
}

#[test]
fn firmware_gives_ignition() {
    let machine = Imitation::new();
    let directory = "sys/firmware/qemu_fw_cfg/by_name/opt";
    machine.write(
        &format!("{directory}/com.coreos/config/raw"),
        r#"{"ignition": {"version": "3.0.0"}, "storage": {"files": [{"path": "/etc/hostname", "contents": {"source": "data:,ignited"}}]}}"#,
    );
    machine.run(None, &["local"]);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("ignited"));
    assert_eq!(machine.status()["source"], "fw_cfg");
}

#[test]
fn what_a_newer_release_kept_is_left_alone() {
    let machine = Imitation::new();
    nocloud(&machine, "i-1", CONFIG);
    machine.run(None, &["local"]);
    let file = "var/lib/keelson/host/platform/seed.json";
    let newer = machine
        .read(file)
        .replace(":1,\"readable_from\":1,", ":9,\"readable_from\":9,");
    assert!(newer.contains("\"version\":9"), "{newer}");
    machine.write(file, &newer);
    machine.write("proc/cmdline", "");
    machine.run(None, &["local"]);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("told"));
    assert_eq!(machine.read(file), newer);
    assert_eq!(machine.status()["state"], "failed");
}

#[test]
fn a_copied_disk_does_not_keep_what_a_cloud_said_to_another_machine() {
    let machine = Imitation::new();
    machine.write("proc/cmdline", "");
    machine.write("sys/class/dmi/id/sys_vendor", "Amazon EC2");
    machine.write("sys/class/dmi/id/product_uuid", "ec2-second");
    machine.write(
        "var/lib/keelson/host/platform/seed.json",
        r#"{"version":1,"source":"ec2","instance_id":"i-1","machine":"ec2-first","hostname":"first"}"#,
    );
    assert_eq!(machine.run(None, &["local"]).code, 3);
    assert!(!machine.exists("host.toml"));
    machine.write("sys/class/dmi/id/product_uuid", "ec2-first");
    assert_eq!(machine.run(None, &["local"]).code, 3);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("first"));
}

#[test]
fn ec2_by_tokens() {
    if !may_run() {
        return;
    }
    let machine = Imitation::new();
    machine.write("proc/cmdline", "");
    machine.write("sys/class/dmi/id/sys_vendor", "Amazon EC2");
    let cloud = Cloud::new(&["169.254.169.254"]);
    let server = cloud.serve("169.254.169.254:80", |request| {
        if request.line.starts_with("PUT /latest/api/token ") {
            assert_eq!(
                request.header("x-aws-ec2-metadata-token-ttl-seconds"),
                Some("21600")
            );
            return Answers::ok("TOKEN-7c1");
        }
        if request.header("x-aws-ec2-metadata-token") != Some("TOKEN-7c1") {
            return Answers::status(401);
        }
        match request.path() {
            "/latest/meta-data/instance-id" => Answers::ok("i-0abc"),
            "/latest/meta-data/local-hostname" => Answers::ok("ip-10-0-0-1.ec2.internal"),
            "/latest/meta-data/public-keys/" => Answers::ok("0=mine\n1=yours"),
            "/latest/meta-data/public-keys/0/openssh-key" => Answers::ok("ssh-rsa A mine"),
            "/latest/user-data" => Answers::ok("#cloud-config\nfqdn: web.example\n"),
            _ => Answers::status(404),
        }
    });
    // Before the network it only says that it wants one.
    assert_eq!(machine.run(None, &["local"]).code, 3);
    assert_eq!(machine.status()["state"], "pending");
    let run = machine.run(Some(&cloud), &["network", "--limit", "60"]);
    assert_eq!(run.code, 4, "{}", run.log);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("web"));
    assert_eq!(machine.status()["instance_id"], "i-0abc");
    let seed = machine.read("var/lib/keelson/host/platform/seed.json");
    assert!(seed.contains("ssh-rsa A mine"), "{seed}");
    assert!(
        !run.log.contains("TOKEN-7c1") && !seed.contains("TOKEN-7c1"),
        "{}",
        run.log
    );

    // The second boot, and the service is gone.
    drop(server);
    assert_eq!(machine.run(None, &["local"]).code, 3);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("web"));
    let run = machine.run(Some(&cloud), &["network", "--limit", "1"]);
    assert_eq!(run.code, 0, "{}", run.log);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("web"));
    assert_eq!(machine.status()["state"], "failed");
}

#[test]
fn ec2_without_tokens_is_not_asked_in_the_old_way() {
    if !may_run() {
        return;
    }
    let machine = Imitation::new();
    machine.write("proc/cmdline", "keelson.platform=ec2");
    let cloud = Cloud::new(&["169.254.169.254"]);
    let server = cloud.serve("169.254.169.254:80", |_| Answers::status(403));
    let run = machine.run(Some(&cloud), &["network", "--limit", "60"]);
    assert!(run.log.contains("gives no token"), "{}", run.log);
    assert_eq!(server.requests(), ["PUT /latest/api/token HTTP/1.1"]);
    assert_eq!(machine.status()["state"], "failed");
}

#[test]
fn openstack_with_its_network() {
    if !may_run() {
        return;
    }
    let machine = Imitation::new();
    machine.write("proc/cmdline", "");
    machine.write("sys/class/dmi/id/product_name", "OpenStack Nova");
    let cloud = Cloud::new(&["169.254.169.254"]);
    let _server = cloud.serve("169.254.169.254:80", |request| match request.path() {
        "/openstack/latest/meta_data.json" => Answers::ok(r#"{"uuid": "u-1", "hostname": "web.novalocal"}"#),
        "/openstack/latest/network_data.json" => Answers::ok(
            r#"{"links": [{"id": "t", "type": "phy", "ethernet_mac_address": "fa:16:3e:00:00:01"}],
                "networks": [{"link": "t", "type": "ipv4", "ip_address": "192.0.2.7", "netmask": "255.255.255.0", "gateway": "192.0.2.1"}],
                "services": []}"#,
        ),
        "/openstack/latest/vendor_data.json" => Answers::ok(r##"{"cloud-init": "#cloud-config\nntp: {servers: [ntp.example]}"}"##),
        _ => Answers::status(404),
    });
    let run = machine.run(Some(&cloud), &["network", "--limit", "60"]);
    assert_eq!(run.code, 4, "{}", run.log);
    let layer = machine.layer();
    assert_eq!(layer["hostname"].as_str(), Some("web"));
    let link = &layer["network"]["link"][0];
    assert_eq!(link["mac"].as_str(), Some("fa:16:3e:00:00:01"));
    assert_eq!(layer["time"]["servers"][0].as_str(), Some("ntp.example"));
}

#[test]
fn gce_with_its_header() {
    if !may_run() {
        return;
    }
    let machine = Imitation::new();
    machine.write("proc/cmdline", "");
    machine.write("sys/class/dmi/id/product_name", "Google Compute Engine");
    let cloud = Cloud::new(&["169.254.169.254"]);
    let _server = cloud.serve("169.254.169.254:80", |request| {
        match request.header("metadata-flavor") {
            Some("Google") => Answers::ok(
                r##"{"instance": {"id": 77, "hostname": "vm.c.p.internal", "attributes": {"user-data": "#cloud-config\nhostname: told"}}}"##,
            ),
            _ => Answers::status(403),
        }
    });
    let run = machine.run(Some(&cloud), &["network", "--limit", "60"]);
    assert_eq!(run.code, 4, "{}", run.log);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("told"));
    assert_eq!(machine.status()["instance_id"], "77");
}

#[test]
fn azure_hears_that_the_machine_is_ready() {
    if !may_run() {
        return;
    }
    let machine = Imitation::new();
    machine.write("proc/cmdline", "");
    machine.write(
        "sys/class/dmi/id/chassis_asset_tag",
        "7783-7084-3265-9085-8269-3286-77",
    );
    let cloud = Cloud::new(&["169.254.169.254", "168.63.129.16"]);
    let first = std::sync::atomic::AtomicBool::new(true);
    let _metadata = cloud.serve("169.254.169.254:80", move |request| {
        assert_eq!(request.header("metadata"), Some("true"));
        // It is not ready at once.
        match first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => Answers::status(410),
            false => Answers::ok(r#"{"compute": {"vmId": "vm-1", "name": "web", "publicKeys": [{"keyData": "ssh-rsa A"}]}}"#),
        }
    });
    let wire = cloud.serve("168.63.129.16:80", |request| {
        assert_eq!(request.header("x-ms-version"), Some("2012-11-30"));
        match request.path() {
            "/machine/?comp=goalstate" => Answers::ok(
                "<GoalState><Incarnation>1</Incarnation><ContainerId>c-1</ContainerId><InstanceId>r-1</InstanceId></GoalState>",
            ),
            "/machine/?comp=health" => {
                assert!(request.body.contains("<State>Ready</State>"), "{}", request.body);
                assert!(request.body.contains("<ContainerId>c-1</ContainerId>"), "{}", request.body);
                Answers::ok("")
            }
            _ => Answers::status(404),
        }
    });
    let run = machine.run(Some(&cloud), &["network", "--limit", "60"]);
    assert_eq!(run.code, 4, "{}", run.log);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("web"));
    assert_eq!(machine.status()["problems"], serde_json::json!([]));
    let requests = wire.requests();
    assert!(
        requests
            .iter()
            .any(|line| line.starts_with("POST /machine/?comp=health ")),
        "{requests:?}"
    );
}

#[test]
fn a_seed_by_url_with_includes_works_without_them_later() {
    if !may_run() {
        return;
    }
    let machine = Imitation::new();
    machine.write("proc/cmdline", "ds=nocloud;s=http://192.0.2.80/seed/");
    let cloud = Cloud::new(&["192.0.2.80"]);
    let server = cloud.serve("192.0.2.80:80", |request| match request.path() {
        "/seed/meta-data" => Answers::ok("instance-id: u-1"),
        "/seed/user-data" => Answers::ok("#include\nhttp://192.0.2.80/moved\n"),
        "/moved" => Answers::redirect("http://192.0.2.80/part"),
        "/part" => Answers::ok(CONFIG),
        _ => Answers::status(404),
    });
    assert_eq!(machine.run(None, &["local"]).code, 3);
    let run = machine.run(Some(&cloud), &["network", "--limit", "60"]);
    assert_eq!(run.code, 4, "{}", run.log);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("told"));
    drop(server);
    machine.write("proc/cmdline", "");
    assert_eq!(machine.run(None, &["local"]).code, 0);
    assert_eq!(machine.layer()["hostname"].as_str(), Some("told"));
}

/// How a hostile server answers.
type Hostile = fn(&common::Request) -> Answers;

/// None of these may hang, use memory without bound, or be taken for a configuration.
#[test]
fn hostile_servers_are_survived() {
    if !may_run() {
        return;
    }
    let hostile: [(&str, Hostile); 7] = [
        ("redirects without end", |_| {
            Answers::redirect("http://169.254.169.254/again")
        }),
        ("endless", |_| Answers::Endless),
        ("slow", |_| Answers::Trickle),
        ("garbage", |_| {
            Answers::Raw(b"\x00\xff not http at all\r\n\r\n".to_vec())
        }),
        ("silent", |_| Answers::Silent),
        ("no JSON", |_| Answers::ok("<html>log in first</html>")),
        ("a bomb of headers", |_| {
            Answers::Raw([b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(100_000)].concat())
        }),
    ];
    for (name, answer) in hostile {
        let machine = Imitation::new();
        machine.write("proc/cmdline", "keelson.platform=gce");
        machine.write(
            "var/lib/keelson/host/platform/host.toml",
            "hostname = \"before\"\n",
        );
        machine.write(
            "var/lib/keelson/host/platform/seed.json",
            r#"{"version":1,"source":"gce","instance_id":"1","hostname":"kept"}"#,
        );
        let cloud = Cloud::new(&["169.254.169.254"]);
        let _server = cloud.serve("169.254.169.254:80", answer);
        let begin = std::time::Instant::now();
        let run = machine.run(Some(&cloud), &["network", "--limit", "2"]);
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{name} takes {:?}",
            begin.elapsed()
        );
        assert!(
            run.code == 4 || run.code == 0,
            "{name}: {} {}",
            run.code,
            run.log
        );
        assert_eq!(machine.status()["state"], "failed", "{name}: {}", run.log);
        assert_eq!(machine.layer()["hostname"].as_str(), Some("kept"), "{name}");
    }
}
