//! The processes of a container, from /proc.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::engine::require_process;
use crate::types::{Scope, Top};
use crate::{Engine, EngineError};

/// What `ps -ef` shows.
const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

impl Engine {
    /// The processes of a running container.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run.
    pub async fn top(&self, scope: Scope, name: &str) -> Result<Top, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        require_process(&container)?;
        let snapshot = container.snapshot();
        let Some(mount) = &self.inner.facts.cgroup_mount else {
            return Err(EngineError::Conflict(
                "the host has no cgroup v2, by which a container's processes are known".to_owned(),
            ));
        };
        let directory = mount.join(snapshot.cgroup.trim_start_matches('/'));
        let mut pids = BTreeSet::new();
        collect(&directory, &mut pids);
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Ok(Top {
            titles: TITLES.map(str::to_owned).into(),
            processes: pids
                .into_iter()
                .filter_map(|pid| process(pid, boot_time(&stat)))
                .collect(),
        })
    }
}

/// The processes of a cgroup and its children.
fn collect(directory: &Path, pids: &mut BTreeSet<u32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

/// The time of the boot, in seconds since 1970.
fn boot_time(stat: &str) -> i64 {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
        .unwrap_or_default()
}

/// One row; `None` when the process has ended.
fn process(pid: u32, boot: i64) -> Option<Vec<String>> {
    use std::os::unix::fs::MetadataExt;
    let directory = format!("/proc/{pid}");
    let uid = fs::metadata(&directory).ok()?.uid();
    let stat = Stat::parse(&fs::read_to_string(format!("{directory}/stat")).ok()?)?;
    let line = fs::read(format!("{directory}/cmdline")).unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let seconds = stat.ticks / ticks;
    let started = boot.saturating_add(i64::try_from(stat.started / ticks).unwrap_or_default());
    let time = jiff::Timestamp::from_second(started).unwrap_or_default();
    Some(vec![
        uid.to_string(),
        pid.to_string(),
        stat.parent.to_string(),
        "0".to_owned(),
        time.strftime("%H:%M").to_string(),
        stat.terminal(),
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        command(&line, &stat.name),
    ])
}

fn command(line: &[u8], name: &str) -> String {
    let words: Vec<_> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    if words.is_empty() {
        format!("[{name}]")
    } else {
        words.join(" ")
    }
}

/// The needed members of /proc/PID/stat (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    tty: i32,
    /// Processor time.
    ticks: u64,
    /// After the boot.
    started: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name may contain anything, closing brackets, too.
        let (head, rest) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            tty: fields.get(4)?.parse().ok()?,
            ticks: number(11)?.saturating_add(number(12)?),
            started: number(19)?,
        })
    }

    fn terminal(&self) -> String {
        let device = self.tty.cast_unsigned();
        match (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00) {
            (136..=143, minor) => format!("pts/{minor}"),
            (4, minor) => format!("tty{minor}"),
            _ => "?".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name() {
        let text = "42 (a) R 9 (b) S 7 42 42 34817 42 0 1 2 3 4 100 50 0 0 20 0 1 0 777 9 9\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.name, "a) R 9 (b");
        assert_eq!((stat.parent, stat.ticks, stat.started), (7, 150, 777));
        assert_eq!(stat.terminal(), "pts/1");
        assert_eq!(Stat::parse("42 (x"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process() {
        let row = process(std::process::id(), 0).unwrap();
        assert_eq!(row.len(), TITLES.len());
        assert_eq!(row[1], std::process::id().to_string());
        assert_eq!(command(b"", "kthread"), "[kthread]");
        assert_eq!(command(b"a\0b c\0", ""), "a b c");
    }
}
