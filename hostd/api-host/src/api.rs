//! The routes of `/host/v1`.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use hostd_images::ImageStore;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use keelson_model::error::ErrorKind;
use keelson_model::host_api::{
    CertificateRequest, ClientCertificate, HostStatus, PowerRequest, RevocationRequest,
};
use keelson_model::init;
use keelson_model::service::ServiceStatus;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::addresses::hostname;
use crate::init::ask;
use crate::pki::{Pki, PkiError};
use crate::verify;

/// Largest body, in bytes.
const MAX_BODY: usize = 256 << 10;
/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the API tells about the machine.
#[derive(Clone)]
pub struct HostFacts {
    /// Version of hostd.
    pub version: &'static str,
    /// What is wrong, one sentence each.
    pub warnings: Arc<RwLock<Vec<String>>>,
    /// The system services.
    pub services: Arc<dyn Fn() -> Vec<ServiceStatus> + Send + Sync>,
    /// The image store.
    pub images: ImageStore,
    /// The machine's keys, when it listens on TCP.
    pub pki: Option<Arc<Pki>>,
    /// PID 1's control socket.
    pub init_socket: PathBuf,
    /// netcfg's report.
    pub network_status: PathBuf,
}

/// The host API. Clones share it.
#[derive(Clone)]
pub struct HostApi(Arc<HostFacts>, Arc<Semaphore>);

/// A failure as the client sees it.
pub(crate) struct Failure(pub ErrorKind, pub String);

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(crate) type Answer = Result<Response<Body>, Failure>;

impl HostApi {
    /// The API over these facts.
    pub fn new(facts: HostFacts) -> Self {
        Self(Arc::new(facts), verify::checks())
    }

    /// Answers a request. The caller has checked the client's role.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let answer = match (&method, path.as_str()) {
            (&Method::GET, "/host/v1/services") => json(StatusCode::OK, &(self.0.services)()),
            (&Method::GET, "/host/v1/status") => self.status().await,
            (&Method::GET, "/host/v1/boot") => self.boot().await,
            (&Method::POST, "/host/v1/power") => self.power(request).await,
            (&Method::GET, "/host/v1/certificates") => self.certificates(),
            (&Method::POST, "/host/v1/certificates") => self.issue(request).await,
            (&Method::POST, "/host/v1/certificates/revoke") => self.revoke(request).await,
            (&Method::POST, "/host/v1/images/verify") => {
                verify::answer(&self.0.images, &self.1, request).await
            }
            _ => Err(Failure(
                ErrorKind::NotFound,
                format!("the host API has no {method} {path}"),
            )),
        };
        answer.unwrap_or_else(|Failure(kind, message)| failure(kind, &message))
    }

    async fn status(&self) -> Answer {
        let facts = &self.0;
        let deployment = match ask(&facts.init_socket, &init::Request::Status).await {
            Ok(init::Response::Status(status)) => status.deployment,
            _ => None,
        };
        let network = tokio::fs::read(&facts.network_status)
            .await
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        json(
            StatusCode::OK,
            &HostStatus {
                hostname: hostname(),
                version: facts.version.to_owned(),
                deployment,
                uptime: uptime(),
                warnings: facts
                    .warnings
                    .read()
                    .map(|list| list.clone())
                    .unwrap_or_default(),
                ca_fingerprint: facts.pki.as_ref().map(|pki| pki.fingerprint()),
                network,
            },
        )
    }

    async fn boot(&self) -> Answer {
        match ask(&self.0.init_socket, &init::Request::Status).await {
            Ok(init::Response::Status(status)) => json(StatusCode::OK, &status),
            other => Err(refused(other)),
        }
    }

    async fn power(&self, request: Request<Incoming>) -> Answer {
        let PowerRequest { action } = read_json(request.into_body()).await?;
        tracing::info!(?action, "the end of this machine is asked for");
        match ask(&self.0.init_socket, &init::Request::Power { action }).await {
            Ok(init::Response::Accepted) => {
                json(StatusCode::ACCEPTED, &serde_json::json!({"action": action}))
            }
            other => Err(refused(other)),
        }
    }

    async fn issue(&self, request: Request<Incoming>) -> Answer {
        let pki = Arc::clone(self.pki()?);
        let wanted: CertificateRequest = read_json(request.into_body()).await?;
        let issued = blocking(move || {
            let issued = pki.issue(&wanted.csr, &wanted.name, wanted.role, Timestamp::now())?;
            tracing::info!(
                name = wanted.name,
                role = wanted.role.as_str(),
                "client certificate issued"
            );
            Ok(issued)
        });
        json(StatusCode::CREATED, &issued.await?)
    }

    fn pki(&self) -> Result<&Arc<Pki>, Failure> {
        self.0.pki.as_ref().ok_or_else(|| {
            Failure(
                ErrorKind::Unavailable,
                "this machine has no certificate authority: hostd runs without --tls".to_owned(),
            )
        })
    }

    fn certificates(&self) -> Answer {
        json(StatusCode::OK, &self.pki()?.clients().list())
    }

    /// Revokes certificates; connections that were opened with them end.
    async fn revoke(&self, request: Request<Incoming>) -> Answer {
        let clients = Arc::clone(self.pki()?.clients());
        let wanted: RevocationRequest = read_json(request.into_body()).await?;
        let revoked = blocking(move || {
            let revoked = clients.revoke(&wanted, Timestamp::now())?;
            for entry in &revoked {
                let ClientCertificate { name, serial, .. } = entry;
                tracing::info!(name, serial, "client certificate revoked");
            }
            Ok(revoked)
        });
        json(StatusCode::OK, &revoked.await?)
    }
}

/// Works on files outside the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PkiError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Failure(error.kind(), error.to_string())),
        Err(error) => Err(Failure(
            ErrorKind::Internal,
            format!("a background task failed: {error}"),
        )),
    }
}

/// PID 1 did not do what it was asked for.
fn refused(answer: Result<init::Response, String>) -> Failure {
    match answer {
        Ok(init::Response::Error { message }) => Failure(ErrorKind::Conflict, message),
        Ok(_) => Failure(
            ErrorKind::Internal,
            "init answered something else than it was asked for".to_owned(),
        ),
        Err(message) => Failure(ErrorKind::Unavailable, message),
    }
}

/// Seconds since the kernel started.
fn uptime() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let seconds = time.tv_sec as f64;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let nanos = time.tv_nsec as f64;
    seconds + nanos / 1e9
}

pub(crate) async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<T, Failure> {
    let wrong = |text: String| Failure(ErrorKind::InvalidInput, text);
    let bytes = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect())
        .await
        .map_err(|_| wrong("the request's body did not arrive in time".to_owned()))?
        .map_err(|e| wrong(format!("the request's body can't be read: {e}")))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| wrong(format!("the request's body is wrong: {e}")))
}

/// A body that is there already.
fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let mut text = serde_json::to_vec(value).map_err(|e| {
        Failure(
            ErrorKind::Internal,
            format!("the answer can't be written as JSON: {e}"),
        )
    })?;
    text.push(b'\n');
    let mut response = Response::new(whole(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// The answer for a failure: `{"message": …}`.
fn failure(kind: ErrorKind, message: &str) -> Response<Body> {
    let status =
        StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &serde_json::json!({"message": message})).unwrap_or_else(|_| {
        let mut response = Response::new(whole(Bytes::new()));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}
