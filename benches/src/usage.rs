//! What commands use: time, processor time, memory.

use std::ops::AddAssign;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use keelson_sys::child::{self, Ended};
use keelson_sys::sandbox;

/// What something used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Most memory that one process had at a time, in bytes. At least the memory of the benchmark
    /// itself when it started the command, because the kernel counts that (see
    /// [`keelson_sys::child::Ended`]).
    pub peak_memory: u64,
}

impl Cost {
    /// Processor time in total.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

impl AddAssign for Cost {
    /// Adds up actions that were done one after the other.
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.user += other.user;
        self.system += other.system;
        self.peak_memory = self.peak_memory.max(other.peak_memory);
    }
}

/// Milliseconds with fractions.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Makes processes whose parent ends children of this one, so that [`reap`] can account for them.
///
/// # Errors
/// The kernel refuses.
pub fn adopt_orphans() -> Result<()> {
    sandbox::set_subreaper().context("become the parent of orphans")
}

/// Runs a command to its end. Children that it waited for are included; those that it left behind
/// are not, see [`reap`] and [`crate::group::Group`].
///
/// # Errors
/// It can't be executed, or ends with a code other than 0.
pub fn run(command: &mut Command) -> Result<Cost> {
    let (cost, code) = run_any(command)?;
    if code != 0 {
        bail!("{command:?} ended with code {code}");
    }
    Ok(cost)
}

/// Like [`run`], but accepts any exit code and returns it.
///
/// # Errors
/// It can't be executed.
pub fn run_any(command: &mut Command) -> Result<(Cost, i32)> {
    let start = Instant::now();
    let child = command
        .spawn()
        .with_context(|| format!("execute {command:?}"))?;
    reap_since(child.id() as i32, start)
}

/// Waits for the end of an adopted orphan, or of a child that nobody waited for yet.
///
/// # Errors
/// There is no such child.
pub fn reap(pid: i32) -> Result<(Cost, i32)> {
    reap_since(pid, Instant::now())
}

fn reap_since(pid: i32, start: Instant) -> Result<(Cost, i32)> {
    let ended: Ended = child::reap(pid).with_context(|| format!("wait for process {pid}"))?;
    let cost = Cost {
        wall: start.elapsed(),
        user: ended.user,
        system: ended.system,
        peak_memory: ended.peak_memory,
    };
    Ok((cost, ended.code))
}

/// The proportional memory of a process in bytes (Pss of `smaps_rollup`): its own, and its share of
/// memory used in common with others.
///
/// # Errors
/// There is no such process.
pub fn proportional_memory(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .with_context(|| format!("{path} has no Pss"))?;
    let number: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_and_its_children_are_accounted_for() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; exit 3",
        ]);
        let (cost, code) = run_any(&mut command).unwrap();
        assert_eq!(code, 3);
        assert!(cost.cpu() > Duration::ZERO);
        assert!(cost.wall > Duration::ZERO);
        assert!(cost.peak_memory > 0);
        assert!(run(&mut command).is_err());
        assert!(proportional_memory(std::process::id() as i32).unwrap() > 0);
    }
}
