//! The table of the host API's routes: what exists, who may use it, and what answers it.

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use keelson_http::Access::{self, Admin, Reader};
use keelson_http::Failure;
use keelson_http::reply::Body;
use keelson_http::route::{Route, Table, Takes};

use crate::api::{self, HostApi};
use crate::openapi::{self, Described, JSON, LINES, Shape, any, list, one};
use crate::{verify, wire};

/// What answers a route.
pub type Handler = for<'a> fn(&'a HostApi, Request<Incoming>) -> BoxFuture<'a, Answer>;
/// What a handler returns.
pub type Answer = Result<Response<Body>, Failure>;

macro_rules! handler {
    ($function:path) => {
        |api, request| Box::pin($function(api, request))
    };
}

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    handler: Handler,
) -> Route<Handler> {
    Route::new(method, path, access, handler)
}

/// What a route answers: a JSON document, with status 200.
const fn answers(id: &'static str, answer: Shape) -> Described {
    Described {
        id,
        takes: None,
        status: 200,
        media: JSON,
        answer,
        failures: &[],
    }
}

/// Every route of the host API.
pub static ROUTES: Table<Handler, Described> = Table::new(
    &[
        route(
            "GET",
            "/host/v1/openapi.json",
            Reader,
            handler!(openapi::answer),
        )
        .described("This description.", answers("openapi", any)),
        route("GET", "/host/v1/status", Reader, handler!(api::status)).described(
            "The machine: name, version, deployment, warnings, network.",
            answers("status", one::<wire::Status>),
        ),
        route("GET", "/host/v1/boot", Reader, handler!(api::boot)).described(
            "The steps of the boot and the processes that PID 1 supervises.",
            Described {
                failures: &[409],
                ..answers("boot", one::<wire::Boot>)
            },
        ),
        route("GET", "/host/v1/services", Reader, handler!(api::services)).described(
            "The machine's own services.",
            answers("services", list::<wire::Service>),
        ),
        route("POST", "/host/v1/power", Admin, handler!(api::power))
            .takes(Takes::Document)
            .described(
                "Power off, reboot or halt the machine.",
                Described {
                    takes: Some(one::<wire::Power>),
                    status: 202,
                    failures: &[409],
                    ..answers("power", one::<wire::Power>)
                },
            ),
        // Who else has a key to this machine is for those to know who hand them out.
        route(
            "GET",
            "/host/v1/certificates",
            Admin,
            handler!(api::certificates),
        )
        .described(
            "The client certificates that this machine has issued.",
            answers("certificates", list::<wire::ClientCertificate>),
        ),
        route("POST", "/host/v1/certificates", Admin, handler!(api::issue))
            .takes(Takes::Document)
            .described(
                "Sign a client's certificate request.",
                Described {
                    takes: Some(one::<wire::CertificateRequest>),
                    status: 201,
                    ..answers("issueCertificate", one::<wire::IssuedCertificate>)
                },
            ),
        route(
            "POST",
            "/host/v1/certificates/revoke",
            Admin,
            handler!(api::revoke),
        )
        .takes(Takes::Document)
        .described(
            "Revoke client certificates; connections that were opened with them end.",
            Described {
                takes: Some(one::<wire::RevocationRequest>),
                failures: &[404],
                ..answers("revokeCertificates", list::<wire::ClientCertificate>)
            },
        ),
        route(
            "POST",
            "/host/v1/images/verify",
            Admin,
            handler!(verify::answer),
        )
        .takes(Takes::Document)
        .described(
            "Check stored images against their digests; each line of the answer is a document.",
            Described {
                takes: Some(one::<wire::VerifyRequest>),
                media: LINES,
                failures: &[404],
                ..answers("verifyImages", one::<wire::VerifyLine>)
            },
        ),
    ],
    &[],
);

/// Whether a path belongs to the host API.
pub fn serves(path: &str) -> bool {
    path == "/host" || path.starts_with("/host/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_changed_by_administrators_only() {
        for route in ROUTES.routes() {
            let expected = match (route.method, route.path) {
                ("GET", "/host/v1/certificates") => Admin,
                ("GET", _) => Reader,
                _ => Admin,
            };
            assert_eq!(route.access, expected, "{} {}", route.method, route.path);
            assert!(serves(route.path));
        }
        assert!(!serves("/hostile"));
    }
}
