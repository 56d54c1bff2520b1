//! Syslog: messages in the forms of RFC 3164 and RFC 5424, and the connection to a server.

use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use keelson_log::Stream;
use keelson_model::spec::{LogSpec, SyslogFormat, SyslogServer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};
use tokio::time::timeout;

/// How long a server may take to accept a connection, and to accept a batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where this machine's server may listen.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// Severities by RFC 5424.
const ERROR: u8 = 3;
const INFORMATIONAL: u8 = 6;

/// A server that could not be reached or does not take messages.
#[derive(Debug, thiserror::Error)]
#[error("syslog server {server}: {operation}: {source}")]
pub(super) struct SyslogError {
    server: String,
    operation: &'static str,
    source: io::Error,
}

/// A line of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) stream: Stream,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) text: Vec<u8>,
}

/// How messages are written.
#[derive(Debug, Clone)]
pub(super) struct Format {
    format: SyslogFormat,
    facility: u8,
    tag: String,
    host: String,
}

impl Format {
    /// The format for a container's log; `None`: it goes to no server.
    pub(super) fn of(log: &LogSpec, tag: String) -> Option<Self> {
        let LogSpec::Syslog {
            format, facility, ..
        } = log
        else {
            return None;
        };
        let host = rustix::system::uname();
        Some(Self {
            format: *format,
            facility: *facility,
            tag,
            host: host.nodename().to_string_lossy().into_owned(),
        })
    }

    /// The bytes of a message.
    pub(super) fn render(&self, message: &Message) -> Vec<u8> {
        let severity = match message.stream {
            Stream::Stdout => INFORMATIONAL,
            Stream::Stderr => ERROR,
        };
        let priority = self.facility * 8 + severity;
        let time = Timestamp::from_nanosecond(i128::from(message.time)).unwrap_or_default();
        let zoned = time.to_zoned(TimeZone::UTC);
        let (tag, host, process) = (&self.tag, &self.host, std::process::id());
        let mut bytes = match self.format {
            SyslogFormat::Local => {
                let time = zoned.strftime("%b %e %H:%M:%S");
                format!("<{priority}>{time} {tag}[{process}]: ")
            }
            SyslogFormat::Rfc3164 => {
                let time = zoned.strftime("%b %e %H:%M:%S");
                format!("<{priority}>{time} {host} {tag}[{process}]: ")
            }
            SyslogFormat::Rfc5424 => {
                let time = zoned.strftime("%Y-%m-%dT%H:%M:%SZ");
                format!("<{priority}>1 {time} {host} {tag} {process} {tag} - ")
            }
            SyslogFormat::Rfc5424Micro => {
                let time = zoned.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
                format!("<{priority}>1 {time} {host} {tag} {process} {tag} - ")
            }
        }
        .into_bytes();
        bytes.extend_from_slice(&message.text);
        bytes
    }
}

