//! The table of the Docker Engine API's routes: what the router dispatches on and what
//! `docs/api-coverage.md` is made from.

use crate::version::ApiVersion;

/// What a route does. [`Operation::NotBuilt`] answers 501.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the API's operation")]
pub enum Operation {
    Ping,
    Version,
    Info,
    Events,
    DiskUsage,
    ContainerList,
    ContainerCreate,
    ContainerInspect,
    ContainerTop,
    ContainerLogs,
    ContainerResize,
    ContainerStart,
    ContainerStop,
    ContainerRestart,
    ContainerKill,
    ContainerRename,
    ContainerUpdate,
    ContainerPause,
    ContainerUnpause,
    ContainerAttach,
    ContainerWait,
    ContainerDelete,
    ContainerChanges,
    ContainerExport,
    ContainerCommit,
    ExecCreate,
    ExecStart,
    ExecResize,
    ExecInspect,
    ImageList,
    ImageCreate,
    ImageInspect,
    ImageHistory,
    ImageTag,
    ImageDelete,
    ImageLoad,
    ImageSave,
    ImageSearch,
    ImagePush,
    ImagePrune,
    Distribution,
    Auth,
    NetworkList,
    NetworkInspect,
    VolumeList,
    PluginList,
    NotBuilt,
}

impl Operation {
    /// Whether it makes the machine speak to a server that the caller names. What listens on the
    /// machine itself, or behind it, is not for clients that may only read.
    pub const fn fetches(self) -> bool {
        matches!(
            self,
            Self::ImageSearch
                | Self::Distribution
                | Self::ImageCreate
                | Self::ImagePush
                | Self::Auth
        )
    }

    /// Whether a document in the request's body says what is to be done.
    pub const fn reads_document(self) -> bool {
        matches!(
            self,
            Self::ContainerCreate
                | Self::ContainerUpdate
                | Self::ContainerCommit
                | Self::ExecCreate
                | Self::ExecStart
                | Self::Auth
        )
    }
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// HTTP method.
    pub method: &'static str,
    /// Path without the version. `{x}` stands for one segment, `{x*}` for one or more.
    pub path: &'static str,
    /// The API version that introduced it.
    pub since: ApiVersion,
    /// What it does.
    pub operation: Operation,
}

const fn route(
    method: &'static str,
    path: &'static str,
    since_minor: u16,
    operation: Operation,
) -> Route {
    Route {
        method,
        path,
        since: ApiVersion::new(1, since_minor),
        operation,
    }
}

use Operation as Op;

