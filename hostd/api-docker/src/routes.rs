//! The table of the Docker Engine API's routes: what exists, who may use it, what answers it, and
//! what `docs/api-coverage.md` is made from.

use futures::future::BoxFuture;
use http::Response;
use keelson_http::Access::{self, Admin, Operator, Reader};
use keelson_http::reply::Body;
use keelson_http::route::{ApiRoute, Table, Takes};

use crate::error::ApiError;
use crate::version::ApiVersion;
use crate::{Api, Call, containers, events, images, info, networks, objects, system, volumes};

/// A function that answers a route.
pub type Handler = for<'a> fn(&'a Api, Call) -> BoxFuture<'a, Answer>;
/// What a handler returns.
pub type Answer = Result<Response<Body>, ApiError>;

macro_rules! handler {
    ($function:path) => {
        |api, call| Box::pin($function(api, call))
    };
}

const fn route(
    method: &'static str,
    path: &'static str,
    since_minor: u16,
    access: Access,
    handler: Handler,
) -> ApiRoute<Handler> {
    ApiRoute::new(method, path, access, handler).since(since_minor)
}

/// A route whose handler only says why there is nothing behind it. It has the access that it would
/// have with something.
const fn absent(
    method: &'static str,
    path: &'static str,
    since_minor: u16,
    access: Access,
    why: Handler,
) -> ApiRoute<Handler> {
    route(method, path, since_minor, access, why).not_built()
}

/// What is still to be built: 501.
const NOT_BUILT: Handler = handler!(objects::not_built);
/// What only members of a swarm have, which this machine never is: 503, as with Docker outside of a
/// swarm.
const OF_SWARM: Handler = handler!(objects::no_swarm);
/// The same for the leaving of a swarm, in words that clients know.
const LEAVING: Handler = handler!(objects::leave_swarm);

const RESIZE: &str = "sets the size of a terminal, at each change of a window";
const WAIT: &str = "waits for an end, changes nothing";

/// Query parameters that the audit log records: those that name objects. Others may carry secrets,
/// such as an import's address or a commit's changes.
const RECORDED_PARAMETERS: &[&str] = &[
    "container",
    "force",
    "fromImage",
    "name",
    "names",
    "repo",
    "signal",
    "t",
    "tag",
    "v",
];

