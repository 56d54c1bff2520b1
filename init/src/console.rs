//! The messages of PID 1: every line goes to the kernel log and to the console.
//!
//! Lines read `keelson: …`, `keelson: warning: …` and `keelson: error: …`; people and tests read
//! them, so their wording is an interface.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

use nix::fcntl::OFlag;

/// Seconds since the kernel started (CLOCK_BOOTTIME).
pub(crate) fn uptime() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Severity in the kernel log, with syslog's numbers. Errors are logged as warnings too: at 3 the
/// kernel would print them on the console a second time (see [`prepare`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Warning = 4,
    Info = 6,
}

/// Facility "daemon" of syslog, so that readers of the kernel log can distinguish us from the
/// kernel.
const FACILITY: u8 = 3;
/// Longest record that /dev/kmsg accepts (LOG_LINE_MAX less the prefix), in bytes.
const LONGEST: usize = 900;

/// A line about a normal event.
pub(crate) fn say(message: &str) {
    emit(Severity::Info, "keelson", message);
}

/// A problem that the machine can work with, but that an operator should examine.
pub(crate) fn warning(message: &str) {
    emit(Severity::Warning, "keelson", &format!("warning: {message}"));
}

/// A failure.
pub(crate) fn error(message: &str) {
    emit(Severity::Warning, "keelson", &format!("error: {message}"));
}

/// A line that a supervised process wrote.
pub(crate) fn relay(process: &str, line: &str) {
    emit(Severity::Info, process, line);
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

fn emit(severity: Severity, source: &str, message: &str) {
    let text = printable(message);
    if let Some(mut log) = sink(&KMSG, "/dev/kmsg") {
        let priority = FACILITY << 3 | severity as u8;
        // One write is one record. A full or absent log must not stop PID 1.
        let _ = log.write_all(format!("<{priority}>{source}: {text}\n").as_bytes());
    }
    if let Some(mut console) = sink(&CONSOLE, "/dev/console") {
        // The console is opened without blocking: a terminal that is not read (or a serial line
        // under flow control) loses lines instead of stopping PID 1.
        let _ = console.write_all(format!("{source}: {text}\n").as_bytes());
    }
}

static KMSG: OnceLock<File> = OnceLock::new();
static CONSOLE: OnceLock<File> = OnceLock::new();

fn sink(cell: &'static OnceLock<File>, path: &str) -> Option<&'static File> {
    if cell.get().is_none() {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
            .open(path)
            .ok()?;
        // This fails only if another thread has set the same file first.
        let _ = cell.set(file);
    }
    cell.get()
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
    fn long_lines_are_cut_at_a_character() {
        let cut = printable(&"ä".repeat(2000));
        assert!(cut.len() <= LONGEST + '…'.len_utf8());
        assert!(cut.ends_with('…'));
    }
}
