//! Every route of both APIs against every role, through a real hostd.
//!
//! The expected results are in `docs/api-access.md`. That is made from the tables of routes, so
//! that a change of a route's access changes a document that people read.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use keelson_http::Access;
use keelson_http::route::{ApiRoute, Audit};
use keelson_model::host_api::Role;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::common::{Host, PATIENCE, is_root, run};
use super::{Tls, tls_host};

/// One row of the document.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    method: String,
    path: String,
    /// Whether readers, operators and administrators may use it.
    roles: [bool; 3],
    recorded: bool,
}

const ROLES: [Role; 3] = [Role::Reader, Role::Operator, Role::Admin];

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/api-access.md")
}

fn rows<H: Copy, D: Copy>(routes: &[ApiRoute<H, D>], out: &mut String, left: &mut String) {
    let cell = |yes: bool| if yes { "yes" } else { "no" };
    for route in routes {
        let path = route.path.replace("*}", "}");
        let [reader, operator, admin] = ROLES.map(|role| cell(route.access.admits(role)));
        let recorded = cell(route.is_audited());
        let _ = writeln!(
            out,
            "| {} | `{path}` | {reader} | {operator} | {admin} | {recorded} |",
            route.method
        );
        if let Audit::Left(reason) = route.audit {
            let _ = writeln!(left, "- `{} {path}`: {reason}.", route.method);
        }
    }
}

fn text() -> String {
    let (mut docker, mut host, mut left) = (String::new(), String::new(), String::new());
    rows(
        hostd_api_docker::routes::ROUTES.routes(),
        &mut docker,
        &mut left,
    );
    rows(
        hostd_api_host::routes::ROUTES.routes(),
        &mut host,
        &mut left,
    );
    let head =
        "| method | path | reader | operator | admin | recorded |\n|---|---|---|---|---|---|\n";
    format!(
        "# Who may use which route\n\n\
         Which role may use each route of the Docker Engine API and of the host API, and whether its \
         requests are recorded in the audit log ([security.md](security.md)). Routes that are not \
         built yet ([api-coverage.md](api-coverage.md)) have the access that they are to have. A path \
         that is not listed does not exist, for nobody.\n\n\
         A client on TCP has the role of its certificate. On a unix socket root is an administrator, \
         every other user an operator.\n\n\
         This file is made from the tables of routes (`hostd/api-docker/src/routes.rs`, \
         `hostd/api-host/src/routes.rs`): `KEELSON_WRITE_ACCESS=1 cargo test -p hostd --test access \
         document` writes it anew. A test sends every role's request for every row to a real hostd.\n\n\
         ## Docker Engine API\n\n{head}{docker}\n\
         ## Host API\n\n{head}{host}\n\
         ## Not recorded although the method changes things\n\n{left}"
    )
}

#[test]
fn the_document_is_that_of_the_tables() {
    let wanted = text();
    if std::env::var_os("KEELSON_WRITE_ACCESS").is_some() {
        std::fs::write(document(), &wanted).unwrap();
    }
    let found = std::fs::read_to_string(document()).unwrap_or_default();
    assert_eq!(found, wanted, "docs/api-access.md is not up to date");
}

/// What changes something is recorded, or says why it is not.
#[test]
fn what_changes_something_is_recorded() {
    fn check<H: Copy, D: Copy>(routes: &[ApiRoute<H, D>]) {
        for route in routes {
            let (method, path) = (route.method, route.path);
            let reads = matches!(method, "GET" | "HEAD");
            let fits = match route.audit {
                Audit::Recorded => true,
                Audit::ReadOnly => reads,
                Audit::Left(reason) => !reads && reason.len() > 10,
            };
            assert!(fits, "{method} {path}: {:?}", route.audit);
            assert!(reads || route.access != Access::Reader, "{method} {path}");
        }
    }
    check(hostd_api_docker::routes::ROUTES.routes());
    check(hostd_api_host::routes::ROUTES.routes());
}

fn expected() -> Vec<Row> {
    let text = std::fs::read_to_string(document()).unwrap();
    let rows: Vec<Row> = text
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.split('|').map(str::trim).collect();
            let [method, path, reader, operator, admin, recorded, ""] = cells[..] else {
                return None;
            };
            let path = path.strip_prefix('`')?.strip_suffix('`')?;
            Some(Row {
                method: method.to_owned(),
                path: path.to_owned(),
                roles: [reader, operator, admin].map(|cell| cell == "yes"),
                recorded: recorded == "yes",
            })
        })
        .collect();
    let routes = hostd_api_docker::routes::ROUTES.routes().len()
        + hostd_api_host::routes::ROUTES.routes().len();
    assert_eq!(rows.len(), routes);
    rows
}

