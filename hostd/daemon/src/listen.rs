//! Listeners: unix sockets, and TCP with TLS.

use std::collections::HashMap;
use std::fs;
use std::hash::Hash;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use hostd_api_host::caller;
use keelson_http::Caller;
use keelson_http::places::Shortage;
use keelson_model::host_api::Role;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::server::TlsStream;

use crate::connection::{self, Orders, Server};
use crate::handshakes::{Handshake, Handshakes, peer};
use crate::options::Listen;
use crate::pace::Paced;
use crate::tls::Tls;

/// Most connections at once on one listener.
const MAX_CONNECTIONS: usize = 2048;
/// When fewer are left, idle connections and clients that read nothing are closed early.
const CROWDED_BELOW: usize = 512;
/// Most connections of one client: an address on TCP, a user other than root on a unix socket.
const MAX_OF_ONE: usize = 1024;
/// Most connections of readers on TCP.
const MAX_OF_READERS: usize = 512;
/// How long a client on TCP waits for its place after its handshake.
const PLACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first byte of a TLS handshake may take.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);
/// Most connections on TCP that wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;
/// Pause after accept(2) failed, for example for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The group whose members may use the unix sockets.
const GROUP: &str = "docker";

/// A bound listener.
pub(crate) enum Listener {
    /// A unix socket and its path.
    Unix(UnixListener, PathBuf),
    /// TCP.
    Tcp(TcpListener, Tls),
}

impl Listener {
    /// Binds a listener. TCP needs `tls`. The tokio runtime that calls this watches the socket.
    pub(crate) fn bind(listen: &Listen, tls: Option<&Tls>) -> Result<Self> {
        match (listen, tls) {
            (Listen::Unix(path), _) => Ok(Self::Unix(bind_unix(path)?, path.clone())),
            (Listen::Tcp(address), Some(tls)) => {
                let listener = bind_tcp(*address)
                    .with_context(|| format!("can't listen on tcp://{address}"))?;
                Ok(Self::Tcp(listener, tls.clone()))
            }
            (Listen::Tcp(address), None) => bail!(
                "refusing to listen on tcp://{address} without TLS: name a directory for the keys with --tls"
            ),
        }
    }

    /// Serves until `stop` changes.
    pub(crate) async fn serve(self, server: Arc<Server>, mut stop: watch::Receiver<bool>) {
        let gate = Arc::new(Gate::new(server.shortage.clone()));
        let handshakes = Handshakes::default();
        let stop_connections = stop.clone();
        let accept = async {
            loop {
                // A client on TCP gets its place after its handshake. A client on a unix socket is
                // known at once; without a free place it waits in the kernel's queue.
                let place = match &self {
                    Self::Unix(..) => Some(gate.place().await),
                    Self::Tcp(..) => None,
                };
                let accepted = match &self {
                    Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                        Accepted::Unix(Paced::new(stream, gate.shortage.clone()), place)
                    }),
                    Self::Tcp(listener, tls) => listener.accept().await.map(|(stream, peer)| {
                        let handshake = handshakes.enter(peer.ip());
                        let stream = Paced::new(stream, gate.shortage.clone());
                        Accepted::Tcp(stream, peer, tls.clone(), handshake)
                    }),
                };
                match accepted {
                    Ok(accepted) => {
                        let serving =
                            accepted.serve(server.clone(), gate.clone(), stop_connections.clone());
                        tokio::spawn(serving);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "connection can't be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stop.changed() => {}
        }
        if let Self::Unix(_, path) = &self {
            // If this fails, the next daemon removes the stale socket.
            let _ = fs::remove_file(path);
        }
    }
}

/// The places of one listener's connections.
struct Gate {
    places: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    users: Arc<Counts<u32>>,
    peers: Arc<Counts<std::net::IpAddr>>,
    shortage: Shortage,
    crowded: watch::Sender<bool>,
}

/// The place of a connection.
struct GatePlace {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for GatePlace {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.gate.look();
    }
}

impl Gate {
    fn new(shortage: Shortage) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            readers: Arc::new(Semaphore::new(MAX_OF_READERS)),
            users: Arc::default(),
            peers: Arc::default(),
            shortage,
            crowded: watch::Sender::new(false),
        }
    }

    /// Waits for a place.
    async fn place(self: &Arc<Self>) -> GatePlace {
        self.look();
        let permit = self.places.clone().acquire_owned().await.ok();
        GatePlace {
            gate: self.clone(),
            permit,
        }
    }

    /// Reports to all connections whether places are short.
    fn look(&self) {
        self.crowded.send_if_modified(|known| {
            // Counted under the lock, so that the last report is the right one.
            let crowded = self.places.available_permits() < CROWDED_BELOW;
            if crowded {
                self.shortage.note();
            }
            let changed = *known != crowded;
            *known = crowded;
            changed
        });
    }

    fn orders(&self, stop: watch::Receiver<bool>) -> Orders {
        Orders {
            stop,
            crowded: self.crowded.subscribe(),
            revoked: std::future::pending().boxed(),
        }
    }
}

/// How many connections each client has.
struct Counts<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// One connection of a client.
struct Counted<K: Hash + Eq>(Arc<Counts<K>>, K);

impl<K: Hash + Eq + Copy> Counts<K> {
    /// Counts one more connection. `None`: the client has as many as it may have.
    fn enter(self: &Arc<Self>, client: K) -> Option<Counted<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= MAX_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), client))
    }
}

impl<K: Hash + Eq> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// A connection that has just been accepted.
enum Accepted {
    Unix(Paced<UnixStream>, Option<GatePlace>),
    Tcp(Paced<TcpStream>, SocketAddr, Tls, Handshake),
}

