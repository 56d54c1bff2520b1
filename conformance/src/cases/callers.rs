//! What callers pass to a runtime and expect from it: documents as Go's encoder writes them, paths
//! and cgroups in the forms of engines, standard streams, and errors that they parse.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::exec::field;
use crate::case::{Case, interface, must};
use crate::command::{self, eventually};
use crate::host;
use crate::lab::{Lab, contains, push, same};

const READING: &str = "runc: config.json";
const STREAMS: &str = "runc: standard streams";
const LOG: &str = "runc --log-format";

/// Replaces every absent optional member of the configuration by a null.
fn with_nulls(config: &mut Value) {
    let members = [
        ("", &["annotations", "hooks", "hostname", "domainname"][..]),
        ("/root", &["readonly"]),
        (
            "/process",
            &[
                "terminal",
                "consoleSize",
                "rlimits",
                "noNewPrivileges",
                "oomScoreAdj",
                "apparmorProfile",
                "selinuxLabel",
            ],
        ),
        ("/process/user", &["uid", "gid", "additionalGids", "umask"]),
        ("/process/capabilities", &["inheritable", "ambient"]),
        (
            "/linux",
            &[
                "uidMappings",
                "gidMappings",
                "sysctl",
                "devices",
                "seccomp",
                "rootfsPropagation",
                "maskedPaths",
                "readonlyPaths",
                "mountLabel",
                "intelRdt",
                "personality",
            ],
        ),
        (
            "/linux/resources",
            &[
                "memory",
                "cpu",
                "pids",
                "blockIO",
                "hugepageLimits",
                "network",
                "rdma",
                "unified",
            ],
        ),
        ("/linux/resources/devices/0", &["type", "major", "minor"]),
        ("/linux/namespaces/0", &["path"]),
        ("/mounts/0", &["options", "uidMappings", "gidMappings"]),
    ];
    for (place, names) in members {
        if let Some(Value::Object(object)) = config.pointer_mut(place) {
            object.extend(names.iter().map(|name| ((*name).to_owned(), Value::Null)));
        }
    }
}

/// The output of a failing call, with these options before the command.
fn error_of(lab: &Lab, options: &[&str]) -> Result<String> {
    let mut arguments = options.to_vec();
    arguments.extend(["state", "nobody"]);
    lab.call(&arguments)?.failure()
}

/// Runs a container for a user whose standard output is a pipe.
fn through_pipe(lab: &Lab, script: &str, edit: impl FnOnce(&mut Value)) -> Result<String> {
    lab.write_config(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["args"] = json!(["sh", "-c", script]);
        edit(config);
    })?;
    let mut command = lab.command(&["run", &lab.next_id()])?;
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The message about a failed hook, wherever it is written.
fn failing_hook(lab: &Lab, kind: &str) -> Result<String> {
    let hook = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    lab.refuses_within(
        |config| config["hooks"][kind] = json!([hook("true"), hook("true")]),
        |config| {
            let wrong = hook("echo said-by-hook >&2; exit 5");
            config["hooks"][kind] = json!([hook("true"), wrong]);
        },
    )
}

