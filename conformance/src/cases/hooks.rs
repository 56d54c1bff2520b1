//! `hooks`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, must};
use crate::host;
use crate::lab::{Lab, contains, same};

const HOOKS: &str = "config.md#posix-platform-hooks";
const LIFECYCLE: &str = "runtime.md#lifecycle";

/// A hook that runs a script in the host's shell. It also reads the state if the script doesn't: a
/// runtime may die when it writes to a hook that has ended.
fn hook(script: &str) -> Value {
    let script = match script.contains("cat >") || script.contains("tr -d") {
        true => script.to_owned(),
        false => format!("cat > /dev/null; {script}"),
    };
    json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
}

/// The text of a file that a hook wrote.
fn written(lab: &Lab, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(lab.path(name))
        .with_context(|| format!("the hook did not write {name}"))?;
    Ok(text.trim().to_owned())
}

/// A script that appends a word to a file of the case.
fn note(lab: &Lab, word: &str) -> String {
    format!("echo {word} >> {}", lab.path("log").display())
}

/// The standard input of each hook.
fn states(lab: &Lab, kinds: &[&str]) -> Result<Vec<Value>> {
    let container = lab.create(|config| {
        for kind in kinds {
            config["hooks"][*kind] = json!([hook(&format!("cat > {}", lab.path(kind).display()))]);
        }
        config["annotations"] = json!({"key": "value"});
    })?;
    container.start()?;
    container.ends()?;
    container.delete()?;
    kinds
        .iter()
        .map(|kind| {
            serde_json::from_str(&written(lab, kind)?)
                .with_context(|| format!("the state for {kind}"))
        })
        .collect()
}

/// A configuration with a correct hook.
fn with_hook(config: &mut Value) {
    config["hooks"]["createRuntime"] = json!([hook("true")]);
}

/// A failing hook of a kind: create or start must fail, and nothing may be left.
fn ends_container(lab: &Lab, kind: &str) -> Result<()> {
    let poststop = lab.path("stopped");
    lab.refuses_within(
        |config| config["hooks"][kind] = json!([hook("exit 0")]),
        |config| {
            config["process"]["args"] = json!(["touch", "/ran"]);
            config["hooks"][kind] = json!([hook("exit 3")]);
            config["hooks"]["poststop"] = json!([hook(&format!("touch {}", poststop.display()))]);
        },
    )?;
    ensure!(!lab.rootfs().join("ran").exists(), "the process ran");
    Ok(())
}

