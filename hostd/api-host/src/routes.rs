//! The table of the host API's routes: what exists, who may use it, and what answers it.

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use keelson_http::Access::{self, Admin, Reader};
use keelson_http::Failure;
use keelson_http::reply::Body;
use keelson_http::route::{Route, Table, Takes};

use crate::api::{self, HostApi};
use crate::verify;

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

/// Every route of the host API.
pub static ROUTES: Table<Handler> = Table::new(
    &[
        route("GET", "/host/v1/status", Reader, handler!(api::status))
            .about("The machine: name, version, deployment, warnings, network."),
        route("GET", "/host/v1/boot", Reader, handler!(api::boot))
            .about("The steps of the boot and the processes that PID 1 supervises."),
        route("GET", "/host/v1/services", Reader, handler!(api::services))
            .about("The machine's own services."),
        route("POST", "/host/v1/power", Admin, handler!(api::power))
            .takes(Takes::Document)
            .about("Power off, reboot or halt the machine."),
        // Who else has a key to this machine is for those to know who hand them out.
        route(
            "GET",
            "/host/v1/certificates",
            Admin,
            handler!(api::certificates),
        )
        .about("The client certificates that this machine has issued."),
        route("POST", "/host/v1/certificates", Admin, handler!(api::issue))
            .takes(Takes::Document)
            .about("Sign a client's certificate request."),
        route(
            "POST",
            "/host/v1/certificates/revoke",
            Admin,
            handler!(api::revoke),
        )
        .takes(Takes::Document)
        .about("Revoke client certificates; connections that were opened with them end."),
        route(
            "POST",
            "/host/v1/images/verify",
            Admin,
            handler!(verify::answer),
        )
        .takes(Takes::Document)
        .about("Check stored images against their digests, told line by line."),
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
