//! Connections to targets.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use keelson_blocking::blocking;
use keelson_journal::StoredEntry;
use keelson_model::host::{ForwardConfig, LogTarget, LogTargetError, LogTransport};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::syslog;
use super::tls::{self, LogTlsError};
use crate::line;

/// How long a target may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take to take a batch.
const TAKE: Duration = Duration::from_secs(30);
/// How long a server of TLS may take to refuse this machine's certificate: it says so after the
/// handshake.
const REFUSAL: Duration = Duration::from_millis(300);
/// How often the kernel is asked whether everything was acknowledged.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How much of a refusing answer is read.
const MOST_ANSWER: usize = 4096;

/// Why lines do not arrive. Each says what to do, if there is something.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("\"{0}\" {1}: correct logs.forward in the configuration")]
    Target(String, LogTargetError),
    #[error("find {0}: {1}: check the name in `target`, and the name servers")]
    Lookup(String, io::Error),
    #[error("connect to {0}: {1}: does it run, and listen there?")]
    Connect(String, io::Error),
    #[error("{0} does not accept the connection within {limit} s", limit = CONNECT.as_secs())]
    Slow(String),
    #[error(transparent)]
    Files(#[from] LogTlsError),
    #[error("TLS with {0}: {1}: {remedy}", remedy = remedy(.1))]
    Tls(String, io::Error),
    #[error("\"{0}\" is no name for TLS")]
    Name(String),
    #[error("send to {0}: {1}")]
    Send(String, io::Error),
    #[error("{0} has closed the connection")]
    Closed(String),
    #[error("{0} takes nothing for {limit} s", limit = TAKE.as_secs())]
    Stuck(String),
    #[error("read the token in {path}: {1}", path = .0.display())]
    Token(PathBuf, io::Error),
    #[error("the token in {path} is no text", path = .0.display())]
    NoToken(PathBuf),
    #[error("HTTP with {0}: {1}")]
    Http(String, hyper::Error),
    #[error("{target} answered {status}{text}")]
    Refused {
        target: String,
        status: StatusCode,
        text: String,
    },
    #[error("read the store: {0}")]
    Store(String),
}

/// What to do about a failure of TLS.
fn remedy(error: &io::Error) -> &'static str {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidForName
            | rustls::CertificateError::NotValidForNameContext { .. },
        )) => "use a name in `target` that is in its certificate",
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. },
        )) => "renew its certificate, or set this machine's clock",
        Some(rustls::Error::InvalidCertificate(_)) => {
            "name the authority that has signed its certificate with `ca`"
        }
        Some(rustls::Error::AlertReceived(_)) => {
            "it refuses this machine; set `certificate` and `key` if it wants them"
        }
        _ => "is it a server of TLS?",
    }
}

/// A connection.
pub(super) struct Connection {
    target: LogTarget,
    config: ForwardConfig,
    name: String,
    /// This machine's name.
    host: String,
    link: Link,
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Http(HttpLink),
}

struct HttpLink {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    path: String,
    token: Option<http::HeaderValue>,
}

impl Connection {
    pub(super) async fn open(
        target: &LogTarget,
        config: &ForwardConfig,
    ) -> Result<Self, ForwardError> {
        let name = target.to_string();
        let link = open(target, &name, config).await?;
        let system = rustix::system::uname();
        Ok(Self {
            target: target.clone(),
            config: config.clone(),
            name,
            host: system.nodename().to_string_lossy().into_owned(),
            link,
        })
    }

    /// Sends lines, and returns when the target has taken them.
    pub(super) async fn send(&mut self, lines: Vec<StoredEntry>) -> Result<(), ForwardError> {
        // Servers of HTTP close what is not used for a time.
        if let Link::Http(link) = &self.link
            && link.sender.is_closed()
        {
            self.link = open(&self.target, &self.name, &self.config).await?;
        }
        let name = self.name.clone();
        let sent = timeout(TAKE, self.pass(lines)).await;
        sent.unwrap_or(Err(ForwardError::Stuck(name)))
    }