/// Every route of API 1.51. The first one that matches is taken.
pub static ROUTES: Table<Handler> = Table::new(
    &[
        route("GET", "/_ping", 24, Reader, handler!(info::ping)).at_once(),
        route("HEAD", "/_ping", 24, Reader, handler!(info::ping)).at_once(),
        route("GET", "/version", 24, Reader, handler!(info::version)),
        route("GET", "/info", 24, Reader, handler!(info::info)),
        route("GET", "/events", 24, Reader, handler!(events::handle)),
        route(
            "POST",
            "/auth",
            24,
            Operator,
            handler!(images::remote::login),
        )
        .takes(Takes::Document),
        route(
            "GET",
            "/system/df",
            25,
            Reader,
            handler!(system::disk_usage),
        ),
        route(
            "GET",
            "/containers/json",
            24,
            Reader,
            handler!(containers::list::list),
        ),
        route(
            "POST",
            "/containers/create",
            24,
            Operator,
            handler!(containers::create::create),
        )
        .takes(Takes::Document),
        route(
            "POST",
            "/containers/prune",
            25,
            Operator,
            handler!(containers::lifecycle::prune),
        ),
        route(
            "GET",
            "/containers/{id}/json",
            24,
            Reader,
            handler!(containers::inspect::inspect),
        ),
        route(
            "GET",
            "/containers/{id}/top",
            24,
            Reader,
            handler!(containers::top::top),
        ),
        route(
            "GET",
            "/containers/{id}/logs",
            24,
            Reader,
            handler!(containers::streams::logs),
        ),
        route(
            "GET",
            "/containers/{id}/changes",
            24,
            Reader,
            handler!(containers::content::changes),
        ),
        route(
            "GET",
            "/containers/{id}/export",
            24,
            Reader,
            handler!(containers::content::export),
        )
        .audited(),
        route(
            "GET",
            "/containers/{id}/stats",
            24,
            Reader,
            handler!(containers::stats::stats),
        ),
        route(
            "POST",
            "/containers/{id}/resize",
            24,
            Operator,
            handler!(containers::lifecycle::resize),
        )
        .not_audited(RESIZE),
        route(
            "POST",
            "/containers/{id}/start",
            24,
            Operator,
            handler!(containers::lifecycle::start),
        ),
        route(
            "POST",
            "/containers/{id}/stop",
            24,
            Operator,
            handler!(containers::lifecycle::stop),
        ),
        route(
            "POST",
            "/containers/{id}/restart",
            24,
            Operator,
            handler!(containers::lifecycle::restart),
        ),
        route(
            "POST",
            "/containers/{id}/kill",
            24,
            Operator,
            handler!(containers::lifecycle::kill),
        ),
        route(
            "POST",
            "/containers/{id}/update",
            24,
            Operator,
            handler!(containers::lifecycle::update),
        )
        .takes(Takes::Document),
        route(
            "POST",
            "/containers/{id}/rename",
            24,
            Operator,
            handler!(containers::lifecycle::rename),
        ),
        route(
            "POST",
            "/containers/{id}/pause",
            24,
            Operator,
            handler!(containers::lifecycle::pause),
        ),
        route(
            "POST",
            "/containers/{id}/unpause",
            24,
            Operator,
            handler!(containers::lifecycle::unpause),
        ),
        route(
            "POST",
            "/containers/{id}/attach",
            24,
            Operator,
            handler!(containers::streams::attach),
        ),
        route(
            "GET",
            "/containers/{id}/attach/ws",
            24,
            Operator,
            handler!(containers::websocket::attach),
        )
        .audited(),
        route(
            "POST",
            "/containers/{id}/wait",
            24,
            Operator,
            handler!(containers::lifecycle::wait),
        )
        .not_audited(WAIT),
        route(
            "DELETE",
            "/containers/{id*}",
            24,
            Operator,
            handler!(containers::lifecycle::delete),
        ),
        route(
            "HEAD",
            "/containers/{id}/archive",
            24,
            Reader,
            handler!(containers::archive::stat),
        ),
        route(
            "GET",
            "/containers/{id}/archive",
            24,
            Reader,
            handler!(containers::archive::get),
        )
        .audited(),
        route(
            "PUT",
            "/containers/{id}/archive",
            24,
            Operator,
            handler!(containers::archive::put),
        )
        .takes(Takes::Stream),
        route(
            "POST",
            "/containers/{id}/exec",
            24,
            Operator,
            handler!(containers::exec::create),
        )
        .takes(Takes::Document),
        route(
            "POST",
            "/exec/{id}/start",
            24,
            Operator,
            handler!(containers::exec::start),
        )
        .takes(Takes::Document),
        route(
            "POST",
            "/exec/{id}/resize",
            24,
            Operator,
            handler!(containers::exec::resize),
        )
        .not_audited(RESIZE),
        route(
            "GET",
            "/exec/{id}/json",
            24,
            Reader,
            handler!(containers::exec::inspect),
        ),
        route(
            "GET",
            "/images/json",
            24,
            Reader,
            handler!(images::list::list),
        ),
        route(
            "GET",
            "/images/search",
            24,
            Operator,
            handler!(images::search::search),
        ),
        route(
            "GET",
            "/images/get",
            24,
            Reader,
            handler!(images::change::save),
        )
        .audited(),
        route(
            "POST",
            "/images/create",
            24,
            Operator,
            handler!(images::change::create),
        )
        .takes(Takes::Stream),
        route(
            "POST",
            "/images/load",
            24,
            Operator,
            handler!(images::change::load),
        )
        .takes(Takes::Stream),
        route(
            "POST",
            "/images/prune",
            25,
            Operator,
            handler!(images::change::prune),
        ),
        route(
            "GET",
            "/images/{name*}/json",
            24,
            Reader,
            handler!(images::show::inspect),
        ),
        route(
            "GET",
            "/images/{name*}/history",
            24,
            Reader,
            handler!(images::show::history),
        ),
        route(
            "GET",
            "/images/{name*}/get",
            24,
            Reader,
            handler!(images::change::save),
        )
        .audited(),
        route(
            "POST",
            "/images/{name*}/push",
            24,
            Operator,
            handler!(images::remote::push),
        ),
        route(
            "POST",
            "/images/{name*}/tag",
            24,
            Operator,
            handler!(images::change::tag),
        ),
        route(
            "DELETE",
            "/images/{name*}",
            24,
            Operator,
            handler!(images::change::delete),
        ),
        absent("POST", "/build", 24, Operator, NOT_BUILT),
        absent("POST", "/build/prune", 31, Operator, NOT_BUILT),
        absent("POST", "/build/cancel", 39, Operator, NOT_BUILT),
        route(
            "POST",
            "/commit",
            24,
            Operator,
            handler!(containers::content::commit),
        )
        .takes(Takes::Document),
        absent("POST", "/session", 31, Operator, NOT_BUILT),
        absent("POST", "/grpc", 39, Operator, NOT_BUILT),
        route(
            "GET",
            "/distribution/{name*}/json",
            30,
            Operator,
            handler!(images::remote::distribution),
        ),
        route("GET", "/volumes", 24, Reader, handler!(volumes::list)),
        route(
            "POST",
            "/volumes/create",
            24,
            Operator,
            handler!(volumes::create),
        )
        .takes(Takes::Document),
        route(
            "POST",
            "/volumes/prune",
            25,
            Operator,
            handler!(volumes::prune),
        ),
        route(
            "GET",
            "/volumes/{name*}",
            24,
            Reader,
            handler!(volumes::inspect),
        ),
        route(
            "PUT",
            "/volumes/{name*}",
            42,
            Operator,
            handler!(volumes::update),
        ),
        route(
            "DELETE",
            "/volumes/{name*}",
            24,
            Operator,
            handler!(volumes::remove),
        ),
        route("GET", "/networks", 24, Reader, handler!(networks::list)),
        route(
            "POST",
            "/networks/create",
            24,
            Operator,
            handler!(networks::create),
        )
        .takes(Takes::Document),
        route(
            "POST",
            "/networks/prune",
            25,
            Operator,
            handler!(networks::prune),
        ),
        route(
            "GET",
            "/networks/{id*}",
            24,
            Reader,
            handler!(networks::inspect),
        ),
        route(
            "DELETE",
            "/networks/{id*}",
            24,
            Operator,
            handler!(networks::remove),
        ),
        route(
            "POST",
            "/networks/{id*}/connect",
            24,
            Operator,
            handler!(networks::connect),
        )
        .takes(Takes::Document),
        route(
            "POST",
            "/networks/{id*}/disconnect",
            24,
            Operator,
            handler!(networks::disconnect),
        ),
        route("GET", "/plugins", 25, Reader, handler!(objects::plugins)),
        absent("GET", "/plugins/privileges", 25, Operator, NOT_BUILT),
        absent("POST", "/plugins/pull", 25, Admin, NOT_BUILT),
        absent("POST", "/plugins/create", 25, Admin, NOT_BUILT),
        route(
            "GET",
            "/plugins/{name*}/json",
            25,
            Reader,
            handler!(objects::missing_plugin),
        )
        .not_built(),
        absent("POST", "/plugins/{name*}/enable", 25, Admin, NOT_BUILT),
        absent("POST", "/plugins/{name*}/disable", 25, Admin, NOT_BUILT),
        absent("POST", "/plugins/{name*}/upgrade", 26, Admin, NOT_BUILT),
        absent("POST", "/plugins/{name*}/push", 25, Admin, NOT_BUILT),
        absent("POST", "/plugins/{name*}/set", 25, Admin, NOT_BUILT),
        absent("DELETE", "/plugins/{name*}", 25, Admin, NOT_BUILT),
        absent("GET", "/nodes", 24, Reader, OF_SWARM),
        absent("GET", "/nodes/{id}", 24, Reader, OF_SWARM),
        absent("DELETE", "/nodes/{id}", 24, Admin, OF_SWARM),
        absent("POST", "/nodes/{id}/update", 24, Admin, OF_SWARM),
        absent("GET", "/swarm", 24, Admin, OF_SWARM),
        absent("POST", "/swarm/init", 24, Admin, NOT_BUILT),
        absent("POST", "/swarm/join", 24, Admin, NOT_BUILT),
        absent("POST", "/swarm/leave", 24, Admin, LEAVING),
        absent("POST", "/swarm/update", 24, Admin, OF_SWARM),
        absent("GET", "/swarm/unlockkey", 24, Admin, OF_SWARM),
        absent("POST", "/swarm/unlock", 24, Admin, OF_SWARM),
        absent("GET", "/services", 24, Reader, OF_SWARM),
        absent("POST", "/services/create", 24, Operator, OF_SWARM),
        absent("GET", "/services/{id}", 24, Reader, OF_SWARM),
        absent("DELETE", "/services/{id}", 24, Operator, OF_SWARM),
        absent("POST", "/services/{id}/update", 24, Operator, OF_SWARM),
        absent("GET", "/services/{id}/logs", 29, Reader, OF_SWARM),
        absent("GET", "/tasks", 24, Reader, OF_SWARM),
        absent("GET", "/tasks/{id}", 24, Reader, OF_SWARM),
        absent("GET", "/tasks/{id}/logs", 29, Reader, OF_SWARM),
        absent("GET", "/secrets", 25, Reader, OF_SWARM),
        absent("POST", "/secrets/create", 25, Operator, OF_SWARM),
        absent("GET", "/secrets/{id}", 25, Reader, OF_SWARM),
        absent("DELETE", "/secrets/{id}", 25, Operator, OF_SWARM),
        absent("POST", "/secrets/{id}/update", 25, Operator, OF_SWARM),
        absent("GET", "/configs", 30, Reader, OF_SWARM),
        absent("POST", "/configs/create", 30, Operator, OF_SWARM),
        absent("GET", "/configs/{id}", 30, Reader, OF_SWARM),
        absent("DELETE", "/configs/{id}", 30, Operator, OF_SWARM),
        absent("POST", "/configs/{id}/update", 30, Operator, OF_SWARM),
    ],
    RECORDED_PARAMETERS,
);

