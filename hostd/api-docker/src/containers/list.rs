//! `GET /containers/json`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use hostd_containers::{Snapshot, Status};
use hostd_images::Image;
use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use keelson_model::spec::{MountKind, Port};
use serde::Serialize;
use serde_json::Value;

use super::network::{self, Networks};
use super::{health, mounts, sizes};
use crate::error::ApiError;
use crate::membership;
use crate::places::Kind;
use crate::query::{Filters, Patterns};
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, times};

/// Docker's filters. `isolation` has no meaning on Linux; Docker ignores it, too.
const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATES: [Status; 7] = [
    Status::Created,
    Status::Running,
    Status::Paused,
    Status::Restarting,
    Status::Removing,
    Status::Exited,
    Status::Dead,
];

pub(crate) async fn list(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call.query.filters(FILTERS)?;
    let limit: i64 = call.query.number("limit")?.unwrap_or(0);
    let all = call.query.flag("all") || limit > 0 || filters.has("status");
    let chosen = Chosen::new(api, &filters)?;
    let mut containers: Vec<Arc<Snapshot>> = api.containers().list();
    containers.sort_by_key(|container| std::cmp::Reverse(container.created));
    containers.retain(|container| {
        (all || container.state.status.counts_as_running()) && chosen.fits(container)
    });
    if let Ok(limit @ 1..) = usize::try_from(limit) {
        containers.truncate(limit);
    }
    let with_size = call.query.flag("size");
    let _place = match with_size {
        true => Some(api.place(Kind::Survey, call.role).await?),
        false => None,
    };
    let mut answer = summaries(api, &containers, with_size, call.version).await?;
    if call.version < ApiVersion::new(1, 46) {
        for summary in &mut answer {
            summary.host_config.annotations = None;
        }
    }
    Ok(reply::json(StatusCode::OK, &answer))
}

/// Filters after their values were checked.
struct Chosen<'a> {
    api: &'a Api,
    filters: &'a Filters,
    names: Patterns,
    exited: Vec<i32>,
    before: Option<jiff::Timestamp>,
    since: Option<jiff::Timestamp>,
    /// Images with their descendants.
    images: BTreeSet<String>,
    /// The identifiers that unambiguous prefixes stand for.
    ids: Vec<String>,
    tasks: bool,
    expose: Vec<Ports>,
    publish: Vec<Ports>,
}

impl<'a> Chosen<'a> {
    fn new(api: &'a Api, filters: &'a Filters) -> Result<Self, ApiError> {
        let invalid = |name: &str, value: &str| {
            Err(ApiError::invalid(format!(
                "invalid filter '{name}={value}'"
            )))
        };
        for state in filters.values("status") {
            if !STATES.iter().any(|known| known.as_str() == state) {
                return invalid("status", state);
            }
        }
        for wanted in filters.values("health") {
            if !health::WORDS.contains(&wanted.as_str()) {
                return Err(ApiError::invalid(format!(
                    "unrecognised filter value for health: {wanted}"
                )));
            }
        }
        let mut exited = Vec::new();
        for code in filters.values("exited") {
            match code.parse::<i32>() {
                Ok(code) => exited.push(code),
                Err(_) => return invalid("exited", code),
            }
        }
        let created = |name: &str| -> Result<Option<_>, ApiError> {
            filters
                .values(name)
                .last()
                .map(|container| Ok(api.containers().inspect(container)?.created))
                .transpose()
        };
        let ports = |filter: &str| {
            let all = filters.values(filter).iter();
            all.map(|wanted| Ports::parse(filter, wanted))
                .collect::<Result<Vec<_>, _>>()
        };
        let (publish, expose) = (ports("publish")?, ports("expose")?);
        let containers = api.containers().list();
        let ids = filters.values("id").iter().filter_map(|wanted| {
            let mut found = containers.iter().filter(|c| c.id.starts_with(wanted));
            match (found.next(), found.next()) {
                (Some(container), None) => Some(container.id.clone()),
                _ => None,
            }
        });
        Ok(Self {
            api,
            filters,
            names: Patterns::new(filters.values("name")),
            exited,
            before: created("before")?,
            since: created("since")?,
            images: descendants(api, filters),
            ids: ids.collect(),
            tasks: filters.flag("is-task")?.unwrap_or(false),
            expose,
            publish,
        })
    }

    /// Whether a container is in the network of this name, or of this prefix of an identifier.
    fn in_network(&self, container: &Snapshot) -> bool {
        let networks = self.api.0.engine.networks();
        let connected: Vec<_> = membership::names(container)
            .into_iter()
            .map(|name| match networks.find(&name) {
                Ok(found) => (found.name.clone(), found.id.clone()),
                Err(_) => (name, String::new()),
            })
            .collect();
        self.filters.any("network", |wanted| {
            connected
                .iter()
                .any(|(name, id)| wanted == name || (!wanted.is_empty() && id.starts_with(wanted)))
        })
    }

