//! Finds and executes the container's command.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::AsFd;

use keelson_shim_protocol::FailReason;
use nix::errno::Errno;
use rustix::fs::{Access, AtFlags, CWD, FileType};

use crate::failure::Failure;
use crate::spec::Process;

/// A command ready for execve(2).
#[derive(Debug)]
pub(crate) struct Command {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// The directories that are searched if the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds the command in the container's root, as the container's user, relative to the working
/// directory. Call it when root, user and directory are set.
pub(crate) fn prepare(process: &Process) -> Result<Command, Failure> {
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let path = find(name, &process.env)?;
    let mut environment = Vec::with_capacity(process.env.len() + 1);
    for entry in last_of_each(&process.env) {
        environment.push(string(entry)?);
    }
    let given = process.env.iter().rev();
    let home = given.filter_map(|entry| entry.strip_prefix("HOME=")).next();
    if home.is_none_or(str::is_empty) {
        environment.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
        environment.push(string(format!("HOME={}", home_of(process.user.uid)))?);
    }
    Ok(Command {
        path: string(path)?,
        arguments: strings(&process.args)?,
        environment,
    })
}

/// The environment with each variable once. If a variable is listed several times, most programs
/// take the first value, but callers mean the last.
fn last_of_each(environment: &[String]) -> Vec<&str> {
    let mut known = BTreeSet::new();
    let backwards = environment.iter().rev().map(String::as_str);
    let mut kept: Vec<&str> = backwards
        .filter(|entry| known.insert(entry.split('=').next()))
        .collect();
    kept.reverse();
    kept
}

impl Command {
    /// The command's environment.
    pub(crate) fn environment(&self) -> Vec<String> {
        let entries = self.environment.iter();
        entries
            .map(|entry| entry.to_string_lossy().into_owned())
            .collect()
    }

    /// Executes the command. Returns only when that fails.
    pub(crate) fn execute(&self) -> Failure {
        let Err(errno) = nix::unistd::execve(&self.path, &self.arguments, &self.environment);
        let name = self.path.to_string_lossy();
        let (reason, text) = match errno {
            Errno::ENOENT | Errno::ENOTDIR => (FailReason::NotFound, "no such file or directory"),
            Errno::EACCES | Errno::EPERM => (FailReason::NotExecutable, "permission denied"),
            Errno::ENOEXEC => (FailReason::NotExecutable, "exec format error"),
            other => (FailReason::NotExecutable, other.desc()),
        };
        Failure::command(reason, format!("exec {name}: {text}"))
    }
}

fn find(name: &str, environment: &[String]) -> Result<String, Failure> {
    if name.contains('/') {
        check(name).map_err(|error| match error {
            Errno::ENOENT | Errno::ENOTDIR => Failure::command(
                FailReason::NotFound,
                format!("exec: {name:?}: stat {name}: no such file or directory"),
            ),
            Errno::EISDIR => Failure::command(
                FailReason::NotExecutable,
                // Engines look for both of these phrases to recognise this failure.
                format!("exec: {name:?}: is a directory: permission denied"),
            ),
            Errno::EACCES => Failure::command(
                FailReason::NotExecutable,
                format!("exec: {name:?}: permission denied"),
            ),
            other => Failure::command(
                FailReason::NotExecutable,
                format!("exec: {name:?}: {}", other.desc()),
            ),
        })?;
        return Ok(name.to_owned());
    }
    let path = environment
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for directory in path.split(':') {
        // An empty element means the working directory.
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
        match check(&candidate) {
            Ok(()) if !name.is_empty() => return Ok(candidate),
            Err(Errno::EACCES) => denied = true,
            _ => {}
        }
    }
    Err(if denied {
        Failure::command(
            FailReason::NotExecutable,
            format!("exec: {name:?}: permission denied"),
        )
    } else {
        Failure::command(
            FailReason::NotFound,
            format!("exec: {name:?}: executable file not found in $PATH"),
        )
    })
}

/// Whether a path is a file that the process may execute.
fn check(path: &str) -> Result<(), Errno> {
    let raw = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    let status = rustix::fs::stat(path).map_err(raw)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        return Err(Errno::EISDIR);
    }
    rustix::fs::accessat(CWD.as_fd(), path, Access::EXEC_OK, AtFlags::EACCESS).map_err(raw)
}

/// The home directory of a user by the container's /etc/passwd.
fn home_of(uid: u32) -> String {
    const LONGEST: u64 = 1 << 20;
    let Ok(file) = std::fs::File::open("/etc/passwd") else {
        return "/".to_owned();
    };
    let mut text = Vec::new();
    let _ = std::io::Read::read_to_end(&mut std::io::Read::take(file, LONGEST), &mut text);
    home_in(&String::from_utf8_lossy(&text), uid)
}

fn home_in(passwd: &str, uid: u32) -> String {
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let found: u32 = fields.nth(2)?.parse().ok()?;
            let home = fields.nth(2)?;
            (found == uid && !home.is_empty()).then(|| home.to_owned())
        })
        .unwrap_or_else(|| "/".to_owned())
}

fn strings(list: &[String]) -> Result<Vec<CString>, Failure> {
    list.iter().map(|text| string(text.as_str())).collect()
}

fn string(text: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::invalid("process: a string contains a zero byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:\n";
        assert_eq!(home_in(passwd, 0), "/root");
        assert_eq!(home_in(passwd, 1000), "/home/ann");
        assert_eq!(home_in(passwd, 7), "/");
    }

    #[test]
    fn the_last_of_a_variables_values_counts() {
        let given = ["A=1", "B=2", "A=3", "A=4", "AB=", "odd"].map(str::to_owned);
        assert_eq!(last_of_each(&given), ["B=2", "A=4", "AB=", "odd"]);
    }

    #[test]
    fn commands_are_found_in_the_path() {
        let environment = ["PATH=/nowhere:/bin".to_owned()];
        assert_eq!(find("sh", &environment).unwrap(), "/bin/sh");
        let missing = find("no-such-command", &environment).unwrap_err();
        assert_eq!(missing.reason, FailReason::NotFound);
        assert!(
            missing
                .message
                .contains("executable file not found in $PATH")
        );
        assert_eq!(
            find("/etc", &environment).unwrap_err().reason,
            FailReason::NotExecutable
        );
        assert_eq!(
            find("/etc/passwd", &environment).unwrap_err().reason,
            FailReason::NotExecutable
        );
        assert_eq!(
            find("", &environment).unwrap_err().reason,
            FailReason::NotFound
        );
    }
}