impl Tls {
    /// The TLS settings of a client with a certificate of this role.
    fn client(&self, role: Role) -> Arc<ClientConfig> {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let body = serde_json::json!({
            "csr": request.pem().unwrap(), "name": "walker", "role": role.as_str(),
        })
        .to_string();
        let (status, answer) = self.host.http(&format!(
            "POST /host/v1/certificates HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(status, 201, "{answer}");
        let issued: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let certificate = |member: &str| {
            CertificateDer::from_pem_slice(issued[member].as_str().unwrap().as_bytes()).unwrap()
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate("certificate")],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        Arc::new(config)
    }

    fn connect(&self, client: &Arc<ClientConfig>) -> impl Read + Write + use<> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(Arc::clone(client), name).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(connection, socket)
    }
}

/// Sends a request without a body. Returns the status, and the body of a refusal. Other answers may
/// never end.
fn ask(mut stream: impl Read + Write, method: &str, path: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece).unwrap_or(0);
        text.extend_from_slice(&piece[..read]);
        let answer = String::from_utf8_lossy(&text);
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            assert!(read > 0, "{method} {path}: {answer}");
            continue;
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 403 || read == 0 {
            return (status, body.to_owned());
        }
    }
}

#[test]
fn every_route_admits_the_roles_that_the_document_says() {
    if !is_root() {
        return;
    }
    let tls = tls_host();
    let clients = ROLES.map(|role| (role, tls.client(role)));
    let rows = expected();
    let concrete = |row: &Row| {
        // Nothing listens on port 1, and no image has this name.
        let path = row
            .path
            .replace("{name}", "localhost:1/x")
            .replace("{service}", "none")
            .replace("{id}", "none");
        match path.as_str() {
            "/volumes/localhost:1/x" => "/volumes/none".to_owned(),
            _ => path,
        }
    };
    for row in &rows {
        let (method, path) = (row.method.as_str(), concrete(row));
        let judge = |who: &str, admitted: bool, (status, body): (u16, String)| {
            assert_ne!(
                body, "{\"message\":\"page not found\"}\n",
                "{method} {path}"
            );
            let refused = status == 403
                && body.contains(&format!(
                    "role {who} may not {method} {path}: it takes role"
                ));
            assert_eq!(
                !refused, admitted,
                "{who}: {method} {path}: {status} {body}"
            );
        };
        for ((role, client), admitted) in clients.iter().zip(row.roles) {
            judge(
                role.as_str(),
                admitted,
                ask(tls.connect(client), method, &path),
            );
        }
        let local = UnixStream::connect(tls.host.socket()).unwrap();
        local.set_read_timeout(Some(PATIENCE)).unwrap();
        judge("admin", row.roles[2], ask(local, method, &path));
    }
    // Recorded, refused or not, with who it was.
    let log = tls.host.log();
    let records: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" audit: "))
        .collect();
    for row in &rows {
        let request = format!(" method={} path={} status=", row.method, concrete(row));
        let found: Vec<&&str> = records
            .iter()
            .filter(|line| line.contains(&request))
            .collect();
        let callers = [
            "certificate \"walker\" serial ",
            "caller=uid 0 role=\"admin\"",
            "role=\"reader\"",
            "role=\"operator\"",
        ];
        for caller in callers {
            let told = found.iter().any(|line| line.contains(caller));
            assert_eq!(told, row.recorded, "{request} of {caller}: {found:#?}");
        }
        let refused = found
            .iter()
            .filter(|line| line.contains(" status=403 "))
            .count();
        let expected = row.roles.iter().filter(|admitted| !**admitted).count();
        assert!(!row.recorded || refused >= expected, "{found:#?}");
    }
    // Paths that are in no table do not exist for anybody.
    for path in ["/nothing", "/v1.51/nothing", "/host/v1/nothing"] {
        for (_, client) in &clients {
            for method in ["GET", "POST", "DELETE"] {
                assert_eq!(
                    ask(tls.connect(client), method, path).0,
                    404,
                    "{method} {path}"
                );
            }
        }
    }
}

#[test]
fn other_users_of_the_socket_are_operators() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.stop_daemon();
    // The log level can be chosen, but the audit log is always on.
    host.start_daemon_with(&[("KEELSON_LOG", "error")]);
    for (path, mode) in [(host.path().to_owned(), 0o755), (host.socket(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let ask = |method: &str, path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--unix-socket"])
            .arg(host.socket())
            .args(["-X", method, &format!("http://d{path}")])
            .uid(65534)
            .gid(65534);
        run(&mut curl, b"").ok()
    };
    assert_eq!(ask("GET", "/containers/json"), "[]");
    let refused = ask("POST", "/host/v1/power");
    assert!(refused.contains("role operator may not POST"), "{refused}");
    let log = host.log();
    let record = "caller=uid 65534 role=\"operator\" method=POST path=/host/v1/power status=403";
    assert!(log.contains(record), "{log}");
}
