//! `process.user`, capabilities, user namespaces.

use std::os::unix::fs::{MetadataExt, chown};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::exec::field;
use crate::case::{Case, must, should};
use crate::lab::{Lab, push, same};

const USER: &str = "config.md#posix-platform-user";
const CAPABILITIES: &str = "config.md#linux-process";
const MAPPINGS: &str = "config-linux.md#user-namespace-mappings";

/// A line of `/proc/self/status` in a container.
fn status(lab: &Lab, name: &str, edit: impl FnOnce(&mut Value)) -> Result<String> {
    Ok(field(&lab.script("cat /proc/self/status", edit)?, name))
}

/// Adds a user namespace that maps root and higher ids to `host` and higher ids.
pub(super) fn user_namespace(config: &mut Value, host: u32) {
    push(&mut config["linux"]["namespaces"], json!({"type": "user"}));
    let mapping = json!([{"containerID": 0, "hostID": host, "size": 65536}]);
    config["linux"]["uidMappings"] = mapping.clone();
    config["linux"]["gidMappings"] = mapping;
}

/// A root file system whose directories can be used by the users of a user namespace.
pub(super) fn open_to(lab: &Lab, host: u32) -> Result<()> {
    for name in ["", "tmp", "etc", "dev", "proc", "sys", "bin"] {
        chown(lab.rootfs().join(name), Some(host), Some(host))?;
    }
    // The mapped users must be able to reach it.
    let mut directory = lab.bundle();
    while directory != std::env::temp_dir() && directory.pop() {
        let mut permissions = std::fs::metadata(&directory)?.permissions();
        let mode = std::os::unix::fs::PermissionsExt::mode(&permissions);
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, mode | 0o011);
        if directory.starts_with(std::env::temp_dir()) && directory != std::env::temp_dir() {
            std::fs::set_permissions(&directory, permissions)?;
        }
    }
    Ok(())
}

/// The ids outside for the users of the user namespace.
pub(super) const HOST: u32 = 100_000;

