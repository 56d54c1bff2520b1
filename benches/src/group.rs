//! Processor time of daemons and everything that they start, by a cgroup of their own.

use std::fs::OpenOptions;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use keelson_cgroup::Cgroup;
use keelson_sys::service_process;

/// How long killed processes may take to leave the cgroup.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);

/// A cgroup of version 2, which needs no controller to count processor time. Removed, with all
/// processes in it, when it is dropped.
#[derive(Debug)]
pub struct Group {
    cgroup: Cgroup,
}

/// Processor time so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessorTime {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl ProcessorTime {
    /// Both together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }

    /// The use since an earlier time.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

impl Group {
    /// Makes a cgroup; this process's number is added to the name.
    ///
    /// # Errors
    /// No cgroup2 is mounted, or it can't be written to.
    pub fn new(name: &str) -> Result<Self> {
        let mount = keelson_cgroup::mount_point().context(
            "no cgroup2 file system is mounted: processor time of daemons can't be counted",
        )?;
        let path = mount.join(format!("{name}-{}", std::process::id()));
        let cgroup = Cgroup::create(path)?;
        Ok(Self { cgroup })
    }

    /// Makes a command run in the cgroup, in a session of its own.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn contain<'a>(&self, command: &'a mut Command) -> Result<&'a mut Command> {
        let file = OpenOptions::new()
            .write(true)
            .open(self.cgroup.path().join("cgroup.procs"))?;
        Ok(service_process::prepare(command, Some(file), None))
    }

    /// Moves a running process into the cgroup.
    ///
    /// # Errors
    /// There is no such process.
    pub fn adopt(&self, pid: u32) -> Result<()> {
        Ok(self.cgroup.add(i32::try_from(pid)?)?)
    }

    /// The cgroup's path under the mount, as `linux.cgroupsPath` takes it.
    pub fn path(&self) -> String {
        let name = self.cgroup.path().file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// Returns the processor time of all processes, past and present, in this cgroup and those
    /// below it.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn processor_time(&self) -> Result<ProcessorTime> {
        let text = self.cgroup.read("cpu.stat")?;
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
                .map(Duration::from_micros)
                .with_context(|| format!("cpu.stat has no {name}"))
        };
        Ok(ProcessorTime {
            user: value("user_usec")?,
            system: value("system_usec")?,
        })
    }

    /// The processes in it and in cgroups below it.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn processes(&self) -> Result<Vec<i32>> {
        Ok(self.cgroup.processes()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = keelson_cgroup::remove(self.cgroup.path(), REMOVE_LIMIT) {
            eprintln!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage;

    #[test]
    fn a_group_counts_what_runs_in_it_and_is_gone_afterwards() {
        if !keelson_testing::is_root() {
            return;
        }
        let group = Group::new("keelson-group-test").unwrap();
        let before = group.processor_time().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
        usage::run(group.contain(&mut command).unwrap()).unwrap();
        let used = group.processor_time().unwrap().since(before);
        assert!(used.total() > Duration::from_micros(100), "{used:?}");
        let mut sleeper = Command::new("sleep");
        let mut sleeper = group.contain(sleeper.arg("1000")).unwrap().spawn().unwrap();
        assert_eq!(group.processes().unwrap(), [sleeper.id() as i32]);
        let path = group.cgroup.path().to_owned();
        let waiter = std::thread::spawn(move || sleeper.wait());
        drop(group);
        waiter.join().unwrap().unwrap();
        assert!(!path.exists());
    }
}