impl Accepted {
    async fn serve(self, server: Arc<Server>, gate: Arc<Gate>, stop: watch::Receiver<bool>) {
        match self {
            Self::Unix(mut stream, _place) => {
                let (uid, caller) = unix_user(stream.get_ref());
                let counted = match caller.role {
                    Role::Admin => None,
                    _ => match gate.users.enter(uid) {
                        Some(counted) => Some(counted),
                        None => return refuse(&mut stream, "this user").await,
                    },
                };
                connection::serve(stream, caller, server, gate.orders(stop)).await;
                drop(counted);
            }
            Self::Tcp(stream, peer, tls, handshake) => {
                if let Err(error) =
                    serve_tls(stream, peer, tls, handshake, server, gate, stop).await
                {
                    tracing::info!(%peer, %error, "connection refused");
                }
            }
        }
    }
}

/// Answers a client that has too many connections.
async fn refuse(stream: &mut (impl AsyncWrite + Unpin), who: &str) {
    let body = format!("{{\"message\":\"{who} has too many connections at once: close some\"}}\n");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let sent = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // A client that does not read the answer does not get it.
    let _ = tokio::time::timeout(HELLO_TIMEOUT, sent).await;
}

/// The caller on a unix socket. Members of the group may do everything that concerns containers, which
/// gives them root in effect. Only root may change the machine itself, so that this takes a
/// deliberate step.
fn unix_user(stream: &UnixStream) -> (u32, Caller) {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) => {
            let uid = peer.uid();
            let role = match uid == 0 || uid == own {
                true => Role::Admin,
                false => Role::Operator,
            };
            (uid, Caller::new(role, format!("uid {uid}")))
        }
        Err(_) => (u32::MAX, Caller::new(Role::Operator, "uid unknown")),
    }
}

async fn serve_tls(
    stream: Paced<TcpStream>,
    address: SocketAddr,
    tls: Tls,
    mut handshake: Handshake,
    server: Arc<Server>,
    gate: Arc<Gate>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let socket = stream.get_ref();
    socket.set_nodelay(true)?;
    // A client that disappears without closing must not hold its place for ever.
    rustix::net::sockopt::set_socket_keepalive(socket, true)?;
    rustix::net::sockopt::set_tcp_keepidle(socket, Duration::from_secs(60))?;
    rustix::net::sockopt::set_tcp_keepintvl(socket, Duration::from_secs(15))?;
    let mut stream = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, accept_tls(stream, &tls)) => {
            accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        }
        () = handshake.displaced() => {
            return Err(io::Error::other("its handshake took too long while others waited"));
        }
    };
    drop(handshake);
    let certificates = stream.get_ref().1.peer_certificates();
    let Some(certificate) = certificates.and_then(<[_]>::first).cloned() else {
        return Err(io::Error::other("the client has no certificate"));
    };
    // rustls verified a resumed session only when it began.
    if tls.clients().is_revoked(&certificate) {
        return Err(io::Error::other("the client's certificate was revoked"));
    }
    let caller = caller::of_certificate(&certificate);
    let Some(_counted) = gate.peers.enter(peer(address.ip())) else {
        refuse(&mut stream, "this address").await;
        return Ok(());
    };
    let _reader = match caller.role {
        Role::Reader => match gate.readers.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                refuse(&mut stream, "role reader").await;
                return Ok(());
            }
        },
        Role::Admin | Role::Operator => None,
    };
    let Ok(_place) = tokio::time::timeout(PLACE_TIMEOUT, gate.place()).await else {
        refuse(&mut stream, "this machine").await;
        return Ok(());
    };
    let revoked = tls.clients().clone().revoked(certificate.into_owned());
    let orders = Orders {
        revoked: revoked.boxed(),
        ..gate.orders(stop)
    };
    connection::serve(stream, caller, server, orders).await;
    Ok(())
}

async fn accept_tls(
    mut stream: Paced<TcpStream>,
    tls: &Tls,
) -> io::Result<TlsStream<Paced<TcpStream>>> {
    let mut first = [0_u8];
    let peeked = tokio::time::timeout(HELLO_TIMEOUT, stream.get_ref().peek(&mut first))
        .await
        .map_err(|_| io::Error::other("the client sends nothing"))??;
    // Every TLS handshake record begins with 22; anything else is a client without TLS.
    if peeked == 1 && first != [22] {
        stream
            .write_all(
                b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            )
            .await?;
        stream.shutdown().await?;
        return Err(io::Error::other("the client does not speak TLS"));
    }
    tls.acceptor().accept(stream).await
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The connections of a daemon that has just ended must not stop the next one from listening.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds a unix socket that root and the group may use. A socket without a listener is replaced. Any
/// other file is left alone.
fn bind_unix(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("can't make directory {}", parent.display()))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
        Ok(meta) if !meta.file_type().is_socket() => {
            bail!("{} exists and is not a socket", path.display())
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)
                    .with_context(|| format!("can't remove stale socket {}", path.display()))?;
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("can't find out who listens on {}", path.display()));
            }
            Ok(_) => bail!("another program listens on {}", path.display()),
        },
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("can't listen on unix://{}", path.display()))?;
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    if let Some(gid) = keelson_linux::accounts::id(&groups, GROUP) {
        chown(path, None, Some(gid))
            .with_context(|| format!("can't change the group of {} to {GROUP}", path.display()))?;
    }
    // Until now only the owner could connect, because connecting takes write permission.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("can't set permissions of {}", path.display()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_sockets_are_replaced_and_others_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/docker.sock");
        let first = bind_unix(&path).unwrap();
        assert!(bind_unix(&path).is_err());
        // Dropping a listener leaves its file, as a killed daemon does.
        drop(first);
        let _second = bind_unix(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(bind_unix(&file).is_err());
        assert!(file.exists());
    }
}
