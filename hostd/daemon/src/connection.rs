//! Serves one connection, on a unix socket or on TCP.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::Cursor;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hostd_api_docker::Api;
use hostd_api_host::{HostApi, routes};
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keelson_http::hijack::{Hijacker, Takeover};
use keelson_http::places::Shortage;
use keelson_http::reply::Body;
use keelson_http::{Caller, Failure};
use keelson_model::error::ErrorKind;
use keelson_model::host_api::Role;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use crate::answers::{Answers, Held};
use crate::pace::Paced;
use crate::request_line::RequestLines;

/// How long a client may take to send a request's head; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 100;

/// How long a client may take to read the head before a raw stream begins.
const HEAD_READ: Duration = Duration::from_millis(50);
/// How often that is checked.
const HEAD_TICK: Duration = Duration::from_millis(1);

/// How long an idle connection is kept while places are short.
const IDLE_WHEN_CROWDED: Duration = Duration::from_secs(2);
/// How long the end of a connection may take.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection runs on.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Whether the client has read everything that was sent, as far as that is known.
    fn is_read(&self) -> bool;
}

impl Transport for Paced<UnixStream> {
    fn is_read(&self) -> bool {
        keelson_sys::socket::unread(self.get_ref().as_fd()).is_ok_and(|bytes| bytes == 0)
    }
}

impl Transport for TlsStream<Paced<TcpStream>> {
    fn is_read(&self) -> bool {
        // Clients read record by record, and the head is a record of its own.
        true
    }
}

/// What answers requests.
pub(crate) struct Server {
    /// The Docker Engine API.
    pub(crate) docker: Api,
    /// The host API.
    pub(crate) host: HostApi,
    /// Whether places are short.
    pub(crate) shortage: Shortage,
    /// The budget of answers that are not read yet.
    pub(crate) answers: Answers,
    /// The threads that do the work of requests. Other threads serve connections.
    pub(crate) work: Handle,
}

/// Signals that a connection obeys while it is served.
pub(crate) struct Orders {
    /// Changes when the daemon stops.
    pub(crate) stop: watch::Receiver<bool>,
    /// Whether connections are short.
    pub(crate) crowded: watch::Receiver<bool>,
    /// Completes when the client's certificate is revoked.
    pub(crate) revoked: BoxFuture<'static, ()>,
}

/// Serves a connection until it ends. When the daemon stops, the connection ends after its present
/// request.
pub(crate) async fn serve<S>(stream: S, caller: Caller, server: Arc<Server>, orders: Orders)
where
    S: Transport,
{
    let Orders {
        stop,
        crowded,
        revoked,
    } = orders;
    tokio::select! {
        () = serve_unrevoked(stream, caller, server, stop, crowded) => {}
        // Ends requests and streams in the middle.
        () = revoked => tracing::info!("connection ended: its certificate was revoked"),
    }
}

async fn serve_unrevoked<S>(
    stream: S,
    caller: Caller,
    server: Arc<Server>,
    mut stop: watch::Receiver<bool>,
    crowded: watch::Receiver<bool>,
) where
    S: Transport,
{
    let (hijacker, mut takeovers) = Hijacker::new();
    let active = Active::default();
    let service = {
        let active = active.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let working = active.begin();
            request.extensions_mut().insert(hijacker.clone());
            let (server, caller) = (server.clone(), caller.clone());
            // Boxed, because the connection must stay movable to be taken over.
            async move {
                let answer = answer(&server, &caller, request).await;
                let (answer, held) = budgeted(&server, caller.role, answer);
                let kept = Arc::new(Kept {
                    _working: working,
                    _held: held,
                });
                Ok::<_, Infallible>(answer.map(|body| Counted { body, kept }))
            }
            .boxed()
        })
    };
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        // Docker spells the names of headers so, and scripts search for them.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(RequestLines::new(stream, MAX_HEAD)), service);
    let mut stopping = false;
    let gives_way = active.gives_way(crowded);
    tokio::pin!(gives_way);
    loop {
        tokio::select! {
            biased;
            Some(takeover) = takeovers.recv() => {
                let parts = http.into_parts();
                let (stream, rest) = parts.io.into_inner().into_parts();
                let early = [&parts.read_buf, &rest[..]].concat();
                run_session(takeover, stream, early).await;
                return;
            }
            result = poll_fn(|context| http.poll_without_shutdown(context)) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                // The shutdown fails only when the client is gone already.
                let mut stream = http.into_parts().io.into_inner();
                let _ = tokio::time::timeout(END_TIMEOUT, stream.shutdown()).await;
                return;
            }
            () = &mut gives_way => {
                tracing::debug!("idle connection closed: connections are short");
                return;
            }
            _ = stop.changed(), if !stopping => {
                stopping = true;
                Pin::new(&mut http).graceful_shutdown();
            }
        }
    }
}

