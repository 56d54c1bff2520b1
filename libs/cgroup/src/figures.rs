//! What the kernel counts for a cgroup and for the machine, from the bytes of its files. Nothing
//! here does I/O. Unknown lines are skipped, because newer kernels write more.

use std::time::Duration;

mod memory;

pub use memory::MemoryDetails;

/// A value that may be `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most this much.
    Of(u64),
    /// No limit.
    Unlimited,
}

/// `cpu.stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuFigures {
    /// Processor time of all processes, those that have ended included.
    pub usage: Duration,
    /// The part of it in user mode.
    pub user: Duration,
    /// The part of it in the kernel.
    pub system: Duration,
    /// Periods in which the limit applied.
    pub periods: u64,
    /// Periods in which the limit was reached.
    pub throttled_periods: u64,
    /// How long processes had to wait for the limit.
    pub throttled: Duration,
}

/// `memory.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFigures {
    /// Bytes in use, including cached files.
    pub current: u64,
    /// The limit in bytes.
    pub limit: Limit,
    /// How often the limit was reached and nothing could be freed.
    pub out_of_memory: u64,
    /// What the memory is used for.
    pub details: MemoryDetails,
}

/// `pids.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidsFigures {
    /// Processes and threads.
    pub current: u64,
    /// The limit.
    pub limit: Limit,
}

/// A device in `io.stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceFigures {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// The processors of the machine, from `/proc/stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessorFigures {
    /// Time of all processors since the boot, idle time included.
    pub time: Duration,
    /// Processors online.
    pub online: u32,
}

/// Parses lines of a name and a number.
fn pairs(text: &[u8]) -> impl Iterator<Item = (&str, u64)> {
    lines(text).filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| str::from_utf8(line).ok())
}

/// Parses a file with a single number; `None` if it has none.
pub fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Parses the value of `memory.max`, `pids.max` and similar files.
pub fn limit(text: &[u8]) -> Option<Limit> {
    match text.trim_ascii() {
        b"max" => Some(Limit::Unlimited),
        text => number(text).map(Limit::Of),
    }
}

/// The value of a name in a file such as `memory.events`; 0 when it has none.
pub fn value(text: &[u8], name: &str) -> u64 {
    pairs(text)
        .find_map(|(found, value)| (found == name).then_some(value))
        .unwrap_or_default()
}

impl CpuFigures {
    /// Parses `cpu.stat`. Without the controller it has only the times.
    pub fn parse(text: &[u8]) -> Self {
        let mut figures = Self::default();
        for (name, value) in pairs(text) {
            let time = Duration::from_micros(value);
            match name {
                "usage_usec" => figures.usage = time,
                "user_usec" => figures.user = time,
                "system_usec" => figures.system = time,
                "nr_periods" => figures.periods = value,
                "nr_throttled" => figures.throttled_periods = value,
                "throttled_usec" => figures.throttled = time,
                _ => {}
            }
        }
        figures
    }
}

impl DeviceFigures {
    /// Parses `io.stat`. Devices without figures are left out. Some kernels omit the end of a line,
    /// so a device begins at its numbers.
    pub fn parse_all(text: &[u8]) -> Vec<Self> {
        let mut devices: Vec<Self> = Vec::new();
        let mut device = None;
        let words = lines(text).flat_map(str::split_ascii_whitespace);
        for word in words {
            if let Some((name, value)) = word.split_once('=') {
                let Some((major, minor)) = device else {
                    continue;
                };
                let same = |last: &Self| (last.major, last.minor) == (major, minor);
                if !devices.last().is_some_and(same) {
                    devices.push(Self {
                        major,
                        minor,
                        read: 0,
                        written: 0,
                    });
                }
                if let (Some(last), Ok(value)) = (devices.last_mut(), value.parse()) {
                    match name {
                        "rbytes" => last.read = value,
                        "wbytes" => last.written = value,
                        _ => {}
                    }
                }
            } else {
                let numbers = word.split_once(':');
                device =
                    numbers.and_then(|(major, minor)| major.parse().ok().zip(minor.parse().ok()));
            }
        }
        devices
    }
}

impl ProcessorFigures {
    /// Reads `/proc/stat`; `ticks` is the number of its units in a second.
    pub fn parse(text: &[u8], ticks: u64) -> Self {
        /// Columns that add up to the passed time. The later columns are parts of these.
        const COLUMNS: usize = 7;
        let mut figures = Self::default();
        for line in lines(text) {
            let Some((name, rest)) = line.split_once(' ') else {
                continue;
            };
            match name.strip_prefix("cpu") {
                Some("") => {
                    let columns = rest.split_ascii_whitespace().take(COLUMNS);
                    let sum = columns
                        .map_while(|column| column.parse::<u64>().ok())
                        .fold(0, u64::saturating_add);
                    let ticks = ticks.max(1);
                    let rest = (sum % ticks).saturating_mul(1_000_000_000) / ticks;
                    figures.time =
                        Duration::from_secs(sum / ticks).saturating_add(Duration::from_nanos(rest));
                }
                Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                    figures.online = figures.online.saturating_add(1);
                }
                _ => {}
            }
        }
        figures
    }
}

#[cfg(test)]
mod tests;