    async fn pass(&mut self, lines: Vec<StoredEntry>) -> Result<(), ForwardError> {
        let messages = lines.iter().map(|line| syslog::message(line, &self.host));
        let name = &self.name;
        let failed = |error| ForwardError::Send(name.clone(), error);
        match &mut self.link {
            Link::Udp(socket) => {
                for message in messages {
                    // An ICMP answer to the datagram before: nobody listens.
                    socket
                        .send(&syslog::datagram(message))
                        .await
                        .map_err(failed)?;
                }
                Ok(())
            }
            Link::Tcp(stream) => {
                let bytes: Vec<u8> = messages.flat_map(|m| syslog::framed(&m)).collect();
                is_open(name, stream).await?;
                stream.write_all(&bytes).await.map_err(failed)?;
                acknowledged(name, stream).await?;
                is_open(name, stream).await
            }
            Link::Tls(stream) => {
                let bytes: Vec<u8> = messages.flat_map(|m| syslog::framed(&m)).collect();
                is_open(name, stream).await?;
                stream.write_all(&bytes).await.map_err(failed)?;
                stream.flush().await.map_err(failed)?;
                acknowledged(name, stream.get_ref().0).await?;
                is_open(name, stream).await
            }
            Link::Http(link) => post(name, link, lines).await,
        }
    }

    /// Returns when the target has closed the connection. Over HTTP that is nothing unusual.
    pub(super) async fn closed(&mut self) -> ForwardError {
        match &mut self.link {
            Link::Udp(_) | Link::Http(_) => std::future::pending().await,
            Link::Tcp(stream) => wait_closed(&self.name, stream).await,
            Link::Tls(stream) => wait_closed(&self.name, stream).await,
        }
    }
}

async fn open(
    target: &LogTarget,
    name: &str,
    config: &ForwardConfig,
) -> Result<Link, ForwardError> {
    let opened = timeout(CONNECT, connect(target, name, config)).await;
    opened.unwrap_or_else(|_| Err(ForwardError::Slow(name.to_owned())))
}

async fn connect(
    target: &LogTarget,
    name: &str,
    config: &ForwardConfig,
) -> Result<Link, ForwardError> {
    let lookup = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let addresses: Vec<_> = lookup
        .map_err(|error| ForwardError::Lookup(target.host.clone(), error))?
        .collect();
    if target.transport == LogTransport::Udp {
        let mut last: io::Error = io::ErrorKind::NotFound.into();
        for address in addresses {
            let own = if address.is_ipv6() {
                "[::]:0"
            } else {
                "0.0.0.0:0"
            };
            let connected = async {
                let socket = UdpSocket::bind(own).await?;
                socket.connect(address).await?;
                Ok::<_, io::Error>(socket)
            };
            match connected.await {
                Ok(socket) => return Ok(Link::Udp(socket)),
                Err(error) => last = error,
            }
        }
        return Err(ForwardError::Connect(name.to_owned(), last));
    }
    let stream = TcpStream::connect(&*addresses).await;
    let stream = stream.map_err(|error| ForwardError::Connect(name.to_owned(), error))?;
    // Batches are written whole.
    let _ = stream.set_nodelay(true);
    match target.transport {
        LogTransport::Udp | LogTransport::Tcp => Ok(Link::Tcp(stream)),
        LogTransport::Tls => {
            let mut stream = encrypt(target, name, config, stream).await?;
            // It sends nothing by itself but its refusal.
            match timeout(REFUSAL, stream.read(&mut [0; 64])).await {
                Ok(Err(error)) => return Err(ForwardError::Tls(name.to_owned(), error)),
                Ok(Ok(0)) => return Err(ForwardError::Closed(name.to_owned())),
                Ok(Ok(_)) | Err(_) => {}
            }
            Ok(Link::Tls(Box::new(stream)))
        }
        LogTransport::Http => http_link(target, name, TokioIo::new(stream), None).await,
        LogTransport::Https => {
            let token = match &config.token {
                Some(path) => Some(token(path.clone()).await?),
                None => None,
            };
            let stream = encrypt(target, name, config, stream).await?;
            http_link(target, name, TokioIo::new(stream), token).await
        }
    }
}