/// Every route of API 1.51. The first one that matches is taken.
pub const ROUTES: &[Route] = &[
    route("GET", "/_ping", 24, Op::Ping),
    route("HEAD", "/_ping", 24, Op::Ping),
    route("GET", "/version", 24, Op::Version),
    route("GET", "/info", 24, Op::Info),
    route("GET", "/events", 24, Op::Events),
    route("POST", "/auth", 24, Op::Auth),
    route("GET", "/system/df", 25, Op::DiskUsage),
    route("GET", "/containers/json", 24, Op::ContainerList),
    route("POST", "/containers/create", 24, Op::ContainerCreate),
    route("POST", "/containers/prune", 25, Op::NotBuilt),
    route("GET", "/containers/{id}/json", 24, Op::ContainerInspect),
    route("GET", "/containers/{id}/top", 24, Op::ContainerTop),
    route("GET", "/containers/{id}/logs", 24, Op::ContainerLogs),
    route("GET", "/containers/{id}/changes", 24, Op::ContainerChanges),
    route("GET", "/containers/{id}/export", 24, Op::ContainerExport),
    route("GET", "/containers/{id}/stats", 24, Op::NotBuilt),
    route("POST", "/containers/{id}/resize", 24, Op::ContainerResize),
    route("POST", "/containers/{id}/start", 24, Op::ContainerStart),
    route("POST", "/containers/{id}/stop", 24, Op::ContainerStop),
    route("POST", "/containers/{id}/restart", 24, Op::ContainerRestart),
    route("POST", "/containers/{id}/kill", 24, Op::ContainerKill),
    route("POST", "/containers/{id}/update", 24, Op::ContainerUpdate),
    route("POST", "/containers/{id}/rename", 24, Op::ContainerRename),
    route("POST", "/containers/{id}/pause", 24, Op::ContainerPause),
    route("POST", "/containers/{id}/unpause", 24, Op::ContainerUnpause),
    route("POST", "/containers/{id}/attach", 24, Op::ContainerAttach),
    route("GET", "/containers/{id}/attach/ws", 24, Op::NotBuilt),
    route("POST", "/containers/{id}/wait", 24, Op::ContainerWait),
    route("DELETE", "/containers/{id}", 24, Op::ContainerDelete),
    route("HEAD", "/containers/{id}/archive", 24, Op::NotBuilt),
    route("GET", "/containers/{id}/archive", 24, Op::NotBuilt),
    route("PUT", "/containers/{id}/archive", 24, Op::NotBuilt),
    route("POST", "/containers/{id}/exec", 24, Op::ExecCreate),
    route("POST", "/exec/{id}/start", 24, Op::ExecStart),
    route("POST", "/exec/{id}/resize", 24, Op::ExecResize),
    route("GET", "/exec/{id}/json", 24, Op::ExecInspect),
    route("GET", "/images/json", 24, Op::ImageList),
    route("GET", "/images/search", 24, Op::ImageSearch),
    route("GET", "/images/get", 24, Op::ImageSave),
    route("POST", "/images/create", 24, Op::ImageCreate),
    route("POST", "/images/load", 24, Op::ImageLoad),
    route("POST", "/images/prune", 25, Op::ImagePrune),
    route("GET", "/images/{name*}/json", 24, Op::ImageInspect),
    route("GET", "/images/{name*}/history", 24, Op::ImageHistory),
    route("GET", "/images/{name*}/get", 24, Op::ImageSave),
    route("POST", "/images/{name*}/push", 24, Op::ImagePush),
    route("POST", "/images/{name*}/tag", 24, Op::ImageTag),
    route("DELETE", "/images/{name*}", 24, Op::ImageDelete),
    route("POST", "/build", 24, Op::NotBuilt),
    route("POST", "/build/prune", 31, Op::NotBuilt),
    route("POST", "/build/cancel", 39, Op::NotBuilt),
    route("POST", "/commit", 24, Op::ContainerCommit),
    route("POST", "/session", 31, Op::NotBuilt),
    route("POST", "/grpc", 39, Op::NotBuilt),
    route("GET", "/distribution/{name*}/json", 30, Op::Distribution),
    route("GET", "/volumes", 24, Op::VolumeList),
    route("POST", "/volumes/create", 24, Op::NotBuilt),
    route("POST", "/volumes/prune", 25, Op::NotBuilt),
    route("GET", "/volumes/{name}", 24, Op::NotBuilt),
    route("PUT", "/volumes/{name}", 42, Op::NotBuilt),
    route("DELETE", "/volumes/{name}", 24, Op::NotBuilt),
    route("GET", "/networks", 24, Op::NetworkList),
    route("POST", "/networks/create", 24, Op::NotBuilt),
    route("POST", "/networks/prune", 25, Op::NotBuilt),
    route("GET", "/networks/{id}", 24, Op::NetworkInspect),
    route("DELETE", "/networks/{id}", 24, Op::NotBuilt),
    route("POST", "/networks/{id}/connect", 24, Op::NotBuilt),
    route("POST", "/networks/{id}/disconnect", 24, Op::NotBuilt),
    route("GET", "/plugins", 25, Op::PluginList),
    route("GET", "/plugins/privileges", 25, Op::NotBuilt),
    route("POST", "/plugins/pull", 25, Op::NotBuilt),
    route("POST", "/plugins/create", 25, Op::NotBuilt),
    route("GET", "/plugins/{name*}/json", 25, Op::NotBuilt),
    route("POST", "/plugins/{name*}/enable", 25, Op::NotBuilt),
    route("POST", "/plugins/{name*}/disable", 25, Op::NotBuilt),
    route("POST", "/plugins/{name*}/upgrade", 26, Op::NotBuilt),
    route("POST", "/plugins/{name*}/push", 25, Op::NotBuilt),
    route("POST", "/plugins/{name*}/set", 25, Op::NotBuilt),
    route("DELETE", "/plugins/{name*}", 25, Op::NotBuilt),
    route("GET", "/nodes", 24, Op::NotBuilt),
    route("GET", "/nodes/{id}", 24, Op::NotBuilt),
    route("DELETE", "/nodes/{id}", 24, Op::NotBuilt),
    route("POST", "/nodes/{id}/update", 24, Op::NotBuilt),
    route("GET", "/swarm", 24, Op::NotBuilt),
    route("POST", "/swarm/init", 24, Op::NotBuilt),
    route("POST", "/swarm/join", 24, Op::NotBuilt),
    route("POST", "/swarm/leave", 24, Op::NotBuilt),
    route("POST", "/swarm/update", 24, Op::NotBuilt),
    route("GET", "/swarm/unlockkey", 24, Op::NotBuilt),
    route("POST", "/swarm/unlock", 24, Op::NotBuilt),
    route("GET", "/services", 24, Op::NotBuilt),
    route("POST", "/services/create", 24, Op::NotBuilt),
    route("GET", "/services/{id}", 24, Op::NotBuilt),
    route("DELETE", "/services/{id}", 24, Op::NotBuilt),
    route("POST", "/services/{id}/update", 24, Op::NotBuilt),
    route("GET", "/services/{id}/logs", 29, Op::NotBuilt),
    route("GET", "/tasks", 24, Op::NotBuilt),
    route("GET", "/tasks/{id}", 24, Op::NotBuilt),
    route("GET", "/tasks/{id}/logs", 29, Op::NotBuilt),
    route("GET", "/secrets", 25, Op::NotBuilt),
    route("POST", "/secrets/create", 25, Op::NotBuilt),
    route("GET", "/secrets/{id}", 25, Op::NotBuilt),
    route("DELETE", "/secrets/{id}", 25, Op::NotBuilt),
    route("POST", "/secrets/{id}/update", 25, Op::NotBuilt),
    route("GET", "/configs", 30, Op::NotBuilt),
    route("POST", "/configs/create", 30, Op::NotBuilt),
    route("GET", "/configs/{id}", 30, Op::NotBuilt),
    route("DELETE", "/configs/{id}", 30, Op::NotBuilt),
    route("POST", "/configs/{id}/update", 30, Op::NotBuilt),
];