    fn fits(&self, container: &Snapshot) -> bool {
        let filters = self.filters;
        let state = &container.state;
        let labels = &container.spec.labels;
        self.before.is_none_or(|time| container.created < time)
            && self.since.is_none_or(|time| container.created > time)
            && (!filters.has("exited")
                || (!state.status.counts_as_running()
                    && state.started_at.is_some()
                    && self.exited.contains(&state.exit_code)))
            && (!filters.has("ancestor") || self.images.contains(container.image_id()))
            && (!filters.has("id") || self.ids.contains(&container.id))
            && self.names.fit_name(&container.name)
            && filters.any("status", |wanted| wanted == state.status.as_str())
            && filters.any("health", |wanted| wanted == health::filter_word(container))
            // There are no services whose tasks could be containers.
            && !self.tasks
            && (self.publish.is_empty()
                || container.spec.published_ports.iter().any(|published| {
                    self.publish.iter().any(|ports| ports.contain(&published.port))
                }))
            && (self.expose.is_empty()
                || container.spec.exposed_ports.iter().any(|port| {
                    self.expose.iter().any(|ports| ports.contain(port))
                }))
            && filters.labels(|key| labels.get(key).map(String::as_str))
            && (!filters.has("network") || self.in_network(container))
            && filters.any("volume", |wanted| {
                let volumes = &container.spec.volumes;
                volumes.iter().any(|mount| {
                    mount.target == Path::new(wanted) || mount.name == wanted
                }) || container.spec.mounts.iter().any(|mount| {
                    let source = match &mount.kind {
                        MountKind::Bind(bind) => Some(bind.source.as_path()),
                        MountKind::Tmpfs(_) => None,
                    };
                    mount.target == Path::new(wanted) || source == Some(Path::new(wanted))
                })
            })
    }
}

/// Ports of one protocol, as the filters `expose` and `publish` name them.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
    protocol: String,
}

impl Ports {
    /// `80`, `80/udp`, `8000-8010/tcp`.
    fn parse(filter: &str, text: &str) -> Result<Self, ApiError> {
        if text.contains(':') {
            return Err(ApiError::invalid(format!(
                "filter for '{filter}' should not contain ':': {text}"
            )));
        }
        let wrong = |reason: &str| {
            ApiError::invalid(format!(
                "error while looking up for {filter} {text}: {reason}"
            ))
        };
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            text.parse::<u16>()
                .map_err(|_| wrong(&format!("invalid port {text:?}")))
        };
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(wrong("invalid port range"));
        }
        let protocol = match protocol {
            "" => "tcp".to_owned(),
            other => other.to_ascii_lowercase(),
        };
        Ok(Self {
            first,
            last,
            protocol,
        })
    }

    fn contain(&self, exposed: &Port) -> bool {
        (self.first..=self.last).contains(&exposed.number)
            && exposed.protocol.as_str() == self.protocol
    }
}

/// All containers with their sizes, for `GET /system/df`.
pub(crate) async fn with_sizes(api: &Api, version: ApiVersion) -> Result<Value, ApiError> {
    let containers = api.containers().list();
    let list = summaries(api, &containers, true, version).await?;
    serde_json::to_value(list).map_err(|error| {
        ApiError::new(
            ErrorKind::Internal,
            format!("list of containers as JSON: {error}"),
        )
    })
}

async fn summaries<'a>(
    api: &Api,
    containers: &'a [Arc<Snapshot>],
    with_size: bool,
    version: ApiVersion,
) -> Result<Vec<Summary<'a>>, ApiError> {
    let mut answer = Vec::with_capacity(containers.len());
    for container in containers {
        let mut summary = render(api, container, version)?;
        if with_size {
            let (written, whole) = match sizes(api, container).await {
                Ok((written, whole)) => (Size::Known(written), Size::Known(whole)),
                Err(error) => {
                    tracing::warn!(id = container.id, %error, "size of a container not found out");
                    (Size::UNKNOWN, Size::UNKNOWN)
                }
            };
            summary.size_rw = Some(written);
            summary.size_root_fs = Some(whole);
        }
        answer.push(summary);
    }
    Ok(answer)
}

