//! A cycle by the command line that all OCI runtimes have in common.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::Outcome;
use crate::usage;

/// create, start, wait, delete.
pub(super) fn cycle(program: &Path, state: &Path, bundle: &Path, id: &str) -> Result<Outcome> {
    let command = |words: &[&str]| {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(state)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    };
    let pid_file = bundle.join("pid");
    let begin = Instant::now();
    let mut used = usage::run(
        command(&["create"])
            .arg("--bundle")
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(id),
    )?;
    let create = begin.elapsed();
    used += usage::run(&mut command(&["start", id]))?;
    let pid = std::fs::read_to_string(&pid_file).context("read the pid file")?;
    let (container, code) = usage::reap(pid.trim().parse()?)?;
    if code != 0 {
        bail!("the container's process ended with code {code}");
    }
    used += container;
    used += usage::run(&mut command(&["delete", id]))?;
    let total = begin.elapsed();
    Ok(Outcome::new(create, total, used))
}
