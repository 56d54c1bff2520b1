//! Starts the resolver, or finds a running one.
//!
//! Like a shim, it has a session of its own, is in the shims' cgroup, and survives hostd.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use keelson_sys::spawn;
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;

use super::client::{Client, ClientError, watch};

/// Its name in `/proc/<pid>/comm`, which is cut to fifteen bytes.
const COMM: &str = "keelson-resolve";

/// The program, its directory and its cgroup.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    /// The cgroup of processes that are not stopped together with this process.
    cgroup: Option<PathBuf>,
}

impl Program {
    pub(super) fn new(path: PathBuf, run: &Path, cgroup: Option<PathBuf>) -> Self {
        Self {
            path,
            socket: run.join("resolver.sock"),
            log: run.join("resolver.log"),
            cgroup,
        }
    }

    /// Whether an earlier hostd may have started one.
    pub(super) fn was_started(&self) -> bool {
        self.socket.exists()
    }

    /// Connects to a running resolver. `None`: there is none.
    pub(super) fn find(&self) -> Result<Option<Client>, ClientError> {
        let error = ClientError::kernel("connect to");
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let socket = socket_with(AddressFamily::UNIX, kind, flags, None)
            .map_err(|errno| error(errno.into()))?;
        let connected =
            address(&self.socket).and_then(|(_directory, address)| Ok(connect(&socket, &address)?));
        match connected {
            Ok(()) => {
                // SO_PEERCRED returns the listening process (unix(7)).
                let credentials = rustix::net::sockopt::socket_peercred(&socket);
                let process = credentials.ok().map(|credentials| credentials.pid);
                Client::new(socket, process).map(Some)
            }
            // The socket's file is left from an ended resolver, or does not exist.
            Err(refused)
                if matches!(
                    refused.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(other) => Err(error(other)),
        }
    }

    /// Whether a process executes the current file of the program.
    pub(super) fn is_current(&self, process: Pid) -> bool {
        let identity = |path: &Path| {
            let status = fs::metadata(path).ok()?;
            Some((status.dev(), status.ino()))
        };
        let running = Path::new("/proc")
            .join(process.as_raw_nonzero().to_string())
            .join("exe");
        identity(&running).is_some() && identity(&running) == identity(&self.path)
    }

    /// Starts a resolver. It replaces the socket, so an earlier listener can't be reached any more.
    pub(super) fn start(&self) -> Result<Client, ClientError> {
        let (socket, process) = self.try_start().map_err(ClientError::kernel("start"))?;
        Client::new(socket, process)
    }

    fn try_start(&self) -> io::Result<(OwnedFd, Option<Pid>)> {
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let kind = SocketType::SEQPACKET;
        let listener = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let (_directory, address) = address(&self.socket)?;
        bind(&listener, &address)?;
        fs::set_permissions(&self.socket, fs::Permissions::from_mode(0o600))?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let log = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.log)?;
        let string = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
        let path = string(self.path.as_os_str().as_bytes())?;
        let arguments = [
            path.clone(),
            c"--socket".to_owned(),
            string(self.socket.as_os_str().as_bytes())?,
        ];
        let cgroup = self.cgroup.as_deref().map(open_cgroup).transpose()?;
        let (pid, pidfd) = spawn::spawn(&spawn::Program {
            path: &path,
            arguments: &arguments,
            environment: &[],
            streams: [theirs.as_fd(), listener.as_fd(), log.as_fd()],
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
        })?;
        tracing::info!(pid, "resolver started");
        tokio::spawn(collect(pid, pidfd, self.log.clone()));
        Ok((ours, Pid::from_raw(pid)))
    }

    /// Kills a process, if it is a resolver.
    pub(super) fn kill(&self, process: Option<Pid>) {
        let Some(process) = process else {
            return;
        };
        // Open the handle first: it always refers to the same process.
        let Ok(descriptor) = pidfd_open(process, PidfdFlags::empty()) else {
            return;
        };
        let comm = format!("/proc/{}/comm", process.as_raw_nonzero());
        if fs::read_to_string(comm).is_ok_and(|name| name.trim_end() == COMM)
            && let Err(errno) = pidfd_send_signal(&descriptor, Signal::KILL)
        {
            tracing::warn!(error = %errno, "resolver not killed");
        }
    }
}

/// Waits for the end of a process.
pub(super) async fn ended(process: Pid) {
    if let Ok(descriptor) = pidfd_open(process, PidfdFlags::empty())
        && let Ok(descriptor) = watch(descriptor, Interest::READABLE)
    {
        let _ = descriptor.readable().await;
    }
}

/// Bytes of the log that are shown.
const TAIL: usize = 1000;

/// Waits for the end of a child.
async fn collect(pid: i32, pidfd: OwnedFd, log: PathBuf) {
    if let Ok(pidfd) = watch(pidfd, Interest::READABLE) {
        let _ = pidfd.readable().await;
    }
    let child = Pid::from_raw(pid);
    match rustix::process::waitpid(child, WaitOptions::NOHANG) {
        Ok(Some((_, status))) if status.exit_status() == Some(0) => {
            tracing::debug!(pid, "resolver ended");
        }
        Ok(status) => {
            // The next resolver writes a new log.
            let log = fs::read(log).unwrap_or_default();
            let log = log
                .get(log.len().saturating_sub(TAIL)..)
                .unwrap_or_default();
            let log = String::from_utf8_lossy(log);
            tracing::error!(pid, ?status, %log, "resolver ended");
        }
        Err(errno) => tracing::warn!(pid, error = %errno, "resolver not waited for"),
    }
}

fn open_cgroup(path: &Path) -> io::Result<OwnedFd> {
    fs::create_dir_all(path)?;
    File::open(path).map(OwnedFd::from)
}

/// A socket address for a path that may be too long for one (unix(7)). It leads through the open
/// directory, which must stay open.
fn address(path: &Path) -> io::Result<(Option<OwnedFd>, SocketAddrUnix)> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return Ok((None, address));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let short = Path::new("/proc/self/fd")
        .join(number.to_string())
        .join(name);
    let address = SocketAddrUnix::new(short.as_path())?;
    Ok((Some(directory), address))
}
