//! Containers in a mount namespace that is not their own. The runtime runs in a namespace made for
//! the case, because some runtimes leave their mounts there.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, interface, must};
use crate::command::{self, Ended, eventually};
use crate::lab::{Lab, push, same, skip};

const NAMESPACES: &str = "config-linux.md#namespaces";
const DELETE: &str = "runtime.md#delete";

/// Removes the mount namespace, or sets its path.
fn mounts_of(config: &mut Value, path: Option<&Path>) {
    if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
        list.retain(|item| item["type"] != "mount");
    }
    if let Some(path) = path {
        let item = json!({"type": "mount", "path": path});
        push(&mut config["linux"]["namespaces"], item);
    }
}

/// Runs a container without a mount namespace entry. `after` is a shell script that runs afterwards
/// in the runtime's own namespace. Its first line of output is that namespace.
fn inherits(lab: &Lab, script: &str, after: &str) -> Result<Ended> {
    lab.write_config(|config| {
        config["process"]["args"] = json!(["sh", "-c", script]);
        mounts_of(config, None);
    })?;
    let id = lab.next_id();
    let call = lab.command(&["run", &id])?;
    let mut outer = command::quiet(Path::new("unshare"));
    outer
        .args(["-m", "--propagation", "private", "sh", "-c"])
        .arg(format!("readlink /proc/self/ns/mnt; \"$@\"; {after}"))
        .arg("sh")
        .arg(call.get_program())
        .args(call.get_args())
        .current_dir(lab.bundle());
    command::run(&mut outer)
}

/// A process in a mount namespace of its own.
struct Holder(Child);

impl Holder {
    fn start() -> Result<Self> {
        Self::with("private")
    }

    fn with(propagation: &str) -> Result<Self> {
        let child = Command::new("unshare")
            .args(["-m", "--propagation", propagation, "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .context("execute unshare")?;
        let holder = Self(child);
        let own = std::fs::read_link("/proc/self/ns/mnt")?;
        eventually("mount namespace", || {
            Ok(
                std::fs::read_link(holder.path("ns/mnt")).is_ok_and(|link| link != own)
                    && std::fs::read_to_string(holder.path("comm"))?.trim() == "sleep",
            )
        })?;
        Ok(holder)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.id()))
    }

