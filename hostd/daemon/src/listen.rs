//! Listeners: unix sockets, and TCP with TLS.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hostd_api_host::role;
use keelson_model::host_api::Role;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::connection::{self, Server};
use crate::options::Listen;
use crate::tls::Tls;

/// Most connections at once on one listener; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after accept(2) failed, for example for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Whose members may use the unix sockets.
const GROUP: &str = "docker";

/// A bound listener.
pub(crate) enum Listener {
    /// A unix socket and its path.
    Unix(UnixListener, PathBuf),
    /// TCP.
    Tcp(TcpListener, Tls),
}

impl Listener {
    /// Binds. `tls` must be there for TCP.
    pub(crate) async fn bind(listen: &Listen, tls: Option<&Tls>) -> Result<Self> {
        match (listen, tls) {
            (Listen::Unix(path), _) => Ok(Self::Unix(bind_unix(path)?, path.clone())),
            (Listen::Tcp(address), Some(tls)) => {
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("can't listen on tcp://{address}"))?;
                Ok(Self::Tcp(listener, tls.clone()))
            }
            (Listen::Tcp(address), None) => bail!(
                "refusing to listen on tcp://{address} without TLS: name a folder for the keys with --tls"
            ),
        }
    }

    /// Serves until `stop` changes.
    pub(crate) async fn serve(self, server: Arc<Server>, mut stop: watch::Receiver<bool>) {
        let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let stop_connections = stop.clone();
        let accept = async {
            loop {
                let Ok(permit) = limit.clone().acquire_owned().await else {
                    return;
                };
                let accepted = match &self {
                    Self::Unix(listener, _) => {
                        listener.accept().await.map(|(s, _)| Accepted::Unix(s))
                    }
                    Self::Tcp(listener, tls) => listener
                        .accept()
                        .await
                        .map(|(s, peer)| Accepted::Tcp(s, peer, tls.clone())),
                };
                match accepted {
                    Ok(accepted) => {
                        let (server, stop) = (server.clone(), stop_connections.clone());
                        tokio::spawn(async move {
                            accepted.serve(server, stop).await;
                            drop(permit);
                        });
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
            // The next daemon would see a stale socket and remove it, too.
            let _ = fs::remove_file(path);
        }
    }
}

/// A connection that has just come.
enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr, Tls),
}

impl Accepted {
    async fn serve(self, server: Arc<Server>, stop: watch::Receiver<bool>) {
        match self {
            Self::Unix(stream) => {
                let role = unix_role(&stream);
                connection::serve(stream, role, server, stop).await;
            }
            Self::Tcp(stream, peer, tls) => {
                if let Err(error) = serve_tls(stream, tls, server, stop).await {
                    tracing::info!(%peer, %error, "connection refused");
                }
            }
        }
    }
}

/// The group that may use the socket may do everything with containers, which is as much as
/// being root; the machine itself is left to root, so that it takes a deliberate step.
fn unix_role(stream: &UnixStream) -> Role {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == own => Role::Admin,
        _ => Role::Operator,
    }
}

async fn serve_tls(
    mut stream: TcpStream,
    tls: Tls,
    server: Arc<Server>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A client that vanished without a word must not hold its place for ever.
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60))?;
    rustix::net::sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(15))?;
    let handshake = async {
        let mut first = [0_u8];
        // Every TLS handshake record begins with 22; anything else is a client without TLS.
        if stream.peek(&mut first).await? == 1 && first != [22] {
            stream
                .write_all(
                    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
                )
                .await?;
            stream.shutdown().await?;
            return Err(io::Error::other("the client does not speak TLS"));
        }
        tls.acceptor().accept(stream).await
    };
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let role = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map_or(Role::Reader, role::of_certificate);
    connection::serve(stream, role, server, stop).await;
    Ok(())
}

/// Binds a unix socket that root and the group may use. A socket that nobody listens on any more
/// is replaced; any other file is left alone.
fn bind_unix(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("can't make folder {}", parent.display()))?;
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
                    .with_context(|| format!("can't tell who listens on {}", path.display()));
            }
            Ok(_) => bail!("another program listens on {}", path.display()),
        },
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("can't listen on unix://{}", path.display()))?;
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    if let Some(gid) = group_id(&groups, GROUP) {
        chown(path, None, Some(gid))
            .with_context(|| format!("can't give {} to group {GROUP}", path.display()))?;
    }
    // Until here only the owner could connect: that takes write permission.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("can't set permissions of {}", path.display()))?;
    Ok(listener)
}

/// Looks a group up in the text of group(5).
fn group_id(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_looked_up() {
        let text = "root:x:0:\ndocker:x:103:a,b\n";
        assert_eq!(group_id(text, "docker"), Some(103));
        assert_eq!(group_id(text, "dock"), None);
        assert_eq!(group_id("docker\n", "docker"), None);
    }

    #[tokio::test]
    async fn stale_sockets_are_replaced_and_others_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/docker.sock");
        let first = bind_unix(&path).unwrap();
        assert!(bind_unix(&path).is_err());
        // Dropping a listener leaves its file behind, as a killed daemon does.
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
