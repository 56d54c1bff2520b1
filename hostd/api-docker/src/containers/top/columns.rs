//! The columns of ps(1).

use std::collections::BTreeMap;
use std::time::Duration;

use hostd_containers::ProcessInfo;
use jiff::{Timestamp, tz::TimeZone};

/// Bytes of a page, in which `SZ` counts.
const PAGE: u64 = 4096;

/// What rows are shown by beside the processes.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) now: Timestamp,
    /// Bytes of memory.
    pub(super) memory: u64,
    pub(super) users: BTreeMap<u32, String>,
    pub(super) groups: BTreeMap<u32, String>,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    AddressSpace,
    Command,
    Elapsed,
    ElapsedSeconds,
    Group,
    GroupNumber,
    LongStart,
    MemoryShare,
    Name,
    Nice,
    Pages,
    Parent,
    Priority,
    Process,
    ProcessGroup,
    Processor,
    Resident,
    Session,
    Share,
    Start,
    State,
    States,
    Terminal,
    Threads,
    Time,
    TimeOfBsd,
    UserName,
    UserNumber,
    WholeShare,
}

/// Names of columns, their titles, and what they show.
const COLUMNS: &[(&str, &str, Column)] = &[
    ("%cpu", "%CPU", Column::Share),
    ("%mem", "%MEM", Column::MemoryShare),
    ("args", "COMMAND", Column::Command),
    ("bsdtime", "TIME", Column::TimeOfBsd),
    ("c", "C", Column::WholeShare),
    ("cmd", "CMD", Column::Command),
    ("comm", "COMMAND", Column::Name),
    ("command", "COMMAND", Column::Command),
    ("cputime", "TIME", Column::Time),
    ("egid", "EGID", Column::GroupNumber),
    ("egroup", "EGROUP", Column::Group),
    ("etime", "ELAPSED", Column::Elapsed),
    ("etimes", "ELAPSED", Column::ElapsedSeconds),
    ("euid", "EUID", Column::UserNumber),
    ("euser", "EUSER", Column::UserName),
    ("gid", "GID", Column::GroupNumber),
    ("group", "GROUP", Column::Group),
    ("lstart", "STARTED", Column::LongStart),
    ("ni", "NI", Column::Nice),
    ("nice", "NI", Column::Nice),
    ("nlwp", "NLWP", Column::Threads),
    ("pcpu", "%CPU", Column::Share),
    ("pgid", "PGID", Column::ProcessGroup),
    ("pgrp", "PGRP", Column::ProcessGroup),
    ("pid", "PID", Column::Process),
    ("pmem", "%MEM", Column::MemoryShare),
    ("ppid", "PPID", Column::Parent),
    ("pri", "PRI", Column::Priority),
    ("psr", "PSR", Column::Processor),
    ("rss", "RSS", Column::Resident),
    ("rssize", "RSS", Column::Resident),
    ("s", "S", Column::State),
    ("sess", "SESS", Column::Session),
    ("sid", "SID", Column::Session),
    ("start_time", "START", Column::Start),
    ("stat", "STAT", Column::States),
    ("state", "S", Column::State),
    ("stime", "STIME", Column::Start),
    ("sz", "SZ", Column::Pages),
    ("thcount", "THCNT", Column::Threads),
    ("time", "TIME", Column::Time),
    ("tname", "TTY", Column::Terminal),
    ("tt", "TT", Column::Terminal),
    ("tty", "TTY", Column::Terminal),
    ("ucmd", "CMD", Column::Name),
    ("uid", "UID", Column::UserNumber),
    ("uname", "USER", Column::UserName),
    ("user", "USER", Column::UserName),
    ("vsize", "VSZ", Column::AddressSpace),
    ("vsz", "VSZ", Column::AddressSpace),
];

impl Column {
    /// The column of a name; of two titles the first in the list counts.
    pub(super) fn find(name: &str) -> Option<(&'static str, Self)> {
        let found = COLUMNS.iter().find(|(known, ..)| *known == name);
        found.map(|(_, title, column)| (*title, *column))
    }

    /// All names.
    pub(super) fn names() -> String {
        let names: Vec<_> = COLUMNS.iter().map(|(name, ..)| *name).collect();
        names.join(", ")
    }

    /// What it says of a process.
    pub(super) fn show(self, process: &ProcessInfo, host: &Host) -> String {
        let named = |names: &BTreeMap<u32, String>, number: u32| {
            let name = names.get(&number).cloned();
            name.unwrap_or_else(|| number.to_string())
        };
        match self {
            Self::AddressSpace => (process.address_space / 1024).to_string(),
            Self::Command => command(process),
            Self::Elapsed => clock(elapsed(process, host), true),
            Self::ElapsedSeconds => elapsed(process, host).to_string(),
            Self::Group => named(&host.groups, process.user_group),
            Self::GroupNumber => process.user_group.to_string(),
            Self::LongStart => at(process.started, "%a %b %e %H:%M:%S %Y"),
            Self::MemoryShare => tenths(per_mille(process.resident, host.memory)),
            Self::Name => process.name.clone(),
            Self::Nice => process.nice.to_string(),
            Self::Pages => (process.address_space / PAGE).to_string(),
            Self::Parent => process.parent.to_string(),
            // As ps counts it: a higher number is a higher priority.
            Self::Priority => 39_i64.saturating_sub(process.priority).to_string(),
            Self::Process => process.pid.to_string(),
            Self::ProcessGroup => process.group.to_string(),
            Self::Processor => process.processor.to_string(),
            Self::Resident => (process.resident / 1024).to_string(),
            Self::Session => process.session.to_string(),
            Self::Share => tenths(share(process, host)),
            Self::Start => start(process.started, host.now),
            Self::State => process.state.to_string(),
            Self::States => states(process),
            Self::Terminal => process.terminal.clone().unwrap_or_else(|| "?".to_owned()),
            Self::Threads => process.threads.to_string(),
            Self::Time => clock(process.cpu_time.as_secs(), false),
            Self::TimeOfBsd => {
                let seconds = process.cpu_time.as_secs();
                format!("{}:{:02}", seconds / 60, seconds % 60)
            }
            Self::UserName => named(&host.users, process.user),
            Self::UserNumber => process.user.to_string(),
            Self::WholeShare => (share(process, host) / 10).to_string(),
        }
    }
}

