//! Behaviour that only callers without the rights of the machine's root rely on.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::{Case, interface};
use crate::command;
use crate::lab::Lab;

/// Whether something is called `name` in a directory or below it.
fn is_below(directory: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        entry.file_name() == *name || directory && is_below(&entry.path(), name)
    })
}

/// Calls the runtime without `--root`.
fn call(lab: &Lab, arguments: &[&str]) -> Result<command::Ended> {
    let mut command = lab.runtime.command()?;
    command.args(arguments).current_dir(lab.bundle());
    command::run(&mut command)
}

pub(super) const CASES: &[Case] = &[
    interface(
        "rootless.state.below-runtime-dir",
        "runc --root",
        "Without --root, containers are kept below XDG_RUNTIME_DIR and found again there.",
        |lab| {
            let own = std::env::var_os("XDG_RUNTIME_DIR").context("no XDG_RUNTIME_DIR")?;
            lab.write_config(|config| config["process"]["args"] = json!(["sleep", "1000"]))?;
            let id = lab.next_id();
            call(lab, &["run", "--detach", &id])?.output()?;
            let kept = is_below(Path::new(&own), &id);
            let listed = call(lab, &["list", "--quiet"]).and_then(command::Ended::output);
            call(lab, &["delete", "--force", &id])?.output()?;
            ensure!(kept, "nothing of {id} is below XDG_RUNTIME_DIR");
            let listed = listed?;
            ensure!(listed.lines().any(|line| line == id), "listed: {listed:?}");
            ensure!(
                !is_below(Path::new(&own), &id),
                "something of {id} is left below XDG_RUNTIME_DIR"
            );
            lab.witness();
            Ok(())
        },
    ),
    interface(
        "rootless.limits.refused",
        "runc: linux.resources",
        "A limit that can't be applied without a cgroup is refused, not passed over.",
        |lab| {
            lab.refuses(|config| config["linux"]["resources"] = json!({"pids": {"limit": 7}}))
                .map(drop)
        },
    ),
    interface(
        "rootless.cgroup.asked-for",
        "runc: linux.cgroupsPath",
        "A cgroup that the user may not make is refused, or the container runs in the caller's.",
        |lab| {
            lab.write_config(|config| {
                config["process"]["args"] = json!(["cat", "/proc/self/cgroup"]);
                config["linux"]["cgroupsPath"] = json!(lab.cgroup());
            })?;
            let ended = lab.call(&["run", &lab.next_id()])?;
            if ended.status.success() {
                let own = std::fs::read_to_string("/proc/self/cgroup")?;
                return crate::lab::same("cgroups", ended.stdout.trim(), own.trim());
            }
            let message = ended.failure()?;
            ensure!(message.contains("cgroup"), "{message}");
            Ok(())
        },
    ),
    interface(
        "rootless.user.not-mapped",
        "runc: process.user",
        "A user that the caller's user namespace does not have is refused.",
        |lab| {
            lab.refuses(|config| config["process"]["user"]["uid"] = json!(3_000_000))
                .map(drop)
        },
    ),
];
