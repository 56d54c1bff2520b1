//! Processor time of daemons and everything that they start, by a cgroup of their own.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use keelson_sys::service_process;

/// Where cgroup2 is mounted, on machines with and without version 1 controllers.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A cgroup of version 2, which needs no controller to count processor time. Removed, with all
/// processes in it, when it is dropped.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
}

/// Processor time so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessorTime {
    /// Outside the kernel.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl ProcessorTime {
    /// Both together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }

    /// What was used since an earlier time.
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
        let root = MOUNTS
            .map(Path::new)
            .into_iter()
            .find(|path| path.join("cgroup.procs").exists())
            .context(
                "no cgroup2 file system is mounted: processor time of daemons can't be counted",
            )?;
        let folder = root.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Has a command run in the cgroup. It also gets a session of its own.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn contain<'a>(&self, command: &'a mut Command) -> Result<&'a mut Command> {
        let file = OpenOptions::new().write(true).open(self.file("procs"))?;
        Ok(service_process::prepare(command, Some(file), None))
    }

    /// Moves a running process into the cgroup.
    ///
    /// # Errors
    /// There is no such process.
    pub fn adopt(&self, pid: u32) -> Result<()> {
        std::fs::write(self.file("procs"), pid.to_string())
            .with_context(|| format!("move process {pid} to {}", self.folder.display()))
    }

    /// The cgroup's path under the mount, as `linux.cgroupsPath` takes it.
    pub fn path(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// What all processes that are or were in it or in cgroups below it have used.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn processor_time(&self) -> Result<ProcessorTime> {
        let path = self.folder.join("cpu.stat");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
                .map(Duration::from_micros)
                .with_context(|| format!("{} has no {name}", path.display()))
        };
        Ok(ProcessorTime {
            user: value("user_usec")?,
            system: value("system_usec")?,
        })
    }

    /// The processes in it, those in cgroups below not included.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let text = std::fs::read_to_string(self.file("procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("cgroup.{name}"))
    }

    fn remove(&self) -> Result<()> {
        std::fs::write(self.file("kill"), "1")?;
        let mut events = File::open(self.file("events"))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_empty(&mut events)? {
            if Instant::now() > deadline {
                bail!("{}: not empty after 10 s", self.folder.display());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        remove_tree(&self.folder)
    }
}

fn is_empty(events: &mut File) -> Result<bool> {
    std::io::Seek::rewind(events)?;
    let text = std::io::read_to_string(events)?;
    Ok(text.lines().any(|line| line == "populated 0"))
}

fn remove_tree(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder).with_context(|| format!("remove {}", folder.display()))
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("cgroup {}: {error:#}", self.folder.display());
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
        let folder = group.folder.clone();
        let waiter = std::thread::spawn(move || sleeper.wait());
        drop(group);
        waiter.join().unwrap().unwrap();
        assert!(!folder.exists());
    }
}
