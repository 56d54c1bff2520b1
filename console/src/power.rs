//! `reboot`, `poweroff`, `halt` and `shutdown`, which stop the machine and not the console.

use std::process::{Command, ExitCode};

use crate::error::ConsoleError;

/// What is asked of hostctl.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    action: &'static str,
    force: bool,
    /// Seconds from now.
    delay: u64,
}

pub(crate) fn run(name: &str, words: &[String]) -> Result<ExitCode, ConsoleError> {
    let wanted = parse(name, words)?;
    if wanted.delay > 0 {
        eprintln!(
            "{name}: in {} minutes; Ctrl-C takes it back",
            wanted.delay / 60
        );
        std::thread::sleep(std::time::Duration::from_secs(wanted.delay));
    }
    let mut command = Command::new("/usr/bin/hostctl");
    command.arg(wanted.action);
    if wanted.force {
        command.arg("--force");
    }
    let program = "hostctl";
    let ended = command
        .status()
        .map_err(|source| ConsoleError::Execute { program, source })?;
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

fn parse(name: &str, words: &[String]) -> Result<Wanted, ConsoleError> {
    let mut wanted = Wanted {
        action: match name {
            "reboot" => "reboot",
            "halt" => "halt",
            _ => "poweroff",
        },
        force: false,
        delay: 0,
    };
    let shutdown = name == "shutdown";
    if shutdown {
        // As shutdown(8) of systemd.
        wanted.delay = 60;
    }
    for word in words {
        match word.as_str() {
            "-f" | "--force" if !shutdown => wanted.force = true,
            "-r" | "--reboot" => wanted.action = "reboot",
            "-h" | "-P" | "-p" | "--poweroff" => wanted.action = "poweroff",
            "-H" | "--halt" => wanted.action = "halt",
            "now" if shutdown => wanted.delay = 0,
            time if shutdown && time.starts_with('+') => {
                let minutes: u64 = time.trim_start_matches('+').parse().unwrap_or(u64::MAX);
                if minutes > 24 * 60 {
                    return Err(ConsoleError::Usage(format!(
                        "{time}: use now, or + and minutes up to a day, such as +5"
                    )));
                }
                wanted.delay = minutes * 60;
            }
            // A message to people who are logged in.
            text if shutdown && wanted.delay != 60 && !text.starts_with('-') => {}
            other => {
                return Err(ConsoleError::Usage(format!(
                    "{other}: not known here; use -r, -P, -H, -f, now, +minutes, or hostctl power"
                )));
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<(&'static str, bool, u64)> {
        let mut words = line.split(' ').map(str::to_owned);
        let name = words.next().unwrap();
        let words: Vec<String> = words.collect();
        let wanted = parse(&name, &words).ok()?;
        Some((wanted.action, wanted.force, wanted.delay))
    }

    #[test]
    fn command_lines_are_understood() {
        for (line, wanted) in [
            ("reboot", ("reboot", false, 0)),
            ("reboot -f", ("reboot", true, 0)),
            ("poweroff", ("poweroff", false, 0)),
            ("halt", ("halt", false, 0)),
            ("halt -p", ("poweroff", false, 0)),
            ("shutdown now", ("poweroff", false, 0)),
            ("shutdown -r now", ("reboot", false, 0)),
            ("shutdown -h +5 good night", ("poweroff", false, 300)),
            ("shutdown", ("poweroff", false, 60)),
        ] {
            assert_eq!(of(line), Some(wanted), "{line}");
        }
        for line in [
            "reboot --later",
            "shutdown -c",
            "shutdown +x",
            "shutdown 12:00",
        ] {
            assert!(of(line).is_none(), "{line}");
        }
    }
}
