//! Parses `/proc/PID/stat`.

use rustix::fs::{Mode, OFlags};

/// A process, perhaps one that has ended and was not reaped yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Whether it has ended and only waits to be reaped.
    pub(crate) ended: bool,
    /// Whether it is a copy of another process that has not executed a program since.
    pub(crate) never_executed: bool,
    /// When it was started, in clock ticks since boot.
    pub(crate) start: u64,
}

/// `PF_FORKNOEXEC` of the kernel. A process keeps the flag when it ends. So the flag shows whether
/// a process that was killed had executed its command.
const FORKNOEXEC: u32 = 0x40;

impl Stat {
    /// Reads the line. `None`: there is no such process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(format!("/proc/{pid}/stat"), flags, Mode::empty()).ok()?;
        // The kernel returns the line in one piece: 52 numbers and a name of 64 bytes at most.
        let mut buffer = [0; 2048];
        let length = rustix::io::read(&file, &mut buffer).ok()?;
        Self::parse(&String::from_utf8_lossy(buffer.get(..length)?))
    }

    fn parse(line: &str) -> Option<Self> {
        // The name in parentheses may contain anything.
        let mut fields = line.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let flags: u32 = fields.nth(5)?.parse().ok()?;
        Some(Self {
            ended: matches!(state, "Z" | "X"),
            never_executed: flags & FORKNOEXEC != 0,
            start: fields.nth(12)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_read_whatever_the_name_is() {
        let line = "7 (a ) Z 1) S 1 7 7 0 -1 4194368 10 0 0 0 1 2 0 0 20 0 1 0 4711 99 9\n";
        let stat = Stat {
            ended: false,
            never_executed: true,
            start: 4711,
        };
        assert_eq!(Stat::parse(line), Some(stat));
        let line = line.replace(") S", ") Z").replace("4194368", "4194304");
        let ended = Stat {
            ended: true,
            never_executed: false,
            ..stat
        };
        assert_eq!(Stat::parse(&line), Some(ended));
        assert_eq!(Stat::parse("7 (x) S 1"), None);
    }

    #[test]
    fn the_own_process_has_executed_its_program() {
        let stat = Stat::of(std::process::id() as i32).unwrap();
        assert!(stat.start > 0 && !stat.never_executed && !stat.ended);
        assert_eq!(Stat::of(i32::MAX), None);
    }
}
