//! A container that stays on a machine and looks at it, so that looking costs no new container.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::{CommandOutput, Machine};
use crate::lab::docker;

/// The container's name.
const NAME: &str = "probe";

/// A running container that sees the whole machine below `/host`, its processes and its cgroups.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a>(&'a Machine);

/// What a process of the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// Memory of its own, not backed by a file, in KiB.
    pub anonymous_kib: u64,
    /// All memory, in which pages count by how many processes share them, in KiB.
    pub proportional_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Children that ended and were not waited for.
    pub zombies: u64,
}

impl<'a> Probe<'a> {
    /// Starts it. The machine has the busybox image.
    ///
    /// # Errors
    /// docker refuses.
    pub fn start(machine: &'a Machine) -> Result<Self> {
        let mut words = vec!["run", "-d", "--name", NAME, "--privileged", "--pid=host"];
        words.extend(["--cgroupns=host", "--network=none", "-v", "/:/host"]);
        words.extend(["busybox", "sleep", "100000"]);
        docker(machine, &words)?;
        Ok(Self(machine))
    }

    /// Runs a shell command in it; any exit code but 0 is an error.
    ///
    /// # Errors
    /// It fails.
    pub fn shell(&self, script: &str) -> Result<String> {
        docker(self.0, &["exec", NAME, "sh", "-c", script])
    }

    /// Runs a command in it, for at most `limit`; the exit code is for the caller.
    ///
    /// # Errors
    /// docker can't be executed, or it takes longer.
    pub fn run(&self, command: &[&str], limit: Duration) -> Result<CommandOutput> {
        let words = [&["exec", NAME], command].concat();
        Ok(self.0.docker_with(&words, None, limit)?)
    }

    /// Starts a shell command in it and does not wait.
    ///
    /// # Errors
    /// docker refuses.
    pub fn begin(&self, script: &str) -> Result<()> {
        docker(self.0, &["exec", "-d", NAME, "sh", "-c", script])?;
        Ok(())
    }

    /// What a process of the machine has.
    ///
    /// # Errors
    /// There is no such process.
    pub fn holdings(&self, pid: i32) -> Result<Holdings> {
        let script = format!(
            "sed -n 's/^Anonymous: *\\([0-9]*\\) kB/\\1/p; s/^Pss: *\\([0-9]*\\) kB/\\1/p' \
                 /proc/{pid}/smaps_rollup; \
             ls /proc/{pid}/fd | wc -l; \
             cat /proc/[0-9]*/status 2>/dev/null | \
                 awk '/^State:/ {{ state = $2 }} \
                      /^PPid:/ {{ if ($2 == {pid} && state == \"Z\") n++ }} END {{ print n + 0 }}'"
        );
        let seen = self.shell(&script)?;
        let numbers = seen.lines().map(|line| line.trim().parse());
        let numbers: Vec<u64> = numbers
            .collect::<Result<_, _>>()
            .with_context(|| format!("process {pid}: {seen:?}"))?;
        // In the order of smaps_rollup (Documentation/ABI/testing/procfs-smaps_rollup).
        let [proportional_kib, anonymous_kib, descriptors, zombies] = numbers[..] else {
            anyhow::bail!("process {pid}: {seen:?}");
        };
        ensure!(proportional_kib > 0, "process {pid}: {seen:?}");
        Ok(Holdings {
            anonymous_kib,
            proportional_kib,
            descriptors,
            zombies,
        })
    }
}
