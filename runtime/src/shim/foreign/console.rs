//! The socket over which a runtime sends the terminal of a process to its caller.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::failure::{Failure, Step};

/// A socket that waits for a terminal.
#[derive(Debug)]
pub(crate) struct Console {
    socket: OwnedFd,
    file: PathBuf,
    /// Keeps the name below valid.
    _directory: OwnedFd,
    /// Short enough for a socket address, wherever the directory is.
    name: PathBuf,
}

impl Console {
    /// Listens in a directory, under a name that is not used there.
    pub(super) fn listen(directory: &Path, name: &str) -> Result<Self, Failure> {
        let step = || format!("make the console socket {name} in {}", directory.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = rustix::fs::openat(CWD, directory, flags, Mode::empty()).step(step)?;
        let own = std::process::id();
        let short = PathBuf::from(format!("/proc/{own}/fd/{}/{name}", held.as_raw_fd()));
        // Only the runtime connects, and the socket is read after the runtime has ended.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, None).step(step)?;
        let address = SocketAddrUnix::new(&short).step(step)?;
        rustix::net::bind(&socket, &address).step(step)?;
        rustix::net::listen(&socket, 1).step(step)?;
        Ok(Self {
            socket,
            file: directory.join(name),
            _directory: held,
            name: short,
        })
    }

    /// Its name, for the runtime.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// The master end of the terminal. A runtime that ended successfully has sent it.
    pub(crate) fn terminal(&self) -> Result<OwnedFd, Failure> {
        let step = || "take the terminal from the runtime";
        let connection = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC).step(step)?;
        // As long as a terminal's path can be.
        let mut text = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        rustix::net::recvmsg(
            &connection,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            flags,
        )
        .step(step)?;
        let sent = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        sent.ok_or_else(|| Failure::internal("the runtime sent no terminal"))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
