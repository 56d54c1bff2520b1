//! The processes of a container, from /proc.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use crate::engine::require_process;
use crate::types::{ProcessInfo, Scope};
use crate::{Engine, EngineError};

impl Engine {
    /// The processes of a running container, by their numbers on the host.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when it does not run.
    pub async fn processes(
        &self,
        scope: Scope,
        name: &str,
    ) -> Result<Vec<ProcessInfo>, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        require_process(&container)?;
        let snapshot = container.snapshot();
        let Some(mount) = &self.inner.facts.cgroup_mount else {
            return Err(EngineError::Conflict(
                "the host has no cgroup v2, by which a container's processes are known".to_owned(),
            ));
        };
        let directory = mount.join(snapshot.cgroup.trim_start_matches('/'));
        let mut pids = keelson_cgroup::processes(&directory).unwrap_or_default();
        pids.sort_unstable();
        pids.dedup();
        let boot = boot_time(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let pids = pids.into_iter().filter_map(|pid| u32::try_from(pid).ok());
        let found = pids.filter_map(|pid| process(pid, boot));
        Ok(found.collect())
    }
}

/// The time of the boot, in seconds since 1970.
fn boot_time(stat: &str) -> i64 {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
        .unwrap_or_default()
}

/// One process; `None` when it has ended.
fn process(pid: u32, boot: i64) -> Option<ProcessInfo> {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
    let text = |name: &str| Some(String::from_utf8_lossy(&read(name)?).into_owned());
    let stat = Stat::parse(&text("stat")?)?;
    let status = text("status")?;
    let line = read("cmdline").unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let started = boot.saturating_add(i64::try_from(stat.started / ticks).unwrap_or_default());
    Some(ProcessInfo {
        pid,
        parent: stat.parent,
        group: stat.group,
        session: stat.session,
        user: effective(&status, "Uid:")?,
        user_group: effective(&status, "Gid:")?,
        state: stat.state,
        in_foreground: stat.terminal_group == i64::from(stat.group),
        terminal: terminal(stat.tty),
        priority: stat.priority,
        nice: stat.nice,
        threads: stat.threads,
        processor: stat.processor,
        cpu_time: Duration::from_millis(stat.ticks.saturating_mul(1000) / ticks),
        started: Timestamp::from_second(started).unwrap_or_default(),
        address_space: stat.address_space,
        resident: stat.resident_pages.saturating_mul(page),
        arguments: line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect(),
        name: stat.name,
    })
}

/// The effective one of the numbers of a line of /proc/PID/status: `Uid: REAL EFFECTIVE …`.
fn effective(status: &str, name: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The needed members of /proc/PID/stat (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
    parent: u32,
    group: u32,
    session: u32,
    tty: i32,
    /// The group in the foreground of the terminal; -1 without a terminal.
    terminal_group: i64,
    /// Processor time.
    ticks: u64,
    priority: i64,
    nice: i64,
    threads: u64,
    /// After the boot.
    started: u64,
    /// Bytes.
    address_space: u64,
    resident_pages: u64,
    processor: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name may contain anything, closing brackets, too.
        let (head, rest) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let signed = |index: usize| fields.get(index)?.parse::<i64>().ok();
        Some(Self {
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            tty: fields.get(4)?.parse().ok()?,
            terminal_group: signed(5)?,
            ticks: number(11)?.saturating_add(number(12)?),
            priority: signed(15)?,
            nice: signed(16)?,
            threads: number(17)?,
            started: number(19)?,
            address_space: number(20)?,
            resident_pages: number(21)?,
            processor: number(36).unwrap_or_default(),
        })
    }
}

/// The name of a terminal by its device number; `None` without one.
fn terminal(tty: i32) -> Option<String> {
    let device = tty.cast_unsigned();
    match (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00) {
        (136..=143, minor) => Some(format!("pts/{minor}")),
        (4, minor) => Some(format!("tty{minor}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name() {
        let text =
            "42 (a) R 9 (b) S 7 42 43 34817 42 0 1 2 3 4 100 50 0 0 20 -5 3 0 777 8192 9 1 2\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.name, "a) R 9 (b");
        assert_eq!((stat.parent, stat.ticks, stat.started), (7, 150, 777));
        assert_eq!((stat.state, stat.group, stat.session), ('S', 42, 43));
        assert_eq!((stat.priority, stat.nice, stat.threads), (20, -5, 3));
        assert_eq!((stat.address_space, stat.resident_pages), (8192, 9));
        assert_eq!(terminal(stat.tty).as_deref(), Some("pts/1"));
        assert_eq!(terminal(0), None);
        assert_eq!(Stat::parse("42 (x"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process() {
        let found = process(std::process::id(), 0).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert_eq!(found.user, rustix::process::geteuid().as_raw());
        assert_eq!(found.arguments, std::env::args().collect::<Vec<_>>());
        assert!(found.threads > 0 && found.resident > 0, "{found:?}");
    }
}