/// A connection to a server.
#[derive(Debug)]
pub(super) struct ServerConnection {
    server: String,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    UnixDatagram(UnixDatagram),
    UnixStream(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl ServerConnection {
    pub(super) async fn open(server: &SyslogServer) -> Result<Self, SyslogError> {
        let name = match server {
            SyslogServer::Local => LOCAL.join(" or "),
            SyslogServer::Unix(path) => format!("unix://{}", path.display()),
            SyslogServer::Udp(address) => format!("udp://{address}"),
            SyslogServer::Tcp(address) => format!("tcp://{address}"),
        };
        let opened = timeout(PATIENCE, connect(server)).await;
        match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(socket) => Ok(Self {
                server: name,
                socket,
            }),
            Err(source) => Err(SyslogError {
                server: name,
                operation: "connect",
                source,
            }),
        }
    }

    /// Sends messages. After a failure some of them may have arrived.
    pub(super) async fn send(&mut self, messages: &[Vec<u8>]) -> Result<(), SyslogError> {
        let sent = timeout(PATIENCE, self.socket.send(messages)).await;
        let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        sent.map_err(|source| SyslogError {
            server: self.server.clone(),
            operation: "send",
            source,
        })
    }
}

async fn connect(server: &SyslogServer) -> io::Result<Socket> {
    match server {
        SyslogServer::Local => {
            let mut last = io::ErrorKind::NotFound.into();
            for path in LOCAL {
                match unix(Path::new(path)).await {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        SyslogServer::Unix(path) => unix(path).await,
        SyslogServer::Udp(address) => {
            let mut last = io::ErrorKind::NotFound.into();
            for address in tokio::net::lookup_host(address.as_str()).await? {
                let own = if address.is_ipv6() {
                    "[::]:0"
                } else {
                    "0.0.0.0:0"
                };
                let socket = UdpSocket::bind(own).await?;
                match socket.connect(address).await {
                    Ok(()) => return Ok(Socket::Udp(socket)),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        SyslogServer::Tcp(address) => Ok(Socket::Tcp(TcpStream::connect(address.as_str()).await?)),
    }
}

/// Connects to a unix socket of either kind.
async fn unix(path: &Path) -> io::Result<Socket> {
    let socket = UnixDatagram::unbound()?;
    match socket.connect(path) {
        Ok(()) => Ok(Socket::UnixDatagram(socket)),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => {
            Ok(Socket::UnixStream(UnixStream::connect(path).await?))
        }
        Err(error) => Err(error),
    }
}

impl Socket {
    async fn send(&mut self, messages: &[Vec<u8>]) -> io::Result<()> {
        match self {
            Self::UnixDatagram(socket) => {
                for message in messages {
                    socket.send(message).await?;
                }
                Ok(())
            }
            Self::Udp(socket) => {
                for message in messages {
                    // An ICMP answer to an earlier datagram: nobody listens. Datagrams may be lost.
                    match socket.send(message).await {
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                        other => drop(other?),
                    }
                }
                Ok(())
            }
            Self::UnixStream(stream) => stream.write_all(&lines(messages)).await,
            Self::Tcp(stream) => stream.write_all(&lines(messages)).await,
        }
    }
}

/// On a stream a newline ends a message.
fn lines(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        bytes.extend_from_slice(message);
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(format: SyslogFormat) -> Format {
        Format {
            format,
            facility: 16,
            tag: "web".to_owned(),
            host: "ship".to_owned(),
        }
    }

    fn text(form: SyslogFormat, stream: Stream) -> String {
        let message = Message {
            stream,
            time: 1_700_000_000_123_456_789,
            text: b"hello".to_vec(),
        };
        let text = String::from_utf8(format(form).render(&message)).unwrap();
        text.replace(&std::process::id().to_string(), "PID")
    }

    #[test]
    fn messages_have_the_form_of_their_standard() {
        let (out, error) = (Stream::Stdout, Stream::Stderr);
        for (form, stream, wanted) in [
            (
                SyslogFormat::Local,
                out,
                "<134>Nov 14 22:13:20 web[PID]: hello",
            ),
            (
                SyslogFormat::Rfc3164,
                error,
                "<131>Nov 14 22:13:20 ship web[PID]: hello",
            ),
            (
                SyslogFormat::Rfc5424,
                out,
                "<134>1 2023-11-14T22:13:20Z ship web PID web - hello",
            ),
            (
                SyslogFormat::Rfc5424Micro,
                out,
                "<134>1 2023-11-14T22:13:20.123456Z ship web PID web - hello",
            ),
        ] {
            assert_eq!(text(form, stream), wanted);
        }
    }

    #[tokio::test]
    async fn unix_sockets_of_both_kinds() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let datagrams = UnixDatagram::bind(&one).unwrap();
        let stream = tokio::net::UnixListener::bind(&two).unwrap();
        let messages = [b"a".to_vec(), b"b".to_vec()];
        let open =
            async |path: &Path| ServerConnection::open(&SyslogServer::Unix(path.into())).await;
        open(&one).await.unwrap().send(&messages).await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(datagrams.recv(&mut buffer).await.unwrap(), 1);
        open(&two).await.unwrap().send(&messages).await.unwrap();
        let (mut accepted, _) = stream.accept().await.unwrap();
        let mut got = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut accepted, &mut got)
            .await
            .unwrap();
        assert_eq!(got, b"a\nb\n");
        let error = open(&directory.path().join("none")).await.unwrap_err();
        assert!(error.to_string().contains("connect"), "{error}");
    }
}