    /// Mounts below the case's directory.
    fn mounts(&self, lab: &Lab) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(self.path("mountinfo"))?;
        let directory = lab.bundle().to_string_lossy().into_owned();
        let inside = text.lines().filter(|line| line.contains(&directory));
        Ok(inside.map(str::to_owned).collect())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) const CASES: &[Case] = &[
    must(
        "linux.namespaces.mount-inherited",
        NAMESPACES,
        "Without a mount namespace the container is in the runtime's.",
        |lab| {
            if lab.runtime.hides_unified {
                return skip("this runtime is called in another namespace here");
            }
            let output = inherits(lab, "readlink /proc/self/ns/mnt", "true")?.output()?;
            let (own, inside) = output.split_once('\n').context("two lines")?;
            same("namespace", inside, own)
        },
    ),
    must(
        "linux.namespaces.mount-inherited-root",
        NAMESPACES,
        "In the runtime's mount namespace, too, the root is the container's, with its mounts.",
        |lab| {
            std::fs::write(lab.rootfs().join("tmp/mark"), "")?;
            let script = "ls /tmp; grep -c ' /proc proc ' /proc/mounts; echo x > /dev/null && echo ok; \
                ls -d /proc/1/root/bin/busybox";
            let output = inherits(lab, script, "true")?.output()?;
            let lines: Vec<&str> = output.lines().skip(1).collect();
            ensure!(
                lines == ["mark", "1", "ok", "/proc/1/root/bin/busybox"],
                "{output}"
            );
            Ok(())
        },
    ),
    must(
        "linux.namespaces.mount-inherited-nothing-left",
        DELETE,
        "Mounts in the runtime's namespace go when the container is deleted.",
        |lab| {
            let bundle = lab.bundle();
            let after = format!("grep -c ' {}' /proc/self/mountinfo; true", bundle.display());
            let output = inherits(lab, "true", &after)?.output()?;
            same("mounts", output.lines().last().unwrap_or_default(), "0")
        },
    ),
    must(
        "linux.namespaces.mount-inherited-host-kept",
        NAMESPACES,
        "The runtime's namespace keeps its root and the propagation of its mounts.",
        |lab| {
            let look = "stat -c %d:%i /; grep -c shared: /proc/self/mountinfo";
            lab.write_config(|config| mounts_of(config, None))?;
            let call = lab.command(&["run", &lab.next_id()])?;
            let mut outer = command::quiet(Path::new("unshare"));
            outer
                .args(["-m", "--propagation", "shared", "sh", "-c"])
                .arg(format!("{look}; \"$@\"; {look}"))
                .arg("sh")
                .arg(call.get_program())
                .args(call.get_args())
                .current_dir(lab.bundle());
            let output = command::run(&mut outer)?.output()?;
            let lines: Vec<&str> = output.lines().collect();
            ensure!(lines.len() == 4 && lines[..2] == lines[2..], "{output}");
            Ok(())
        },
    ),
    must(
        "linux.namespaces.mount-path",
        NAMESPACES,
        "With a path the container is in the mount namespace there.",
        |lab| {
            let holder = Holder::start()?;
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                mounts_of(config, Some(&holder.path("ns/mnt")));
            })?;
            container.says("ready")?;
            let wanted = std::fs::read_link(holder.path("ns/mnt"))?;
            same(
                "namespace",
                &container.namespace("mnt")?,
                &wanted.to_string_lossy(),
            )?;
            container.stop()?;
            container.delete()
        },
    ),
    must(
        "linux.namespaces.mount-path-nothing-left",
        DELETE,
        "Mounts in a namespace given by path go when the container is deleted.",
        |lab| {
            let holder = Holder::start()?;
            let container = lab.create(|config| {
                mounts_of(config, Some(&holder.path("ns/mnt")));
            })?;
            ensure!(!holder.mounts(lab)?.is_empty(), "nothing was mounted there");
            container.start()?;
            container.becomes("stopped")?;
            container.delete()?;
            let left = holder.mounts(lab)?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        },
    ),
    must(
        "linux.namespaces.mount-path-binds",
        "config.md#mounts",
        "What is mounted below a bind mount does not show in the namespace of its source.",
        |lab| {
            let holder = Holder::with("shared")?;
            let source = lab.path("source");
            std::fs::create_dir_all(source.join("below"))?;
            let script = "mount -t tmpfs none /bound/below && echo mounted; exec sleep 1000";
            let container = lab.start(script, |config| {
                mounts_of(config, Some(&holder.path("ns/mnt")));
                for set in ["bounding", "effective", "permitted"] {
                    let capabilities = &mut config["process"]["capabilities"][set];
                    push(capabilities, json!("CAP_SYS_ADMIN"));
                }
                push(
                    &mut config["mounts"],
                    json!({
                        "destination": "/bound", "type": "bind",
                        "source": source, "options": ["rbind"]
                    }),
                );
            })?;
            container.says("mounted")?;
            let text = std::fs::read_to_string(holder.path("mountinfo"))?;
            let place = format!(" {} ", source.join("below").display());
            ensure!(!text.contains(&place), "{text}");
            Ok(())
        },
    ),
    interface(
        "linux.namespaces.mount-path-exec",
        "runc exec",
        "A further process has the container's root, also where that is not the namespace's.",
        |lab| {
            let holder = Holder::start()?;
            std::fs::write(lab.rootfs().join("tmp/mark"), "")?;
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                mounts_of(config, Some(&holder.path("ns/mnt")));
            })?;
            container.says("ready")?;
            same("files", &container.script(&[], "ls /tmp; pwd")?, "mark\n/")
        },
    ),
    must(
        "linux.namespaces.mount-path-failed-create",
        "runtime.md#errors",
        "A container that can't be made leaves nothing in a namespace given by path.",
        |lab| {
            let holder = Holder::start()?;
            lab.refuses_within(
                |config| mounts_of(config, Some(&holder.path("ns/mnt"))),
                |config| {
                    push(
                        &mut config["mounts"],
                        json!({"destination": "/mnt", "type": "nonsense", "source": "none"}),
                    );
                },
            )?;
            let left = holder.mounts(lab)?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        },
    ),
    must(
        "linux.namespaces.mount-path-failed-hook",
        "runtime.md#errors",
        "A hook that fails leaves nothing in a namespace given by path.",
        |lab| {
            let holder = Holder::start()?;
            lab.refuses_within(
                |config| mounts_of(config, Some(&holder.path("ns/mnt"))),
                |config| config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}),
            )?;
            let left = holder.mounts(lab)?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        },
    ),
];
