//! The end of a boot that can't continue.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::system::RebootCommand;

use crate::cmdline::CommandLine;
use crate::console;

/// Seconds to leave a message on the screen, unless `panic=` says otherwise.
const DELAY: u64 = 10;

/// The value of `keelson.emergency=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emergency {
    /// The default: the boot loader counts attempts and chooses an older deployment.
    Reboot,
    Poweroff,
    Console,
}

fn choice(command_line: &CommandLine) -> Emergency {
    match command_line.value("keelson.emergency") {
        Some("poweroff") => Emergency::Poweroff,
        Some("console") => Emergency::Console,
        _ => Emergency::Reboot,
    }
}

/// Seconds to wait: `panic=` as the kernel reads it, where 0 means forever and a negative number
/// at once.
fn delay(command_line: &CommandLine) -> Option<Duration> {
    match command_line.value("panic").map(str::parse::<i64>) {
        Some(Ok(0)) => None,
        Some(Ok(seconds)) => Some(Duration::from_secs(seconds.try_into().unwrap_or(0))),
        Some(Err(_)) | None => Some(Duration::from_secs(DELAY)),
    }
}

/// Ends the machine as the command line says. The message was printed before.
pub(crate) fn end(command_line: &CommandLine) -> ! {
    let choice = choice(command_line);
    if choice == Emergency::Console {
        shell();
    }
    let (word, command) = match choice {
        Emergency::Poweroff => ("powering off", RebootCommand::PowerOff),
        Emergency::Reboot | Emergency::Console => ("rebooting", RebootCommand::Restart),
    };
    match delay(command_line) {
        Some(wait) => {
            console::say(&format!("{word} in {} s", wait.as_secs()));
            std::thread::sleep(wait);
        }
        None => {
            console::say("stopped here because of panic=0");
            loop {
                std::thread::park();
            }
        }
    }
    now(command)
}

/// Ends the machine at once, after a sync.
pub(crate) fn now(command: RebootCommand) -> ! {
    rustix::fs::sync();
    without_sync(command)
}

/// Ends the machine at once.
pub(crate) fn without_sync(command: RebootCommand) -> ! {
    // Returns only with an error: CAP_SYS_BOOT is missing or the command is unknown.
    let _ = rustix::system::reboot(command);
    loop {
        std::thread::park();
    }
}

fn shell() {
    let Some(program) = ["/bin/sh", "/usr/bin/sh", "/bin/busybox"]
        .into_iter()
        .find(|program| Path::new(program).exists())
    else {
        console::error("no shell for keelson.emergency=console");
        return;
    };
    let open = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/console")
    };
    let (Ok(input), Ok(output), Ok(errors)) = (open(), open(), open()) else {
        console::error("open /dev/console for the emergency shell");
        return;
    };
    console::say(&format!("emergency shell {program}; leave it to reboot"));
    let status = Command::new(program)
        .arg0("sh")
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .status();
    if let Err(error) = status {
        console::error(&format!("run {program}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_chooses() {
        let line = |text: &str| CommandLine::parse(text.as_bytes());
        assert_eq!(choice(&line("")), Emergency::Reboot);
        assert_eq!(
            choice(&line("keelson.emergency=poweroff")),
            Emergency::Poweroff
        );
        assert_eq!(
            choice(&line("keelson.emergency=console")),
            Emergency::Console
        );
        assert_eq!(choice(&line("keelson.emergency=what")), Emergency::Reboot);
    }

    #[test]
    fn panic_has_the_kernels_meaning() {
        let line = |text: &str| delay(&CommandLine::parse(text.as_bytes()));
        assert_eq!(line(""), Some(Duration::from_secs(10)));
        assert_eq!(line("panic=3"), Some(Duration::from_secs(3)));
        assert_eq!(line("panic=-1"), Some(Duration::ZERO));
        assert_eq!(line("panic=0"), None);
        assert_eq!(line("panic=x"), Some(Duration::from_secs(10)));
    }
}