/// Counts the requests of a connection whose answers are not complete.
#[derive(Debug, Clone, Default)]
struct Active(Arc<AtomicUsize>);

/// One such request.
#[derive(Debug)]
struct Working(Arc<AtomicUsize>);

impl Active {
    fn begin(&self) -> Working {
        self.0.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(&self.0))
    }

    /// Returns when connections are short and this one is idle.
    async fn gives_way(&self, mut crowded: watch::Receiver<bool>) {
        loop {
            if crowded.wait_for(|crowded| *crowded).await.is_err() {
                // The listener is gone: the daemon is about to end.
                return std::future::pending().await;
            }
            // Checked twice: at the first check the end of an answer may still be on its way.
            let before = self.0.load(Ordering::Relaxed);
            tokio::time::sleep(IDLE_WHEN_CROWDED).await;
            if before == 0 && self.0.load(Ordering::Relaxed) == 0 && *crowded.borrow() {
                return;
            }
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The resources of an answer, held until the client's socket has taken its last byte.
struct Kept {
    _working: Working,
    _held: Option<Held>,
}

/// An answer's body. hyper drops a body when its last piece is in a queue, so every piece holds
/// [`Kept`], too.
struct Counted {
    body: Body,
    kept: Arc<Kept>,
}

/// A piece of a body on its way.
struct Piece {
    bytes: Bytes,
    _kept: Arc<Kept>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let kept = &self.kept;
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    Bytes::from_owner(Piece {
                        bytes,
                        _kept: Arc::clone(kept),
                    })
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs a raw stream on a former HTTP connection. `early` are the bytes that the client has already
/// sent after its request.
async fn run_session<S: Transport>(takeover: Takeover, mut stream: S, early: Vec<u8>) {
    let sent = async {
        stream.write_all(&takeover.head).await?;
        stream.flush().await
    };
    if let Err(error) = sent.await {
        tracing::debug!(%error, "connection ended before its stream began");
        return;
    }
    // Clients that read the head through a buffer (docker-py) lose the data that arrives with it.
    let read = async {
        while !stream.is_read() {
            tokio::time::sleep(HEAD_TICK).await;
        }
    };
    // For clients that do not read at once, the wait is bounded.
    let _ = tokio::time::timeout(HEAD_READ, read).await;
    let (reader, writer) = tokio::io::split(stream);
    let reader = Cursor::new(early).chain(reader);
    let session = (takeover.session)(Box::new(reader), Box::new(writer));
    if AssertUnwindSafe(session).catch_unwind().await.is_err() {
        tracing::error!("a stream ended by a panic");
    }
}

/// Answers a request. Its path decides which API it is for. The table of routes of that API decides
/// the rest.
async fn answer(server: &Server, caller: &Caller, request: Request<Incoming>) -> Response<Body> {
    if routes::serves(request.uri().path()) {
        let routed = server.host.route(request, caller);
        return guarded(&server.work, false, routed.answer()).await;
    }
    let routed = server.docker.route(request, caller);
    guarded(&server.work, routed.at_once(), routed.answer()).await
}

/// Runs a handler. A panic in it ends this request only.
async fn guarded(
    work: &Handle,
    at_once: bool,
    answering: impl Future<Output = Response<Body>> + Send + 'static,
) -> Response<Body> {
    let answer = match at_once {
        // Answered here, so that it works even when all working threads wait for a disk.
        true => AssertUnwindSafe(answering).catch_unwind().await.ok(),
        // The handler also ends when the client disconnects or the connection is taken over.
        false => AbortOnDropHandle::new(work.spawn(answering)).await.ok(),
    };
    answer.unwrap_or_else(|| {
        failure(
            ErrorKind::Internal,
            "an internal error ended this request; hostd's log has the details",
        )
    })
}

/// Takes the budget for an answer that is in memory as a whole. Without enough budget the client
/// gets a failure instead.
fn budgeted(server: &Server, role: Role, answer: Response<Body>) -> (Response<Body>, Option<Held>) {
    let Some(size) = hyper::body::Body::size_hint(answer.body()).exact() else {
        // Its body is made while it is sent.
        return (answer, None);
    };
    match server.answers.take(size, role) {
        Some(held) => (answer, Some(held)),
        None => {
            server.shortage.note();
            let text = "too many large answers wait for clients that do not read them: try again";
            (failure(ErrorKind::Unavailable, text), None)
        }
    }
}

fn failure(kind: ErrorKind, message: &str) -> Response<Body> {
    Failure::new(kind, message).into_response()
}