async fn encrypt(
    target: &LogTarget,
    name: &str,
    config: &ForwardConfig,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ForwardError> {
    let files = config.clone();
    let client = blocking(move || tls::client(&files)).await;
    let client = client.map_err(|died| ForwardError::Store(died.to_string()))??;
    let server = ServerName::try_from(target.host.clone());
    let server = server.map_err(|_| ForwardError::Name(target.host.clone()))?;
    let stream = TlsConnector::from(client).connect(server, stream).await;
    stream.map_err(|error| ForwardError::Tls(name.to_owned(), error))
}

async fn http_link<S>(
    target: &LogTarget,
    name: &str,
    stream: TokioIo<S>,
    token: Option<http::HeaderValue>,
) -> Result<Link, ForwardError>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let opened = http1::handshake(stream).await;
    let (sender, connection) = opened.map_err(|e| ForwardError::Http(name.to_owned(), e))?;
    // Ends with the sender. Requests return its errors as well.
    tokio::spawn(connection);
    Ok(Link::Http(HttpLink {
        sender,
        authority: target.authority(),
        path: target.path.clone(),
        token,
    }))
}

async fn token(path: PathBuf) -> Result<http::HeaderValue, ForwardError> {
    let text = tokio::fs::read_to_string(&path).await;
    let text = text.map_err(|error| ForwardError::Token(path.clone(), error))?;
    let value = http::HeaderValue::try_from(format!("Bearer {}", text.trim()));
    let mut value = value.map_err(|_| ForwardError::NoToken(path))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends lines as one request, a JSON document on each line.
async fn post(
    name: &str,
    link: &mut HttpLink,
    lines: Vec<StoredEntry>,
) -> Result<(), ForwardError> {
    let failed = |error| ForwardError::Http(name.to_owned(), error);
    let mut body = Vec::new();
    for stored in lines {
        // These members can always be written.
        let _ = serde_json::to_writer(&mut body, &line::line(stored));
        body.push(b'\n');
    }
    let mut request = Request::post(&link.path)
        .header(header::HOST, &link.authority)
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .header(
            header::USER_AGENT,
            concat!("Keelson/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(token) = &link.token {
        request = request.header(header::AUTHORIZATION, token);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| ForwardError::Send(name.to_owned(), io::Error::other(error)))?;
    link.sender.ready().await.map_err(failed)?;
    let answer = link.sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let text = Limited::new(answer.into_body(), MOST_ANSWER)
        .collect()
        .await;
    if status.is_success() {
        return Ok(());
    }
    let text = text.map(|text| text.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let text: String = text.trim().chars().take(200).collect();
    Err(ForwardError::Refused {
        target: name.to_owned(),
        status,
        text: if text.is_empty() {
            text
        } else {
            format!(": {text}")
        },
    })
}

/// Waits until the target's kernel has acknowledged everything.
async fn acknowledged(name: &str, stream: &TcpStream) -> Result<(), ForwardError> {
    let failed = |error| ForwardError::Send(name.to_owned(), error);
    let end = Instant::now() + TAKE;
    while Instant::now() < end {
        if keelson_sys::socket::unread(stream.as_fd()).map_err(failed)? == 0 {
            return Ok(());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Err(ForwardError::Stuck(name.to_owned()))
}

/// Fails if the target has closed the connection. What is written then would be lost.
async fn is_open(name: &str, stream: &mut (impl AsyncReadExt + Unpin)) -> Result<(), ForwardError> {
    match timeout(Duration::ZERO, stream.read(&mut [0; 256])).await {
        Ok(Ok(0)) => Err(ForwardError::Closed(name.to_owned())),
        Ok(Err(error)) => Err(ForwardError::Send(name.to_owned(), error)),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

async fn wait_closed(name: &str, stream: &mut (impl AsyncReadExt + Unpin)) -> ForwardError {
    loop {
        match stream.read(&mut [0; 256]).await {
            Ok(0) => return ForwardError::Closed(name.to_owned()),
            Ok(_) => {}
            Err(error) => return ForwardError::Send(name.to_owned(), error),
        }
    }
}
