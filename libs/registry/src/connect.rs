//! Connections: TCP, through a proxy where one is configured, and TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use keelson_blocking::{TaskDied, blocking};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::options::RegistryOptions;
use crate::own;
use crate::tls::Trust;
use crate::uri::{authority, basic, host_of};

/// Makes connections for hyper.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub options: Arc<RegistryOptions>,
    pub trust: Arc<Trust>,
}

/// A connection to a registry or to the proxy before it.
pub(crate) struct Stream {
    io: Transport,
    proxied: bool,
}

enum Transport {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

/// Why there is no TLS connection. The caller must distinguish a server without TLS from one that
/// can't be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The peer answers, but not in TLS.
    #[error("it does not speak TLS")]
    NotTls,
    /// No process listens there.
    #[error("connection refused")]
    Refused,
    /// The local configuration is wrong. A text, as in all variants: the HTTP library only lends the
    /// error, and the caller needs its own.
    #[error("{0}")]
    Setup(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

fn died(error: TaskDied) -> ConnectError {
    ConnectError::Failed(error.to_string())
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let limit = connector.options.deadlines.connect;
            tokio::time::timeout(limit, connector.connect(&uri))
                .await
                .unwrap_or_else(|_| {
                    Err(ConnectError::Failed(format!(
                        "no connection within {} s",
                        limit.as_secs_f32()
                    )))
                })
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Stream, ConnectError> {
        let tls = uri.scheme_str() == Some("https");
        let name = authority(uri);
        let proxy = self.options.proxies.before(tls, name);
        let (options, of) = (Arc::clone(&self.options), name.to_owned());
        let named = blocking(move || options.is_named(&of))
            .await
            .map_err(died)?;
        let tcp = match proxy {
            // Only the proxy can resolve the name.
            Some(_) if !named && host_of(name).parse().is_ok_and(own::is_own) => {
                return Err(this_machine(name));
            }
            Some(proxy) => open(proxy, 80, true).await?,
            None => open(uri, if tls { 443 } else { 80 }, named).await?,
        };
        if !tls {
            return Ok(Stream {
                io: Transport::Plain(TokioIo::new(tcp)),
                proxied: proxy.is_some(),
            });
        }
        let tcp = match proxy {
            Some(proxy) => tunnel(tcp, proxy, uri).await?,
            None => tcp,
        };
        let (trust, options, owned) = (
            Arc::clone(&self.trust),
            Arc::clone(&self.options),
            name.to_owned(),
        );
        // On another thread, because files are read.
        let config = blocking(move || trust.config(&options, &owned))
            .await
            .map_err(died)?
            .map_err(|error| ConnectError::Setup(error.to_string()))?;
        let host = ServerName::try_from(host_of(name).to_owned())
            .map_err(|_| ConnectError::Setup(format!("{name:?} is not a valid host name")))?;
        let stream = TlsConnector::from(config)
            .connect(host, tcp)
            .await
            .map_err(|error| handshake(&error))?;
        Ok(Stream {
            io: Transport::Tls(Box::new(TokioIo::new(stream))),
            proxied: false,
        })
    }
}

fn handshake(error: &io::Error) -> ConnectError {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        // A plain HTTP server does not answer with a TLS record.
        Some(rustls::Error::InvalidMessage(_)) => ConnectError::NotTls,
        Some(rustls::Error::InvalidCertificate(reason)) => ConnectError::Setup(format!(
            "its certificate cannot be verified: {reason}; add its certificate authority, or \
             configure it as insecure"
        )),
        Some(other) => ConnectError::Failed(format!("TLS: {other}")),
        // Some plain HTTP servers just close the connection.
        None if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ) =>
        {
            ConnectError::NotTls
        }
        None => ConnectError::Failed(format!("TLS: {error}")),
    }
}

/// Connects. An address of this machine is allowed only if the registry is `named` so.
async fn open(uri: &Uri, default_port: u16, named: bool) -> Result<TcpStream, ConnectError> {
    let host = host_of(authority(uri));
    let port = uri.port_u16().unwrap_or(default_port);
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| ConnectError::Failed(error.to_string()))?;
    let mut last = ConnectError::Failed("its name has no address".to_owned());
    for address in addresses {
        if !named && own::is_own(address.ip()) {
            last = this_machine(host);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                // Requests are written in one piece. If this fails, it only costs time.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = ConnectError::Refused;
            }
            Err(error) => last = ConnectError::Failed(error.to_string()),
        }
    }
    Err(last)
}

fn this_machine(name: &str) -> ConnectError {
    ConnectError::Setup(format!(
        "{name} is this machine itself or on its link, which is refused unless the configuration \
         names it: as insecure, as a mirror, or by a directory in certs.d"
    ))
}

/// Longest answer of a proxy to CONNECT, in bytes.
const MAX_PROXY_ANSWER: usize = 8 << 10;

/// Asks a proxy for a tunnel (RFC 9110, section 9.3.6).
async fn tunnel(mut tcp: TcpStream, proxy: &Uri, uri: &Uri) -> Result<TcpStream, ConnectError> {
    let failed =
        |reason: String| ConnectError::Failed(format!("proxy {}: {reason}", authority(proxy)));
    let name = authority(uri);
    let target = match uri.port_u16() {
        Some(_) => name.to_owned(),
        None => format!("{name}:443"),
    };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    let authorization = basic(proxy).map_err(|why| failed(why.to_owned()))?;
    if let Some(authorization) = authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes())
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head belongs to the tunnel.
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = tcp
            .read_u8()
            .await
            .map_err(|error| failed(error.to_string()))?;
        answer.push(byte);
        if answer.len() > MAX_PROXY_ANSWER {
            return Err(failed("its answer is too long".to_owned()));
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let line = answer.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(status) if line.starts_with("HTTP/1.") && status.starts_with('2') => Ok(tcp),
        _ => Err(failed(format!("it refuses the connection: {line}"))),
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Transport::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_read(context, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Transport::Plain(io) => Pin::new(io).poll_write(context, bytes),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Transport::Plain(io) => Pin::new(io).poll_flush(context),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Transport::Plain(io) => Pin::new(io).poll_shutdown(context),
            Transport::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(context),
        }
    }
}