/// The images that the filter `ancestor` names, and those made from them.
fn descendants(api: &Api, filters: &Filters) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if !filters.has("ancestor") {
        return found;
    }
    let images = api.0.images.list();
    for name in filters.values("ancestor") {
        // A name without an image has no descendants.
        let Ok(ancestor) = api.0.images.resolve(name) else {
            continue;
        };
        found.insert(ancestor.id.to_string());
        let layers = &ancestor.layers;
        let on_top = |image: &Image| {
            !layers.is_empty()
                && image.layers.len() > layers.len()
                && image.layers.starts_with(layers)
        };
        let mut ids = BTreeSet::from([ancestor.id.to_string()]);
        // The images are in no order, so a parent may come after its children.
        loop {
            let before = ids.len();
            for image in &images {
                let child = image
                    .parent
                    .is_some_and(|parent| ids.contains(&parent.to_string()));
                if child || on_top(image) {
                    ids.insert(image.id.to_string());
                }
            }
            if ids.len() == before {
                break;
            }
        }
        found.extend(ids);
    }
    found
}

/// One container of the list. It is written as it is, without a tree of values in between: a list
/// of hundreds is asked for often.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Summary<'a> {
    id: &'a str,
    names: [String; 1],
    image: Cow<'a, str>,
    #[serde(rename = "ImageID")]
    image_id: &'a str,
    command: String,
    created: i64,
    ports: Vec<Value>,
    labels: &'a BTreeMap<String, String>,
    state: &'static str,
    status: String,
    host_config: HostPart<'a>,
    network_settings: NetworkPart,
    mounts: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<Size>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostPart<'a> {
    network_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkPart {
    networks: Networks,
}

/// Bytes.
#[derive(Serialize)]
#[serde(untagged)]
enum Size {
    Known(u64),
    Unknown(i64),
}

impl Size {
    /// Docker's value for a size that can't be found out.
    const UNKNOWN: Self = Self::Unknown(-1);
}

fn render<'a>(
    api: &Api,
    container: &'a Snapshot,
    version: ApiVersion,
) -> Result<Summary<'a>, ApiError> {
    let running = api.0.engine.networks().run_of(&container.id);
    // The name may belong to another image by now.
    let name = container.image();
    let image = match api.0.images.resolve(&name) {
        Ok(image) if image.id.to_string() == container.image_id() => name,
        _ => container.image_id().into(),
    };
    let process = &container.spec.process;
    let annotations = &container.spec.annotations;
    Ok(Summary {
        id: &container.id,
        names: [format!("/{}", container.name)],
        image,
        image_id: container.image_id(),
        command: command(&process.command, &process.args),
        created: container.created.as_second(),
        ports: network::listed_ports(container, &running.bindings),
        labels: &container.spec.labels,
        state: container.state.status.as_str(),
        status: status(container, jiff::Timestamp::now()),
        host_config: HostPart {
            network_mode: membership::mode(container),
            annotations: (!annotations.is_empty()).then_some(annotations),
        },
        network_settings: NetworkPart {
            networks: network::endpoints(api, container, version),
        },
        mounts: mounts(api, container)?,
        size_rw: None,
        size_root_fs: None,
    })
}

fn command(path: &str, args: &[String]) -> String {
    let mut text = path.to_owned();
    for arg in args {
        text.push(' ');
        match arg.contains(' ') {
            true => text.push_str(&format!("'{arg}'")),
            false => text.push_str(arg),
        }
    }
    text
}

/// `Up 3 seconds`, `Exited (0) 2 minutes ago`, …; clients match on these words.
fn status(container: &Snapshot, now: jiff::Timestamp) -> String {
    let state = &container.state;
    let since = |time: Option<jiff::Timestamp>| {
        times::human_duration(time.map_or(0, |time| now.as_second() - time.as_second()))
    };
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => match health::phrase(container) {
            Some(health) => format!("Up {} ({health})", since(state.started_at)),
            None => format!("Up {}", since(state.started_at)),
        },
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            since(state.finished_at)
        ),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            since(state.finished_at)
        ),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use keelson_model::spec::Protocol;

    use super::*;

    #[test]
    fn ports_of_filters() {
        let fits = |wanted: &str, number, protocol| {
            let port = Port { number, protocol };
            Ports::parse("expose", wanted).unwrap().contain(&port)
        };
        assert!(fits("80", 80, Protocol::Tcp));
        assert!(fits("80/TCP", 80, Protocol::Tcp));
        assert!(fits("8000-8010/udp", 8005, Protocol::Udp));
        assert!(!fits("80", 80, Protocol::Udp));
        assert!(!fits("8000-8010", 8011, Protocol::Tcp));
        for wrong in ["", "x", "80:80", "9-8", "70000", "80/tcp-81"] {
            assert!(
                Ports::parse("expose", wrong).is_err() || wrong == "80/tcp-81",
                "{wrong}"
            );
        }
    }

    #[test]
    fn commands_with_spaces_are_quoted() {
        let args = ["-c".to_owned(), "echo a b".to_owned()];
        assert_eq!(command("sh", &args), "sh -c 'echo a b'");
        assert_eq!(command("true", &[]), "true");
    }
}
