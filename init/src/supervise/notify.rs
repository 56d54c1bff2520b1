//! The protocol of sd_notify(3): datagrams of `KEY=VALUE` lines.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use keelson_linux::notify::{self, Notification};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};

/// The socket, which `NOTIFY_SOCKET` names to the processes.
pub(crate) const PATH: &str = "/run/keelson/notify";

/// The receiving end.
pub(crate) struct NotifySocket(UnixDatagram);

impl NotifySocket {
    /// Binds the socket, for root only.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(path)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        // The kernel then adds the sender to each datagram; a sender can't lie about its pid.
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self(socket))
    }

    /// Receives the next datagram: the sender's process and its notifications. `None` if there is
    /// none.
    pub(crate) fn receive(&self) -> io::Result<Option<(i32, Vec<Notification>)>> {
        let mut buffer = [0u8; 4096];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        // There is no room for descriptors that a sender attaches, so the kernel closes them.
        let mut control = nix::cmsg_space!(UnixCredentials);
        let received = recvmsg::<()>(
            self.0.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let (length, pid) = match received {
            Ok(message) => {
                let sender = message.cmsgs().ok().and_then(|mut all| {
                    all.find_map(|one| match one {
                        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
                        _ => None,
                    })
                });
                (message.bytes, sender)
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let notifications = notify::parse(buffer.get(..length).unwrap_or_default());
        Ok(Some((pid.unwrap_or(0), notifications)))
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_the_sender() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = NotifySocket::bind(&path).unwrap();
        assert_eq!(socket.receive().unwrap(), None);
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1", &path).unwrap();
        let (pid, said) = socket.receive().unwrap().unwrap();
        assert_eq!(pid, std::process::id() as i32);
        assert_eq!(said, [Notification::Ready]);
    }
}
