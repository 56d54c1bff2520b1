//! `linux.cgroupsPath` and `linux.resources`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, must};
use crate::host;
use crate::lab::{Lab, same, skip};

const PATH: &str = "config-linux.md#cgroups-path";
pub(super) const RESOURCES: &str = "config-linux.md#control-groups";
pub(super) const UNIFIED: &str = "config-linux.md#unified";

/// The cgroups of a process, as the host sees them.
fn cgroups(pid: i32) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2).map(str::to_owned))
        .collect())
}

/// The container's directory, if cgroup v2 is the machine's only hierarchy and has a controller.
pub(super) fn unified(lab: &Lab, controller: &str) -> Result<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let found = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    if !found.split_whitespace().any(|name| name == controller) {
        return skip(format!(
            "cgroup v2 has no controller {controller} on this machine"
        ));
    }
    Ok(root.join(lab.cgroup().trim_start_matches('/')))
}

/// Requires that resources lead to these contents of the container's cgroup v2 files.
pub(super) fn gives(
    lab: &Lab,
    controller: &str,
    resources: Value,
    files: &[(&str, &str)],
) -> Result<()> {
    let directory = unified(lab, controller)?;
    let container = lab.create(|config| config["linux"]["resources"] = resources)?;
    for (file, wanted) in files {
        same(
            file,
            std::fs::read_to_string(directory.join(file))?.trim(),
            wanted,
        )?;
    }
    container.stop()
}

/// Requires that `update` with these options leads to these contents.
pub(super) fn updates(
    lab: &Lab,
    controller: &str,
    options: &[&str],
    files: &[(&str, &str)],
) -> Result<()> {
    let directory = unified(lab, controller)?;
    let container = lab.idle()?;
    let mut arguments = vec!["update"];
    arguments.extend(options);
    container.call(&arguments)?.output()?;
    for (file, wanted) in files {
        same(
            file,
            std::fs::read_to_string(directory.join(file))?.trim(),
            wanted,
        )?;
    }
    container.is("running")
}

