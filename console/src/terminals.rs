//! Logins on the machine's consoles.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::termios::isatty;

/// The kernel's list of consoles.
const ACTIVE: &str = "/sys/class/tty/console/active";
/// A login that ended sooner is a failure, and the next one waits.
const SHORT: Duration = Duration::from_secs(1);
/// Longest pause between two of them.
const LONGEST: Duration = Duration::from_secs(60);

/// The names of the consoles on which people can log in.
pub(crate) fn active() -> Vec<String> {
    let text = fs::read_to_string(ACTIVE).unwrap_or_default();
    let names = names(&text).into_iter();
    names.filter(|name| is_terminal(name)).collect()
}

/// `tty0` is whichever virtual console is shown; people log in on the first.
fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split_whitespace() {
        let name = if name == "tty0" { "tty1" } else { name };
        if name.bytes().all(|b| b.is_ascii_alphanumeric()) && !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Whether it answers like a terminal. A port that the machine does not have does not.
fn is_terminal(name: &str) -> bool {
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/dev/{name}"));
    opened.is_ok_and(isatty)
}

/// Offers logins on a console, one after another, for ever.
pub(crate) fn serve(name: String) {
    thread::spawn(move || {
        let mut pause = SHORT;
        loop {
            let begin = Instant::now();
            let terminal = if name.starts_with("tty1") {
                "linux"
            } else {
                "vt220"
            };
            // Only the leader of a session can get a terminal of its own.
            let mut command = Command::new("/usr/bin/setsid");
            command.args(["--wait", "/sbin/agetty", "--noclear", "--keep-baud"]);
            command.arg("115200,57600,38400,9600");
            if let Err(error) = command.args([&name, terminal]).status() {
                eprintln!("console: no login on {name}: {error}");
            }
            pause = match begin.elapsed() < SHORT {
                true => (pause * 2).min(LONGEST),
                false => SHORT,
            };
            thread::sleep(pause);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_named_once() {
        assert_eq!(
            names("tty0 ttyS0 tty1 ../x hvc0\n"),
            ["tty1", "ttyS0", "hvc0"]
        );
        assert!(names("").is_empty());
    }
}
