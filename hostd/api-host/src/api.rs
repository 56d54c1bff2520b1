//! The handlers of `/host/v1`.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use hostd_images::ImageStore;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use keelson_http::reply::{self, Body};
use keelson_http::route::{Admitted, recorded};
use keelson_http::{Caller, Failure};
use keelson_model::error::ErrorKind;
use keelson_model::host_api::{ClientCertificate, HostStatus, Role};
use keelson_model::init;
use keelson_model::service::ServiceStatus;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::addresses::hostname;
use crate::init::ask;
use crate::pki::{Pki, PkiError};
use crate::routes::{Answer, Handler, ROUTES};
use crate::{verify, wire};

/// Largest document in a request, in bytes.
const MAX_DOCUMENT: usize = 256 << 10;

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
pub struct HostApi {
    pub(crate) facts: Arc<HostFacts>,
    /// The checks of images that may go on at once.
    pub(crate) checks: Arc<Semaphore>,
}

impl HostApi {
    /// The API over these facts.
    pub fn new(facts: HostFacts) -> Self {
        Self {
            facts: Arc::new(facts),
            checks: verify::checks(),
        }
    }

    /// Finds what answers a request, and whether its caller may have it.
    pub fn route(&self, request: Request<Incoming>, caller: &Caller) -> Routed {
        Routed {
            api: self.clone(),
            found: find(request, caller),
        }
    }

    fn pki(&self) -> Result<&Arc<Pki>, Failure> {
        self.facts.pki.as_ref().ok_or_else(|| {
            Failure::new(
                ErrorKind::Unavailable,
                "this machine has no certificate authority: hostd runs without --tls",
            )
        })
    }
}

/// A request with what answers it.
pub struct Routed {
    api: HostApi,
    found: Result<(Admitted<Handler>, Request<Incoming>), Failure>,
}

fn find(
    request: Request<Incoming>,
    caller: &Caller,
) -> Result<(Admitted<Handler>, Request<Incoming>), Failure> {
    let (method, path) = (request.method(), request.uri().path());
    let Some(found) = ROUTES.find(method, path, 0) else {
        return Err(Failure::new(
            ErrorKind::NotFound,
            format!("the host API has no {method} {path}"),
        ));
    };
    let admitted = found.admit(caller, &request, path)?;
    Ok((admitted, request))
}

impl Routed {
    /// Answers the request.
    pub async fn answer(self) -> Response<Body> {
        let (Admitted { handler, record }, request) = match self.found {
            Ok(found) => found,
            Err(failure) => return failure.into_response(),
        };
        recorded(record, async {
            let answer = handler(&self.api, request).await;
            answer.unwrap_or_else(Failure::into_response)
        })
        .await
    }
}

/// `GET /host/v1/services`.
pub(crate) async fn services(api: &HostApi, _: Request<Incoming>) -> Answer {
    let services = (api.facts.services)();
    let services: Vec<wire::Service> = services.into_iter().map(Into::into).collect();
    Ok(reply::json(StatusCode::OK, &services))
}

/// `GET /host/v1/status`.
pub(crate) async fn status(api: &HostApi, _: Request<Incoming>) -> Answer {
    let facts = &api.facts;
    let deployment = match ask(&facts.init_socket, &init::Request::Status).await {
        Ok(init::Response::Status(status)) => status.deployment,
        _ => None,
    };
    let network = tokio::fs::read(&facts.network_status)
        .await
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let status = HostStatus {
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
    };
    Ok(reply::json(StatusCode::OK, &wire::Status::from(status)))
}

/// `GET /host/v1/boot`.
pub(crate) async fn boot(api: &HostApi, _: Request<Incoming>) -> Answer {
    match ask(&api.facts.init_socket, &init::Request::Status).await {
        Ok(init::Response::Status(status)) => {
            Ok(reply::json(StatusCode::OK, &wire::Boot::from(status)))
        }
        other => Err(refused(other)),
    }
}

/// `POST /host/v1/power`.
pub(crate) async fn power(api: &HostApi, request: Request<Incoming>) -> Answer {
    let wanted: wire::Power = read_json(request).await?;
    let action = wanted.action.into();
    tracing::info!(?action, "the end of this machine is asked for");
    match ask(&api.facts.init_socket, &init::Request::Power { action }).await {
        Ok(init::Response::Accepted) => Ok(reply::json(StatusCode::ACCEPTED, &wanted)),
        other => Err(refused(other)),
    }
}

/// `GET /host/v1/certificates`.
pub(crate) async fn certificates(api: &HostApi, _: Request<Incoming>) -> Answer {
    let list = api.pki()?.clients().list();
    Ok(reply::json(StatusCode::OK, &shown(list)))
}

/// `POST /host/v1/certificates`.
pub(crate) async fn issue(api: &HostApi, request: Request<Incoming>) -> Answer {
    let pki = Arc::clone(api.pki()?);
    let wanted: wire::CertificateRequest = read_json(request).await?;
    let issued = blocking(move || {
        let role = Role::from(wanted.role);
        let issued = pki.issue(&wanted.csr, &wanted.name, role, Timestamp::now())?;
        tracing::info!(
            name = wanted.name,
            role = role.as_str(),
            "client certificate issued"
        );
        Ok(issued)
    });
    let issued = wire::IssuedCertificate::from(issued.await?);
    Ok(reply::json(StatusCode::CREATED, &issued))
}

/// `POST /host/v1/certificates/revoke`: connections that were opened with them end.
pub(crate) async fn revoke(api: &HostApi, request: Request<Incoming>) -> Answer {
    let clients = Arc::clone(api.pki()?.clients());
    let wanted: wire::RevocationRequest = read_json(request).await?;
    let wanted = wanted.into();
    let revoked = blocking(move || {
        let revoked = clients.revoke(&wanted, Timestamp::now())?;
        for entry in &revoked {
            let ClientCertificate { name, serial, .. } = entry;
            tracing::info!(name, serial, "client certificate revoked");
        }
        Ok(revoked)
    });
    Ok(reply::json(StatusCode::OK, &shown(revoked.await?)))
}

fn shown(certificates: Vec<ClientCertificate>) -> Vec<wire::ClientCertificate> {
    certificates.into_iter().map(Into::into).collect()
}

impl From<PkiError> for Failure {
    fn from(error: PkiError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// Works on files outside the threads that serve requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PkiError> + Send + 'static,
) -> Result<T, Failure> {
    Ok(keelson_http::error::blocking(work).await??)
}

/// PID 1 did not do what it was asked for.
fn refused(answer: Result<init::Response, String>) -> Failure {
    match answer {
        Ok(init::Response::Error { message }) => Failure::new(ErrorKind::Conflict, message),
        Ok(_) => Failure::new(
            ErrorKind::Internal,
            "init answered something else than it was asked for",
        ),
        Err(message) => Failure::new(ErrorKind::Unavailable, message),
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

/// Reads the document in a request's body. A member that is not known is an error.
pub(crate) async fn read_json<T: DeserializeOwned>(
    request: Request<Incoming>,
) -> Result<T, Failure> {
    let bytes = reply::read_bytes(request.into_body(), MAX_DOCUMENT).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::invalid(format!("the request's body is wrong: {error}")))
}
