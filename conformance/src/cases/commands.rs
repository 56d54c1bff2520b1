//! list, ps, pause, resume, update, events, spec, features, checkpoint and the global options.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, interface, must};
use crate::command::eventually;
use crate::lab::{Lab, contains, same};

/// `features` as JSON. Runtimes older than version 1.1 may not have it.
fn features(lab: &Lab) -> Result<Value> {
    let text = lab.call(&["features"])?.output()?;
    serde_json::from_str(&text).with_context(|| format!("features is no JSON: {text:?}"))
}

/// Requires words in a list of the features.
fn lists(features: &Value, pointer: &str, words: &[&str]) -> Result<()> {
    let list = features.pointer(pointer).and_then(Value::as_array);
    let list = list.with_context(|| format!("no list {pointer} in {features}"))?;
    for word in words {
        ensure!(
            list.iter().any(|item| item == word),
            "{word} in {pointer}: {list:?}"
        );
    }
    Ok(())
}

/// How often a counting container has counted.
fn count(container: &crate::lab::Container<'_>) -> Result<usize> {
    Ok(container.output()?.lines().count())
}

pub(super) const CASES: &[Case] = &[
    interface(
        "cli.list.table",
        "runc list",
        "The table has a heading and a line for each container.",
        |lab| {
            let container = lab.create(|_| {})?;
            let text = lab.call(&["list"])?.output()?;
            let mut lines = text.lines();
            let heading: Vec<&str> = lines
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            ensure!(
                heading.starts_with(&["ID", "PID", "STATUS", "BUNDLE"])
                    || heading.starts_with(&["NAME", "PID", "STATUS", "BUNDLE"]),
                "{heading:?}"
            );
            let line = lines.next().unwrap_or_default();
            ensure!(
                line.starts_with(&container.id) && line.contains("created"),
                "{line}"
            );
            Ok(())
        },
    ),
    interface(
        "cli.list.json",
        "runc list --format",
        "As JSON, the list has id, pid, status and bundle of each container.",
        |lab| {
            let container = lab.idle()?;
            let text = lab.call(&["list", "--format", "json"])?.output()?;
            let list: Value = serde_json::from_str(&text)?;
            let item = &list[0];
            same("id", item["id"].as_str().unwrap_or_default(), &container.id)?;
            same(
                "status",
                item["status"].as_str().unwrap_or_default(),
                "running",
            )?;
            ensure!(
                item["pid"].as_i64() == Some(container.pid()?.into()),
                "{item}"
            );
            ensure!(
                item["bundle"]
                    .as_str()
                    .is_some_and(|path| path.starts_with('/')),
                "{item}"
            );
            Ok(())
        },
    ),
    interface(
        "cli.list.quiet",
        "runc list --quiet",
        "With --quiet, only identifiers are printed.",
        |lab| {
            let container = lab.create(|_| {})?;
            same(
                "list",
                &lab.call(&["list", "--quiet"])?.output()?,
                &container.id,
            )
        },
    ),
    interface(
        "cli.list.empty",
        "runc list",
        "Without containers, the list is empty and no error.",
        |lab| same("list", &lab.call(&["list", "-q"])?.output()?, ""),
    ),
    interface(
        "cli.list.format-unknown",
        "runc list --format",
        "Another format is refused.",
        |lab| {
            lab.create(|_| {})?;
            lab.call(&["list", "--format", "nonsense"])?
                .failure()
                .map(drop)
        },
    ),
    interface(
        "cli.ps.table",
        "runc ps",
        "The table has the container's processes as the host sees them.",
        |lab| {
            let container = lab.idle()?;
            let text = container.call(&["ps"])?.output()?;
            let pid = container.pid()?.to_string();
            let line = text
                .lines()
                .find(|line| line.split_whitespace().any(|word| word == pid));
            contains("line", line.unwrap_or_default(), "sleep 1000")
        },
    ),
    interface(
        "cli.ps.json",
        "runc ps --format",
        "As JSON, ps is the list of process numbers.",
        |lab| {
            let container = lab.start("sleep 1000 & echo ready; wait", |_| {})?;
            container.says("ready")?;
            let pids: Vec<i32> =
                serde_json::from_str(&container.call(&["ps", "--format", "json"])?.output()?)?;
            ensure!(
                pids.len() == 2 && pids.contains(&container.pid()?),
                "{pids:?}"
            );
            Ok(())
        },
    ),
    interface(
        "cli.ps.options",
        "runc ps",
        "Options behind the container are those of ps.",
        |lab| {
            let container = lab.idle()?;
            let text = lab
                .call(&["ps", &container.id, "-o", "pid,comm"])?
                .output()?;
            let words: Vec<&str> = text.split_whitespace().collect();
            ensure!(
                words.starts_with(&["PID", "COMMAND"]) && words.contains(&"sleep"),
                "{text}"
            );
            Ok(())
        },
    ),
    interface(
        "cli.pause.freezes",
        "runc pause",
        "A paused container does nothing and its status is paused.",
        |lab| {
            let container = lab.start("while :; do echo tick; sleep 0.02; done", |_| {})?;
            container.says("tick")?;
            container.call(&["pause"])?.output()?;
            container.is("paused")?;
            let before = count(&container)?;
            std::thread::sleep(std::time::Duration::from_millis(150));
            ensure!(count(&container)? == before, "it goes on");
            container.call(&["resume"])?.output()?;
            container.is("running")?;
            eventually("a further tick", || Ok(count(&container)? > before))
        },
    ),
    interface(
        "cli.pause.unknown",
        "runc pause",
        "Pausing a container that does not exist fails.",
        |lab| lab.knows_none(&["pause", "nobody"]),
    ),
    interface(
        "cli.pause.stopped",
        "runc pause",
        "Pausing a container that has stopped fails.",
        |lab| {
            let container = lab.start("exit", |_| {})?;
            container.ends()?;
            container.call(&["pause"])?.failure().map(drop)
        },
    ),
    interface(
        "cli.resume.running",
        "runc resume",
        "Resuming a container that is not paused fails.",
        |lab| {
            let container = lab.idle()?;
            container.call(&["resume"])?.failure()?;
            container.is("running")
        },
    ),
    interface(
        "cli.pause.kill",
        "runc kill",
        "A paused container that was killed ends when it is resumed, at the latest.",
        |lab| {
            let container = lab.idle()?;
            container.call(&["pause"])?.output()?;
            container.kill("KILL")?;
            // Some runtimes thaw it themselves.
            let _ = container.call(&["resume"])?;
            container.becomes("stopped")
        },
    ),
    interface(
        "cli.pause.delete-force",
        "runc delete --force",
        "A paused container is deleted by force.",
        |lab| {
            let container = lab.idle()?;
            container.call(&["pause"])?.output()?;
            container.call(&["delete", "--force"])?.output()?;
            container.call(&["state"])?.failure().map(drop)
        },
    ),
    interface(
        "cli.update.unknown",
        "runc update",
        "Updating a container that does not exist fails.",
        |lab| lab.knows_none(&["update", "--pids-limit", "10", "nobody"]),
    ),
    interface(
        "cli.update.bad-file",
        "runc update --resources",
        "A file that is no JSON is refused.",
        |lab| {
            let container = lab.idle()?;
            let file = lab.path("resources.json");
            std::fs::write(&file, "{nonsense")?;
            lab.call(&[
                "update",
                "--resources",
                &file.to_string_lossy(),
                &container.id,
            ])?
            .failure()
            .map(drop)
        },
    ),
    interface(
        "cli.events.stats",
        "runc events --stats",
        "With --stats, one JSON object of type stats is printed.",
        |lab| {
            let container = lab.idle()?;
            let text = lab.call(&["events", "--stats", &container.id])?.output()?;
            let event: Value = serde_json::from_str(&text)?;
            same("type", event["type"].as_str().unwrap_or_default(), "stats")?;
            same(
                "id",
                event["id"].as_str().unwrap_or_default(),
                &container.id,
            )?;
            ensure!(
                event["data"]["cpu"].is_object() && event["data"]["pids"].is_object(),
                "{event}"
            );
            Ok(())
        },
    ),
    interface(
        "cli.events.unknown",
        "runc events",
        "Events of a container that does not exist are an error.",
        |lab| lab.knows_none(&["events", "--stats", "nobody"]),
    ),
    interface(
        "cli.spec.runs",
        "runc spec",
        "What spec writes can be run once its terminal is off.",
        |lab| {
            lab.call(&["spec"])?.output()?;
            let path = lab.bundle().join("config.json");
            let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
            same(
                "ociVersion",
                &config["ociVersion"]
                    .as_str()
                    .unwrap_or_default()
                    .chars()
                    .take(2)
                    .collect::<String>(),
                "1.",
            )?;
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(["echo", "ran"]);
            config["process"]["env"] = json!(["PATH=/bin"]);
            lab.place(&mut config, "");
            std::fs::write(&path, config.to_string())?;
            same(
                "output",
                &lab.call(&["run", &lab.next_id()])?.output()?,
                "ran",
            )
        },
    ),
    interface(
        "cli.spec.bundle",
        "runc spec --bundle",
        "The directory can be named.",
        |lab| {
            let directory = lab.path("other");
            std::fs::create_dir(&directory)?;
            lab.call(&["spec", "--bundle", &directory.to_string_lossy()])?
                .output()?;
            ensure!(directory.join("config.json").is_file(), "no config.json");
            Ok(())
        },
    ),
    interface(
        "cli.spec.no-overwrite",
        "runc spec",
        "A config.json that exists is not overwritten.",
        |lab| {
            std::fs::write(lab.bundle().join("config.json"), "kept")?;
            lab.call(&["spec"])?.failure()?;
            same(
                "file",
                &std::fs::read_to_string(lab.bundle().join("config.json"))?,
                "kept",
            )
        },
    ),
    interface(
        "cli.spec.rootless",
        "runc spec --rootless",
        "With --rootless, a user namespace with mappings is asked for.",
        |lab| {
            lab.call(&["spec", "--rootless"])?.output()?;
            let config: Value =
                serde_json::from_slice(&std::fs::read(lab.bundle().join("config.json"))?)?;
            ensure!(config["linux"]["uidMappings"].is_array(), "no uidMappings");
            let namespaces = config["linux"]["namespaces"].to_string();
            contains("namespaces", &namespaces, "\"user\"")
        },
    ),
    must(
        "features.document.versions",
        "features.md#specification-version",
        "ociVersionMin and ociVersionMax are versions, the latter not lower.",
        |lab| {
            let features = features(lab)?;
            let version = |name: &str| features[name].as_str().unwrap_or_default().to_owned();
            let (low, high) = (version("ociVersionMin"), version("ociVersionMax"));
            ensure!(low.starts_with("1.") && high >= low, "{low} to {high}");
            Ok(())
        },
    ),
    must(
        "features.document.hooks",
        "features.md#hooks",
        "hooks lists the six kinds.",
        |lab| {
            lists(
                &features(lab)?,
                "/hooks",
                &[
                    "prestart",
                    "createRuntime",
                    "createContainer",
                    "startContainer",
                    "poststart",
                    "poststop",
                ],
            )
        },
    ),
    must(
        "features.document.mount-options",
        "features.md#mount-options",
        "mountOptions lists the known options.",
        |lab| {
            lists(
                &features(lab)?,
                "/mountOptions",
                &[
                    "bind", "rbind", "ro", "rw", "nosuid", "nodev", "noexec", "rprivate",
                ],
            )
        },
    ),
    must(
        "features.linux.namespaces",
        "features-linux.md#namespaces",
        "linux.namespaces lists the known types.",
        |lab| {
            lists(
                &features(lab)?,
                "/linux/namespaces",
                &["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            )
        },
    ),
    must(
        "features.linux.capabilities",
        "features-linux.md#capabilities",
        "linux.capabilities lists the known capabilities.",
        |lab| {
            lists(
                &features(lab)?,
                "/linux/capabilities",
                &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_BPF"],
            )
        },
    ),
    must(
        "features.linux.seccomp",
        "features-linux.md#seccomp",
        "linux.seccomp lists actions, operators and architectures.",
        |lab| {
            let features = features(lab)?;
            lists(
                &features,
                "/linux/seccomp/actions",
                &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"],
            )?;
            lists(
                &features,
                "/linux/seccomp/operators",
                &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"],
            )?;
            lists(&features, "/linux/seccomp/archs", &["SCMP_ARCH_X86_64"])
        },
    ),
    must(
        "features.linux.cgroup",
        "features-linux.md#cgroup",
        "linux.cgroup tells the versions and drivers.",
        |lab| {
            let features = features(lab)?;
            for member in ["v1", "v2", "systemd"] {
                ensure!(
                    features["linux"]["cgroup"][member].is_boolean(),
                    "{member} in {features}"
                );
            }
            Ok(())
        },
    ),
    must(
        "features.linux.true",
        "features-linux.md#namespaces",
        "Namespaces that features lists can be made.",
        |lab| {
            let features = features(lab)?;
            let names: Vec<String> = features["linux"]["namespaces"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .filter(|name| name != "user")
                .collect();
            lab.script("true", |config| {
                config["linux"]["namespaces"] =
                    names.iter().map(|name| json!({"type": name})).collect();
            })
            .map(drop)
        },
    ),
    interface(
        "cli.checkpoint.plain",
        "runc checkpoint",
        "Without CRIU, checkpoint fails plainly and the container runs on.",
        |lab| {
            let container = lab.idle()?;
            let images = lab.path("images").to_string_lossy().into_owned();
            let message = lab
                .call(&["checkpoint", "--image-path", &images, &container.id])?
                .failure()?;
            ensure!(!message.trim().is_empty(), "no message");
            container.is("running")
        },
    ),
    interface(
        "cli.global.root",
        "runc --root",
        "Containers of another root are not seen.",
        |lab| {
            let container = lab.idle()?;
            let other = lab.path("other-state").to_string_lossy().into_owned();
            let mut command = lab.runtime.command()?;
            command.args(["--root", &other, "state", &container.id]);
            crate::command::run(&mut command)?.failure().map(drop)
        },
    ),
    interface(
        "cli.global.version",
        "runc --version",
        "The version and that of the specification are told.",
        |lab| {
            let mut command = lab.runtime.command()?;
            let text = crate::command::run(command.arg("--version"))?.output()?;
            ensure!(
                text.contains("version") && text.contains("spec: 1."),
                "{text}"
            );
            Ok(())
        },
    ),
    interface(
        "cli.global.help",
        "runc --help",
        "The help names the commands.",
        |lab| {
            let mut command = lab.runtime.command()?;
            let text = crate::command::run(command.arg("--help"))?.output()?;
            for word in [
                "create", "start", "state", "kill", "delete", "exec", "run", "list", "ps",
            ] {
                contains("help", &text, word)?;
            }
            Ok(())
        },
    ),
    interface(
        "cli.global.unknown-option",
        "runc",
        "An option that does not exist is refused.",
        |lab| {
            lab.call(&["--no-such-option", "list"])?.failure()?;
            lab.call(&["list", "--no-such-option"])?.failure().map(drop)
        },
    ),
    interface(
        "cli.global.log",
        "runc --log",
        "An error goes to the log file.",
        |lab| {
            let file = lab.path("log");
            lab.call(&["--log", &file.to_string_lossy(), "state", "nobody"])?
                .failure()?;
            let text = std::fs::read_to_string(file)?;
            contains("log", &text, "nobody").or_else(|_| contains("log", &text, "not exist"))
        },
    ),
    interface(
        "cli.global.log-json",
        "runc --log-format json",
        "The log's lines are JSON with level, msg and time.",
        |lab| {
            let file = lab.path("log");
            lab.call(&[
                "--log",
                &file.to_string_lossy(),
                "--log-format",
                "json",
                "state",
                "nobody",
            ])?
            .failure()?;
            let text = std::fs::read_to_string(file)?;
            let line: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
            for member in ["level", "msg", "time"] {
                ensure!(line[member].is_string(), "{member} in {line}");
            }
            Ok(())
        },
    ),
    interface(
        "cli.global.log-appends",
        "runc --log",
        "What the log file has already is kept.",
        |lab| {
            let file = lab.path("log");
            std::fs::write(&file, "first\n")?;
            lab.call(&["--log", &file.to_string_lossy(), "state", "nobody"])?
                .failure()?;
            ensure!(
                std::fs::read_to_string(file)?.starts_with("first\n"),
                "the log was truncated"
            );
            Ok(())
        },
    ),
    interface(
        "cli.global.debug",
        "runc --debug",
        "--debug is accepted.",
        |lab| lab.call(&["--debug", "list", "-q"])?.output().map(drop),
    ),
    interface(
        "cli.global.systemd-cgroup",
        "runc --systemd-cgroup",
        "Without systemd, the systemd driver is refused with a message.",
        |lab| {
            if std::path::Path::new("/run/systemd/system").exists() {
                return crate::lab::skip("this machine runs systemd");
            }
            lab.write_config(|config| {
                config["linux"]["cgroupsPath"] = json!("system.slice:conformance:x")
            })?;
            let message = lab
                .call(&["--systemd-cgroup", "run", &lab.next_id()])?
                .failure()?;
            ensure!(!message.trim().is_empty(), "no message");
            Ok(())
        },
    ),
];
