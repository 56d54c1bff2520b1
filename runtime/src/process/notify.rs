//! Passes the listener of a seccomp filter (`SCMP_ACT_NOTIFY`) to the caller's agent.
//!
//! The runtime makes the connection, because the path is valid on the host. The message is sent
//! from inside, by the first system call after the filter was installed.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use keelson_sys::seccomp::NEW_LISTENER;
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use serde_json::{Value, json};

use crate::failure::{Failure, Step};
use crate::seccomp::Filter;
use crate::spec::Spec;

/// How long an agent may take to accept a connection or a message. It is short because a shim waits
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to the agent.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: OwnedFd,
    path: String,
    metadata: Option<String>,
}

impl Agent {
    /// Connects when the filter has a listener.
    pub(crate) fn connect(spec: &Spec, filter: Option<&Filter>) -> Result<Option<Self>, Failure> {
        let seccomp = spec.linux.seccomp.as_ref();
        let Some(seccomp) =
            seccomp.filter(|_| filter.is_some_and(|filter| filter.flags & NEW_LISTENER != 0))
        else {
            return Ok(None);
        };
        let path = seccomp.listener_path.clone().unwrap_or_default();
        let socket = connect(&path).step(|| {
            format!("linux.seccomp.listenerPath: failed to connect with seccomp agent {path}")
        })?;
        Ok(Some(Self {
            socket,
            path,
            metadata: seccomp.listener_metadata.clone(),
        }))
    }

    /// The container process state of a process. `state` is the container's.
    pub(crate) fn message(&self, state: Value, pid: i32) -> Vec<u8> {
        let mut message = json!({
            "ociVersion": state["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid,
            "state": state,
        });
        if let Some(metadata) = &self.metadata {
            message["metadata"] = metadata.as_str().into();
        }
        message.to_string().into_bytes()
    }

    /// Sends the state with the listener.
    pub(crate) fn send(&self, message: &[u8], listener: BorrowedFd<'_>) -> Result<(), Failure> {
        let mut rest = message;
        let mut first = true;
        while !rest.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [listener];
            if first {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let sent = rustix::net::sendmsg(
                self.socket.as_fd(),
                &[IoSlice::new(rest)],
                &mut control,
                SendFlags::NOSIGNAL,
            );
            match sent {
                Err(Errno::INTR) => {}
                other => {
                    let sent = other.step(|| {
                        format!(
                            "linux.seccomp.listenerPath: send the listener to {}",
                            self.path
                        )
                    })?;
                    first = false;
                    rest = rest.get(sent..).unwrap_or_default();
                }
            }
        }
        // Marks the end of the message, because the socket stays open until the command is
        // executed.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        Ok(())
    }
}

/// Connects. An agent that is busy has [`PATIENCE`] to accept.
fn connect(path: &str) -> rustix::io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

impl AsRawFd for Agent {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
