//! Machines that outlive the program that started them: the file that describes them, and how
//! another process stops them without ever stopping a wrong process.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::error::HarnessError;
use super::process::wait_readable;
use super::provision::{Credentials, write_private};
use super::qmp::Qmp;
use super::spec::{API_PORT, Forward};

/// Version of the state file.
pub(crate) const VERSION: u32 = 1;
/// How long QEMU may take to end after `quit`.
const END_LIMIT: Duration = Duration::from_secs(15);

/// The state file of a detached machine (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineState {
    /// Version of this format; 1.
    pub version: u32,
    /// The machine's name.
    pub name: String,
    /// QEMU's process identifier.
    pub pid: u32,
    /// When that process started, in clock ticks since the boot (proc(5), `stat` field 22). It
    /// shows whether the process identifier was reused.
    pub start_time: u64,
    /// The machine's directory.
    pub dir: PathBuf,
    /// QEMU's monitor.
    pub qmp_socket: PathBuf,
    /// The serial console; QEMU serves one client at a time.
    pub console_socket: PathBuf,
    /// What the console has shown.
    pub console_log: PathBuf,
    /// Directory with `ca.pem`, `cert.pem` and `key.pem`.
    pub credentials: Option<PathBuf>,
    /// Ports on 127.0.0.1.
    pub forwards: Vec<Forward>,
    /// When QEMU was started: seconds since 1970.
    pub started_at: u64,
}

impl MachineState {
    /// Writes the file, replacing an older one as a whole.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), HarnessError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| HarnessError::io("encode", path)(io::Error::other(e)))?;
        write_private(path, &text)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if state.version != VERSION {
            return Err(format!(
                "has version {}, this program reads {VERSION}",
                state.version
            ));
        }
        Ok(state)
    }

    /// The port on 127.0.0.1 that leads to the APIs.
    #[must_use]
    pub fn api_port(&self) -> Option<u16> {
        let forward = self.forwards.iter().find(|f| f.guest == API_PORT)?;
        Some(forward.host)
    }
}

/// How a detached machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Its operating system powered off after the power button was pressed.
    Orderly,
    /// QEMU was asked to end, since the operating system did not power off in time.
    Quit,
    /// QEMU was killed.
    Killed,
    /// It had ended before.
    NotRunning,
}

/// A machine that another process started.
#[derive(Debug)]
pub struct DetachedMachine {
    state: MachineState,
    /// A handle of the process that the file names; `None` if it is gone.
    process: Option<OwnedFd>,
}

impl DetachedMachine {
    /// Reads a state file; `None` when there is none.
    ///
    /// # Errors
    /// The file can't be read or is of another version.
    pub fn open(state_file: &Path) -> Result<Option<Self>, HarnessError> {
        let text = match fs::read(state_file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(HarnessError::io("read", state_file)(e)),
        };
        let state = MachineState::parse(&text)
            .map_err(|e| HarnessError::io("read", state_file)(io::Error::other(e)))?;
        let process = identify(state.pid, state.start_time);
        Ok(Some(Self { state, process }))
    }

    /// The content of the file.
    #[must_use]
    pub fn state(&self) -> &MachineState {
        &self.state
    }

    /// The client's credentials, if the machine gave any.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        let dir = self.state.credentials.clone()?;
        Some(Credentials { dir })
    }

    /// Whether QEMU still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| !wait_readable(process, Duration::ZERO))
    }

    /// A connection to QEMU's monitor.
    ///
    /// # Errors
    /// QEMU does not answer there.
    pub fn qmp(&self) -> Result<Qmp, HarnessError> {
        let path = &self.state.qmp_socket;
        let stream = connect(path).map_err(HarnessError::io("connect to", path))?;
        Qmp::new(stream).map_err(|source| HarnessError::Qmp {
            machine: self.state.name.clone(),
            source,
        })
    }

    /// Presses the power button and waits up to `limit` for an orderly end; then ends QEMU.
    ///
    /// # Errors
    /// QEMU survives SIGKILL for 15 seconds.
    pub fn stop(&self, limit: Duration) -> Result<Stopped, HarnessError> {
        if !self.is_running() {
            return Ok(Stopped::NotRunning);
        }
        if self.press_power_button().is_ok() && self.ended(limit) {
            return Ok(Stopped::Orderly);
        }
        self.end_now()
    }

    /// Ends QEMU at once.
    ///
    /// # Errors
    /// QEMU survives SIGKILL for 15 seconds.
    pub fn end_now(&self) -> Result<Stopped, HarnessError> {
        let Some(process) = self.process.as_ref().filter(|_| self.is_running()) else {
            return Ok(Stopped::NotRunning);
        };
        let asked = self.qmp().is_ok_and(|mut qmp| qmp.quit().is_ok());
        if asked && self.ended(END_LIMIT) {
            return Ok(Stopped::Quit);
        }
        // The process may have ended in the meantime; the handle can't hit another one.
        pidfd_send_signal(process, Signal::KILL).ok();
        if self.ended(END_LIMIT) {
            return Ok(Stopped::Killed);
        }
        Err(HarnessError::Timeout {
            machine: self.state.name.clone(),
            awaited: "end of QEMU".to_owned(),
            limit: END_LIMIT,
            details: format!("process {}", self.state.pid),
        })
    }

    fn press_power_button(&self) -> Result<(), HarnessError> {
        self.qmp()?
            .system_powerdown()
            .map_err(|source| HarnessError::Qmp {
                machine: self.state.name.clone(),
                source,
            })
    }

    fn ended(&self, limit: Duration) -> bool {
        self.process
            .as_ref()
            .is_none_or(|process| wait_readable(process, limit))
    }
}

