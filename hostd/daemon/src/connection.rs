//! One connection, whatever it came through.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::Cursor;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use hostd_api_docker::Api;
use hostd_api_docker::hijack::{Hijacker, Takeover};
use hostd_api_docker::reply::{self, Body};
use hostd_api_host::{HostApi, role};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keelson_model::error::ErrorKind;
use keelson_model::host_api::Role;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

/// How long a client may take to send a request's head; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 100;

/// How long a client may take to read the head before a raw stream begins.
const HEAD_READ: Duration = Duration::from_millis(50);
/// How often it is looked whether it did.
const HEAD_TICK: Duration = Duration::from_millis(1);

/// What a connection runs on.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Whether the client has read everything that was sent, as far as that can be told.
    fn is_read(&self) -> bool;
}

impl Transport for UnixStream {
    fn is_read(&self) -> bool {
        keelson_sys::socket::unread(self.as_fd()).is_ok_and(|bytes| bytes == 0)
    }
}

impl Transport for TlsStream<TcpStream> {
    fn is_read(&self) -> bool {
        // Clients read record by record, and the head is one of its own.
        true
    }
}

/// What answers requests.
pub(crate) struct Server {
    /// The Docker Engine API.
    pub(crate) docker: Api,
    /// The host API.
    pub(crate) host: HostApi,
}

/// Serves a connection until it ends, or until its present request ends after `stop` changed.
pub(crate) async fn serve<S>(
    stream: S,
    role: Role,
    server: Arc<Server>,
    mut stop: watch::Receiver<bool>,
) where
    S: Transport,
{
    let (hijacker, mut takeovers) = Hijacker::new();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(hijacker.clone());
        let server = server.clone();
        // Boxed, because the connection must stay movable to be taken over.
        async move { Ok::<_, Infallible>(guarded(&server, role, request).await) }.boxed()
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            Some(takeover) = takeovers.recv() => {
                let parts = http.into_parts();
                run_session(takeover, parts.io.into_inner(), &parts.read_buf).await;
                return;
            }
            result = poll_fn(|context| http.poll_without_shutdown(context)) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                // An error means that the client is gone already.
                let _ = http.into_parts().io.into_inner().shutdown().await;
                return;
            }
            _ = stop.changed(), if !stopping => {
                stopping = true;
                Pin::new(&mut http).graceful_shutdown();
            }
        }
    }
}

/// Runs a raw stream on what was an HTTP connection. `early` is what the client sent right
/// behind its request.
async fn run_session<S: Transport>(takeover: Takeover, mut stream: S, early: &[u8]) {
    let sent = async {
        stream.write_all(&takeover.head).await?;
        stream.flush().await
    };
    if let Err(error) = sent.await {
        tracing::debug!(%error, "connection ended before its stream began");
        return;
    }
    // Clients that read the head through a buffer (docker-py) lose what comes along with it.
    let read = async {
        while !stream.is_read() {
            tokio::time::sleep(HEAD_TICK).await;
        }
    };
    // Others are not waited for longer.
    let _ = tokio::time::timeout(HEAD_READ, read).await;
    let (reader, writer) = tokio::io::split(stream);
    let reader = Cursor::new(early.to_vec()).chain(reader);
    let session = (takeover.session)(Box::new(reader), Box::new(writer));
    if AssertUnwindSafe(session).catch_unwind().await.is_err() {
        tracing::error!("a stream ended by a panic");
    }
}

/// A panic in a handler ends this request only.
async fn guarded(server: &Server, role: Role, request: Request<Incoming>) -> Response<Body> {
    let answer = AssertUnwindSafe(answer(server, role, request)).catch_unwind();
    answer.await.unwrap_or_else(|_| {
        failure(
            ErrorKind::Internal,
            "an internal error ended this request; hostd's log has the details",
        )
    })
}

async fn answer(server: &Server, role: Role, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method(), request.uri().path());
    if !role::allows(role, method, path) {
        return failure(
            ErrorKind::Forbidden,
            &format!("role {} may not {method} {path}", role.as_str()),
        );
    }
    if role::is_host_api(path) {
        return server.host.handle(request).await;
    }
    server.docker.handle(request).await
}

fn failure(kind: ErrorKind, message: &str) -> Response<Body> {
    let status =
        StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply::json(status, &json!({"message": message}))
}
