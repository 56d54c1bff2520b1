//! The handlers: status, boot, provisioning, power, identity and certificates.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use keelson_http::Failure;
use keelson_http::reply;
use keelson_model::error::ErrorKind;
use keelson_model::host_api::{ClientCertificate, HostStatus, Role};
use keelson_model::init;
use keelson_model::provision::ProvisionStatus;

use crate::addresses::hostname;
use crate::init::{AskError, ask};
use crate::pki_error::PkiError;
use crate::state::{Answer, HostApi, read_json};
use crate::wire;
use crate::wire_provision::ProvisionReport;

/// `GET /host/v1/status`.
pub(crate) async fn status(api: &HostApi, _: Request<Incoming>) -> Answer {
    let sources = &api.sources;
    let deployment = match ask(&sources.init_socket, &init::Request::Status).await {
        Ok(init::Response::Status(status)) => status.deployment,
        _ => None,
    };
    let network = tokio::fs::read(&sources.network_status)
        .await
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let status = HostStatus {
        hostname: hostname(),
        version: sources.version.to_owned(),
        deployment,
        uptime: uptime(),
        warnings: sources
            .warnings
            .read()
            .map(|list| list.clone())
            .unwrap_or_default(),
        ca_fingerprint: sources.pki.as_ref().map(|pki| pki.fingerprint()),
        network,
    };
    Ok(reply::json(StatusCode::OK, &wire::Status::from(status)))
}

/// `GET /host/v1/boot`.
pub(crate) async fn boot(api: &HostApi, _: Request<Incoming>) -> Answer {
    match ask(&api.sources.init_socket, &init::Request::Status).await {
        Ok(init::Response::Status(status)) => {
            Ok(reply::json(StatusCode::OK, &wire::Boot::from(status)))
        }
        other => Err(refused(other)),
    }
}

/// `GET /host/v1/provision`.
pub(crate) async fn provision(api: &HostApi, _: Request<Incoming>) -> Answer {
    let path = &api.sources.provision_status;
    let unreadable = |reason: String| {
        let message = format!("can't read {}: {reason}", path.display());
        Failure::new(ErrorKind::Internal, message)
    };
    let shown = match tokio::fs::read(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => ProvisionReport::never(),
        Err(error) => return Err(unreadable(error.to_string())),
        Ok(bytes) => serde_json::from_slice::<ProvisionStatus>(&bytes)
            .map_err(|error| unreadable(error.to_string()))?
            .into(),
    };
    Ok(reply::json(StatusCode::OK, &shown))
}

/// `POST /host/v1/power`.
pub(crate) async fn power(api: &HostApi, request: Request<Incoming>) -> Answer {
    let wanted: wire::Power = read_json(request).await?;
    let (action, force) = (wanted.action.into(), wanted.force);
    tracing::info!(?action, force, "a client asked to stop this machine");
    match ask(
        &api.sources.init_socket,
        &init::Request::Power { action, force },
    )
    .await
    {
        Ok(init::Response::Accepted) => Ok(reply::json(StatusCode::ACCEPTED, &wanted)),
        other => Err(refused(other)),
    }
}

/// `POST /host/v1/identity/reset`.
pub(crate) async fn reset_identity(api: &HostApi, _: Request<Incoming>) -> Answer {
    tracing::info!("a client asked for a new identity of this machine");
    match ask(&api.sources.init_socket, &init::Request::ResetIdentity).await {
        Ok(init::Response::Accepted) => {
            let answer = wire::IdentityReset {
                takes_effect: wire::TakesEffect::NextStart,
            };
            Ok(reply::json(StatusCode::ACCEPTED, &answer))
        }
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

/// `POST /host/v1/certificates/revoke`. Connections of the revoked certificates end.
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

/// Runs file work outside the threads that serve requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PkiError> + Send + 'static,
) -> Result<T, Failure> {
    Ok(keelson_http::error::blocking(work).await??)
}

/// The failure to report if PID 1 did not carry out the request.
fn refused(answer: Result<init::Response, AskError>) -> Failure {
    match answer {
        Ok(init::Response::Error { message }) => Failure::new(ErrorKind::Conflict, message),
        Ok(_) => Failure::new(
            ErrorKind::Internal,
            "init's answer does not match the request",
        ),
        Err(error) => Failure::new(ErrorKind::Unavailable, error.to_string()),
    }
}

/// Seconds since the kernel started.
fn uptime() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    #[expect(clippy::cast_precision_loss, reason = "only shown")]
    let seconds = time.tv_sec as f64;
    #[expect(clippy::cast_precision_loss, reason = "only shown")]
    let nanos = time.tv_nsec as f64;
    seconds + nanos / 1e9
}