pub(super) const CASES: &[Case] = &[
    must(
        "linux.cgroups-path.absolute",
        PATH,
        "An absolute path is relative to the cgroup mount.",
        |lab| {
            let container = lab.create(|_| {})?;
            let found = cgroups(container.pid()?)?;
            ensure!(found.contains(&lab.cgroup()), "{found:?}");
            Ok(())
        },
    ),
    must(
        "linux.cgroups-path.made",
        PATH,
        "Directories of the path that are missing are made.",
        |lab| {
            let path = format!("{}/deep/er", lab.cgroup());
            let container = lab.create(|config| config["linux"]["cgroupsPath"] = json!(path))?;
            let found = cgroups(container.pid()?)?;
            ensure!(found.contains(&path), "{found:?}");
            Ok(())
        },
    ),
    must(
        "linux.cgroups-path.consistent",
        PATH,
        "The same path leads to the same place each time.",
        |lab| {
            let place = || -> Result<Vec<String>> {
                let container = lab.create(|_| {})?;
                let found = cgroups(container.pid()?)?;
                container.call(&["delete", "--force"])?.output()?;
                Ok(found)
            };
            let (first, second) = (place()?, place()?);
            ensure!(first == second, "{first:?}, then {second:?}");
            Ok(())
        },
    ),
    must(
        "linux.cgroups-path.unset",
        PATH,
        "Without a path the container is in a cgroup that is not the caller's.",
        |lab| {
            let container = lab.create(|config| {
                config["linux"]
                    .as_object_mut()
                    .map(|linux| linux.remove("cgroupsPath"));
            })?;
            let own = cgroups(i32::try_from(std::process::id())?)?;
            let found = cgroups(container.pid()?)?;
            ensure!(found.iter().any(|path| !own.contains(path)), "{found:?}");
            container.call(&["delete", "--force"])?.output().map(drop)
        },
    ),
    must(
        "linux.cgroups-path.relative",
        PATH,
        "A relative path leads to the same place each time, or is refused.",
        |lab| {
            let name = lab.cgroup().replace('/', "");
            lab.write_config(|config| config["linux"]["cgroupsPath"] = json!(name))?;
            let id = lab.next_id();
            let ended = lab.call(&["create", &id])?;
            if !ended.status.success() {
                return ended.failure().map(drop);
            }
            let state: Value = serde_json::from_str(&lab.call(&["state", &id])?.output()?)?;
            let pid = i32::try_from(state["pid"].as_i64().unwrap_or_default())?;
            let found = cgroups(pid)?;
            lab.call(&["delete", "--force", &id])?.output()?;
            ensure!(found.iter().any(|path| path.ends_with(&name)), "{found:?}");
            Ok(())
        },
    ),
    must(
        "linux.cgroups-path.no-escape",
        PATH,
        "A path with .. does not lead out of the cgroup file systems.",
        |lab| {
            let outside = lab.path("outside");
            let path = format!("/../../../../..{}", outside.display());
            // To refuse it would be correct as well.
            let _ = lab.run(|config| config["linux"]["cgroupsPath"] = json!(path))?;
            ensure!(!outside.exists(), "a directory was made outside");
            Ok(())
        },
    ),
    must(
        "linux.cgroups-path.whole-container",
        PATH,
        "Processes that the container starts are in its cgroup.",
        |lab| {
            let container = lab.start("sleep 1000 & echo ready; wait", |_| {})?;
            container.says("ready")?;
            let count = host::cgroup_directories(&lab.cgroup())
                .iter()
                .filter_map(|directory| {
                    std::fs::read_to_string(directory.join("cgroup.procs")).ok()
                })
                .map(|text| text.lines().count())
                .max();
            ensure!(count == Some(2), "{count:?} processes");
            Ok(())
        },
    ),
    must(
        "linux.cgroups-path.in-place-at-create",
        PATH,
        "The process is in its cgroup before it is started.",
        |lab| {
            lab.create(|_| {})?;
            let directories = host::cgroup_directories(&lab.cgroup());
            ensure!(
                directories.iter().any(|directory| std::fs::read_to_string(
                    directory.join("cgroup.procs")
                )
                .is_ok_and(|text| !text.is_empty())),
                "no process in {directories:?}"
            );
            Ok(())
        },
    ),
    must(
        "linux.resources.unified-unknown",
        UNIFIED,
        "A file of a controller that is not there is an error.",
        |lab| {
            lab.refuses(|config| {
                config["linux"]["resources"]["unified"] = json!({"nonsense.max": "1"})
            })
            .map(drop)
        },
    ),
    must(
        "linux.resources.unified-no-path",
        UNIFIED,
        "A name of unified cannot be a path.",
        |lab| {
            lab.refuses(|config| {
                config["linux"]["resources"]["unified"] = json!({"../cgroup.procs": "1"})
            })
            .map(drop)
        },
    ),
    must(
        "linux.resources.unified",
        UNIFIED,
        "A file is written and its controller made available.",
        |lab| {
            gives(
                lab,
                "memory",
                json!({"unified": {"memory.high": "104857600"}}),
                &[("memory.high", "104857600")],
            )
        },
    ),
    must(
        "linux.resources.memory-limit",
        "config-linux.md#memory",
        "limit is the memory limit.",
        |lab| {
            gives(
                lab,
                "memory",
                json!({"memory": {"limit": 104_857_600}}),
                &[("memory.max", "104857600")],
            )
        },
    ),
    must(
        "linux.resources.memory-swap",
        "config-linux.md#memory",
        "swap is the limit of memory and swap together.",
        |lab| {
            gives(
                lab,
                "memory",
                json!({"memory": {"limit": 104_857_600, "swap": 157_286_400}}),
                &[("memory.swap.max", "52428800")],
            )
        },
    ),
    must(
        "linux.resources.memory-reservation",
        "config-linux.md#memory",
        "reservation is the soft limit.",
        |lab| {
            gives(
                lab,
                "memory",
                json!({"memory": {"reservation": 52_428_800}}),
                &[("memory.low", "52428800")],
            )
        },
    ),
    must(
        "linux.resources.memory-unlimited",
        "config-linux.md#memory",
        "-1 is no limit.",
        |lab| {
            gives(
                lab,
                "memory",
                json!({"memory": {"limit": -1}}),
                &[("memory.max", "max")],
            )
        },
    ),
    must(
        "linux.resources.pids-limit",
        "config-linux.md#pids",
        "limit is the greatest number of tasks.",
        |lab| {
            gives(
                lab,
                "pids",
                json!({"pids": {"limit": 33}}),
                &[("pids.max", "33")],
            )
        },
    ),
    must(
        "linux.resources.cpu-quota",
        "config-linux.md#cpu",
        "quota and period limit the processor time.",
        |lab| {
            gives(
                lab,
                "cpu",
                json!({"cpu": {"quota": 20_000, "period": 50_000}}),
                &[("cpu.max", "20000 50000")],
            )
        },
    ),
    must(
        "linux.resources.cpu-idle",
        "config-linux.md#cpu",
        "idle 1 is SCHED_IDLE.",
        |lab| {
            gives(
                lab,
                "cpu",
                json!({"cpu": {"idle": 1}}),
                &[("cpu.idle", "1")],
            )
        },
    ),
    must(
        "linux.resources.cpus",
        "config-linux.md#cpu",
        "cpus and mems choose processors and memory nodes.",
        |lab| {
            gives(
                lab,
                "cpuset",
                json!({"cpu": {"cpus": "0", "mems": "0"}}),
                &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
            )
        },
    ),
    must(
        "linux.resources.in-force",
        RESOURCES,
        "A limit holds: a process that may not fork can't.",
        |lab| {
            unified(lab, "pids")?;
            let ended = lab.run(|config| {
                config["process"]["args"] = json!([
                    "sh",
                    "-c",
                    "sleep 0.1 & sleep 0.1 & sleep 0.1 & sleep 0.1 & wait"
                ]);
                config["linux"]["resources"]["pids"] = json!({"limit": 2});
            })?;
            ensure!(ended.stderr.contains("fork"), "{ended}");
            Ok(())
        },
    ),
    must(
        "linux.resources.update-memory",
        "runc update --memory",
        "update changes the memory limit.",
        |lab| {
            updates(
                lab,
                "memory",
                &["--memory", "104857600"],
                &[("memory.max", "104857600")],
            )
        },
    ),
    must(
        "linux.resources.update-pids",
        "runc update --pids-limit",
        "update changes the limit of tasks.",
        |lab| updates(lab, "pids", &["--pids-limit", "44"], &[("pids.max", "44")]),
    ),
    must(
        "linux.resources.update-cpu",
        "runc update --cpu-quota",
        "update changes the processor time.",
        |lab| {
            updates(
                lab,
                "cpu",
                &["--cpu-quota", "30000", "--cpu-period", "60000"],
                &[("cpu.max", "30000 60000")],
            )
        },
    ),
];