pub(super) const CASES: &[Case] = &[
    interface(
        "config.reading.null",
        READING,
        "A member that is null is the same as none, at every depth.",
        |lab| same("output", &lab.script("echo read", with_nulls)?, "read"),
    ),
    interface(
        "config.reading.case",
        READING,
        "Names of members match without regard to case.",
        |lab| {
            let text = lab.script("pwd; hostname", |config| {
                if let Some(Value::Object(process)) = config.get_mut("process")
                    && let Some(mut rest) = process.remove("user")
                {
                    rest["UMASK"] = json!(0o77);
                    process.insert("User".to_owned(), rest);
                    process.insert("CWD".to_owned(), json!("/etc"));
                    process.remove("cwd");
                }
                config["HostName"] = json!("other");
                config
                    .as_object_mut()
                    .map(|object| object.remove("hostname"));
            })?;
            same("directory and name", &text, "/etc\nother")
        },
    ),
    interface(
        "config.reading.repeated",
        READING,
        "Of a member that is there several times the last one counts.",
        |lab| {
            lab.write_config(|config| config["process"]["args"] = json!(["echo", "last"]))?;
            let path = lab.bundle().join("config.json");
            let text = std::fs::read_to_string(&path)?;
            let text = text.replacen("\"args\"", "\"args\": [\"echo\", \"first\"], \"args\"", 1);
            std::fs::write(&path, text)?;
            let ended = lab.call(&["run", &lab.next_id()])?;
            same("output", &ended.output()?, "last")
        },
    ),
    interface(
        "cli.exec.process-null",
        "runc exec --process",
        "Members of a process's own file may be null, too.",
        |lab| {
            let container = lab.idle()?;
            let file = lab.path("process.json");
            let process = json!({
                "terminal": null, "user": {"uid": null, "additionalGids": null}, "args": ["echo", "read"],
                "env": ["PATH=/bin"], "Cwd": "/", "capabilities": null, "rlimits": null,
                "noNewPrivileges": null, "oomScoreAdj": null
            });
            std::fs::write(&file, process.to_string())?;
            let ended = container.exec(&["--process", &file.to_string_lossy()], &[])?;
            same("output", &ended.output()?, "read")
        },
    ),
    interface(
        "cli.update.null",
        "runc update --resources",
        "Members of a file of limits may be null.",
        |lab| {
            let container = lab.idle()?;
            let file = lab.path("limits.json");
            let limits = json!({"memory": null, "CPU": null, "blockIO": {"weightDevice": null}, "unified": null});
            std::fs::write(&file, limits.to_string())?;
            lab.call(&[
                "update",
                "--resources",
                &file.to_string_lossy(),
                &container.id,
            ])?
            .output()?;
            container.is("running")
        },
    ),
    must(
        "config.mounts.source-relative",
        "config.md#mounts",
        "The source of a bind is relative to the bundle, wherever the caller is.",
        |lab| {
            std::fs::create_dir(lab.bundle().join("below"))?;
            std::fs::write(lab.bundle().join("below/file"), "found")?;
            lab.write_config(|config| {
                config["process"]["args"] = json!(["cat", "/mnt/file"]);
                push(
                    &mut config["mounts"],
                    json!({"destination": "/mnt", "type": "none", "source": "below", "options": ["rbind"]}),
                );
            })?;
            let bundle = lab.bundle().to_string_lossy().into_owned();
            let mut command = lab.command(&["run", "--bundle", &bundle, &lab.next_id()])?;
            command.current_dir("/");
            same("file", &command::run(&mut command)?.output()?, "found")
        },
    ),
    interface(
        "cli.streams.pipe-of-user",
        STREAMS,
        "A user opens a pipe that the caller gave as standard output by its name again.",
        |lab| {
            let text = through_pipe(lab, "echo again > /dev/stdout", |_| {})?;
            same("output", &text, "again")
        },
    ),
    interface(
        "cli.streams.pipe-of-exec",
        STREAMS,
        "So does a further process.",
        |lab| {
            let container = lab.idle()?;
            let script = "echo again > /dev/stdout";
            let arguments = [
                "exec",
                "--user",
                "1000:1000",
                &container.id,
                "sh",
                "-c",
                script,
            ];
            let child = lab.command(&arguments)?.stdout(Stdio::piped()).spawn()?;
            let output = child.wait_with_output()?;
            same(
                "output",
                &String::from_utf8_lossy(&output.stdout),
                "again\n",
            )
        },
    ),
    interface(
        "cli.streams.file-stays",
        STREAMS,
        "A file of the caller's stays the caller's.",
        |lab| {
            let container = lab.start("id -u", |config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            })?;
            container.ends()?;
            same("output", &container.output()?, "1000")?;
            let file = std::fs::metadata(lab.path(&format!("{}.out", container.id)))?;
            ensure!(file.uid() == 0, "the file belongs to {}", file.uid());
            Ok(())
        },
    ),
    interface(
        "config.process.cwd-of-user",
        "runc: process.cwd",
        "A working directory that only root may enter is entered before the change of the user.",
        |lab| {
            std::fs::create_dir(lab.rootfs().join("closed"))?;
            let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(lab.rootfs().join("closed"), closed)?;
            let text = lab.script("id -u; readlink /proc/self/cwd", |config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                config["process"]["cwd"] = json!("/closed");
            })?;
            contains("output", &text, "1000")
        },
    ),
    interface(
        "cli.exec.cwd-missing",
        "runc exec --cwd",
        "A working directory that is not there is named, with the reason.",
        |lab| {
            let container = lab.idle()?;
            let message = container
                .exec(&["--cwd", "/missing"], &["true"])?
                .failure()?;
            contains("message", &message, "/missing")?;
            contains(
                "message",
                &message.to_lowercase(),
                "no such file or directory",
            )
        },
    ),
    interface(
        "linux.cgroups-path.systemd-form",
        "runc: linux.cgroupsPath",
        "A path in the form of the systemd driver, slice:prefix:name, works without systemd.",
        |lab| {
            let name = lab.cgroup().replace('/', "");
            let container = lab.create(|config| {
                config["linux"]["cgroupsPath"] = json!(format!("-.slice:{}:x", name));
            })?;
            let cgroups = std::fs::read_to_string(container.proc("cgroup")?)?;
            container.stop()?;
            container.delete()?;
            contains("cgroups", &cgroups, &name)
        },
    ),
    interface(
        "linux.cgroups-path.not-empty",
        "runc 1.3: linux.cgroupsPath",
        "A cgroup in which there are processes is refused.",
        |lab| {
            let parents = host::cgroup_mounts();
            let name = lab.cgroup();
            let mut child = command::quiet("sleep").arg("1000").spawn()?;
            for mount in parents {
                let directory = mount.join(name.trim_start_matches('/'));
                if std::fs::create_dir_all(&directory).is_ok() {
                    // Some hierarchies accept no process before they are configured.
                    let _ = std::fs::write(directory.join("cgroup.procs"), child.id().to_string());
                }
            }
            let message = lab.refuses(|_| {});
            child.kill()?;
            child.wait()?;
            contains("message", &message?, "cgroup is not empty")
        },
    ),
    interface(
        "config.hooks.failure-is-told",
        "runc: hooks",
        "The message about a hook that failed has its kind, its number and what it wrote.",
        |lab| {
            for kind in [
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
            ] {
                let message = failing_hook(lab, kind)?;
                contains(
                    "message",
                    &message,
                    &format!("error running {kind} hook #1:"),
                )?;
                contains("message", &message, "exit status 5")?;
                contains("message", &message, "said-by-hook")?;
            }
            Ok(())
        },
    ),
    interface(
        "config.hooks.poststop-before-gone",
        "runc: hooks",
        "Whoever sees that the container is gone finds what its poststop hooks did.",
        |lab| {
            let mark = lab.path("poststop");
            let container = lab.start("exec sleep 1000", |config| {
                let script = format!("sleep 0.3; touch {}", mark.display());
                config["hooks"]["poststop"] =
                    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
            })?;
            let mut child = lab
                .command(&["delete", "--force", &container.id])?
                .spawn()?;
            eventually("the end of the container", || {
                Ok(!container.call(&["state"])?.status.success())
            })?;
            let seen = mark.exists();
            command::wait(&mut child)?;
            ensure!(
                seen,
                "the container was gone before its poststop hook had run"
            );
            Ok(())
        },
    ),
    interface(
        "cli.delete.at-once",
        "runc delete --force",
        "Two who delete a container at the same time both succeed, and its poststop hooks run once.",
        |lab| {
            let log = lab.path("log");
            let container = lab.start("exec sleep 1000", |config| {
                let script = format!("sleep 0.1; echo ran >> {}", log.display());
                config["hooks"]["poststop"] =
                    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
            })?;
            let call = || {
                lab.command(&["delete", "--force", &container.id])?
                    .spawn()
                    .context("delete")
            };
            let mut children = [call()?, call()?];
            for child in &mut children {
                let status = command::wait(child)?;
                ensure!(status.success(), "delete: {status}");
            }
            same("log", &std::fs::read_to_string(log)?, "ran\n")
        },
    ),
    interface(
        "cli.create.pidfd-socket",
        "runc create --pidfd-socket",
        "The process is sent to the socket as a descriptor, for a further one as well.",
        |lab| {
            let path = lab.path("pidfd.sock");
            let listener = UnixListener::bind(&path)?;
            let receive = || -> Result<(String, i32)> {
                let (text, fd) = super::terminal::take_descriptor(&listener)?;
                let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
                let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
                let pid = field(&info, "Pid:").parse();
                Ok((text, pid.context("the descriptor is no process")?))
            };
            lab.write_config(|config| config["process"]["args"] = json!(["sleep", "1000"]))?;
            let id = lab.next_id();
            let socket = path.to_string_lossy();
            lab.call(&["create", "--pidfd-socket", &socket, &id])?
                .output()?;
            let container = crate::lab::Container { lab, id };
            let (text, pid) = receive()?;
            same("text", &text, "standard")?;
            ensure!(
                pid == container.pid()?,
                "{pid} is not the container's process"
            );
            container.start()?;
            container
                .exec(&["--detach", "--pidfd-socket", &socket], &["sleep", "1000"])?
                .output()?;
            let (text, pid) = receive()?;
            same("text", &text, "setns")?;
            ensure!(
                pid != container.pid()?,
                "{pid} is the container's first process"
            );
            Ok(())
        },
    ),
    interface(
        "cli.create.affinity",
        "runc 1.3: CPU affinity",
        "The container runs on all processors of its cgroup, also when its caller was bound to one.",
        |lab| {
            let all = std::fs::read_to_string("/proc/self/status")?;
            let all = field(&all, "Cpus_allowed_list:");
            if !all.contains(['-', ',']) {
                return crate::lab::skip("this machine has one processor");
            }
            let allowed = "exec grep Cpus_allowed_list: /proc/self/status";
            let bound = |runtime: std::process::Command| {
                let mut command = command::quiet("taskset");
                command
                    .args(["-c", "0"])
                    .arg(runtime.get_program())
                    .args(runtime.get_args());
                command.current_dir(lab.bundle());
                command::run(&mut command)?.output()
            };
            lab.write_config(|config| config["process"]["args"] = json!(["sh", "-c", allowed]))?;
            let text = bound(lab.command(&["run", &lab.next_id()])?)?;
            same("processors", &field(&text, "Cpus_allowed_list:"), &all)?;
            let container = lab.idle()?;
            let text = bound(lab.command(&["exec", &container.id, "sh", "-c", allowed])?)?;
            same(
                "processors of a further process",
                &field(&text, "Cpus_allowed_list:"),
                &all,
            )
        },
    ),
    interface(
        "cli.exec.cap-ambient",
        "runc exec --cap",
        "A capability that is added is ambient only where it is inheritable, and never fails the call.",
        |lab| {
            let container = lab.idle()?;
            let status = container.script(&["--cap", "CAP_SYS_TIME"], "cat /proc/self/status")?;
            let bits = |name: &str| {
                Ok::<_, anyhow::Error>(u64::from_str_radix(&field(&status, name), 16)?)
            };
            for name in ["CapEff:", "CapPrm:", "CapBnd:"] {
                ensure!(bits(name)? >> 25 & 1 == 1, "{name} lacks it");
            }
            ensure!(bits("CapAmb:")? == 0, "it is ambient");
            Ok(())
        },
    ),
    interface(
        "cli.create.id-long",
        "runc create",
        "An identifier that is too long is called so.",
        |lab| {
            lab.write_config(|_| {})?;
            let message = lab.call(&["create", &"x".repeat(300)])?.failure()?;
            contains("message", &message.to_lowercase(), "too long")
        },
    ),
    interface(
        "cli.errors.text",
        LOG,
        "Without --log, an error is a line of the log on standard error: its time, level=error and msg=.",
        |lab| {
            let text = error_of(lab, &[])?;
            let line = text.lines().last().unwrap_or_default();
            contains("line", line, "level=error msg=")?;
            ensure!(line.starts_with("time="), "{line}");
            contains("line", line, "does not exist")
        },
    ),
    interface(
        "cli.errors.json",
        LOG,
        "With --log-format json, the line is JSON.",
        |lab| {
            let text = error_of(lab, &["--log-format", "json"])?;
            let line = text.lines().last().unwrap_or_default();
            let line: Value = serde_json::from_str(line).with_context(|| text.clone())?;
            ensure!(
                line["level"] == "error" && line["time"].is_string(),
                "{line}"
            );
            contains(
                "msg",
                line["msg"].as_str().unwrap_or_default(),
                "does not exist",
            )
        },
    ),
];