pub(super) const CASES: &[Case] = &[
    must(
        "config.hooks.order",
        LIFECYCLE,
        "Hooks run in the order of the lifecycle: prestart, createRuntime, createContainer, startContainer, the process, poststart, poststop.",
        |lab| {
            let container = lab.create(|config| {
                config["process"]["args"] =
                    json!(["sh", "-c", "while ! test -e /go; do sleep 0.01; done"]);
                for kind in [
                    "prestart",
                    "createRuntime",
                    "createContainer",
                    "poststart",
                    "poststop",
                ] {
                    config["hooks"][kind] = json!([hook(&note(lab, kind))]);
                }
                config["hooks"]["startContainer"] =
                    json!([hook("echo startContainer > /start-container")]);
            })?;
            same(
                "before start",
                &written(lab, "log")?,
                "prestart\ncreateRuntime\ncreateContainer",
            )?;
            ensure!(
                !lab.rootfs().join("start-container").exists(),
                "startContainer ran at create"
            );
            container.start()?;
            ensure!(
                lab.rootfs().join("start-container").exists(),
                "startContainer did not run"
            );
            same(
                "after start",
                &written(lab, "log")?,
                "prestart\ncreateRuntime\ncreateContainer\npoststart",
            )?;
            std::fs::write(lab.rootfs().join("go"), "")?;
            container.ends()?;
            container.delete()?;
            contains("after delete", &written(lab, "log")?, "poststart\npoststop")
        },
    ),
    must(
        "config.hooks.listed-order",
        HOOKS,
        "Hooks of a kind run in the listed order.",
        |lab| {
            lab.create(|config| {
                config["hooks"]["createRuntime"] = json!([
                    hook(&note(lab, "1")),
                    hook(&note(lab, "2")),
                    hook(&note(lab, "3"))
                ]);
            })?;
            same("log", &written(lab, "log")?, "1\n2\n3")
        },
    ),
    must(
        "config.hooks.state",
        HOOKS,
        "Every hook gets the state on standard input.",
        |lab| {
            let kinds = [
                "prestart",
                "createRuntime",
                "createContainer",
                "poststart",
                "poststop",
            ];
            for (kind, state) in kinds.iter().zip(states(lab, &kinds)?) {
                for member in ["ociVersion", "id", "status", "bundle"] {
                    ensure!(state[member].is_string(), "{kind}: {member} in {state}");
                }
                ensure!(
                    state["annotations"]["key"] == "value",
                    "{kind}: annotations in {state}"
                );
            }
            Ok(())
        },
    ),
    must(
        "config.hooks.state-status",
        HOOKS,
        "The state tells creating, created, running or stopped by the hook's time.",
        |lab| {
            let kinds = ["createRuntime", "createContainer", "poststart", "poststop"];
            let found: Vec<String> = states(lab, &kinds)?
                .iter()
                .map(|state| state["status"].to_string())
                .collect();
            for (status, wanted) in found.iter().zip([
                ["creating", "created"],
                ["creating", "created"],
                ["running", "running"],
                ["stopped", "stopped"],
            ]) {
                ensure!(
                    wanted.iter().any(|word| status.trim_matches('"') == *word),
                    "{found:?}"
                );
            }
            Ok(())
        },
    ),
    must(
        "config.hooks.state-pid",
        HOOKS,
        "The state for createRuntime has the process as the host sees it.",
        |lab| {
            let file = lab.path("ns");
            let container = lab.create(|config| {
            config["hooks"]["createRuntime"] = json!([hook(&format!(
                "pid=$(tr -d ' \\n' | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/uts > {}", file.display()
            ))]);
        })?;
            same(
                "namespace",
                &written(lab, "ns")?,
                &container.namespace("uts")?,
            )
        },
    ),
    must(
        "config.hooks.runtime-namespace",
        HOOKS,
        "prestart, createRuntime, poststart and poststop run in the runtime's namespaces.",
        |lab| {
            let container = lab.start("exit", |config| {
                for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
                    config["hooks"][kind] = json!([hook(&format!(
                        "readlink /proc/self/ns/net /proc/self/ns/pid > {}",
                        lab.path(kind).display()
                    ))]);
                }
            })?;
            container.ends()?;
            container.delete()?;
            let own = |name: &str| {
                Ok::<_, std::io::Error>(
                    std::fs::read_link(format!("/proc/self/ns/{name}"))?
                        .to_string_lossy()
                        .into_owned(),
                )
            };
            for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
                same(
                    kind,
                    &written(lab, kind)?,
                    &format!("{}\n{}", own("net")?, own("pid")?),
                )?;
            }
            Ok(())
        },
    ),
    must(
        "config.hooks.container-namespace",
        HOOKS,
        "createContainer runs in the container's namespaces, its path is the runtime's.",
        |lab| {
            let file = lab.path("net");
            let container = lab.create(|config| {
                config["hooks"]["createContainer"] = json!([hook(&format!(
                    "readlink /proc/self/ns/net > {}",
                    file.display()
                ))]);
            })?;
            same(
                "namespace",
                &written(lab, "net")?,
                &container.namespace("net")?,
            )
        },
    ),
    must(
        "config.hooks.create-container-mounts",
        HOOKS,
        "createContainer runs after the container's mounts are made and before the root is entered.",
        |lab| {
            let file = lab.path("mounted");
            lab.create(|config| {
                config["hooks"]["createContainer"] = json!([hook(&format!(
                    "grep -c '{}/proc ' /proc/self/mountinfo > {}",
                    lab.rootfs().canonicalize().unwrap_or_default().display(),
                    file.display()
                ))]);
            })?;
            same("mounts on proc", &written(lab, "mounted")?, "1")
        },
    ),
    must(
        "config.hooks.start-container-inside",
        HOOKS,
        "startContainer runs in the container, its path is the container's.",
        |lab| {
            std::fs::write(
                lab.rootfs().join("only-here"),
                "#!/bin/sh\nhostname > /from-hook\n",
            )?;
            let mut permissions = std::fs::metadata(lab.rootfs().join("only-here"))?.permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
            std::fs::set_permissions(lab.rootfs().join("only-here"), permissions)?;
            let text = lab.script("cat /from-hook", |config| {
                config["hooks"]["startContainer"] =
                    json!([{"path": "/only-here", "env": ["PATH=/bin"]}]);
            })?;
            same("name", &text, "conformance")
        },
    ),
    must(
        "config.hooks.args",
        HOOKS,
        "args are the hook's arguments, the first being its name.",
        |lab| {
            let file = lab.path("args");
            lab.create(|config| {
            config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": ["name", "-c", format!("echo \"$0 $1\" > {}", file.display()), "zero", "a b"]}]);
        })?;
            same("arguments", &written(lab, "args")?, "zero a b")
        },
    ),
    must(
        "config.hooks.env",
        HOOKS,
        "env is the hook's environment, and nothing of the runtime's.",
        |lab| {
            let file = lab.path("env");
            lab.write_config(|config| {
            config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo \"$KEY.$SECRET\" > {}", file.display())], "env": ["KEY=value"]}]);
        })?;
            let mut command = lab.command(&["run", &lab.next_id()])?;
            command.env("SECRET", "leaked");
            crate::command::run(&mut command)?.output()?;
            same("variables", &written(lab, "env")?, "value.")
        },
    ),
    must(
        "config.hooks.path-absolute",
        HOOKS,
        "A hook's path is absolute.",
        |lab| {
            lab.refuses_within(with_hook, |config| {
                config["hooks"]["createRuntime"] = json!([{"path": "bin/true"}])
            })
            .map(drop)
        },
    ),
    must(
        "config.hooks.path-missing",
        HOOKS,
        "A hook that does not exist is an error.",
        |lab| {
            lab.refuses_within(with_hook, |config| {
                config["hooks"]["createRuntime"] = json!([{"path": "/no/such/hook"}])
            })
            .map(drop)
        },
    ),
    must(
        "config.hooks.timeout",
        HOOKS,
        "A hook that takes longer than its time-out is ended and counts as failed.",
        |lab| {
            let start = std::time::Instant::now();
            lab.refuses_within(with_hook, |config| {
                let mut slow = hook("exec sleep 15");
                slow["timeout"] = json!(1);
                config["hooks"]["createRuntime"] = json!([slow]);
            })?;
            ensure!(
                start.elapsed().as_secs() < 10,
                "it took {:?}",
                start.elapsed()
            );
            Ok(())
        },
    ),
    must(
        "config.hooks.timeout-positive",
        HOOKS,
        "A time-out is greater than zero.",
        |lab| {
            lab.refuses_within(with_hook, |config| {
                let mut wrong = hook("true");
                wrong["timeout"] = json!(0);
                config["hooks"]["createRuntime"] = json!([wrong]);
            })
            .map(drop)
        },
    ),
    must(
        "config.hooks.prestart-fails",
        LIFECYCLE,
        "A prestart hook that fails ends the container with an error.",
        |lab| ends_container(lab, "prestart"),
    ),
    must(
        "config.hooks.create-runtime-fails",
        LIFECYCLE,
        "A createRuntime hook that fails ends the container with an error.",
        |lab| ends_container(lab, "createRuntime"),
    ),
    must(
        "config.hooks.create-container-fails",
        LIFECYCLE,
        "A createContainer hook that fails ends the container with an error.",
        |lab| ends_container(lab, "createContainer"),
    ),
    must(
        "config.hooks.start-container-fails",
        LIFECYCLE,
        "A startContainer hook that fails ends the container with an error, before the process runs.",
        |lab| ends_container(lab, "startContainer"),
    ),
    must(
        "config.hooks.failure-leaves-nothing",
        LIFECYCLE,
        "After a hook of create failed, neither container nor cgroup is left.",
        |lab| {
            lab.refuses_within(with_hook, |config| {
                config["hooks"]["createRuntime"] = json!([hook("exit 1")])
            })?;
            same("list", &lab.call(&["list", "-q"])?.output()?, "")?;
            let left = host::cgroup_directories(&lab.cgroup());
            ensure!(left.is_empty(), "cgroups are left: {left:?}");
            Ok(())
        },
    ),
    must(
        "config.hooks.failure-runs-poststop",
        LIFECYCLE,
        "After a hook of create failed, the poststop hooks run.",
        |lab| {
            lab.refuses_within(with_hook, |config| {
                config["hooks"]["createRuntime"] = json!([hook("exit 1")]);
                config["hooks"]["poststop"] = json!([hook(&note(lab, "poststop"))]);
            })?;
            same("log", &written(lab, "log")?, "poststop")
        },
    ),
    must(
        "config.hooks.poststart-fails",
        LIFECYCLE,
        "A poststart hook that fails is only warned of, and the container runs on (version 1.2.0; later text stops it).",
        |lab| {
            let container = lab.create(|config| {
                config["process"]["args"] = json!(["sleep", "1000"]);
                config["hooks"]["poststart"] = json!([hook("exit 1"), hook(&note(lab, "second"))]);
            })?;
            container.start()?;
            same("log", &written(lab, "log")?, "second")?;
            container.is("running")
        },
    ),
    must(
        "config.hooks.poststop-fails",
        LIFECYCLE,
        "A poststop hook that fails is only warned of: the others run and the container is gone.",
        |lab| {
            let container = lab.start("exit", |config| {
                config["hooks"]["poststop"] = json!([hook("exit 1"), hook(&note(lab, "second"))]);
            })?;
            container.ends()?;
            container.delete()?;
            same("log", &written(lab, "log")?, "second")?;
            same("list", &lab.call(&["list", "-q"])?.output()?, "")
        },
    ),
    must(
        "config.hooks.poststop-forced",
        "runc delete --force",
        "delete --force of a running container runs the poststop hooks.",
        |lab| {
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                config["hooks"]["poststop"] = json!([hook(&note(lab, "poststop"))]);
            })?;
            container.says("ready")?;
            container.call(&["delete", "--force"])?.output()?;
            same("log", &written(lab, "log")?, "poststop")
        },
    ),
];
