//! Telling a service manager that a container's program is ready (sd_notify(3)), when the caller's
//! environment names a socket for it, as runc and crun do.
//!
//! The container does not get the manager's socket. It gets a directory of the container's state,
//! and `NOTIFY_SOCKET` names a socket in it, so the container can't reach the manager. The process
//! that starts the container listens there and passes on `READY=1`, and nothing else that the
//! program may send. When the start does not stay in the foreground, it waits until the program is
//! ready, and tells the manager the program's process number.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use keelson_linux::notify::SOCKET_VARIABLE;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::failure::{Failure, Step};
use crate::spec::{Mount, Spec};
use crate::state::Store;

/// The directory in a container's state, and its socket.
const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify";
/// Where the directory is in the container when the manager's socket has no path.
const PLACE: &str = "/run/notify";
/// How many messages are read before other work gets its turn.
const MOST_AT_ONCE: usize = 64;

/// What a service manager waits for.
#[derive(Debug)]
pub(super) struct Readiness {
    /// The manager's socket: a path, or a name that begins with `@`.
    manager: String,
    directory: PathBuf,
}

impl Readiness {
    /// Read from the caller's environment.
    pub(super) fn asked_for(store: &Store) -> Option<Self> {
        let manager = std::env::var(SOCKET_VARIABLE).ok()?;
        (manager.starts_with('/') || manager.starts_with('@')).then(|| Self {
            manager,
            directory: store.path(DIRECTORY),
        })
    }

    /// Prepares a container to report that it is ready, unless its environment names a socket
    /// already.
    pub(super) fn offer(&self, spec: &mut Spec) -> Result<(), Failure> {
        let Some(process) = &mut spec.process else {
            return Ok(());
        };
        let prefix = format!("{SOCKET_VARIABLE}=");
        if process.env.iter().any(|entry| entry.starts_with(&prefix)) {
            return Ok(());
        }
        std::fs::DirBuilder::new()
            .mode(0o755)
            .create(&self.directory)
            .step(|| format!("{SOCKET_VARIABLE}: make {}", self.directory.display()))?;
        let place = match self.manager.starts_with('/') {
            true => self.manager.trim_end_matches('/'),
            false => PLACE,
        };
        let source = std::path::absolute(&self.directory)
            .step(|| format!("{SOCKET_VARIABLE}: find {}", self.directory.display()))?;
        process.env.push(format!("{prefix}{place}/{SOCKET}"));
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
        spec.mounts.push(Mount {
            destination: place.to_owned(),
            source: Some(source.display().to_string()),
            options: options.map(str::to_owned).into(),
            ..Mount::default()
        });
        Ok(())
    }

    /// Begins to listen, if the container was prepared for it. Must be called before the container
    /// is started.
    pub(super) fn listen(self) -> Result<Option<Waiting>, Failure> {
        if !self.directory.exists() {
            return Ok(None);
        }
        let path = self.directory.join(SOCKET);
        let step = || format!("{SOCKET_VARIABLE}: listen on {}", path.display());
        // Left by a start that failed.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).step(step)?;
        socket.set_nonblocking(true).step(step)?;
        // The program is not trusted.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).step(step)?;
        let manager = self.manager;
        Ok(Some(Waiting { socket, manager }))
    }
}

/// A container whose program is not ready yet.
#[derive(Debug)]
pub(super) struct Waiting {
    socket: UnixDatagram,
    manager: String,
}

impl AsFd for Waiting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Waiting {
    /// Reads the messages, and passes on that the program is ready. `main` is the program's
    /// process, if the manager should follow it instead of the caller. Returns whether the program
    /// is ready.
    pub(super) fn step(&self, main: Option<i32>) -> Result<bool, Failure> {
        let mut buffer = [0; 4096];
        // A program that keeps sending must not block the caller's other work.
        for _ in 0..MOST_AT_ONCE {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                break;
            };
            let message = buffer.get(..length).unwrap_or_default();
            if message
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"READY=1")
            {
                self.tell("READY=1")?;
                if let Some(main) = main {
                    self.tell(&format!("MAINPID={main}"))?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until the program is ready, or has ended before.
    pub(super) fn wait(&self, process: BorrowedFd<'_>, main: i32) -> Result<(), Failure> {
        while !self.step(Some(main))? {
            let mut fds = [self.as_fd(), process].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match nix::poll::poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).step(|| "wait for the program to be ready"),
            }
            let [said, ended] = fds.map(|fd| fd.any().unwrap_or(false));
            if ended && !said {
                return Ok(());
            }
        }
        Ok(())
    }

    fn tell(&self, message: &str) -> Result<(), Failure> {
        let step = || format!("{SOCKET_VARIABLE}: tell {} {message}", self.manager);
        let address = match self.manager.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(Path::new(&self.manager)),
        };
        let address = address.step(step)?;
        let sent = self.socket.send_to_addr(message.as_bytes(), &address);
        sent.step(step).map(drop)
    }
}
