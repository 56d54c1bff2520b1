//! The table of the host API's routes: what exists, who may use it, and what answers it.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use keelson_http::Access::{self, Admin, Reader};
use keelson_http::reply;
use keelson_http::route::{ApiRoute, Table, Takes};
use utoipa::openapi::OpenApi;

use crate::openapi::{self, Described, JSON, LINES, Shape, any, list, one};
use crate::state::{Answer, Handler, HostApi};
use crate::{
    api, config, logs, services, time, verify, wire, wire_config, wire_logs, wire_provision,
    wire_time,
};

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
) -> ApiRoute<Handler> {
    ApiRoute::new(method, path, access, handler)
}

/// Describes a route that answers a JSON document with status 200.
const fn answers(id: &'static str, answer: Shape) -> Described {
    Described {
        id,
        query: &[],
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
            handler!(openapi_json),
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
        route(
            "GET",
            "/host/v1/provision",
            Reader,
            handler!(api::provision),
        )
        .described(
            "What the platform told this machine, what was applied, and what was left out.",
            answers("provision", one::<wire_provision::ProvisionReport>),
        ),
        route("GET", "/host/v1/services", Reader, handler!(services::list)).described(
            "The machine's own services.",
            answers("services", list::<wire::Service>),
        ),
        route(
            "GET",
            "/host/v1/services/{service}/logs",
            Reader,
            handler!(services::logs),
        )
        .described(
            "The output of a service; each line of the answer is a document. Parameters: follow, tail, \
             since.",
            Described {
                media: LINES,
                failures: &[400, 404],
                ..answers("serviceLogs", one::<wire::ServiceLogLine>)
            },
        ),
        route(
            "GET",
            "/host/v1/services/{service}",
            Reader,
            handler!(services::one),
        )
        .described(
            "One service.",
            Described {
                failures: &[404],
                ..answers("service", one::<wire::Service>)
            },
        ),
        route(
            "POST",
            "/host/v1/services/{service}/start",
            Admin,
            handler!(services::start),
        )
        .described(
            "Start a service that rests, or at once one that waits for its next attempt.",
            Described {
                failures: &[404, 409],
                ..answers("startService", one::<wire::Service>)
            },
        ),
        route(
            "POST",
            "/host/v1/services/{service}/stop",
            Admin,
            handler!(services::stop),
        )
        .described(
            "Stop a service until it is started again, or until the next boot.",
            Described {
                failures: &[404, 409],
                ..answers("stopService", one::<wire::Service>)
            },
        ),
        route(
            "POST",
            "/host/v1/services/{service}/restart",
            Admin,
            handler!(services::restart),
        )
        .described(
            "Stop a service and start it again.",
            Described {
                failures: &[404, 409],
                ..answers("restartService", one::<wire::Service>)
            },
        ),
        route(
            "POST",
            "/host/v1/services/{service}/enable",
            Admin,
            handler!(services::enable),
        )
        .described(
            "Switch a service on, for later boots, too.",
            Described {
                failures: &[404, 409],
                ..answers("enableService", one::<wire::Service>)
            },
        ),
        route(
            "POST",
            "/host/v1/services/{service}/disable",
            Admin,
            handler!(services::disable),
        )
        .described(
            "Stop a service and switch it off, for later boots, too.",
            Described {
                failures: &[404, 409],
                ..answers("disableService", one::<wire::Service>)
            },
        ),
        route("GET", "/host/v1/time", Reader, handler!(time::status)).described(
            "The machine's clock, and the time servers.",
            answers("time", one::<wire_time::Time>),
        ),
        route("GET", "/host/v1/logs", Reader, handler!(logs::read)).described(
            "Lines of the machine's logs, oldest first; each line of the answer is a document.",
            Described {
                query: logs::PARAMETERS,
                media: LINES,
                failures: &[400, 404],
                ..answers("logs", one::<wire_logs::LogLine>)
            },
        ),
        route("GET", "/host/v1/logs/boots", Reader, handler!(logs::boots)).described(
            "The boots that have lines in the store, newest first.",
            answers("logsBoots", list::<wire_logs::LogBoot>),
        ),
        route(
            "GET",
            "/host/v1/logs/status",
            Reader,
            handler!(logs::status),
        )
        .described(
            "The state of the store of logs, and of forwarding.",
            answers("logsStatus", one::<wire_logs::LogsStatus>),
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
        route("GET", "/host/v1/config", Reader, handler!(config::show)).described(
            "The configuration that counts, and where each value comes from.",
            answers("config", one::<wire_config::ConfigView>),
        ),
        route(
            "POST",
            "/host/v1/config/validate",
            Admin,
            handler!(config::validate),
        )
        .takes(Takes::Document)
        .not_audited("changes nothing")
        .described(
            "What is wrong with a new text for one of the operator's files.",
            Described {
                takes: Some(one::<wire_config::ConfigProposal>),
                ..answers("validateConfig", one::<wire_config::ConfigValidated>)
            },
        ),
        route(
            "POST",
            "/host/v1/config/diff",
            Admin,
            handler!(config::diff),
        )
        .takes(Takes::Document)
        .not_audited("changes nothing")
        .described(
            "What a new text for one of the operator's files changes.",
            Described {
                takes: Some(one::<wire_config::ConfigProposal>),
                ..answers("diffConfig", one::<wire_config::ConfigDiff>)
            },
        ),
        route(
            "POST",
            "/host/v1/config/apply",
            Admin,
            handler!(config::apply),
        )
        .takes(Takes::Document)
        .described(
            "Replace one of the operator's files, until confirmed if it can lock the operator out.",
            Described {
                takes: Some(one::<wire_config::ConfigApply>),
                failures: &[409],
                ..answers("applyConfig", one::<wire_config::ConfigApplied>)
            },
        ),
        route(
            "POST",
            "/host/v1/config/confirm",
            Admin,
            handler!(config::confirm),
        )
        .described(
            "Keep the change that waits for its confirmation.",
            Described {
                failures: &[404],
                ..answers("confirmConfig", one::<wire_config::ConfigConfirmed>)
            },
        ),
        route(
            "POST",
            "/host/v1/config/rollback",
            Admin,
            handler!(config::rollback),
        )
        .described(
            "Take back the change that waits, or else the last one.",
            Described {
                failures: &[404],
                ..answers("rollbackConfig", one::<wire_config::ConfigTakenBack>)
            },
        ),
        route(
            "POST",
            "/host/v1/identity/reset",
            Admin,
            handler!(api::reset_identity),
        )
        .described(
            "Give the machine a new identity at its next start: machine-id, keys and certificate \
             authority. All client certificates are void then.",
            Described {
                status: 202,
                failures: &[409],
                ..answers("resetIdentity", one::<wire::IdentityReset>)
            },
        ),
        // Only those who hand out keys to this machine may see who has one.
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

/// The OpenAPI description of all routes.
pub fn description() -> OpenApi {
    openapi::document(ROUTES.routes())
}

/// `GET /host/v1/openapi.json`.
async fn openapi_json(_: &HostApi, _: Request<Incoming>) -> Answer {
    Ok(reply::json(StatusCode::OK, &description()))
}

/// Whether a path belongs to the host API.
pub fn serves(path: &str) -> bool {
    path == "/host" || path.starts_with("/host/")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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

    #[test]
    fn the_checked_in_description_is_current() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/host-api.json");
        let mut wanted = serde_json::to_string_pretty(&description()).unwrap();
        wanted.push('\n');
        if std::env::var_os("KEELSON_WRITE_OPENAPI").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/host-api.json is not current: KEELSON_WRITE_OPENAPI=1 cargo test -p hostd-api-host description"
        );
    }

    #[test]
    fn every_route_is_described_once() {
        let mut ids = std::collections::BTreeSet::new();
        for route in ROUTES.routes() {
            assert!(ids.insert(route.docs.id), "{}", route.docs.id);
            assert!(!route.summary.is_empty(), "{}", route.path);
            let takes = route.takes == Takes::Document;
            assert_eq!(takes, route.docs.takes.is_some(), "{}", route.path);
        }
        assert_eq!(
            description()
                .paths
                .paths
                .values()
                .map(|item| {
                    [&item.get, &item.post, &item.put, &item.delete]
                        .into_iter()
                        .flatten()
                        .count()
                })
                .sum::<usize>(),
            ids.len()
        );
    }
}
