//! `process`: arguments, environment, limits, scheduling.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, interface, must};
use crate::lab::{Lab, contains, same};

const PROCESS: &str = "config.md#process";
const POSIX: &str = "config.md#posix-process";
const LINUX: &str = "config.md#linux-process";

/// The hard or soft limit of a resource as a process of the container sees it.
fn limit(lab: &Lab, name: &str, rlimits: Value) -> Result<Vec<String>> {
    let text = lab.script("cat /proc/self/limits", |config| {
        config["process"]["rlimits"] = rlimits;
    })?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default();
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

pub(super) const CASES: &[Case] = &[
    must(
        "config.process.cwd",
        PROCESS,
        "The process starts in cwd.",
        |lab| {
            let directory = lab.script("pwd", |config| config["process"]["cwd"] = json!("/tmp"))?;
            same("working directory", &directory, "/tmp")
        },
    ),
    must(
        "config.process.cwd-absolute",
        PROCESS,
        "cwd is an absolute path.",
        |lab| {
            lab.refuses(|config| config["process"]["cwd"] = json!("tmp"))
                .map(drop)
        },
    ),
    interface(
        "cli.run.cwd-made",
        "runc run",
        "A cwd that is missing in the root file system is made.",
        |lab| {
            let directory = lab.script("pwd", |config| {
                config["process"]["cwd"] = json!("/made/here")
            })?;
            same("working directory", &directory, "/made/here")
        },
    ),
    must(
        "config.process.cwd-outside",
        PROCESS,
        "The working directory is inside the container, though cwd leads through an inherited descriptor.",
        |lab| {
            for number in 3..12 {
                let ended = lab.run(|config| {
                    config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
                })?;
                ensure!(
                    !ended.status.success(),
                    "/proc/self/fd/{number} is a directory in the new process"
                );
            }
            Ok(())
        },
    ),
    must(
        "config.process.env",
        PROCESS,
        "The environment has the variables of env.",
        |lab| {
            let text = lab.script("env", |config| {
                config["process"]["env"] = json!(["PATH=/bin", "ONE=1", "EQUAL=a=b", "EMPTY="]);
            })?;
            for wanted in ["ONE=1", "EQUAL=a=b", "EMPTY="] {
                ensure!(
                    text.lines().any(|line| line == wanted),
                    "{wanted} in {text}"
                );
            }
            Ok(())
        },
    ),
    interface(
        "cli.run.env-twice",
        "runc run",
        "Of several values of a variable, the program gets the last, and no other.",
        |lab| {
            let text = lab.script("env | grep TWICE", |config| {
                config["process"]["env"] = json!(["PATH=/bin", "TWICE=1", "TWICE=2"]);
            })?;
            same("variable", &text, "TWICE=2")
        },
    ),
    must(
        "config.process.env-nothing-else",
        PROCESS,
        "No variable of the runtime's own environment reaches the process.",
        |lab| {
            lab.write_config(|config| config["process"]["args"] = json!(["env"]))?;
            let mut command = lab.command(&["run", &lab.next_id()])?;
            command.env("SECRET_OF_THE_HOST", "1");
            let text = crate::command::run(&mut command)?.output()?;
            ensure!(!text.contains("SECRET"), "{text}");
            Ok(())
        },
    ),
    interface(
        "cli.run.home",
        "runc run",
        "HOME is set from the container's /etc/passwd when env lacks it.",
        |lab| {
            let root = lab.script("echo $HOME", |_| {})?;
            same("HOME", &root, "/root")?;
            let user = lab.script("echo $HOME", |config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            })?;
            same("HOME of uid 1000", &user, "/home/user")
        },
    ),
    interface(
        "cli.run.home-empty",
        "runc run",
        "An empty HOME is set as a missing one.",
        |lab| {
            let text = lab.script("env | grep HOME", |config| {
                config["process"]["env"] = json!(["PATH=/bin", "HOME="]);
            })?;
            same("variable", &text, "HOME=/root")
        },
    ),
    must(
        "config.process.args",
        PROCESS,
        "The arguments reach the program as they are, like execvp's argv.",
        |lab| {
            let ended = lab.run(|config| {
                config["process"]["args"] =
                    json!(["printf", "[%s]", "a b", "", "*", "$HOME", "\"", "é"]);
            })?;
            same("arguments", &ended.output()?, "[a b][][*][$HOME][\"][é]")
        },
    ),
    must(
        "config.process.args-search",
        PROCESS,
        "A program without a slash is looked for in the container's PATH.",
        |lab| {
            std::fs::create_dir(lab.rootfs().join("other"))?;
            std::os::unix::fs::symlink("/bin/busybox", lab.rootfs().join("other/echo"))?;
            let output = lab
                .run(|config| {
                    config["process"]["args"] = json!(["echo", "found"]);
                    config["process"]["env"] = json!(["PATH=/nowhere:/other"]);
                })?
                .output()?;
            same("output", &output, "found")?;
            let ended = lab.run(|config| {
                config["process"]["args"] = json!(["echo", "found"]);
                config["process"]["env"] = json!(["PATH=/nowhere"]);
            })?;
            ensure!(!ended.status.success(), "found without being in PATH");
            Ok(())
        },
    ),
    must(
        "config.process.args-empty",
        PROCESS,
        "args has at least one entry.",
        |lab| {
            lab.refuses(|config| config["process"]["args"] = json!([]))
                .map(drop)
        },
    ),
    must(
        "config.process.args-missing-program",
        PROCESS,
        "A program that does not exist is an error that names it.",
        |lab| {
            let message =
                lab.refuses(|config| config["process"]["args"] = json!(["/no/such/program"]))?;
            contains("message", &message, "/no/such/program")
        },
    ),
    must(
        "config.process.args-not-executable",
        PROCESS,
        "A file without permission to execute is an error.",
        |lab| {
            std::fs::write(lab.rootfs().join("plain"), "text")?;
            lab.refuses(|config| config["process"]["args"] = json!(["/plain"]))
                .map(drop)
        },
    ),
    must(
        "config.process.args-folder",
        PROCESS,
        "A directory cannot be executed.",
        |lab| {
            lab.refuses(|config| config["process"]["args"] = json!(["/tmp"]))
                .map(drop)
        },
    ),
    must(
        "config.process.no-terminal",
        PROCESS,
        "Without terminal, no standard stream is a terminal.",
        |lab| {
            let text = lab.script(
                "for f in 0 1 2; do test -t $f && echo terminal $f; done; echo done",
                |_| {},
            )?;
            same("output", &text, "done")
        },
    ),
    must(
        "config.process.no-descriptors",
        PROCESS,
        "No descriptor beyond the standard streams reaches the process.",
        |lab| {
            // The shell's own descriptor of the directory is one more.
            let text = lab.script("cd /proc/$$/fd && echo *", |_| {})?;
            let text = text.replace(" 3", "");
            same("descriptors", text.trim(), "0 1 2")
        },
    ),
    must(
        "config.process.rlimits",
        POSIX,
        "Soft and hard limits are those of rlimits.",
        |lab| {
            let found = limit(
                lab,
                "Max open files",
                json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]),
            )?;
            ensure!(
                found.starts_with(&["100".into(), "200".into()]),
                "{found:?}"
            );
            let found = limit(
                lab,
                "Max core file size",
                json!([
                    {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                    {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}
                ]),
            )?;
            ensure!(found.starts_with(&["0".into(), "0".into()]), "{found:?}");
            Ok(())
        },
    ),
    must(
        "config.process.rlimits-all-types",
        POSIX,
        "Every resource of getrlimit can be limited.",
        |lab| {
            for (kind, line) in [
                ("AS", "Max address space"),
                ("CPU", "Max cpu time"),
                ("DATA", "Max data size"),
                ("FSIZE", "Max file size"),
                ("LOCKS", "Max file locks"),
                ("MEMLOCK", "Max locked memory"),
                ("MSGQUEUE", "Max msgqueue size"),
                ("NPROC", "Max processes"),
                ("RSS", "Max resident set"),
                ("RTTIME", "Max realtime timeout"),
                ("SIGPENDING", "Max pending signals"),
                ("STACK", "Max stack size"),
            ] {
                let kind = format!("RLIMIT_{kind}");
                let value = 0x3f_0000;
                let usual = std::fs::read_to_string("/proc/self/limits")?;
                let hard = usual
                    .lines()
                    .find_map(|text| text.strip_prefix(line))
                    .and_then(|text| text.split_whitespace().nth(1).map(str::to_owned));
                let value = hard
                    .and_then(|hard| hard.parse().ok())
                    .map_or(value, |hard: u64| hard.min(value));
                let found = limit(
                    lab,
                    line,
                    json!([{"type": kind, "soft": value, "hard": value}]),
                )?;
                ensure!(
                    found.first() == Some(&value.to_string()),
                    "{kind} {value}: {found:?}"
                );
            }
            Ok(())
        },
    ),
    must(
        "config.process.rlimits-unknown",
        POSIX,
        "A limit that the kernel does not have is an error.",
        |lab| {
            lab.refuses(|config| {
                config["process"]["rlimits"] =
                    json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]);
            })
            .map(drop)
        },
    ),
    must(
        "config.process.rlimits-duplicate",
        POSIX,
        "A limit listed twice is an error.",
        |lab| {
            lab.refuses(|config| {
                config["process"]["rlimits"] = json!([
                    {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100},
                    {"type": "RLIMIT_NOFILE", "soft": 200, "hard": 200}
                ]);
            })
            .map(drop)
        },
    ),
    must(
        "config.process.rlimits-soft-above-hard",
        POSIX,
        "A soft limit above the hard one is an error.",
        |lab| {
            lab.refuses(|config| {
                config["process"]["rlimits"] =
                    json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}]);
            })
            .map(drop)
        },
    ),
    must(
        "config.process.oom-score",
        LINUX,
        "oomScoreAdj is set as given.",
        |lab| {
            let text = lab.script("cat /proc/self/oom_score_adj", |config| {
                config["process"]["oomScoreAdj"] = json!(123);
            })?;
            same("oom_score_adj", &text, "123")
        },
    ),
    must(
        "config.process.oom-score-unset",
        LINUX,
        "Without oomScoreAdj, the runtime does not change it.",
        |lab| {
            let own = std::fs::read_to_string("/proc/self/oom_score_adj")?;
            let text = lab.script("cat /proc/self/oom_score_adj", |_| {})?;
            same("oom_score_adj", &text, own.trim())
        },
    ),
    must(
        "config.process.oom-score-range",
        LINUX,
        "A value that the kernel does not take is an error.",
        |lab| {
            lab.refuses(|config| config["process"]["oomScoreAdj"] = json!(5000))
                .map(drop)
        },
    ),
    must(
        "config.process.scheduler",
        LINUX,
        "scheduler sets policy and nice value.",
        |lab| {
            let text = lab.script("cat /proc/self/stat", |config| {
                config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
            })?;
            let fields: Vec<&str> = text
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            // Fields 19 (nice) and 41 (policy) of proc(5); the state is number 3.
            same("nice", fields.get(16).unwrap_or(&""), "5")?;
            same("policy", fields.get(38).unwrap_or(&""), "3")
        },
    ),
    must(
        "config.process.scheduler-invalid",
        LINUX,
        "A scheduling policy that does not exist is an error.",
        |lab| {
            lab.refuses(|config| {
                config["process"]["scheduler"] = json!({"policy": "SCHED_NONSENSE"})
            })
            .map(drop)
        },
    ),
    must(
        "config.process.io-priority",
        LINUX,
        "ioPriority sets class and priority.",
        |lab| {
            let text = lab.script("ionice", |config| {
                config["process"]["ioPriority"] =
                    json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
            })?;
            same("ionice", &text, "best-effort: prio 6")
        },
    ),
    must(
        "config.process.io-priority-invalid",
        LINUX,
        "A class of I/O priority that does not exist is an error.",
        |lab| {
            lab.refuses(|config| {
                config["process"]["ioPriority"] =
                    json!({"class": "IOPRIO_CLASS_NONSENSE", "priority": 1})
            })
            .map(drop)
        },
    ),
    must(
        "config.process.no-new-privileges",
        LINUX,
        "noNewPrivileges is set when asked for and not otherwise.",
        |lab| {
            let status = |value: bool| {
                lab.script("grep NoNewPrivs /proc/self/status", |config| {
                    config["process"]["noNewPrivileges"] = json!(value);
                })
            };
            same("set", &status(true)?, "NoNewPrivs:\t1")?;
            same("not set", &status(false)?, "NoNewPrivs:\t0")
        },
    ),
    must(
        "config.process.personality",
        "config-linux.md#personality",
        "The domain LINUX32 makes uname tell a machine of 32 bits.",
        |lab| {
            let text = lab.script("uname -m", |config| {
                config["linux"]["personality"] = json!({"domain": "LINUX32"});
            })?;
            ensure!(text == "i686", "{text}");
            Ok(())
        },
    ),
    must(
        "config.process.stdin",
        PROCESS,
        "What the caller gives as standard input arrives, with its end.",
        |lab| {
            lab.write_config(|config| {
                config["process"]["args"] = json!(["sh", "-c", "cat; echo end"])
            })?;
            let file = lab.path("in");
            std::fs::write(&file, "from outside\n")?;
            let mut command = lab.command(&["run", &lab.next_id()])?;
            command.stdin(std::fs::File::open(file)?);
            let output = crate::command::run(&mut command)?.output()?;
            same("output", &output, "from outside\nend")
        },
    ),
    must(
        "config.process.stderr",
        PROCESS,
        "Standard output and standard error stay apart.",
        |lab| {
            let ended = lab.run(|config| {
                config["process"]["args"] = json!(["sh", "-c", "echo out; echo err >&2"]);
            })?;
            same("standard error", ended.stderr.trim(), "err")?;
            same("standard output", &ended.output()?, "out")
        },
    ),
];