/// A handle of process `pid`, if that process started at `start`.
fn identify(pid: u32, start: u64) -> Option<OwnedFd> {
    let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
    // Open the handle first, then check: an open handle always refers to the same process.
    let process = pidfd_open(raw, PidfdFlags::empty()).ok()?;
    (start_time(pid)? == start).then_some(process)
}

/// When a process started, in clock ticks since the boot.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of proc(5) `stat`. The command name (field 2) may hold spaces and parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Connects to a unix socket whose path may be longer than a socket address can be.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(dir)?;
    let short = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    UnixStream::connect(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sample(pid: u32, start_time: u64) -> MachineState {
        MachineState {
            version: VERSION,
            name: "test".to_owned(),
            pid,
            start_time,
            dir: "/tmp".into(),
            qmp_socket: "/nonexistent/qmp.sock".into(),
            console_socket: "/nonexistent/console.sock".into(),
            console_log: "/nonexistent/console.log".into(),
            credentials: None,
            forwards: vec![Forward {
                host: 4711,
                guest: 2376,
            }],
            started_at: 0,
        }
    }

    #[test]
    fn reads_the_start_time_behind_any_command_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        for name in ["qemu", "a b", "x) S 1 (y"] {
            let stat = format!("12 ({name}) {fields}");
            assert_eq!(parse_start_time(&stat), Some(4242), "{stat}");
        }
        assert_eq!(parse_start_time("12 (x) S 1"), None);
        assert_eq!(parse_start_time(""), None);
        assert!(start_time(std::process::id()).is_some());
    }

    #[test]
    fn writes_and_reads_the_file_and_refuses_other_versions() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine.json");
        assert!(DetachedMachine::open(&file).unwrap().is_none());
        let mut state = sample(1, 1);
        state.write(&file).unwrap();
        let machine = DetachedMachine::open(&file).unwrap().unwrap();
        assert_eq!(machine.state(), &state);
        assert_eq!(machine.state().api_port(), Some(4711));
        state.version = 2;
        state.write(&file).unwrap();
        let error = DetachedMachine::open(&file).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
        fs::write(&file, "{").unwrap();
        assert!(DetachedMachine::open(&file).is_err());
    }

    #[test]
    fn stops_the_process_it_knows_and_no_other() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let start = start_time(child.id()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine.json");

        sample(child.id(), start + 1).write(&file).unwrap();
        let other = DetachedMachine::open(&file).unwrap().unwrap();
        assert!(!other.is_running());
        assert_eq!(other.stop(Duration::ZERO).unwrap(), Stopped::NotRunning);
        assert!(child.try_wait().unwrap().is_none());

        sample(child.id(), start).write(&file).unwrap();
        let machine = DetachedMachine::open(&file).unwrap().unwrap();
        assert!(machine.is_running());
        assert_eq!(machine.stop(Duration::ZERO).unwrap(), Stopped::Killed);
        assert!(!machine.is_running());
        child.wait().unwrap();
    }

    #[test]
    fn connects_to_sockets_with_long_paths() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        fs::create_dir(&long).unwrap();
        let handle = File::open(&long).unwrap();
        let bind = format!("/proc/self/fd/{}/s", handle.as_raw_fd());
        let _listener = std::os::unix::net::UnixListener::bind(bind).unwrap();
        assert!(connect(&long.join("s")).is_ok());
        assert!(connect(&long.join("missing")).is_err());
    }
}
