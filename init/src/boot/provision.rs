//! What the platform says about this machine: read by `keelson-provision`, before the network and,
//! if needed, after it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use keelson_model::init::{CONTROL_SOCKET, Request, Response};
use keelson_model::provision::{EXIT_CHANGED, EXIT_NETWORK_WANTED};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{configuration, program};
use crate::cmdline::CommandLine;
use crate::console;

/// The program.
const PROVISION: &str = "/usr/bin/keelson-provision";
/// First argument of the process that does what needs the network.
pub(crate) const HELPER_NETWORK: &str = "provision-network";
/// How long the local phase may take. Only broken disks take long.
const LOCAL_LIMIT: Duration = Duration::from_secs(20);
/// How long the network phase may take. It has a shorter limit of its own.
const NETWORK_LIMIT: Duration = Duration::from_secs(180);
/// How long PID 1 may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The phase before the network, and before the configuration is merged, of which its result is a
/// layer. If the network is needed, a process is started that waits for it; the boot does not.
pub(super) fn local() -> Vec<String> {
    match phase("local", LOCAL_LIMIT) {
        Ok(0) => Vec::new(),
        Ok(EXIT_NETWORK_WANTED) => start_network(),
        Ok(code) => vec![format!("{PROVISION} local ends with {code}")],
        Err(problem) => vec![problem.to_string()],
    }
}

fn phase(name: &str, limit: Duration) -> Result<i32, program::ProgramError> {
    let status = program::run(Command::new(PROVISION).arg(name), limit)?;
    Ok(status.code().unwrap_or(-1))
}

/// Starts [`network`] in a process of its own, which PID 1 only reaps.
fn start_network() -> Vec<String> {
    Command::new(crate::PROGRAM)
        .arg(HELPER_NETWORK)
        .stdin(Stdio::null())
        .spawn()
        .err()
        .map(|error| format!("execute {} {HELPER_NETWORK}: {error}", crate::PROGRAM))
        .into_iter()
        .collect()
}

/// The phase after the network. It tries until a server answers, so it needs no word from netcfg.
/// Puts into effect what it brings. Returns the number of problems; each is printed.
pub(crate) fn network() -> usize {
    let started = console::uptime();
    let problems = match phase("network", NETWORK_LIMIT) {
        Ok(0) => Vec::new(),
        Ok(EXIT_CHANGED) => {
            let (config, mut problems) = configuration::apply();
            problems.extend(configuration::apply_storage(&CommandLine::read(), &config));
            if let Err(error) = tell_netcfg() {
                problems.push(format!("netcfg does not know of the change: {error}"));
            }
            let took = console::uptime() - started;
            console::say(&format!(
                "provision: the network's documents are in effect after {took:.1} s"
            ));
            problems
        }
        Ok(code) => vec![format!("{PROVISION} network ends with {code}")],
        Err(problem) => vec![problem.to_string()],
    };
    for problem in &problems {
        console::warning(&format!("provision: {problem}"));
    }
    problems.len()
}

/// netcfg reads its configuration again at SIGHUP. PID 1 knows which process it is.
fn tell_netcfg() -> io::Result<()> {
    let stream = UnixStream::connect(CONTROL_SOCKET)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut request = serde_json::to_vec(&Request::Status)?;
    request.push(b'\n');
    (&stream).write_all(&request)?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    let Response::Status(status) = serde_json::from_str(&answer)? else {
        return Err(io::Error::other(
            "init gives another answer than its status",
        ));
    };
    // One that starts later reads the new configuration anyway.
    let netcfg = status
        .processes
        .iter()
        .find(|process| process.name == "netcfg");
    match netcfg.and_then(|process| process.pid) {
        Some(pid) => Ok(kill(Pid::from_raw(pid), Signal::SIGHUP)?),
        None => Ok(()),
    }
}
