//! `linux.namespaces`, host and domain names, clocks.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::lifecycle::remove_hostname;
use crate::case::{Case, must, should};
use crate::lab::Container;
use crate::lab::{Lab, push, same, skip};

const NAMESPACES: &str = "config-linux.md#namespaces";
const TIME: &str = "config-linux.md#offset-for-time-namespace";

/// The host's namespace of a kind.
fn own(name: &str) -> Result<String> {
    let link = std::fs::read_link(format!("/proc/self/ns/{name}"))?;
    Ok(link.to_string_lossy().into_owned())
}

/// Removes a type of namespace, and settings that need it.
fn without(config: &mut Value, kind: &str) {
    if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
        list.retain(|item| item["type"] != kind);
    }
    if kind == "uts" {
        remove_hostname(config);
    }
}

/// Replaces a type of namespace by one with a path.
fn with_path(config: &mut Value, kind: &str, path: &str) {
    without(config, kind);
    push(
        &mut config["linux"]["namespaces"],
        json!({"type": kind, "path": path}),
    );
}

/// A listed type makes a new namespace.
fn makes(lab: &Lab, kind: &str, name: &str) -> Result<()> {
    let inside = lab.script(&format!("readlink /proc/self/ns/{name}"), |config| {
        without(config, kind);
        push(&mut config["linux"]["namespaces"], json!({"type": kind}));
    })?;
    ensure!(inside != own(name)?, "it is the host's {inside}");
    Ok(())
}

/// A type that isn't listed leaves the process in the runtime's.
fn inherits(lab: &Lab, kind: &str, name: &str) -> Result<()> {
    let inside = lab.script(&format!("readlink /proc/self/ns/{name}"), |config| {
        without(config, kind);
    })?;
    same("namespace", &inside, &own(name)?)
}

/// A path leads into the namespace there.
fn joins(lab: &Lab, kind: &str, name: &str) -> Result<()> {
    let first = lab.idle()?;
    let path = first.proc(&format!("ns/{name}"))?;
    let inside = lab.script(&format!("readlink /proc/self/ns/{name}"), |config| {
        with_path(config, kind, &path.to_string_lossy());
        lab.place(config, "second");
    });
    same("namespace", &inside?, &first.namespace(name)?)
}

/// A wrong path is refused, while the path of the first container's namespace is joined.
fn refuses_path(
    lab: &Lab,
    kind: &str,
    name: &str,
    wrong: impl FnOnce(&Container) -> Result<String>,
) -> Result<()> {
    let first = lab.idle()?;
    let right = first.proc(&format!("ns/{name}"))?;
    let wrong = wrong(&first)?;
    lab.refuses_within(
        |config| {
            with_path(config, kind, &right.to_string_lossy());
            lab.place(config, "second");
        },
        |config| with_path(config, kind, &wrong),
    )
    .map(drop)
}