/// The text of `docs/api-coverage.md`.
pub fn coverage_markdown() -> String {
    let built = ROUTES
        .iter()
        .filter(|route| route.operation != Op::NotBuilt)
        .count();
    let mut out = format!(
        "# Docker Engine API coverage\n\n\
         API versions {} to {}. {built} of {} routes are built; every other one answers 501 and \
         names itself. Networks, volumes and plugins cannot be made yet; their lists are true: the \
         networks `host` and `none`, and nothing else. Looking one up by a name that does not exist \
         answers 404, so that `docker inspect NAME` says what it always says.\n\n\
         This file is made from the route table (`hostd/api-docker/src/routes.rs`) and a test \
         holds it to it: `KEELSON_WRITE_COVERAGE=1 cargo test -p hostd-api-docker coverage` \
         writes it anew.\n\n\
         | method | path | since | state |\n|---|---|---|---|\n",
        ApiVersion::MIN,
        ApiVersion::MAX,
        ROUTES.len()
    );
    for route in ROUTES {
        let state = match route.operation {
            Op::NotBuilt => "501",
            _ => "built",
        };
        out.push_str(&format!(
            "| {} | `{}` | {} | {state} |\n",
            route.method,
            route.path.replace("*}", "}"),
            route.since
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
    fn no_route_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for route in ROUTES {
            assert!(seen.insert((route.method, route.path)), "{route:?}");
        }
    }

    /// The paths of the API's description are all in the table.
    #[test]
    fn table_is_complete() {
        let text = include_str!("../description/v1.51.yaml");
        let mut current = String::new();
        let known: BTreeSet<(String, String)> = ROUTES
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