/// The text of `docs/api-coverage.md`.
pub fn coverage_markdown() -> String {
    let routes = ROUTES.routes();
    let built = routes.iter().filter(|route| route.built).count();
    let mut out = format!(
        "# Docker Engine API coverage\n\n\
         API versions {} to {}. {built} of {} routes are built; every other one answers 501 and \
         names itself, or 503 with Docker's words if it is for members of a swarm, which this \
         machine never is. Plugins cannot be installed; their list is true. Looking one up by a name \
         that does not exist answers 404, so that `docker inspect NAME` says what it always says.\n\n\
         This file is made from the route table (`hostd/api-docker/src/routes.rs`) and a test \
         holds it to it: `KEELSON_WRITE_COVERAGE=1 cargo test -p hostd-api-docker coverage` \
         writes it anew.\n\n\
         | method | path | since | state |\n|---|---|---|---|\n",
        ApiVersion::MIN,
        ApiVersion::MAX,
        routes.len()
    );
    for route in routes {
        let state = match route.built {
            true => "built",
            false => "not built",
        };
        out.push_str(&format!(
            "| {} | `{}` | {} | {state} |\n",
            route.method,
            route.path.replace("*}", "}"),
            ApiVersion::new(1, route.since)
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn coverage_document_matches_the_table() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/api-coverage.md");
        let wanted = coverage_markdown();
        if std::env::var_os("KEELSON_WRITE_COVERAGE").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, wanted, "{} is not up to date", path.display());
    }

    #[test]
    fn names_are_taken_from_the_path() {
        let found = |path: &str| {
            let found = ROUTES.find(&http::Method::GET, path, 51)?;
            Some((found.route.path, found.value.to_owned()))
        };
        for (path, route, value) in [
            ("/containers/json", "/containers/json", ""),
            ("/containers/abc/json", "/containers/{id}/json", "abc"),
            (
                "/images/localhost:5000/a/b:1/json",
                "/images/{name*}/json",
                "localhost:5000/a/b:1",
            ),
        ] {
            assert_eq!(found(path), Some((route, value.to_owned())));
        }
        for path in [
            "/containers",
            "/containers/a/b/json",
            "/containers//json",
            "/",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    /// Readers only look. They change nothing and make the machine connect to nobody.
    #[test]
    fn readers_only_read() {
        for route in ROUTES.routes() {
            let reads = matches!(route.method, "GET" | "HEAD");
            assert!(
                reads || route.access != Access::Reader,
                "{} {}",
                route.method,
                route.path
            );
        }
    }

    #[test]
    fn no_route_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for route in ROUTES.routes() {
            let name = (route.method, route.path);
            assert!(seen.insert(name), "{name:?}");
        }
    }

    /// The paths of the API's description are all in the table.
    #[test]
    fn table_is_complete() {
        let text = include_str!("../description/v1.51.yaml");
        let mut current = String::new();
        let known: BTreeSet<(String, String)> = ROUTES
            .routes()
            .iter()
            .map(|r| (r.method.to_owned(), r.path.replace("*}", "}")))
            .collect();
        let paths = text.split("\npaths:").nth(1).unwrap();
        let mut count = 0;
        for line in paths.lines() {
            if let Some(path) = line.strip_prefix("  /") {
                current = format!("/{}", path.trim_end_matches([':', ' ']));
            }
            for method in ["get", "post", "put", "delete", "head"] {
                if line == format!("    {method}:") {
                    count += 1;
                    let entry = (method.to_uppercase(), current.clone());
                    assert!(known.contains(&entry), "{entry:?} is missing");
                }
            }
        }
        assert!(count > 90, "only {count} operations read");
    }
}
