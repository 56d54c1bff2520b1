//! Waits for a process in the foreground. Signals are passed on to it. If it has a terminal of its
//! own, data is passed between that and the caller's standard streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keelson_shim_protocol::exit_code;
use keelson_sys::{clone, sandbox};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rustix::io::Errno;
use rustix::process::WaitOptions;

use super::readiness::Waiting;
use crate::failure::{self, Failure, Step};
use crate::sandbox::devices::TERMINAL_HOLDS;
use crate::spec::ConsoleSize;

/// A descriptor for every signal that can be blocked.
pub(super) fn take_signals() -> Result<SignalFd, Failure> {
    let signals = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None).step(|| "block signals")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).step(|| "make a signal descriptor")
}

/// Gives a new terminal the size of the caller's terminal. This comes before the command is
/// executed, because the command may ask for the size at once.
pub(super) fn own_size() -> Option<ConsoleSize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    (size.ws_row > 0).then_some(ConsoleSize {
        height: size.ws_row,
        width: size.ws_col,
    })
}

/// Waits for the end of a process, given by its number and as a descriptor, and returns its exit
/// code. `waiting`: the service manager that wants to know when the program is ready.
pub(super) fn wait(
    (pid, pidfd): (i32, BorrowedFd<'_>),
    signals: &SignalFd,
    terminal: Option<&OwnedFd>,
    mut waiting: Option<Waiting>,
) -> Result<u8, Failure> {
    let mut relay = match terminal {
        Some(terminal) => Some(Relay::new(terminal)?),
        None => None,
    };
    loop {
        if let Some(wanted) = &waiting {
            match wanted.step(None) {
                Ok(false) => {}
                Ok(true) => waiting = None,
                // The container runs anyway.
                Err(failure) => {
                    failure::warn(&[failure]);
                    waiting = None;
                }
            }
        }
        if let Some(code) = ended(pid)? {
            if let Some(relay) = &mut relay {
                relay.drain();
            }
            return Ok(code);
        }
        let said = waiting.as_ref().map(AsFd::as_fd);
        let signalled = match (&mut relay, said) {
            (Some(relay), said) => relay.step(signals.as_fd(), said)?,
            (None, Some(said)) => {
                let mut fds = [signals.as_fd(), said].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                poll(&mut fds)?;
                fds.first().and_then(PollFd::any).unwrap_or(false)
            }
            (None, None) => true,
        };
        if !signalled {
            continue;
        }
        let signal = signals.read_signal().step(|| "read a signal")?;
        match (signal.map(|signal| signal.ssi_signo as i32), &relay) {
            (None | Some(libc::SIGCHLD), _) => {}
            (Some(libc::SIGWINCH), Some(relay)) => relay.resize(),
            (Some(number), _) => {
                let _ = clone::signal_process(pidfd, number);
            }
        }
    }
}

fn ended(pid: i32) -> Result<Option<u8>, Failure> {
    let pid = rustix::process::Pid::from_raw(pid);
    let status = rustix::process::waitpid(pid, WaitOptions::NOHANG)
        .step(|| "wait for the process")?
        .map(|(_, status)| status);
    let code = status.and_then(|status| {
        let signal = status.terminating_signal().map(exit_code::killed_by);
        status.exit_status().or(signal)
    });
    Ok(code.map(|code| code as u8))
}

fn poll(fds: &mut [PollFd<'_>]) -> Result<(), Failure> {
    match nix::poll::poll(fds, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error).step(|| "wait for events"),
    }
}

/// The caller's terminal, put back as it was at the end.
struct Raw(Termios);

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// The data between the caller's standard streams and the terminal.
struct Relay<'a> {
    master: &'a OwnedFd,
    /// Read from the caller, not yet written to the terminal.
    pending: Vec<u8>,
    input_ended: bool,
    output_ended: bool,
    _raw: Option<Raw>,
}

impl<'a> Relay<'a> {
    fn new(master: &'a OwnedFd) -> Result<Self, Failure> {
        rustix::io::ioctl_fionbio(master, true).step(|| "prepare the terminal")?;
        let raw = tcgetattr(std::io::stdin()).ok().map(|before| {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            // The container's terminal passes on plain line ends.
            raw.output_flags.insert(OutputFlags::OPOST);
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw);
            Raw(before)
        });
        Ok(Self {
            master,
            pending: Vec::new(),
            input_ended: false,
            output_ended: false,
            _raw: raw,
        })
    }

    /// Copies the size of the caller's terminal, if there is one.
    fn resize(&self) {
        if let Some(size) = own_size() {
            let _ = sandbox::set_terminal_size(self.master, size.height, size.width);
        }
    }

    /// Waits until there is something to do, and does it. Returns whether there is a signal. Events
    /// of `other` end the wait as well.
    fn step(
        &mut self,
        signals: BorrowedFd<'_>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<bool, Failure> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, !self.output_ended);
        events.set(PollFlags::POLLOUT, !self.pending.is_empty());
        let wants_input = !self.input_ended && self.pending.is_empty();
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(signals, PollFlags::POLLIN)];
        fds.extend(other.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        if !self.output_ended {
            fds.push(PollFd::new(self.master.as_fd(), events));
        }
        if wants_input {
            fds.push(PollFd::new(stdin, PollFlags::POLLIN));
        }
        poll(&mut fds)?;
        let ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any).unwrap_or(false);
        let input_ready = wants_input && ready(fds.last());
        let signalled = ready(fds.first());
        if input_ready {
            self.read_input();
        }
        self.write_input();
        self.read_output();
        Ok(signalled)
    }

    fn read_input(&mut self) {
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => self.input_ended = true,
            Ok(length) => self
                .pending
                .extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input_ended = true,
        }
    }

    fn write_input(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match rustix::io::write(self.master, &self.pending) {
            Ok(length) => {
                self.pending.drain(..length.min(self.pending.len()));
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Nobody has the terminal open any more.
            Err(_) => {
                self.pending.clear();
                self.input_ended = true;
            }
        }
    }

    /// Passes on what there is now, at most a buffer full, and returns how much. `None`: there is
    /// nothing.
    fn read_output(&mut self) -> Option<usize> {
        let mut buffer = [0; 16 * 1024];
        match rustix::io::read(self.master, &mut buffer) {
            Ok(length) if length > 0 => {
                write_all(buffer.get(..length).unwrap_or_default());
                Some(length)
            }
            Err(Errno::INTR) => Some(0),
            Err(Errno::AGAIN) => None,
            // Nobody has the terminal open any more.
            _ => {
                self.output_ended = true;
                None
            }
        }
    }

    /// Passes on what is left when the process has ended. It is no more than a terminal holds,
    /// because processes that were left behind may write without end.
    fn drain(&mut self) {
        let mut left = TERMINAL_HOLDS;
        while left > 0 {
            match self.read_output() {
                Some(length) => left = left.saturating_sub(length),
                None => return,
            }
        }
    }
}

/// Writes to standard output. A caller who stopped reading is not a failure of the container.
fn write_all(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let stdout = rustix::stdio::stdout();
                let _ = poll(&mut [PollFd::new(stdout, PollFlags::POLLOUT)]);
            }
            Err(_) => return,
        }
    }
}