pub(super) const CASES: &[Case] = &[
    should(
        "linux.namespaces.pid-new",
        NAMESPACES,
        "With a PID namespace, the process is number 1 and sees only the container's processes.",
        |lab| {
            makes(lab, "pid", "pid")?;
            let text = lab.script("echo $$ $(ls /proc | grep -c '^[0-9]*$')", |_| {})?;
            let (number, count) = text.split_once(' ').context("two numbers")?;
            same("number", number, "1")?;
            ensure!(count.parse::<u32>()? < 6, "{count} processes are seen");
            Ok(())
        },
    ),
    should(
        "linux.namespaces.network-new",
        NAMESPACES,
        "With a network namespace, the container has a loopback device of its own and no other.",
        |lab| {
            makes(lab, "network", "net")?;
            same("devices", &lab.script("ls /sys/class/net", |_| {})?, "lo")
        },
    ),
    should(
        "linux.namespaces.network-loopback-up",
        NAMESPACES,
        "The loopback device of a new network namespace is up.",
        |lab| {
            let text = lab.script("ip link show lo", |_| {})?;
            ensure!(text.contains("UP"), "{text}");
            Ok(())
        },
    ),
    should(
        "linux.namespaces.ipc-new",
        NAMESPACES,
        "With an IPC namespace, the container has System V objects of its own.",
        |lab| makes(lab, "ipc", "ipc"),
    ),
    should(
        "linux.namespaces.uts-new",
        NAMESPACES,
        "With an UTS namespace, the container has a name of its own and the host keeps its.",
        |lab| {
            let before = nix::unistd::gethostname()?;
            makes(lab, "uts", "uts")?;
            same("hostname", &lab.script("hostname", |_| {})?, "conformance")?;
            ensure!(
                nix::unistd::gethostname()? == before,
                "the host's name has changed"
            );
            Ok(())
        },
    ),
    should(
        "linux.namespaces.mount-new",
        NAMESPACES,
        "With a mount namespace, the container's mounts do not show on the host.",
        |lab| {
            makes(lab, "mount", "mnt")?;
            let container = lab.start(
                "mount -t tmpfs none /tmp && echo mounted; exec sleep 1000",
                |config| {
                    for set in ["bounding", "effective", "permitted"] {
                        push(
                            &mut config["process"]["capabilities"][set],
                            json!("CAP_SYS_ADMIN"),
                        );
                    }
                },
            )?;
            container.says("mounted")?;
            let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
            let rootfs = lab.rootfs().to_string_lossy().into_owned();
            ensure!(!mounts.contains(&rootfs), "{mounts}");
            Ok(())
        },
    ),
    should(
        "linux.namespaces.cgroup-new",
        NAMESPACES,
        "With a cgroup namespace, the container sees its own cgroup as the root.",
        |lab| {
            makes(lab, "cgroup", "cgroup")?;
            let text = lab.script("cat /proc/self/cgroup", |config| {
                push(
                    &mut config["linux"]["namespaces"],
                    json!({"type": "cgroup"}),
                );
            })?;
            ensure!(
                text.lines().any(|line| line.ends_with(":/")) && !text.contains(&lab.cgroup()),
                "{text}"
            );
            Ok(())
        },
    ),
    should(
        "linux.namespaces.time-new",
        NAMESPACES,
        "With a time namespace, the container can have clocks of its own.",
        |lab| makes(lab, "time", "time"),
    ),
    must(
        "linux.namespaces.pid-inherited",
        NAMESPACES,
        "Without a PID entry, the container is in the runtime's PID namespace.",
        |lab| inherits(lab, "pid", "pid"),
    ),
    must(
        "linux.namespaces.network-inherited",
        NAMESPACES,
        "Without a network entry, the container is in the runtime's network namespace.",
        |lab| inherits(lab, "network", "net"),
    ),
    must(
        "linux.namespaces.ipc-inherited",
        NAMESPACES,
        "Without an IPC entry, the container is in the runtime's IPC namespace.",
        |lab| inherits(lab, "ipc", "ipc"),
    ),
    must(
        "linux.namespaces.uts-inherited",
        NAMESPACES,
        "Without an UTS entry, the container is in the runtime's UTS namespace.",
        |lab| inherits(lab, "uts", "uts"),
    ),
    must(
        "linux.namespaces.cgroup-inherited",
        NAMESPACES,
        "Without a cgroup entry, the container is in the runtime's cgroup namespace.",
        |lab| inherits(lab, "cgroup", "cgroup"),
    ),
    must(
        "linux.namespaces.user-inherited",
        NAMESPACES,
        "Without a user entry, the container is in the runtime's user namespace.",
        |lab| inherits(lab, "user", "user"),
    ),
    must(
        "linux.namespaces.network-path",
        NAMESPACES,
        "A network namespace by its path is joined.",
        |lab| joins(lab, "network", "net"),
    ),
    must(
        "linux.namespaces.ipc-path",
        NAMESPACES,
        "An IPC namespace by its path is joined.",
        |lab| joins(lab, "ipc", "ipc"),
    ),
    must(
        "linux.namespaces.uts-path",
        NAMESPACES,
        "An UTS namespace by its path is joined.",
        |lab| joins(lab, "uts", "uts"),
    ),
    must(
        "linux.namespaces.pid-path",
        NAMESPACES,
        "A PID namespace by its path is joined.",
        |lab| joins(lab, "pid", "pid"),
    ),
    must(
        "linux.namespaces.cgroup-path",
        NAMESPACES,
        "A cgroup namespace by its path is joined.",
        |lab| {
            let first = lab.start("echo ready; exec sleep 1000", |config| {
                push(
                    &mut config["linux"]["namespaces"],
                    json!({"type": "cgroup"}),
                );
            })?;
            let path = first.proc("ns/cgroup")?;
            let inside = lab.script("readlink /proc/self/ns/cgroup", |config| {
                with_path(config, "cgroup", &path.to_string_lossy());
                lab.place(config, "second");
            })?;
            same("namespace", &inside, &first.namespace("cgroup")?)
        },
    ),
    must(
        "linux.namespaces.path-wrong-type",
        NAMESPACES,
        "A path of a namespace of another type is an error.",
        |lab| {
            refuses_path(lab, "network", "net", |first| {
                Ok(first.proc("ns/uts")?.to_string_lossy().into_owned())
            })
        },
    ),
    must(
        "linux.namespaces.path-missing",
        NAMESPACES,
        "A path without a file is an error.",
        |lab| {
            refuses_path(lab, "network", "net", |_| {
                Ok("/nonexistent/netns".to_owned())
            })
        },
    ),
    must(
        "linux.namespaces.path-no-namespace",
        NAMESPACES,
        "A path of a file that is no namespace is an error.",
        |lab| refuses_path(lab, "ipc", "ipc", |_| Ok("/etc/passwd".to_owned())),
    ),
    must(
        "linux.namespaces.path-absolute",
        NAMESPACES,
        "A namespace's path is absolute.",
        |lab| {
            refuses_path(lab, "network", "net", |first| {
                let link = lab.bundle().join("relative");
                std::os::unix::fs::symlink(first.proc("ns/net")?, link)?;
                Ok("relative".to_owned())
            })
        },
    ),
    must(
        "linux.namespaces.duplicate",
        NAMESPACES,
        "A type listed twice is an error.",
        |lab| {
            lab.refuses(|config| {
                push(&mut config["linux"]["namespaces"], json!({"type": "uts"}));
            })
            .map(drop)
        },
    ),
    must(
        "linux.namespaces.unknown-type",
        NAMESPACES,
        "A type that does not exist is an error.",
        |lab| {
            lab.refuses(|config| {
                push(
                    &mut config["linux"]["namespaces"],
                    json!({"type": "nonsense"}),
                );
            })
            .map(drop)
        },
    ),
    must(
        "config.hostname.set",
        "config.md#hostname",
        "The container's UTS namespace has the hostname.",
        |lab| {
            let name = lab.script("hostname; cat /proc/sys/kernel/hostname", |config| {
                config["hostname"] = json!("other-name");
            })?;
            same("names", &name, "other-name\nother-name")
        },
    ),
    must(
        "config.hostname.needs-uts",
        "config.md#hostname",
        "Without an UTS namespace of its own, a hostname is refused rather than set on the host.",
        |lab| {
            let before = nix::unistd::gethostname()?;
            let refused = lab.refuses_within(
                |config| {
                    without(config, "uts");
                    super::lifecycle::remove_hostname(config);
                },
                |config| config["hostname"] = json!("not-the-host"),
            );
            let after = nix::unistd::gethostname()?;
            if after != before {
                nix::unistd::sethostname(&before)?;
                anyhow::bail!("the host's name was changed");
            }
            refused.map(drop)
        },
    ),
    must(
        "config.domainname.set",
        "config.md#domainname",
        "The container's UTS namespace has the domainname.",
        |lab| {
            let name = lab.script("cat /proc/sys/kernel/domainname", |config| {
                config["domainname"] = json!("example.org");
            })?;
            same("domainname", &name, "example.org")
        },
    ),
    must(
        "linux.time-offsets.set",
        TIME,
        "timeOffsets moves the clocks of a new time namespace.",
        |lab| {
            if !std::path::Path::new("/proc/self/timens_offsets").exists() {
                return skip("the kernel has no time namespaces");
            }
            let text = lab.script(
                "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime",
                |config| {
                    push(&mut config["linux"]["namespaces"], json!({"type": "time"}));
                    config["linux"]["timeOffsets"] = json!({
                        "monotonic": {"secs": 7777, "nanosecs": 5},
                        "boottime": {"secs": 864_000_000}
                    });
                },
            )?;
            let words: Vec<&str> = text.split_whitespace().collect();
            ensure!(
                words.windows(3).any(|w| w == ["monotonic", "7777", "5"]),
                "{text}"
            );
            let uptime: u64 = words.last().unwrap_or(&"").parse()?;
            ensure!(uptime >= 864_000_000, "uptime {uptime}");
            Ok(())
        },
    ),
    must(
        "linux.time-offsets.unknown-clock",
        TIME,
        "An offset of a clock that has none is an error.",
        |lab| {
            lab.refuses_within(
                |config| push(&mut config["linux"]["namespaces"], json!({"type": "time"})),
                |config| config["linux"]["timeOffsets"] = json!({"nonsense": {"secs": 1}}),
            )
            .map(drop)
        },
    ),
];
