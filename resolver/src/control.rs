//! hostd's connection. There is one at a time: a new connection replaces the previous one, which
//! may belong to a hostd that hangs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use keelson_resolver_protocol::{
    ChannelError, PROTOCOL, Packet, Reply, Request, Sockets, decode, encode, receive, send,
};
use rustix::net::SocketFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use crate::limits::{ABANDONED, WRITING};
use crate::report::report;
use crate::server::Server;
use crate::watched::watch;

/// The connections.
#[derive(Debug)]
pub(crate) struct Control {
    /// The listener to which later hostds connect.
    pub(crate) listener: OwnedFd,
    /// The connection of the hostd that started this process.
    pub(crate) first: OwnedFd,
    /// The listener's file. Once it is removed, no hostd can connect again.
    pub(crate) file: OwnedFd,
}

type Connection = AsyncFd<OwnedFd>;

fn connection(socket: OwnedFd) -> io::Result<Connection> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    watch(socket, Interest::READABLE | Interest::WRITABLE)
}

/// The outcome of a request.
enum Next {
    Continue,
    /// The connection has to be closed.
    Disconnect,
    /// The process has to end.
    End,
}

impl Control {
    /// Executes hostd's requests until no container is left to serve.
    ///
    /// # Errors
    /// The sockets are not what they should be.
    pub(crate) async fn run(self, server: &Rc<Server>) -> io::Result<()> {
        let listener = connection(self.listener)?;
        let mut current = Some(connection(self.first)?);
        loop {
            let Some(connected) = &current else {
                // hostd starts another resolver when there is a container to serve again.
                if server.is_empty() || is_removed(self.file.as_fd()) {
                    return Ok(());
                }
                tokio::select! {
                    accepted = accept(&listener) => current = connection(accepted?).ok(),
                    () = sleep(ABANDONED) => {}
                }
                continue;
            };
            let next = tokio::select! {
                accepted = accept(&listener) => {
                    current = connection(accepted?).ok();
                    continue;
                }
                packet = next(connected) => match packet {
                    Ok(packet) => answer(server, connected, packet).await,
                    Err(ChannelError::Kernel(_)) => Ok(Next::Disconnect),
                    Err(error) => {
                        report(format_args!("{error}"));
                        Ok(Next::Disconnect)
                    }
                },
            };
            match next {
                Ok(Next::Continue) => {}
                Ok(Next::End) => return Ok(()),
                Ok(Next::Disconnect) | Err(_) => current = None,
            }
        }
    }
}

fn is_removed(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(file).is_ok_and(|status| status.st_nlink == 0)
}

async fn accept(listener: &Connection) -> io::Result<OwnedFd> {
    loop {
        let mut ready = listener.readable().await?;
        match rustix::net::accept_with(listener.get_ref(), SocketFlags::CLOEXEC) {
            Ok(socket) => return Ok(socket),
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            // The peer has gone, or too many files are open.
            Err(_) => sleep(ABANDONED / 50).await,
        }
    }
}

async fn next(connected: &Connection) -> Result<Packet, ChannelError> {
    loop {
        let mut ready = connected.readable().await.map_err(ChannelError::Kernel)?;
        match receive(connected.get_ref()) {
            Err(error) if error.would_block() => ready.clear_ready(),
            other => return other,
        }
    }
}

/// Sends a reply. Fails if the peer does not read it; the caller then closes the connection.
async fn say(
    connected: &Connection,
    number: u64,
    reply: &Reply,
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    let bytes = encode(number, reply).map_err(io::Error::other)?;
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let sending = async {
        loop {
            let mut ready = connected.writable().await?;
            match send(connected.get_ref(), &bytes, &descriptors) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                other => return other,
            }
        }
    };
    timeout(WRITING, sending).await?
}

async fn answer(server: &Rc<Server>, connected: &Connection, packet: Packet) -> io::Result<Next> {
    if packet.bytes.is_empty() {
        return Ok(Next::Disconnect);
    }
    let (number, request) = match decode::<Request>(&packet.bytes) {
        Ok(message) => message,
        Err(error) => {
            // Without its number the request can't be answered, and hostd would wait forever.
            report(format_args!("{error}"));
            return Ok(Next::Disconnect);
        }
    };
    let done = match request {
        Request::Hello { protocol } => {
            let welcome = Reply::Welcome {
                protocol: PROTOCOL,
                program: env!("CARGO_PKG_VERSION").to_owned(),
            };
            say(connected, number, &welcome, &[]).await?;
            if protocol == PROTOCOL {
                for (container, ports) in server.holds() {
                    say(connected, number, &Reply::Holds { container, ports }, &[]).await?;
                }
            }
            Ok(())
        }
        Request::Begin => {
            server.begin();
            Ok(())
        }
        Request::Set { container, sockets } => {
            let handed = match sockets.is_empty() {
                true => Ok(None),
                false => Sockets::from_descriptors(&sockets, packet.descriptors).map(Some),
            };
            handed
                .map_err(|error| error.to_string())
                .and_then(|handed| {
                    let set = server.set(container, handed);
                    set.map_err(|error| error.to_string())
                })
        }
        Request::Remove { container } => {
            server.remove(&container);
            Ok(())
        }
        Request::End => {
            server.end();
            Ok(())
        }
        Request::HandOver => {
            for (container, sockets, descriptors) in server.hand_over().await {
                let reply = Reply::Sockets { container, sockets };
                say(connected, number, &reply, &descriptors).await?;
            }
            say(connected, number, &Reply::Done, &[]).await?;
            return Ok(Next::End);
        }
    };
    let reply = match done {
        Ok(()) => Reply::Done,
        Err(reason) => {
            report(format_args!("{reason}"));
            Reply::Failed { reason }
        }
    };
    say(connected, number, &reply, &[]).await?;
    Ok(Next::Continue)
}