fn command(process: &ProcessInfo) -> String {
    match process.arguments.is_empty() {
        true => format!("[{}]", process.name),
        false => process.arguments.join(" "),
    }
}

/// Seconds since it was made.
fn elapsed(process: &ProcessInfo, host: &Host) -> u64 {
    let seconds = host
        .now
        .as_second()
        .saturating_sub(process.started.as_second());
    u64::try_from(seconds).unwrap_or_default()
}

/// Thousandths of a processor that it has used since it was made.
fn share(process: &ProcessInfo, host: &Host) -> u64 {
    let whole = Duration::from_secs(elapsed(process, host)).as_millis();
    let used = process.cpu_time.as_millis();
    per_mille(
        u64::try_from(used).unwrap_or(u64::MAX),
        u64::try_from(whole).unwrap_or(u64::MAX),
    )
}

fn per_mille(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1000)
        .checked_div(whole)
        .unwrap_or_default()
}

fn tenths(per_mille: u64) -> String {
    format!("{}.{}", per_mille / 10, per_mille % 10)
}

/// `[DAYS-]HH:MM:SS`; `brief`: without hours that are none.
fn clock(seconds: u64, brief: bool) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let rest = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) if brief => rest,
        (0, _) => format!("{hours:02}:{rest}"),
        _ => format!("{days}-{hours:02}:{rest}"),
    }
}

fn at(time: Timestamp, format: &str) -> String {
    time.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// The time of today, the day of this year, or the year.
fn start(time: Timestamp, now: Timestamp) -> String {
    let (then, today) = (time.to_zoned(TimeZone::UTC), now.to_zoned(TimeZone::UTC));
    let format = match (then.date() == today.date(), then.year() == today.year()) {
        (true, _) => "%H:%M",
        (false, true) => "%b%d",
        (false, false) => "%Y",
    };
    then.strftime(format).to_string()
}

/// The state, with ps's letters for priority, leader of a session, threads and foreground.
fn states(process: &ProcessInfo) -> String {
    let mut text = String::from(process.state);
    match process.nice {
        ..0 => text.push('<'),
        1.. => text.push('N'),
        0 => {}
    }
    for (letter, holds) in [
        ('s', process.session == process.pid),
        ('l', process.threads > 1),
        ('+', process.in_foreground),
    ] {
        if holds {
            text.push(letter);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> ProcessInfo {
        ProcessInfo {
            pid: 42,
            parent: 7,
            group: 42,
            session: 42,
            user: 33,
            user_group: 34,
            state: 'S',
            in_foreground: true,
            terminal: Some("pts/0".to_owned()),
            priority: 20,
            nice: -1,
            threads: 3,
            processor: 1,
            cpu_time: Duration::from_millis(3_723_500),
            started: Timestamp::from_second(1_000_000).unwrap(),
            address_space: 1 << 20,
            resident: 512 << 10,
            name: "serve".to_owned(),
            arguments: vec!["/bin/serve".to_owned(), "-x".to_owned()],
        }
    }

    #[test]
    fn what_columns_show() {
        let host = Host {
            now: Timestamp::from_second(1_007_447).unwrap(),
            memory: 4 << 20,
            users: BTreeMap::from([(33, "web".to_owned())]),
            groups: BTreeMap::new(),
        };
        let show = |name: &str| Column::find(name).unwrap().1.show(&process(), &host);
        for (name, wanted) in [
            ("pid", "42"),
            ("ppid", "7"),
            ("user", "web"),
            ("uid", "33"),
            ("group", "34"),
            ("stat", "S<sl+"),
            ("tty", "pts/0"),
            ("pcpu", "50.0"),
            ("c", "50"),
            ("pmem", "12.5"),
            ("vsz", "1024"),
            ("sz", "256"),
            ("rss", "512"),
            ("time", "01:02:03"),
            ("bsdtime", "62:03"),
            ("etime", "02:04:07"),
            ("etimes", "7447"),
            ("stime", "13:46"),
            ("lstart", "Mon Jan 12 13:46:40 1970"),
            ("pri", "19"),
            ("comm", "serve"),
            ("args", "/bin/serve -x"),
        ] {
            assert_eq!(show(name), wanted, "{name}");
        }
        let gone = ProcessInfo {
            arguments: Vec::new(),
            ..process()
        };
        let args = Column::find("args").unwrap().1;
        assert_eq!(args.show(&gone, &host), "[serve]");
    }

    #[test]
    fn times_become_shorter_with_distance() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-05-06T12:00:00Z");
        for (time, wanted) in [
            ("2026-05-06T07:08:09Z", "07:08"),
            ("2026-05-05T23:00:00Z", "May05"),
            ("2025-05-06T12:00:00Z", "2025"),
        ] {
            assert_eq!(start(at(time), now), wanted);
        }
        assert_eq!(clock(90_061, false), "1-01:01:01");
        assert_eq!(clock(61, true), "01:01");
    }

    #[test]
    fn names_are_in_order() {
        assert!(COLUMNS.is_sorted_by_key(|(name, ..)| *name));
    }
}