pub(super) const CASES: &[Case] = &[
    must(
        "config.user.uid-gid",
        USER,
        "The process has the uid and gid.",
        |lab| {
            let ids = lab.script(
                "grep -E '^(Uid|Gid):' /proc/self/status | tr '\\t\\n' '  '",
                |config| {
                    config["process"]["user"] = json!({"uid": 1234, "gid": 5678});
                },
            )?;
            same(
                "ids",
                &ids,
                "Uid: 1234 1234 1234 1234 Gid: 5678 5678 5678 5678",
            )
        },
    ),
    must(
        "config.user.additional-gids",
        USER,
        "The process has the additional groups.",
        |lab| {
            let groups = status(lab, "Groups:", |config| {
                config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [33, 44]});
            })?;
            let groups: Vec<&str> = groups.split_whitespace().collect();
            ensure!(
                groups.contains(&"33") && groups.contains(&"44"),
                "{groups:?}"
            );
            Ok(())
        },
    ),
    must(
        "config.user.no-other-groups",
        USER,
        "Without additionalGids, the caller's groups are not kept.",
        |lab| {
            let groups = status(lab, "Groups:", |config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            })?;
            ensure!(groups.is_empty() || groups == "1000", "{groups}");
            Ok(())
        },
    ),
    must(
        "config.user.umask",
        USER,
        "The process has the umask.",
        |lab| {
            let mask = lab.script("umask", |config| {
                config["process"]["user"]["umask"] = json!(0o027);
            })?;
            same("umask", &mask, "0027")
        },
    ),
    must(
        "config.user.umask-unset",
        USER,
        "Without umask, it is the usual 0022.",
        |lab| same("umask", &lab.script("umask", |_| {})?, "0022"),
    ),
    must(
        "config.capabilities.sets",
        CAPABILITIES,
        "Bounding, permitted, effective and inheritable set are those given.",
        |lab| {
            let text = lab.script("cat /proc/self/status", |config| {
                config["process"]["capabilities"] = json!({
                    "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"],
                    "permitted": ["CAP_KILL", "CAP_CHOWN"],
                    "effective": ["CAP_KILL"],
                    "inheritable": ["CAP_CHOWN"]
                });
                // Root would get the whole bounding set when it executes a program.
                config["process"]["user"] = json!({"uid": 0, "gid": 0});
            })?;
            // CHOWN is bit 0, KILL 5, SETUID 7.
            same("bounding", &field(&text, "CapBnd:"), "00000000000000a1")?;
            same("inheritable", &field(&text, "CapInh:"), "0000000000000001")
        },
    ),
    must(
        "config.capabilities.none",
        CAPABILITIES,
        "With empty sets, the process has no capabilities, though it is root.",
        |lab| {
            let text = lab.script("cat /proc/self/status", |config| {
                config["process"]["capabilities"] = json!({});
            })?;
            for set in ["CapBnd:", "CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
                same(set, &field(&text, set), "0000000000000000")?;
            }
            Ok(())
        },
    ),
    must(
        "config.capabilities.ambient",
        CAPABILITIES,
        "Ambient capabilities are kept by a user who is not root.",
        |lab| {
            let text = lab.script("cat /proc/self/status", |config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                let set = json!(["CAP_NET_BIND_SERVICE"]);
                config["process"]["capabilities"] = json!({
                    "bounding": set, "permitted": set, "effective": set, "inheritable": set, "ambient": set
                });
            })?;
            for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
                same(set, &field(&text, set), "0000000000000400")?;
            }
            Ok(())
        },
    ),
    must(
        "config.capabilities.dropped-for-user",
        CAPABILITIES,
        "Without ambient capabilities, a program of a user who is not root has none in force.",
        |lab| {
            let effective = status(lab, "CapEff:", |config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            })?;
            same("effective", &effective, "0000000000000000")
        },
    ),
    should(
        "config.capabilities.unknown-ignored",
        CAPABILITIES,
        "A capability that the kernel does not have is warned of and does not fail the start.",
        |lab| {
            let bounding = status(lab, "CapBnd:", |config| {
                config["process"]["capabilities"] = json!({
                    "bounding": ["CAP_KILL", "CAP_NONSENSE"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]
                });
            })?;
            same("bounding", &bounding, "0000000000000020")
        },
    ),
    should(
        "config.capabilities.not-grantable",
        CAPABILITIES,
        "A capability that can't be granted, ambient without being inheritable, does not fail the start.",
        |lab| {
            let ambient = status(lab, "CapAmb:", |config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                config["process"]["capabilities"] = json!({
                    "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
                    "effective": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["CAP_KILL"],
                    "ambient": ["CAP_CHOWN", "CAP_KILL"]
                });
            })?;
            same("ambient", &ambient, "0000000000000020")
        },
    ),
    must(
        "config.capabilities.in-force",
        CAPABILITIES,
        "What a missing capability allows is forbidden.",
        |lab| {
            let ended = lab.run(|config| {
                config["process"]["args"] = json!(["chown", "1:1", "/tmp"]);
                config["process"]["capabilities"] = json!({
                    "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]
                });
            })?;
            ensure!(!ended.status.success(), "chown without CAP_CHOWN");
            lab.run(|config| config["process"]["args"] = json!(["chown", "1:1", "/tmp"]))?
                .output()
                .map(drop)
        },
    ),
    should(
        "linux.user-namespace.new",
        "config-linux.md#namespaces",
        "With a user namespace, root of the container is another user on the host.",
        |lab| {
            open_to(lab, HOST)?;
            let container = lab.start(
                "id -u; touch /tmp/made; echo ready; exec sleep 1000",
                |config| {
                    user_namespace(config, HOST);
                },
            )?;
            container.says("ready")?;
            ensure!(
                container.output()?.starts_with('0'),
                "{}",
                container.output()?
            );
            let process = std::fs::metadata(container.proc("")?)?;
            ensure!(process.uid() == HOST, "uid {} on the host", process.uid());
            let made = std::fs::metadata(lab.rootfs().join("tmp/made"))?;
            ensure!(
                (made.uid(), made.gid()) == (HOST, HOST),
                "{}:{}",
                made.uid(),
                made.gid()
            );
            Ok(())
        },
    ),
    must(
        "linux.user-namespace.mappings",
        MAPPINGS,
        "Every mapping of uids and gids is in force.",
        |lab| {
            open_to(lab, HOST)?;
            let text = lab.script(
                "cat /proc/self/uid_map; echo; cat /proc/self/gid_map",
                |config| {
                    push(&mut config["linux"]["namespaces"], json!({"type": "user"}));
                    config["linux"]["uidMappings"] = json!([
                        {"containerID": 0, "hostID": HOST, "size": 10},
                        {"containerID": 10, "hostID": 300_000, "size": 5}
                    ]);
                    config["linux"]["gidMappings"] =
                        json!([{"containerID": 0, "hostID": HOST, "size": 77}]);
                },
            )?;
            let words: Vec<&str> = text.split_whitespace().collect();
            ensure!(
                words
                    == [
                        "0", "100000", "10", "10", "300000", "5", "0", "100000", "77"
                    ],
                "{words:?}"
            );
            Ok(())
        },
    ),
    must(
        "linux.user-namespace.user",
        USER,
        "uid, gid and groups are those of the container's namespace.",
        |lab| {
            open_to(lab, HOST)?;
            let container = lab.start("id -u; id -g; echo ready; exec sleep 1000", |config| {
                user_namespace(config, HOST);
                config["process"]["user"] =
                    json!({"uid": 1000, "gid": 1001, "additionalGids": [7]});
            })?;
            container.says("ready")?;
            same("ids", &container.output()?, "1000\n1001\nready")?;
            let text = std::fs::read_to_string(container.proc("status")?)?;
            let groups = field(&text, "Groups:");
            ensure!(
                groups.split_whitespace().any(|group| group == "100007"),
                "{groups}"
            );
            let process = std::fs::metadata(container.proc("")?)?;
            ensure!(process.uid() == HOST + 1000, "uid {}", process.uid());
            Ok(())
        },
    ),
    must(
        "linux.user-namespace.ownership",
        MAPPINGS,
        "The owners of the root file system's files are not changed for the mapping.",
        |lab| {
            open_to(lab, HOST)?;
            lab.script("true", |config| user_namespace(config, HOST))?;
            let busybox = std::fs::metadata(lab.rootfs().join("bin/busybox"))?;
            ensure!(busybox.uid() == 0, "owner {}", busybox.uid());
            Ok(())
        },
    ),
    must(
        "linux.user-namespace.capabilities",
        CAPABILITIES,
        "Capabilities hold in the user namespace and not on the host.",
        |lab| {
            open_to(lab, HOST)?;
            let text = lab.script(
                "grep CapEff /proc/self/status; chown 5 /bin/busybox || echo denied",
                |config| {
                    user_namespace(config, HOST);
                },
            )?;
            ensure!(
                text.contains("00000000a80425fb") && text.contains("denied"),
                "{text}"
            );
            Ok(())
        },
    ),
    must(
        "linux.user-namespace.devices",
        "config-linux.md#default-devices",
        "The default devices work in a user namespace.",
        |lab| {
            open_to(lab, HOST)?;
            lab.script("echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c", |config| {
                user_namespace(config, HOST);
            })
            .map(drop)
        },
    ),
    must(
        "linux.user-namespace.exec",
        "runc exec",
        "exec joins the user namespace.",
        |lab| {
            open_to(lab, HOST)?;
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                user_namespace(config, HOST)
            })?;
            container.says("ready")?;
            let inside = container.script(&[], "readlink /proc/self/ns/user; id -u")?;
            same(
                "namespace and user",
                &inside,
                &format!("{}\n0", container.namespace("user")?),
            )
        },
    ),
    must(
        "linux.user-namespace.path",
        "config-linux.md#namespaces",
        "A user namespace by its path is joined.",
        |lab| {
            open_to(lab, HOST)?;
            let first = lab.start("echo ready; exec sleep 1000", |config| {
                user_namespace(config, HOST)
            })?;
            first.says("ready")?;
            let path = first.proc("ns/user")?;
            let inside = lab.script("readlink /proc/self/ns/user", |config| {
                push(
                    &mut config["linux"]["namespaces"],
                    json!({"type": "user", "path": path}),
                );
                lab.place(config, "second");
            })?;
            same("namespace", &inside, &first.namespace("user")?)
        },
    ),
];
