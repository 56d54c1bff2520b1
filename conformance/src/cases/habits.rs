//! Behaviour of runc that callers rely on, although no document requires it.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::mounts::{bind, shown};
use crate::case::{Case, interface};
use crate::host;
use crate::lab::{Lab, contains, push, same};

const HELP: &str = "runc --help";
const DEBUG: &str = "runc --debug";

/// A directory of the root with a mode. A mount will cover it.
fn directory(lab: &Lab, mode: u32) -> Result<()> {
    let path = lab.rootfs().join("covered");
    std::fs::create_dir(&path)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
    Ok(())
}

/// The mode that a tmpfs on /covered has in a container.
fn mode_of_tmpfs(lab: &Lab, options: &[&str]) -> Result<String> {
    lab.script("stat -c %a /covered", |config| {
        let mount = json!({"destination": "/covered", "type": "tmpfs", "source": "tmpfs", "options": options});
        push(&mut config["mounts"], mount);
    })
}

/// A hook of the container's own shell.
fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > /dev/null; {script}")]}])
}

pub(super) const CASES: &[Case] = &[
    interface(
        "cli.help.of-a-command",
        HELP,
        "The help of a command names it below a line NAME.",
        |lab| {
            for command in ["create", "exec", "checkpoint", "update"] {
                let text = lab.call(&[command, "--help"])?.output()?;
                let mut lines = text.lines();
                same("first line", lines.next().unwrap_or_default(), "NAME:")?;
                contains(
                    "second line",
                    lines.next().unwrap_or_default(),
                    &format!(" {command} - "),
                )?;
            }
            Ok(())
        },
    ),
    interface(
        "cli.help.unknown-command",
        HELP,
        "A command that does not exist has no help topic.",
        |lab| {
            let ended = lab.call(&["frobnicate", "--help"])?;
            ensure!(!ended.status.success(), "it succeeded");
            let text = format!("{}{}", ended.stdout, ended.stderr);
            contains("output", &text, "No help topic for 'frobnicate'")
        },
    ),
    interface(
        "cli.debug.to-stderr",
        DEBUG,
        "With --debug, steps are told on standard error.",
        |lab| {
            lab.write_config(|_| {})?;
            let ended = lab.call(&["--debug", "run", &lab.next_id()])?;
            ensure!(ended.status.success(), "{ended}");
            contains("standard error", &ended.stderr, "level=debug")
        },
    ),
    interface(
        "cli.debug.to-log",
        DEBUG,
        "With --log, steps go to the file instead, as JSON on request.",
        |lab| {
            lab.write_config(|_| {})?;
            let log = lab.path("log");
            let options = ["--debug", "--log-format", "json", "--log"];
            let mut arguments = options.to_vec();
            let (path, id) = (log.to_string_lossy(), lab.next_id());
            arguments.extend([&*path, "run", &id]);
            let ended = lab.call(&arguments)?;
            ensure!(ended.status.success(), "{ended}");
            ensure!(!ended.stderr.contains("debug"), "{}", ended.stderr);
            let text = std::fs::read_to_string(&log)?;
            let first: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
            same(
                "level",
                first["level"].as_str().unwrap_or_default(),
                "debug",
            )
        },
    ),
    interface(
        "cli.list.members-in-order",
        "runc list --format json",
        "The members of a container come in one order, the version first.",
        |lab| {
            let _container = lab.idle()?;
            let text = lab.call(&["list", "--format", "json"])?.output()?;
            let places: Vec<_> = [
                "ociVersion",
                "id",
                "pid",
                "status",
                "bundle",
                "rootfs",
                "created",
            ]
            .iter()
            .map(|name| text.find(&format!("\"{name}\"")))
            .collect();
            ensure!(
                places.iter().all(Option::is_some) && places.is_sorted(),
                "{text}"
            );
            Ok(())
        },
    ),
    interface(
        "cli.list.columns",
        "runc list",
        "The columns of the table stand below each other, parted by spaces.",
        |lab| {
            let container = lab.idle()?;
            let text = lab.call(&["list"])?.output()?;
            let column = |line: Option<&str>, word: &str| line.and_then(|line| line.find(word));
            let mut lines = text.lines();
            let title = column(lines.next(), "STATUS");
            ensure!(title.is_some() && !text.contains('\t'), "{text}");
            ensure!(
                title == column(lines.next(), "running"),
                "{}: {text}",
                container.id
            );
            Ok(())
        },
    ),
    interface(
        "cli.events.members-in-order",
        "runc events --stats",
        "A line begins with its type, then the container.",
        |lab| {
            let container = lab.idle()?;
            let text = container.call(&["events", "--stats"])?.output()?;
            let start = format!(r#"{{"type":"stats","id":"{}","#, container.id);
            ensure!(text.starts_with(&start), "{text}");
            Ok(())
        },
    ),
    interface(
        "linux.namespaces.path-empty",
        "runc: linux.namespaces[].path",
        "An empty path is the same as none.",
        |lab| {
            let container = lab.create(|config| {
                for namespace in config["linux"]["namespaces"]
                    .as_array_mut()
                    .into_iter()
                    .flatten()
                {
                    namespace["path"] = json!("");
                }
            })?;
            let own = std::fs::read_link("/proc/self/ns/uts")?;
            ensure!(
                container.namespace("uts")? != own.to_string_lossy(),
                "it is the host's"
            );
            Ok(())
        },
    ),
    interface(
        "linux.namespaces.path-bound",
        "runc: linux.namespaces[].path",
        "A namespace may be given by a file that it is bound to, as engines keep networks.",
        |lab| {
            let path = lab.path("network");
            std::fs::write(&path, "")?;
            let mut option = std::ffi::OsString::from("--net=");
            option.push(&path);
            let made = Command::new("unshare").arg(option).arg("true").status()?;
            ensure!(made.success(), "unshare: {made}");
            let number = std::fs::metadata(&path)?.ino();
            let container = lab.create(|config| {
                for namespace in config["linux"]["namespaces"]
                    .as_array_mut()
                    .into_iter()
                    .flatten()
                {
                    if namespace["type"] == "network" {
                        namespace["path"] = json!(path);
                    }
                }
            })?;
            same(
                "namespace",
                &container.namespace("net")?,
                &format!("net:[{number}]"),
            )
        },
    ),
    interface(
        "linux.devices.ptmx-listed",
        "runc: linux.devices",
        "/dev/ptmx may be listed; the container keeps its own.",
        |lab| {
            let target = lab.script("readlink /dev/ptmx", |config| {
                config["linux"]["devices"] =
                    json!([{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]);
            })?;
            same("link", &target, "pts/ptmx")
        },
    ),
    interface(
        "mounts.proc.not-behind-a-link",
        "runc: mounts",
        "Neither procfs nor sysfs is mounted where the image has put a link.",
        |lab| {
            for name in ["proc", "sys"] {
                let place = lab.rootfs().join(name);
                std::fs::remove_dir(&place)?;
                symlink("/tmp", &place)?;
                lab.refuses(|_| {})?;
                std::fs::remove_file(&place)?;
                std::fs::create_dir(&place)?;
            }
            Ok(())
        },
    ),
    interface(
        "mounts.dev.read-only",
        "runc: mounts",
        "A read-only /dev has its devices all the same.",
        |lab| {
            let text = lab.script(
                "cat /proc/self/mountinfo; test -c /dev/null; test -d /dev/pts",
                |config| push(&mut config["mounts"][1]["options"], json!("ro")),
            )?;
            let dev = shown(&text, "/dev")?;
            ensure!(
                dev.options.iter().any(|option| option == "ro"),
                "{:?}",
                dev.options
            );
            Ok(())
        },
    ),
    interface(
        "mounts.bind.options-of-a-file-system",
        "runc: mounts",
        "A bind mount may be given options for a file system, which it has not.",
        |lab| {
            std::fs::create_dir(lab.path("source"))?;
            std::fs::write(lab.path("source/there"), "bound")?;
            let source = lab.path("source").to_string_lossy().into_owned();
            let text = lab.script("cat /bound/there", |config| {
                bind(config, &source, "/bound", &["mode=755", "size=1k", "bind"]);
            })?;
            same("text", &text, "bound")
        },
    ),
    interface(
        "mounts.tmpfs.mode-of-the-covered",
        "runc: mounts",
        "A tmpfs without a mode gets that of the directory it covers.",
        |lab| {
            directory(lab, 0o1751)?;
            same("mode", &mode_of_tmpfs(lab, &["nosuid"])?, "1751")
        },
    ),
    interface(
        "mounts.tmpfs.mode-given",
        "runc: mounts",
        "A mode that is given counts more than that of the directory it covers.",
        |lab| {
            directory(lab, 0o1751)?;
            same("mode", &mode_of_tmpfs(lab, &["mode=0410"])?, "410")
        },
    ),
    interface(
        "config.hooks.create-container-folder",
        "runc: hooks",
        "createContainer hooks find the container's root as their working directory.",
        |lab| {
            lab.create(|config| {
                config["hooks"]["createContainer"] = hook("echo here > made-by-hook");
            })?;
            let path = lab.rootfs().join("made-by-hook");
            same("file", std::fs::read_to_string(path)?.trim(), "here")
        },
    ),
    interface(
        "config.hooks.start-container-restricted",
        "runc: hooks",
        "startContainer hooks are under the seccomp filter as the process is.",
        |lab| {
            let container = lab.create(|config| {
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]
                });
                config["hooks"]["startContainer"] = hook("exec mkdir /tmp/made-by-hook");
            })?;
            // Not every runtime knows it at that point.
            let _ = container.call(&["start"])?;
            container.becomes("stopped")?;
            ensure!(
                !lab.rootfs().join("tmp/made-by-hook").exists(),
                "it was made"
            );
            Ok(())
        },
    ),
    interface(
        "config.process.executable-by-capability",
        "runc: process.capabilities",
        "CAP_DAC_OVERRIDE lets a user execute what it has no permission for.",
        |lab| {
            let program = lab.rootfs().join("bin/busybox-of-root");
            std::fs::copy(lab.rootfs().join("bin/busybox"), &program)?;
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o744))?;
            let run = |capabilities: &[&str]| {
                lab.run(|config| {
                    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                    config["process"]["args"] = json!(["/bin/busybox-of-root", "true"]);
                    config["process"]["capabilities"] = json!({
                        "bounding": capabilities, "effective": capabilities, "permitted": capabilities
                    });
                })
            };
            ensure!(!run(&[])?.status.success(), "it ran without the capability");
            run(&["CAP_DAC_OVERRIDE"])?.output().map(drop)
        },
    ),
    interface(
        "linux.cgroups-path.frozen",
        "runc: linux.cgroupsPath",
        "A cgroup that is frozen already is refused.",
        |lab| {
            // The runtime keeps its cgroups in the hierarchy that can freeze.
            let container = lab.idle()?;
            container.stop()?;
            container.delete()?;
            for mount in host::cgroup_mounts() {
                let directory = mount.join(lab.cgroup().trim_start_matches('/'));
                let made = std::fs::create_dir_all(&directory);
                for (file, value) in [("cgroup.freeze", "1"), ("freezer.state", "FROZEN")] {
                    if made.is_ok() && directory.join(file).exists() {
                        std::fs::write(directory.join(file), value)?;
                    }
                }
            }
            let message = lab.refuses(|_| {})?;
            contains("message", &message, "frozen")
        },
    ),
];
