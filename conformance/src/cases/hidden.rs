//! Devices, masked and read-only paths, sysctls.

use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::users::{HOST, open_to, user_namespace};
use crate::case::{Case, interface, must, should};
use crate::lab::{Lab, push, same, skip};

const DEVICES: &str = "config-linux.md#devices";
const DEFAULT: &str = "config-linux.md#default-devices";
const ALLOWED: &str = "config-linux.md#allowed-device-list";
const MASKED: &str = "config-linux.md#masked-paths";
const READONLY: &str = "config-linux.md#readonly-paths";
const SYSCTL: &str = "config-linux.md#sysctl";

fn device(config: &mut Value, device: Value) {
    push(&mut config["linux"]["devices"], device);
}

/// Whether a script that opens the device `$NODE` succeeds with these rules. No container has the
/// device by default, and opening it needs no capability.
fn with_rules(lab: &Lab, script: &str, rules: Value) -> Result<bool> {
    if !std::path::Path::new("/dev/loop-control").exists() {
        return skip("the kernel has no /dev/loop-control");
    }
    let script = script.replace("$NODE", "10 237");
    let ended = lab.run(|config| {
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["linux"]["resources"]["devices"] = rules;
    })?;
    Ok(ended.status.success())
}

pub(super) const CASES: &[Case] = &[
    must(
        "linux.devices.default",
        DEFAULT,
        "null, zero, full, random, urandom and tty are there with the usual numbers.",
        |lab| {
            let text = lab.script(
                "for d in null zero full random urandom tty; do stat -c '%F %t:%T' /dev/$d; done",
                |_| {},
            )?;
            let lines: Vec<&str> = text.lines().collect();
            let wanted = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"];
            ensure!(lines.len() == wanted.len(), "{text}");
            for (line, number) in lines.iter().zip(wanted) {
                same("device", line, &format!("character special file {number}"))?;
            }
            Ok(())
        },
    ),
    must(
        "linux.devices.default-usable",
        DEFAULT,
        "The default devices can be used by any user.",
        |lab| {
            lab.script("echo x > /dev/null && head -c 1 /dev/zero >/dev/null && head -c 1 /dev/random >/dev/null && head -c 1 /dev/urandom > /dev/null && ! echo x > /dev/full", |config| {
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        })
        .map(drop)
        },
    ),
    must(
        "linux.devices.ptmx",
        DEFAULT,
        "/dev/ptmx is the container's own.",
        |lab| {
            let text = lab.script("readlink /dev/ptmx || stat -c %t:%T /dev/ptmx", |_| {})?;
            ensure!(
                ["pts/ptmx", "/dev/pts/ptmx", "5:2"].contains(&text.as_str()),
                "{text}"
            );
            Ok(())
        },
    ),
    should(
        "linux.devices.links",
        "runtime-linux.md#dev-symbolic-links",
        "/dev/fd, stdin, stdout and stderr are links into /proc/self/fd.",
        |lab| {
            let text = lab.script(
                "for l in fd stdin stdout stderr; do readlink /dev/$l; done",
                |_| {},
            )?;
            same(
                "links",
                &text,
                "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2",
            )
        },
    ),
    must(
        "linux.devices.no-console",
        DEFAULT,
        "Without a terminal there is no usable /dev/console of the host.",
        |lab| {
            let text = lab.script("test -c /dev/console && echo there || echo none", |_| {})?;
            same("console", &text, "none")
        },
    ),
    must(
        "linux.devices.listed",
        DEVICES,
        "A listed device is made with mode, owner and group.",
        |lab| {
            let text = lab.script("stat -c '%F %t:%T %a %u:%g' /dev/mine", |config| {
            device(config, json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 11, "gid": 22}));
        })?;
            same("device", &text, "character special file 1:5 640 11:22")
        },
    ),
    must(
        "linux.devices.multiplexer-listed",
        DEVICES,
        "The terminals' multiplexer may be listed, as engines do that list all devices.",
        |lab| {
            let text = lab.script(
                "test -c /dev/ptmx && stat -c %t:%T -L /dev/ptmx",
                |config| {
                    device(
                        config,
                        json!({"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}),
                    );
                },
            )?;
            same("device", &text, "5:2")
        },
    ),
    must(
        "linux.devices.user-namespace",
        DEVICES,
        "In a user namespace, a device that the host has no node of is there for the container's users.",
        |lab| {
            open_to(lab, HOST)?;
            let text = lab.script("stat -c '%F %t:%T %a %u:%g' /dev/mine", |config| {
                user_namespace(config, HOST);
                device(config, json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 11, "gid": 22}));
            })?;
            same("device", &text, "character special file 1:5 640 11:22")
        },
    ),
    must(
        "linux.devices.outside-dev",
        DEVICES,
        "A device may be anywhere in the container.",
        |lab| {
            let text = lab.script("stat -c '%F %t:%T' /opt/deep/zero", |config| {
            device(config, json!({"path": "/opt/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}));
        })?;
            same("device", &text, "character special file 1:5")
        },
    ),
    must(
        "linux.devices.fifo",
        DEVICES,
        "The type p makes a FIFO.",
        |lab| {
            let text = lab.script("stat -c %F /dev/pipe", |config| {
                device(
                    config,
                    json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600}),
                );
            })?;
            same("file", &text, "fifo")
        },
    ),
    must(
        "linux.devices.block",
        DEVICES,
        "The type b makes a block device.",
        |lab| {
            let text = lab.script("stat -c '%F %t:%T' /dev/disk", |config| {
            device(config, json!({"path": "/dev/disk", "type": "b", "major": 7, "minor": 3, "fileMode": 0o600}));
        })?;
            same("device", &text, "block special file 7:3")
        },
    ),
    must(
        "linux.devices.unknown-type",
        DEVICES,
        "A type that does not exist is an error.",
        |lab| {
            lab.refuses(|config| {
                device(
                    config,
                    json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 5}),
                )
            })
            .map(drop)
        },
    ),
    must(
        "linux.devices.file-in-the-way",
        DEVICES,
        "A file at the path that is not the device is an error.",
        |lab| {
            let file = lab.rootfs().join("etc/taken");
            std::fs::write(&file, "kept")?;
            let refused = lab.refuses(|config| {
            device(config, json!({"path": "/etc/taken", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}));
        });
            ensure!(
                std::fs::metadata(&file)?.len() == 4
                    && std::fs::metadata(&file)?.mode() & 0o170_000 == 0o100_000,
                "the file was replaced"
            );
            refused.map(drop)
        },
    ),
    must(
        "linux.device-rules.deny",
        ALLOWED,
        "A device that no rule allows can neither be made nor opened.",
        |lab| {
            let script = "mknod /tmp/node c $NODE && head -c 1 /tmp/node > /dev/null";
            ensure!(
                !with_rules(lab, script, json!([{"allow": false, "access": "rwm"}]))?,
                "it was opened"
            );
            Ok(())
        },
    ),
    must(
        "linux.device-rules.deny-listed",
        ALLOWED,
        "A device that is made but denied cannot be opened.",
        |lab| {
            let ended = lab.run(|config| {
            config["process"]["args"] = json!(["sh", "-c", "cat < /dev/mine"]);
            config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}]);
            device(config, json!({"path": "/dev/mine", "type": "b", "major": 7, "minor": 3, "fileMode": 0o666}));
        })?;
            ensure!(ended.stderr.contains("not permitted"), "{ended}");
            Ok(())
        },
    ),
    must(
        "linux.device-rules.allow",
        ALLOWED,
        "A rule allows a device with the accesses named.",
        |lab| {
            let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 237, "access": "rm"}]);
            ensure!(
                with_rules(
                    lab,
                    "mknod /tmp/node c $NODE && : < /tmp/node",
                    rules.clone()
                )?,
                "reading is refused"
            );
            ensure!(
                !with_rules(
                    lab,
                    "rm -f /tmp/node; mknod /tmp/node c $NODE && : >> /tmp/node",
                    rules
                )?,
                "writing is allowed"
            );
            Ok(())
        },
    ),
    must(
        "linux.device-rules.order",
        ALLOWED,
        "Rules are applied in the listed order: the last that matches decides.",
        |lab| {
            let allow =
                json!({"allow": true, "type": "c", "major": 10, "minor": 237, "access": "rwm"});
            let deny =
                json!({"allow": false, "type": "c", "major": 10, "minor": 237, "access": "rwm"});
            let none = json!({"allow": false, "access": "rwm"});
            let script = "rm -f /tmp/node; mknod /tmp/node c $NODE && : < /tmp/node";
            ensure!(
                with_rules(lab, script, json!([none, deny, allow]))?,
                "allowed last, yet refused"
            );
            ensure!(
                !with_rules(lab, script, json!([none, allow, deny]))?,
                "denied last, yet allowed"
            );
            Ok(())
        },
    ),
    must(
        "linux.device-rules.wildcard",
        ALLOWED,
        "A rule without a minor number is for all of them.",
        |lab| {
            let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "access": "rwm"}]);
            ensure!(
                with_rules(lab, "mknod /tmp/node c $NODE && : < /tmp/node", rules)?,
                "it is refused"
            );
            Ok(())
        },
    ),
    must(
        "linux.device-rules.allow-all",
        ALLOWED,
        "A rule without type and numbers allows every device.",
        |lab| {
            let rules = json!([{"allow": true, "access": "rwm"}]);
            ensure!(
                with_rules(lab, "mknod /tmp/node c $NODE && : < /tmp/node", rules)?,
                "it is refused"
            );
            Ok(())
        },
    ),
    must(
        "linux.device-rules.default-devices-allowed",
        DEFAULT,
        "The default devices work when the rules deny everything.",
        |lab| {
            ensure!(
                with_rules(
                    lab,
                    "echo x > /dev/null && head -c 1 /dev/zero > /dev/null",
                    json!([{"allow": false, "access": "rwm"}])
                )?,
                "refused"
            );
            Ok(())
        },
    ),
    must(
        "linux.masked-paths.file",
        MASKED,
        "A masked file shows nothing.",
        |lab| {
            std::fs::write(lab.rootfs().join("etc/secret"), "secret")?;
            let text = lab.script(
                "cat /etc/secret /proc/kcore 2>/dev/null | wc -c",
                |config| {
                    config["linux"]["maskedPaths"] = json!(["/etc/secret", "/proc/kcore"]);
                },
            )?;
            same("bytes", &text, "0")
        },
    ),
    must(
        "linux.masked-paths.folder",
        MASKED,
        "A masked directory is empty and cannot be written.",
        |lab| {
            std::fs::create_dir(lab.rootfs().join("secrets"))?;
            std::fs::write(lab.rootfs().join("secrets/one"), "secret")?;
            let text = lab.script(
                "ls -A /secrets | wc -l; touch /secrets/x 2>&1 | grep -c 'Read-only'",
                |config| {
                    config["linux"]["maskedPaths"] = json!(["/secrets"]);
                },
            )?;
            same("files and refusals", &text, "0\n1")
        },
    ),
    must(
        "linux.masked-paths.missing",
        MASKED,
        "A masked path that does not exist is no error.",
        |lab| {
            lab.script("true", |config| {
                config["linux"]["maskedPaths"] = json!(["/proc/nonexistent", "/no/such"])
            })
            .map(drop)
        },
    ),
    must(
        "linux.masked-paths.absolute",
        MASKED,
        "Masked paths are absolute.",
        |lab| {
            lab.refuses(|config| config["linux"]["maskedPaths"] = json!(["etc/passwd"]))
                .map(drop)
        },
    ),
    must(
        "linux.masked-paths.null-not-a-link",
        MASKED,
        "A /dev/null that the image replaced by a link is not used for masking (CVE-2025-31133).",
        |lab| {
            // Without a tmpfs on /dev, the container uses the image's directory.
            std::fs::remove_file(lab.rootfs().join("dev/null")).ok();
            std::os::unix::fs::symlink("/proc/sys/kernel/hostname", lab.rootfs().join("dev/null"))?;
            std::fs::write(lab.rootfs().join("etc/secret"), "secret")?;
            let ended = lab.run(|config| {
                config["process"]["args"] = json!(["cat", "/etc/secret"]);
                config["linux"]["maskedPaths"] = json!(["/etc/secret"]);
                if let Some(mounts) = config["mounts"].as_array_mut() {
                    mounts.retain(|mount| {
                        !mount["destination"]
                            .as_str()
                            .unwrap_or_default()
                            .starts_with("/dev")
                    });
                }
            })?;
            ensure!(ended.stdout.is_empty(), "{}", ended.stdout);
            Ok(())
        },
    ),
    must(
        "linux.readonly-paths.folder",
        READONLY,
        "Nothing in a read-only directory can be written.",
        |lab| {
            std::fs::create_dir_all(lab.rootfs().join("fixed/deep"))?;
            let text = lab.script("touch /fixed/x /fixed/deep/x 2>&1 | grep -c 'Read-only'; touch /tmp/x && echo fine", |config| {
            config["linux"]["readonlyPaths"] = json!(["/fixed"]);
        })?;
            same("refusals", &text, "2\nfine")
        },
    ),
    must(
        "linux.readonly-paths.file",
        READONLY,
        "A read-only file can be read and not be written.",
        |lab| {
            let text = lab.script(
                "cat /etc/group | head -1; (echo x > /etc/group) 2>&1 | grep -c 'Read-only'",
                |config| {
                    config["linux"]["readonlyPaths"] = json!(["/etc/group"]);
                },
            )?;
            same("output", &text, "root:x:0:\n1")
        },
    ),
    must(
        "linux.readonly-paths.proc",
        READONLY,
        "Kernel settings below a read-only path cannot be changed.",
        |lab| {
            let text = lab.script(
                "(echo other > /proc/sys/kernel/hostname) 2>&1; hostname",
                |config| {
                    config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
                },
            )?;
            ensure!(
                text.contains("Read-only") && text.ends_with("conformance"),
                "{text}"
            );
            Ok(())
        },
    ),
    must(
        "linux.readonly-paths.missing",
        READONLY,
        "A read-only path that does not exist is no error.",
        |lab| {
            lab.script("true", |config| {
                config["linux"]["readonlyPaths"] = json!(["/proc/nonexistent"])
            })
            .map(drop)
        },
    ),
    must(
        "linux.readonly-paths.absolute",
        READONLY,
        "Read-only paths are absolute.",
        |lab| {
            lab.refuses(|config| config["linux"]["readonlyPaths"] = json!(["etc"]))
                .map(drop)
        },
    ),
    must(
        "linux.readonly-paths.keeps-flags",
        READONLY,
        "A path made read-only keeps nosuid, nodev and noexec of its mount.",
        |lab| {
            let text = lab.script("grep ' /dev/shm/fixed ' /proc/self/mountinfo || grep ' /proc/sys ' /proc/self/mountinfo", |config| {
            config["mounts"][0]["options"] = json!(["nosuid", "noexec", "nodev"]);
            config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        })?;
            for wanted in ["ro", "nosuid", "nodev", "noexec"] {
                ensure!(text.contains(wanted), "{wanted} in {text}");
            }
            Ok(())
        },
    ),
    must(
        "linux.sysctl.network",
        SYSCTL,
        "A parameter of the network namespace is set.",
        |lab| {
            let text = lab.script(
                "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/core/somaxconn",
                |config| {
                    config["linux"]["sysctl"] =
                        json!({"net.ipv4.ip_forward": "1", "net.core.somaxconn": "256"});
                },
            )?;
            same("values", &text, "1\n256")
        },
    ),
    must(
        "linux.sysctl.ipc",
        SYSCTL,
        "A parameter of the IPC namespace is set.",
        |lab| {
            let text = lab.script(
                "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max",
                |config| {
                    config["linux"]["sysctl"] =
                        json!({"kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "17"});
                },
            )?;
            same("values", &text, "1\n17")
        },
    ),
    must(
        "linux.sysctl.slash",
        SYSCTL,
        "Names may be written with slashes, as sysctl takes them.",
        |lab| {
            let text = lab.script("cat /proc/sys/net/ipv4/ip_forward", |config| {
                config["linux"]["sysctl"] = json!({"net/ipv4/ip_forward": "1"});
            })?;
            same("value", &text, "1")
        },
    ),
    must(
        "linux.sysctl.unknown",
        SYSCTL,
        "A parameter that the kernel does not have is an error.",
        |lab| {
            lab.refuses(|config| config["linux"]["sysctl"] = json!({"net.nonsense": "1"}))
                .map(drop)
        },
    ),
    interface(
        "linux.sysctl.host-wide",
        SYSCTL,
        "A parameter that is not of a namespace is refused.",
        |lab| {
            let before = std::fs::read_to_string("/proc/sys/vm/swappiness")?;
            let refused = lab.refuses(|config| {
                config["linux"]["sysctl"] = json!({"vm.swappiness": before.trim()})
            });
            refused.map(drop)
        },
    ),
    interface(
        "linux.sysctl.host-network",
        SYSCTL,
        "A parameter of the network is refused where the network is the host's.",
        |lab| {
            let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
            lab.refuses_within(
                |config| {
                    if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
                        list.retain(|item| item["type"] != "network");
                    }
                },
                |config| {
                    config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": before.trim()});
                },
            )
            .map(drop)
        },
    ),
    must(
        "linux.sysctl.no-escape",
        SYSCTL,
        "A name cannot lead out of /proc/sys.",
        |lab| {
            lab.refuses(|config| {
                config["linux"]["sysctl"] = json!({"net/../../self/oom_score_adj": "500"})
            })
            .map(drop)
        },
    ),
    must(
        "linux.sysctl.not-redirected",
        SYSCTL,
        "A file that a mount puts in a parameter's place is not written (CVE-2025-52881).",
        |lab| {
            let victim = lab.path("victim");
            std::fs::write(&victim, "untouched")?;
            // To refuse such a mount would be correct as well.
            let _ = lab.run(|config| {
                push(
                    &mut config["mounts"],
                    json!({"destination": "/proc/sys/net/ipv4/ip_forward", "type": "bind",
                        "source": victim, "options": ["bind"]}),
                );
                config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            })?;
            same("file", &std::fs::read_to_string(&victim)?, "untouched")
        },
    ),
    must(
        "linux.masked-paths.link-stays-inside",
        MASKED,
        "A masked path that is a link of the image masks nothing of the host.",
        |lab| {
            let secret = lab.path("outside");
            std::fs::write(&secret, "of the host")?;
            std::os::unix::fs::symlink(&secret, lab.rootfs().join("etc/link"))?;
            let _ = lab.run(|config| config["linux"]["maskedPaths"] = json!(["/etc/link"]))?;
            same("file", &std::fs::read_to_string(&secret)?, "of the host")
        },
    ),
];
