//! Additional processes in a running container.

use anyhow::ensure;
use serde_json::json;

use crate::case::{Case, interface};
use crate::command::eventually;
use crate::lab::{contains, same};

const EXEC: &str = "runc exec";

/// The value of a line of `/proc/self/status`.
pub(super) fn field(status: &str, name: &str) -> String {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

pub(super) const CASES: &[Case] = &[
    interface(
        "cli.exec.namespaces",
        EXEC,
        "The process is in all namespaces of the container.",
        |lab| {
            let container = lab.idle()?;
            for name in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"] {
                let inside = container.script(&[], &format!("readlink /proc/self/ns/{name}"))?;
                same(name, &inside, &container.namespace(name)?)?;
            }
            Ok(())
        },
    ),
    interface(
        "cli.exec.cgroup",
        EXEC,
        "The process is in the container's cgroups.",
        |lab| {
            let container = lab.idle()?;
            let first = std::fs::read_to_string(container.proc("cgroup")?)?;
            let file = lab.path("exec.pid");
            let file = file.to_string_lossy();
            container
                .exec(&["--detach", "--pid-file", &file], &["sleep", "1000"])?
                .output()?;
            let pid = std::fs::read_to_string(&*file)?;
            let second = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
            same("cgroups", &second, &first)
        },
    ),
    interface(
        "cli.exec.exit-code",
        EXEC,
        "exec exits as the process does.",
        |lab| {
            let container = lab.idle()?;
            for code in [0, 3, 254] {
                let ended = container.exec(&[], &["sh", "-c", &format!("exit {code}")])?;
                ensure!(ended.code() == code, "exit {code} became {ended}");
            }
            Ok(())
        },
    ),
    interface(
        "cli.exec.exit-code-signal",
        EXEC,
        "exec exits with 128 and the number of the signal that ended the process.",
        |lab| {
            let container = lab.idle()?;
            let ended = container.exec(&[], &["sh", "-c", "kill -9 $$"])?;
            ensure!(ended.code() == 137, "{ended}");
            Ok(())
        },
    ),
    interface(
        "cli.exec.missing-program",
        EXEC,
        "A program that does not exist is an error that names it.",
        |lab| {
            let container = lab.idle()?;
            let message = container.exec(&[], &["/no/such/program"])?.failure()?;
            contains("message", &message, "/no/such/program")
        },
    ),
    interface(
        "cli.exec.no-program",
        EXEC,
        "exec without a program is an error.",
        |lab| lab.idle()?.exec(&[], &[])?.failure().map(drop),
    ),
    interface(
        "cli.exec.unknown",
        EXEC,
        "exec in a container that does not exist is an error.",
        |lab| lab.knows_none(&["exec", "nobody", "true"]),
    ),
    interface(
        "cli.exec.stopped",
        EXEC,
        "exec in a container that has stopped is an error.",
        |lab| {
            let container = lab.start("exit", |_| {})?;
            container.ends()?;
            container.exec(&[], &["true"])?.failure().map(drop)
        },
    ),
    interface(
        "cli.exec.paused",
        EXEC,
        "exec in a paused container is an error and does not hang.",
        |lab| {
            let container = lab.idle()?;
            container.call(&["pause"])?.output()?;
            let result = container.exec(&[], &["true"]);
            container.call(&["resume"])?.output()?;
            result?.failure().map(drop)
        },
    ),
    interface(
        "cli.exec.ignore-paused",
        "runc exec --ignore-paused",
        "With --ignore-paused, the process waits in a paused container until it is resumed.",
        |lab| {
            let container = lab.idle()?;
            container.call(&["pause"])?.output()?;
            let mut command = lab.command(&["exec", "--ignore-paused", &container.id, "true"])?;
            let mut child = command.spawn()?;
            std::thread::sleep(std::time::Duration::from_millis(200));
            let early = child.try_wait()?;
            container.call(&["resume"])?.output()?;
            let status = crate::command::wait(&mut child)?;
            ensure!(early.is_none(), "it ended while paused: {early:?}");
            ensure!(status.success(), "{status}");
            Ok(())
        },
    ),
    interface(
        "cli.exec.cwd",
        "runc exec --cwd",
        "The working directory can be chosen.",
        |lab| {
            same(
                "folder",
                &lab.idle()?.script(&["--cwd", "/tmp"], "pwd")?,
                "/tmp",
            )
        },
    ),
    interface(
        "cli.exec.cwd-default",
        EXEC,
        "Without --cwd, the directory is the container's.",
        |lab| {
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                config["process"]["cwd"] = json!("/etc");
            })?;
            container.says("ready")?;
            same("folder", &container.script(&[], "pwd")?, "/etc")
        },
    ),
    interface(
        "cli.exec.env-replaces",
        "runc exec --env",
        "A variable that is given takes the place of the container's.",
        |lab| {
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                config["process"]["env"] = json!(["PATH=/bin", "OLD=1"]);
            })?;
            container.says("ready")?;
            let text = container.script(&["--env", "OLD=2", "--env", "OLD=3"], "env | grep OLD")?;
            same("variable", &text, "OLD=3")
        },
    ),
    interface(
        "cli.exec.env",
        "runc exec --env",
        "Variables are added to the container's.",
        |lab| {
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                config["process"]["env"] = json!(["PATH=/bin", "OLD=1"]);
            })?;
            container.says("ready")?;
            let text = container.script(&["--env", "NEW=a=b", "--env", "TWO=2"], "env")?;
            for wanted in ["OLD=1", "NEW=a=b", "TWO=2"] {
                ensure!(
                    text.lines().any(|line| line == wanted),
                    "{wanted} in {text}"
                );
            }
            Ok(())
        },
    ),
    interface(
        "cli.exec.user",
        "runc exec --user",
        "User and group can be chosen.",
        |lab| {
            let container = lab.idle()?;
            same(
                "ids",
                &container.script(&["--user", "1000:2000"], "echo $(id -u):$(id -g)")?,
                "1000:2000",
            )?;
            same("uid", &container.script(&["-u", "1000"], "id -u")?, "1000")
        },
    ),
    interface(
        "cli.exec.additional-gids",
        "runc exec --additional-gids",
        "Further groups can be given.",
        |lab| {
            let text = lab.idle()?.script(
                &["--additional-gids", "30", "--additional-gids", "40"],
                "grep Groups: /proc/self/status",
            )?;
            ensure!(text.contains("30") && text.contains("40"), "{text}");
            Ok(())
        },
    ),
    interface(
        "cli.exec.capability",
        "runc exec --cap",
        "A capability can be added; without it the container's sets apply.",
        |lab| {
            let container = lab.idle()?;
            let usual = container.script(&[], "grep CapBnd /proc/self/status")?;
            same(
                "bounding set",
                &field(&usual, "CapBnd:"),
                "00000000a80425fb",
            )?;
            // CAP_SYS_ADMIN is bit 21.
            let more =
                container.script(&["--cap", "CAP_SYS_ADMIN"], "grep CapEff /proc/self/status")?;
            same(
                "effective set",
                &field(&more, "CapEff:"),
                "00000000a82425fb",
            )
        },
    ),
    interface(
        "cli.exec.no-new-privs",
        "runc exec --no-new-privs",
        "No new privileges can be asked for.",
        |lab| {
            let text = lab
                .idle()?
                .script(&["--no-new-privs"], "cat /proc/self/status")?;
            same("NoNewPrivs", &field(&text, "NoNewPrivs:"), "1")
        },
    ),
    interface(
        "cli.exec.process",
        "runc exec --process",
        "The process is described by a file.",
        |lab| {
            let file = lab.path("process.json");
            let process = json!({
                "user": {"uid": 1000, "gid": 1000, "additionalGids": [7]},
                "args": ["sh", "-c", "pwd; id -u; echo $X; grep Groups /proc/self/status"],
                "env": ["PATH=/bin", "X=from the file"],
                "cwd": "/tmp"
            });
            std::fs::write(&file, process.to_string())?;
            let text = lab
                .idle()?
                .exec(&["--process", &file.to_string_lossy()], &[])?
                .output()?;
            let lines: Vec<&str> = text.lines().collect();
            ensure!(
                lines.starts_with(&["/tmp", "1000", "from the file"]),
                "{text}"
            );
            contains("groups", &text, "7")
        },
    ),
    interface(
        "cli.exec.detach",
        "runc exec --detach",
        "With --detach, exec returns while the process runs, whose number is in the file.",
        |lab| {
            let container = lab.idle()?;
            let file = lab.path("exec.pid");
            let name = file.to_string_lossy();
            container
                .exec(&["-d", "--pid-file", &name], &["sleep", "999"])?
                .output()?;
            let pid = std::fs::read_to_string(&file)?;
            eventually("the program", || {
                let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
                Ok(command.replace('\0', " ") == "sleep 999 ")
            })
        },
    ),
    interface(
        "cli.exec.stdin",
        EXEC,
        "Standard input reaches the process, with its end.",
        |lab| {
            let container = lab.idle()?;
            let file = lab.path("in");
            std::fs::write(&file, "input\n")?;
            let input = std::fs::File::open(&file)?;
            let ended = container.with(
                &["exec", &container.id, "sh", "-c", "cat; echo end"],
                |command| {
                    command.stdin(input);
                },
            )?;
            same("output", &ended.output()?, "input\nend")
        },
    ),
    interface(
        "cli.exec.options-of-program",
        EXEC,
        "Options behind the container are the program's.",
        |lab| {
            let output = lab
                .idle()?
                .exec(&[], &["echo", "--user", "-x", "--"])?
                .output()?;
            same("output", &output, "--user -x --")
        },
    ),
    interface(
        "cli.exec.preserve-fds",
        "runc exec --preserve-fds",
        "Descriptors after the first three reach the process when asked for.",
        |lab| {
            let container = lab.idle()?;
            let file = lab.path("given");
            std::fs::write(&file, "from outside")?;
            let runtime = lab.command(&[
                "exec",
                "--preserve-fds",
                "1",
                &container.id,
                "sh",
                "-c",
                "cat <&3",
            ])?;
            let mut shell = crate::command::quiet("/bin/sh");
            shell
                .args(["-c", "exec \"$@\" 3<\"$GIVEN\"", "sh"])
                .arg(runtime.get_program())
                .args(runtime.get_args())
                .env("GIVEN", &file);
            same(
                "descriptor 3",
                &crate::command::run(&mut shell)?.output()?,
                "from outside",
            )
        },
    ),
    interface(
        "cli.exec.no-descriptors",
        EXEC,
        "No descriptor beyond the standard streams reaches the process.",
        |lab| {
            let text = lab.idle()?.script(&[], "cd /proc/$$/fd && echo *")?;
            same("descriptors", text.replace(" 3", "").trim(), "0 1 2")
        },
    ),
    interface(
        "cli.exec.seccomp",
        EXEC,
        "The container's system call filter holds for the process.",
        |lab| {
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
                });
            })?;
            container.says("ready")?;
            container
                .exec(&[], &["mkdir", "/tmp/x"])?
                .failure()
                .map(drop)
        },
    ),
    interface(
        "cli.exec.rlimits",
        EXEC,
        "The container's limits hold for the process.",
        |lab| {
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                config["process"]["rlimits"] =
                    json!([{"type": "RLIMIT_NPROC", "soft": 777, "hard": 999}]);
            })?;
            container.says("ready")?;
            let text = container.script(&[], "grep '^Max processes' /proc/self/limits")?;
            let words: Vec<&str> = text.split_whitespace().collect();
            ensure!(words.get(2..4) == Some(&["777", "999"]), "{text}");
            Ok(())
        },
    ),
    interface(
        "cli.exec.visible-in-container",
        EXEC,
        "The container's processes see the new one, which sees them.",
        |lab| {
            let container = lab.idle()?;
            let text =
                container.script(&[], "cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $$")?;
            let mut lines = text.lines();
            contains("process 1", lines.next().unwrap_or_default(), "sleep 1000")?;
            let number: i32 = lines.next().unwrap_or_default().parse()?;
            ensure!(number > 1, "its number is {number}");
            Ok(())
        },
    ),
    interface(
        "cli.exec.end-does-not-stop",
        EXEC,
        "The end of the process leaves the container running.",
        |lab| {
            let container = lab.idle()?;
            container.exec(&[], &["true"])?.output()?;
            container.is("running")
        },
    ),
    interface(
        "cli.exec.runtime-not-writable",
        EXEC,
        "A process of the container cannot overwrite the runtime's executable (CVE-2019-5736).",
        |lab| {
            let before = std::fs::metadata(&lab.runtime.path)?;
            // The container's program is a link to the executable that execs it.
            std::os::unix::fs::symlink("/proc/self/exe", lab.rootfs().join("bin/again"))?;
            let container = lab.start(
                "echo ready; while :; do for p in /proc/[0-9]*; do \
                 case $(readlink $p/exe) in */busybox|'') ;; *) (echo broken > $p/exe) 2>/dev/null && echo WROTE;; esac; done; done",
                |_| {},
            )?;
            container.says("ready")?;
            for _ in 0..5 {
                // The result does not matter, only what the container could write.
                container.exec(&[], &["/bin/again", "--version"])?;
            }
            let after = std::fs::metadata(&lab.runtime.path)?;
            ensure!(
                !container.output()?.contains("WROTE"),
                "an executable was opened for writing"
            );
            ensure!(
                before.len() == after.len() && before.modified()? == after.modified()?,
                "the runtime's executable has changed"
            );
            Ok(())
        },
    ),
];
