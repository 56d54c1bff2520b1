//! The messages of PID 1: every line goes to the kernel log and to every console of the kernel.
//! `/dev/console` alone would be the last one on the command line: on a machine whose screen comes
//! before its serial port, the screen would stay dark.
//!
//! Lines read `keelson: …`, `keelson: warning: …` and `keelson: error: …`; people and tests read
//! them, so their wording is an interface.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, OnceLock, TryLockError};

use keelson_model::logs::LogPriority;
use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Seconds since the kernel started (CLOCK_BOOTTIME).
pub(crate) fn uptime() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// The most urgent severity in the kernel log: at *error* the kernel would print a record on the
/// console a second time (see [`prepare`]). So errors say in their text that they are some.
const MOST_URGENT: LogPriority = LogPriority::Warning;

/// Facility "daemon" of syslog, so that readers of the kernel log can distinguish us from the
/// kernel.
const FACILITY: u8 = 3;
/// Longest record that /dev/kmsg accepts (LOG_LINE_MAX less the prefix), in bytes.
const LONGEST: usize = 900;

/// A line about a normal event.
pub(crate) fn say(message: &str) {
    emit(LogPriority::Info, "keelson", message);
}

/// A problem that the machine can work with, but that an operator should examine.
pub(crate) fn warning(message: &str) {
    emit(LogPriority::Warning, "keelson", message);
}

/// A failure.
pub(crate) fn error(message: &str) {
    emit(LogPriority::Error, "keelson", message);
}

/// A line that a supervised process wrote.
pub(crate) fn relay(process: &str, priority: LogPriority, line: &str) {
    emit(priority, process, line);
}

/// Keeps the kernel's own messages off the console: a serial line is slow, and the boot would wait
/// for it. `debug`, `loglevel=` or `ignore_loglevel` on the command line have priority. Also
/// removes the kernel's limit of ten records in five seconds for writers to /dev/kmsg.
pub(crate) fn prepare(command_line: &crate::cmdline::CommandLine) {
    // Both are conveniences: a kernel that refuses them still boots.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let asked = ["debug", "loglevel", "ignore_loglevel"]
        .iter()
        .any(|name| command_line.has(name));
    if !asked {
        let _ = std::fs::write("/proc/sys/kernel/printk", "4\n");
    }
}

fn emit(priority: LogPriority, source: &str, message: &str) {
    let text = format!("{}{}", word(priority), printable(message));
    if let Some(mut log) = sink(&KMSG, "/dev/kmsg") {
        let priority = FACILITY << 3 | priority.max(MOST_URGENT).number();
        // One write is one record. A full or absent log must not stop PID 1.
        let _ = log.write_all(format!("<{priority}>{source}: {text}\n").as_bytes());
    }
    let line = format!("{source}: {text}\n");
    write_to_consoles(line.as_bytes());
}

/// What a problem's line begins with.
fn word(priority: LogPriority) -> &'static str {
    match priority {
        LogPriority::Warning => "warning: ",
        problem if problem < LogPriority::Warning => "error: ",
        _ => "",
    }
}

static KMSG: OnceLock<File> = OnceLock::new();
static CONSOLES: Mutex<Option<Vec<Console>>> = Mutex::new(None);
/// Serves until the kernel's list of consoles can be read.
static FIRST: OnceLock<File> = OnceLock::new();

/// The consoles that the kernel writes to (`Documentation/ABI/testing/sysfs-tty`), read once.
const ACTIVE: &str = "/sys/class/tty/console/active";

/// A console that the kernel writes to.
struct Console {
    path: String,
    file: File,
}

impl Console {
    fn open(path: String) -> Option<Self> {
        let file = open(&path).ok()?;
        Some(Self { path, file })
    }

    /// Consoles are opened without blocking: a terminal that is not read (or a serial line under flow
    /// control) loses lines instead of stopping PID 1.
    fn write(&mut self, line: &[u8]) {
        let Err(error) = self.file.write_all(line) else {
            return;
        };
        // The end of a login hangs its terminal up, for all who had opened it before.
        if error.raw_os_error() == Some(Errno::EIO as i32)
            && let Ok(file) = open(&self.path)
        {
            self.file = file;
            let _ = self.file.write_all(line);
        }
    }
}

fn write_to_consoles(line: &[u8]) {
    let mut consoles = match CONSOLES.try_lock() {
        Ok(consoles) => consoles,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        // A panic while a line was written: the message about it is in the kernel log.
        Err(TryLockError::WouldBlock) => return,
    };
    if consoles.is_none()
        && let Ok(active) = std::fs::read_to_string(ACTIVE)
    {
        *consoles = Some(nodes(&active).filter_map(Console::open).collect());
    }
    match consoles.as_mut() {
        Some(consoles) if !consoles.is_empty() => {
            for console in consoles {
                console.write(line);
            }
        }
        _ => {
            if let Some(mut first) = sink(&FIRST, "/dev/console") {
                let _ = first.write_all(line);
            }
        }
    }
}

/// The device nodes for the content of [`ACTIVE`]: names separated by blanks.
fn nodes(active: &str) -> impl Iterator<Item = String> {
    active
        .split_whitespace()
        .filter(|name| !name.contains('/') && *name != "..")
        .map(|name| format!("/dev/{name}"))
}

fn sink(cell: &'static OnceLock<File>, path: &str) -> Option<&'static File> {
    if cell.get().is_none() {
        let _ = cell.set(open(path).ok()?);
    }
    cell.get()
}

fn open(path: &str) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)
}

/// Bounds a line and replaces control characters: process output must not be able to move the
/// cursor or to fake a second record.
fn printable(message: &str) -> String {
    let mut text = String::with_capacity(message.len().min(LONGEST));
    for character in message.chars() {
        if text.len() + character.len_utf8() > LONGEST {
            text.push('…');
            break;
        }
        text.push(if character.is_control() && character != '\t' {
            ' '
        } else {
            character
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_console() {
        assert_eq!(printable("a\x1b[2Jb\nkeelson: x"), "a [2Jb keelson: x");
    }

    #[test]
    fn every_active_console_has_a_node() {
        let all = |active| Vec::from_iter(nodes(active));
        assert_eq!(all("tty0 ttyS0\n"), ["/dev/tty0", "/dev/ttyS0"]);
        assert!(all("\n").is_empty());
        assert!(all("../sda").is_empty());
    }

    #[test]
    fn problems_say_that_they_are_some() {
        let words = LogPriority::ALL.map(word);
        assert_eq!(words[..4], ["error: "; 4]);
        assert_eq!(words[4..], ["warning: ", "", "", ""]);
    }

    #[test]
    fn long_lines_are_cut_at_a_character() {
        let cut = printable(&"ä".repeat(2000));
        assert!(cut.len() <= LONGEST + '…'.len_utf8());
        assert!(cut.ends_with('…'));
    }
}
