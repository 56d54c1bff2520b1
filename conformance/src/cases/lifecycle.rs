//! create, start, kill, delete.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::case::{Case, interface, must};
use crate::command::eventually;
use crate::host;
use crate::lab::{Lab, contains, same};

const OPERATIONS: &str = "runtime.md#operations";
const CREATE: &str = "runtime.md#create";
const START: &str = "runtime.md#start";
const KILL: &str = "runtime.md#kill";
const DELETE: &str = "runtime.md#delete";
const LIFECYCLE: &str = "runtime.md#lifecycle";
const ERRORS: &str = "runtime.md#errors";

/// A case where one call with these arguments must fail.
fn fails(lab: &Lab, arguments: &[&str]) -> Result<()> {
    lab.call(arguments)?.failure().map(drop)
}

pub(super) const CASES: &[Case] = &[
    must(
        "runtime.operations.same-caller",
        "runtime.md#scope-of-a-container",
        "Whoever created a container can use every operation on it.",
        |lab| {
            let container = lab.create(|config| {
                config["process"]["args"] = json!(["sleep", "1000"]);
            })?;
            container.is("created")?;
            container.start()?;
            container.is("running")?;
            container.stop()?;
            container.delete()
        },
    ),
    must(
        "runtime.create.status",
        CREATE,
        "After create, the status is created.",
        |lab| lab.create(|_| {})?.is("created"),
    ),
    must(
        "runtime.create.process-not-run",
        CREATE,
        "create makes the resources but does not run the user's process.",
        |lab| {
            let container = lab.create(|config| {
                config["process"]["args"] = json!(["sh", "-c", "echo ran; touch /marker"]);
            })?;
            // If a runtime ran it, it would have to do so within this time to be noticed.
            std::thread::sleep(std::time::Duration::from_millis(100));
            ensure!(!lab.rootfs().join("marker").exists(), "the process ran");
            container.is("created")?;
            container.start()?;
            container.says("ran")
        },
    ),
    must(
        "runtime.create.id-unique",
        CREATE,
        "An identifier that is in use is refused, and its container is left as it was.",
        |lab| {
            let container = lab.idle()?;
            fails(lab, &["create", &container.id])?;
            fails(lab, &["run", &container.id])?;
            container.is("running")
        },
    ),
    must(
        "runtime.create.id-missing",
        CREATE,
        "create without an identifier fails.",
        |lab| {
            lab.write_config(|_| {})?;
            fails(lab, &["create"])
        },
    ),
    must(
        "runtime.create.id-invalid",
        CREATE,
        "An identifier that is no plain name is refused.",
        |lab| {
            lab.write_config(|_| {})?;
            for id in ["", "..", "../escape", "a/b", "a b", "a\nb"] {
                let ended = lab.call(&["create", id])?;
                ensure!(!ended.status.success(), "{id:?} was accepted");
            }
            ensure!(!lab.path("escape").exists(), "state outside its directory");
            Ok(())
        },
    ),
    must(
        "runtime.create.bundle-missing",
        CREATE,
        "A bundle that does not exist is an error.",
        |lab| fails(lab, &["create", "--bundle", "/nonexistent", &lab.next_id()]),
    ),
    must(
        "bundle.config.required",
        "bundle.md#container-format",
        "A bundle without config.json is an error.",
        |lab| fails(lab, &["create", &lab.next_id()]),
    ),
    must(
        "runtime.create.config-changes-ignored",
        CREATE,
        "Changes of config.json after create do not affect the container.",
        |lab| {
            let container = lab.create(|config| {
                config["process"]["args"] = json!(["echo", "first"]);
            })?;
            lab.write_config(|config| config["process"]["args"] = json!(["echo", "second"]))?;
            container.start()?;
            same("output", &container.ends()?, "first")
        },
    ),
    must(
        "runtime.errors.nothing-left",
        ERRORS,
        "A create that fails leaves no container, no cgroup and no mount behind.",
        |lab| {
            lab.refuses(|config| {
                config["mounts"][0]["source"] = json!("/nonexistent");
                config["mounts"][0]["type"] = json!("bind");
                config["mounts"][0]["options"] = json!(["bind"]);
            })?;
            same("list", &lab.call(&["list", "-q"])?.output()?, "")?;
            let left = host::cgroup_directories(&lab.cgroup());
            ensure!(left.is_empty(), "cgroups are left: {left:?}");
            let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
            let bundle = lab.bundle().to_string_lossy().into_owned();
            ensure!(!mounts.contains(&bundle), "a mount is left: {mounts}");
            Ok(())
        },
    ),
    must(
        "runtime.errors.id-free-again",
        ERRORS,
        "The identifier of a create that failed can be used at once.",
        |lab| {
            let id = lab.next_id();
            lab.write_config(|config| config["process"]["cwd"] = json!("relative"))?;
            fails(lab, &["create", &id])?;
            lab.write_config(|_| {})?;
            lab.call(&["run", &id])?.output().map(drop)
        },
    ),
    must(
        "runtime.start.status",
        START,
        "After start, the status is running.",
        |lab| lab.idle()?.is("running"),
    ),
    must(
        "runtime.start.runs-process",
        START,
        "start runs process.args in the container.",
        |lab| {
            let container = lab.start("echo $0 \"$@\"; pwd", |_| {})?;
            contains("output", &container.ends()?, "/")
        },
    ),
    must(
        "runtime.start.twice",
        START,
        "Starting a running container fails and has no effect on it.",
        |lab| {
            let container = lab.idle()?;
            let pid = container.pid()?;
            fails(lab, &["start", &container.id])?;
            container.is("running")?;
            ensure!(container.pid()? == pid, "the process has changed");
            same("output", &container.output()?, "ready")
        },
    ),
    must(
        "runtime.start.stopped",
        START,
        "Starting a container that has stopped fails and runs nothing.",
        |lab| {
            let container = lab.start("echo once", |_| {})?;
            container.ends()?;
            fails(lab, &["start", &container.id])?;
            same("output", &container.output()?, "once")
        },
    ),
    must(
        "runtime.start.unknown",
        START,
        "Starting a container that does not exist fails.",
        |lab| lab.knows_none(&["start", "nobody"]),
    ),
    must(
        "runtime.start.id-missing",
        START,
        "start without an identifier fails.",
        |lab| fails(lab, &["start"]),
    ),
    must(
        "config.process.required-at-start",
        "config.md#process",
        "Without process, the container is not started.",
        |lab| {
            lab.refuses(|config| {
                config
                    .as_object_mut()
                    .map(|object| object.remove("process"));
            })
            .map(drop)
        },
    ),
    must(
        "runtime.kill.signal",
        KILL,
        "kill sends the signal to the container's process.",
        |lab| {
            let container = lab.start(
                "trap 'echo got usr1; exit' USR1; echo ready; while :; do sleep 0.01; done",
                |_| {},
            )?;
            container.says("ready")?;
            container.kill("USR1")?;
            contains("output", &container.ends()?, "got usr1")
        },
    ),
    interface(
        "cli.kill.signal-forms",
        "runc kill",
        "A signal is given by number, by name, or by name with SIG.",
        |lab| {
            let container = lab.start(
                "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo usr2' USR2; echo ready; \
                 while :; do sleep 0.01; done",
                |_| {},
            )?;
            container.says("ready")?;
            for (signal, word) in [("10", "usr1"), ("HUP", "hup"), ("SIGUSR2", "usr2")] {
                container.kill(signal)?;
                container.says(word)?;
            }
            Ok(())
        },
    ),
    interface(
        "cli.kill.default-term",
        "runc kill",
        "Without a signal, SIGTERM is sent.",
        |lab| {
            let container = lab.start(
                "trap 'echo term; exit' TERM; echo ready; while :; do sleep 0.01; done",
                |_| {},
            )?;
            container.says("ready")?;
            container.call(&["kill"])?.output()?;
            contains("output", &container.ends()?, "term")
        },
    ),
    interface(
        "cli.kill.realtime",
        "runc kill",
        "Signals without a name in C are sent by number.",
        |lab| {
            let container = lab.start(
                "trap 'echo realtime; exit' 40; echo ready; while :; do sleep 0.01; done",
                |_| {},
            )?;
            container.says("ready")?;
            container.kill("40")?;
            contains("output", &container.ends()?, "realtime")
        },
    ),
    interface(
        "cli.kill.unknown-signal",
        "runc kill",
        "A signal that does not exist is refused.",
        |lab| {
            let container = lab.idle()?;
            for signal in ["NONSENSE", "SIG", "4000", "-3x"] {
                let ended = lab.call(&["kill", &container.id, signal])?;
                ensure!(!ended.status.success(), "{signal} was accepted");
            }
            container.is("running")
        },
    ),
    interface(
        "cli.kill.all",
        "runc kill --all",
        "With --all, every process of the container gets the signal.",
        |lab| {
            let container = lab.start(
                "sh -c 'trap \"echo child\" USR1; echo ready; while :; do sleep 0.01; done' & \
                 trap 'echo parent' USR1; while :; do sleep 0.01; done",
                |_| {},
            )?;
            container.says("ready")?;
            lab.call(&["kill", "--all", &container.id, "USR1"])?
                .output()?;
            container.says("child")?;
            container.says("parent")
        },
    ),
    must(
        "runtime.kill.stopped",
        KILL,
        "A signal to a container that is not running is an error.",
        |lab| {
            let container = lab.start("exit", |_| {})?;
            container.ends()?;
            fails(lab, &["kill", &container.id, "TERM"])
        },
    ),
    must(
        "runtime.kill.unknown",
        KILL,
        "A signal to a container that does not exist is an error.",
        |lab| lab.knows_none(&["kill", "nobody", "KILL"]),
    ),
    must(
        "runtime.kill.id-missing",
        KILL,
        "kill without an identifier fails.",
        |lab| fails(lab, &["kill"]),
    ),
    must(
        "runtime.kill.created",
        KILL,
        "A container that was created can be killed.",
        |lab| lab.create(|_| {})?.stop(),
    ),
    must(
        "runtime.kill.status-stopped",
        KILL,
        "When the process has ended, for whatever reason, the status is stopped.",
        |lab| {
            lab.start("exit 3", |_| {})?.becomes("stopped")?;
            lab.idle()?.stop()
        },
    ),
    must(
        "runtime.lifecycle.init-end-ends-all",
        LIFECYCLE,
        "When the first process of a PID namespace ends, no process of the container is left.",
        |lab| {
            let container = lab.start("sleep 1000 & echo ready; read never < /dev/zero", |_| {})?;
            container.says("ready")?;
            container.stop()?;
            let directories = host::cgroup_directories(&lab.cgroup());
            eventually("an empty cgroup", || {
                Ok(directories.iter().all(|directory| {
                    std::fs::read_to_string(directory.join("cgroup.procs"))
                        .is_ok_and(|text| text.is_empty())
                }))
            })
        },
    ),
    must(
        "runtime.delete.forgets",
        DELETE,
        "After delete, the container is unknown and its identifier free.",
        |lab| {
            let container = lab.start("exit", |_| {})?;
            container.ends()?;
            container.delete()?;
            fails(lab, &["state", &container.id])?;
            lab.call(&["run", &container.id])?.output().map(drop)
        },
    ),
    must(
        "runtime.delete.running",
        DELETE,
        "Deleting a container that is not stopped is an error and has no effect.",
        |lab| {
            let container = lab.idle()?;
            fails(lab, &["delete", &container.id])?;
            container.is("running")
        },
    ),
    must(
        "runtime.delete.unknown",
        DELETE,
        "Deleting a container that does not exist is an error.",
        |lab| lab.knows_none(&["delete", "nobody"]),
    ),
    must(
        "runtime.delete.id-missing",
        DELETE,
        "delete without an identifier fails.",
        |lab| fails(lab, &["delete"]),
    ),
    must(
        "runtime.delete.resources",
        DELETE,
        "delete removes what create made: cgroups, state and mounts.",
        |lab| {
            let container = lab.idle()?;
            let made = host::cgroup_directories(&lab.cgroup());
            ensure!(!made.is_empty(), "no cgroup {} was made", lab.cgroup());
            container.stop()?;
            container.delete()?;
            let left = host::cgroup_directories(&lab.cgroup());
            ensure!(left.is_empty(), "cgroups are left: {left:?}");
            ensure!(
                !lab.state_directory().join(&container.id).exists(),
                "the state is left"
            );
            Ok(())
        },
    ),
    must(
        "runtime.delete.foreign-resources",
        DELETE,
        "delete does not remove what create did not make: root file system, bound directories.",
        |lab| {
            let source = lab.path("source");
            std::fs::create_dir(&source)?;
            std::fs::write(source.join("file"), "kept")?;
            let container = lab.start("exit", |config| {
                crate::lab::push(
                    &mut config["mounts"],
                    json!({"destination": "/bound", "type": "bind", "source": source, "options": ["rbind"]}),
                );
            })?;
            container.ends()?;
            container.delete()?;
            same(
                "bound file",
                &std::fs::read_to_string(source.join("file"))?,
                "kept",
            )?;
            ensure!(
                lab.rootfs().join("bin/busybox").exists(),
                "the rootfs is gone"
            );
            Ok(())
        },
    ),
    interface(
        "cli.delete.force-running",
        "runc delete --force",
        "With --force, a running container is killed and deleted.",
        |lab| {
            let container = lab.idle()?;
            let process = container.proc("")?;
            container.call(&["delete", "--force"])?.output()?;
            fails(lab, &["state", &container.id])?;
            eventually("the end of the process", || {
                Ok(!process.exists() || is_zombie(&process))
            })
        },
    ),
    interface(
        "cli.delete.force-unknown",
        "runc delete --force",
        "With --force, a container that does not exist is no error.",
        |lab| {
            lab.call(&["delete", "--force", "nobody"])?
                .output()
                .map(drop)
        },
    ),
    interface(
        "cli.delete.created",
        "runc delete",
        "A container that was created and not started can be deleted.",
        |lab| {
            let container = lab.create(|_| {})?;
            let process = container.proc("")?;
            container.delete()?;
            eventually("the end of the process", || {
                Ok(!process.exists() || is_zombie(&process))
            })
        },
    ),
    interface(
        "cli.run.exit-code",
        "runc run",
        "run exits as the container's process does.",
        |lab| {
            for code in [0, 7, 255] {
                let ended = lab.run(|config| {
                    config["process"]["args"] = json!(["sh", "-c", format!("exit {code}")]);
                })?;
                ensure!(ended.code() == code, "exit {code} became {ended}");
            }
            Ok(())
        },
    ),
    interface(
        "cli.run.exit-code-signal",
        "runc run",
        "run exits with 128 and the number of the signal that ended the process.",
        |lab| {
            let ended = lab.run(|config| {
                config["process"]["args"] =
                    json!(["sh", "-c", "ulimit -c 0; sh -c 'kill -9 $PPID'; sleep 1000"]);
                config["linux"]["namespaces"] = json!([{"type": "mount"}]);
                remove_hostname(config);
            })?;
            ensure!(ended.code() == 137, "{ended}");
            Ok(())
        },
    ),
    interface(
        "cli.run.removes",
        "runc run",
        "run deletes the container at its end.",
        |lab| {
            lab.run(|_| {})?.output()?;
            same("list", &lab.call(&["list", "-q"])?.output()?, "")
        },
    ),
    interface(
        "cli.run.keep",
        "runc run --keep",
        "With --keep, the stopped container stays.",
        |lab| {
            lab.write_config(|_| {})?;
            let id = lab.next_id();
            lab.call(&["run", "--keep", &id])?.output()?;
            contains(
                "state",
                &lab.call(&["state", &id])?.output()?,
                "\"stopped\"",
            )
        },
    ),
    interface(
        "cli.run.detach",
        "runc run --detach",
        "With --detach, run returns while the container runs.",
        |lab| {
            lab.write_config(|config| config["process"]["args"] = json!(["sleep", "1000"]))?;
            let id = lab.next_id();
            lab.call(&["run", "--detach", &id])?.output()?;
            contains(
                "state",
                &lab.call(&["state", &id])?.output()?,
                "\"running\"",
            )
        },
    ),
    interface(
        "cli.run.signals",
        "runc run",
        "run passes signals on to the container's process.",
        |lab| {
            lab.write_config(|config| {
                config["process"]["args"] = json!([
                    "sh",
                    "-c",
                    "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.01; done"
                ]);
            })?;
            let out = lab.path("out");
            let mut command = lab.command(&["run", &lab.next_id()])?;
            command.stdout(std::fs::File::create(&out)?);
            let mut child = command.spawn()?;
            let text = || std::fs::read_to_string(&out).unwrap_or_default();
            let ready = eventually("ready", || Ok(text().contains("ready")));
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
            let status = crate::command::wait(&mut child)?;
            ready?;
            contains("output", &text(), "got it")?;
            ensure!(status.code() == Some(5), "{status}");
            Ok(())
        },
    ),
    interface(
        "cli.create.pid-file",
        "runc create --pid-file",
        "The process number is written into the file.",
        |lab| {
            lab.write_config(|config| config["process"]["args"] = json!(["sleep", "1000"]))?;
            let file = lab.path("pid").to_string_lossy().into_owned();
            let id = lab.next_id();
            let mut command = lab.command(&["create", "--pid-file", &file, &id])?;
            crate::command::run(&mut command)?.output()?;
            let state: serde_json::Value =
                serde_json::from_str(&lab.call(&["state", &id])?.output()?)?;
            same(
                "pid",
                &std::fs::read_to_string(file)?,
                &state["pid"].to_string(),
            )
        },
    ),
    interface(
        "cli.create.preserve-fds",
        "runc create --preserve-fds",
        "As many descriptors after the first three as are asked for reach the process.",
        |lab| {
            let file = lab.path("given");
            std::fs::write(&file, "from outside")?;
            lab.write_config(|config| {
                config["process"]["args"] =
                    json!(["sh", "-c", "cat <&3; ls /proc/self/fd | wc -l"]);
            })?;
            // The shell opens the descriptor, because there the number can be chosen.
            let runtime = lab.command(&["run", "--preserve-fds", "1", &lab.next_id()])?;
            let mut shell = crate::command::quiet("/bin/sh");
            shell
                .args(["-c", "exec \"$@\" 3<\"$GIVEN\"", "sh"])
                .arg(runtime.get_program())
                .args(runtime.get_args())
                .env("GIVEN", &file)
                .current_dir(lab.bundle());
            let output = crate::command::run(&mut shell)?.output()?;
            contains("descriptor 3", &output, "from outside")
        },
    ),
    interface(
        "cli.create.bundle",
        "runc create --bundle",
        "The bundle is named by an option, absolute or relative to the working directory.",
        |lab| {
            lab.write_config(|_| {})?;
            let bundle = lab.bundle().to_string_lossy().into_owned();
            lab.call(&["run", "--bundle", &bundle, &lab.next_id()])?
                .output()?;
            lab.call(&["run", "-b", "../bundle", &lab.next_id()])?
                .output()
                .map(drop)
        },
    ),
    interface(
        "cli.create.listen-fds",
        "runc create",
        "With LISTEN_FDS set, that many descriptors and the variable reach the process.",
        |lab| {
            let file = lab.path("given");
            std::fs::write(&file, "from outside")?;
            lab.write_config(|config| {
                config["process"]["args"] = json!(["sh", "-c", "cat <&3; echo \" $LISTEN_FDS\""]);
            })?;
            let runtime = lab.command(&["run", &lab.next_id()])?;
            let mut shell = crate::command::quiet("/bin/sh");
            shell
                .args([
                    "-c",
                    "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<\"$GIVEN\"",
                    "sh",
                ])
                .arg(runtime.get_program())
                .args(runtime.get_args())
                .env("GIVEN", &file)
                .current_dir(lab.bundle());
            let output = crate::command::run(&mut shell)?.output()?;
            same("descriptor and variable", &output, "from outside 1")
        },
    ),
    interface(
        "cli.create.no-pivot",
        "runc create --no-pivot",
        "The root can be entered without pivot_root.",
        |lab| {
            lab.write_config(|_| {})?;
            lab.call(&["run", "--no-pivot", &lab.next_id()])?
                .output()
                .map(drop)
        },
    ),
    interface(
        "cli.create.keyring",
        "runc create --no-new-keyring",
        "The process has a session keyring of its own, but for --no-new-keyring.",
        |lab| {
            // Only keys that the process possesses are listed. Its session keyring is one of them.
            let keyring = |options: &[&str]| {
                lab.write_config(|config| {
                    config["process"]["args"] = json!(["sh", "-c", "cat /proc/keys; true"]);
                })?;
                let id = lab.next_id();
                let mut arguments = vec!["run"];
                arguments.extend(options);
                arguments.push(&id);
                let text = lab.call(&arguments)?.output()?;
                Ok::<_, anyhow::Error>(text.contains(&id))
            };
            ensure!(keyring(&[])?, "no keyring is named after the container");
            ensure!(
                !keyring(&["--no-new-keyring"])?,
                "a keyring was made all the same"
            );
            Ok(())
        },
    ),
    interface(
        "cli.run.no-subreaper",
        "runc run --no-subreaper",
        "--no-subreaper is accepted.",
        |lab| {
            lab.write_config(|_| {})?;
            lab.call(&["run", "--no-subreaper", &lab.next_id()])?
                .output()
                .map(drop)
        },
    ),
    must(
        "runtime.operations.unknown",
        OPERATIONS,
        "An operation that does not exist is an error.",
        |lab| fails(lab, &["no-such-operation"]),
    ),
];

/// A container without its own UTS namespace may not have its own name.
pub(super) fn remove_hostname(config: &mut serde_json::Value) {
    config
        .as_object_mut()
        .map(|object| object.remove("hostname"));
}

pub(super) fn is_zombie(process: &std::path::Path) -> bool {
    std::fs::read_to_string(process.join("stat")).is_ok_and(|text| {
        text.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}
