//! `GET /events`: what happens to containers, images, volumes and networks, and what happened recently.

mod hub;
mod render;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::Response;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::error::ApiError;
use crate::places::Kind;
use crate::query::Filters;
use crate::reply::{self, Body};
use crate::{Api, Call, times};

pub(crate) use hub::EventHub;

/// Filters whose name is a type of object.
const OBJECTS: &[&str] = &[
    "container",
    "image",
    "volume",
    "network",
    "daemon",
    "plugin",
    "node",
    "service",
    "secret",
    "config",
];

/// One event, in Docker's form.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    from: String,
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
    scope: &'static str,
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Debug, Clone, Serialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: BTreeMap<String, String>,
}

impl Event {
    fn new(
        kind: &'static str,
        action: String,
        id: String,
        attributes: BTreeMap<String, String>,
        time_nano: i64,
    ) -> Self {
        Self {
            status: action.clone(),
            id: id.clone(),
            from: match kind {
                "container" => attributes.get("image").cloned().unwrap_or_default(),
                _ => String::new(),
            },
            kind,
            action,
            actor: Actor { id, attributes },
            scope: "local",
            time: time_nano.div_euclid(1_000_000_000),
            time_nano,
        }
    }

    /// Bytes that it takes in memory, approximately.
    fn size(&self) -> usize {
        let attributes = self.actor.attributes.iter();
        let attributes: usize = attributes
            .map(|(name, value)| name.len() + value.len() + 64)
            .sum();
        // The action and the identifier are stored twice.
        attributes + 2 * (self.action.len() + self.id.len()) + self.from.len() + 256
    }

    fn fits(&self, filters: &Filters) -> bool {
        let attributes = &self.actor.attributes;
        let name = attributes.get("name").map_or("", String::as_str);
        let id = self.actor.id.as_str();
        // Docker compares prefixes, also those of names, and in events of every type.
        let object = |wanted: &str| id.starts_with(wanted) || name.starts_with(wanted);
        let image = match self.kind {
            "image" => name,
            _ => attributes.get("image").map_or("", String::as_str),
        };
        let images = [id, image, without_tag(id), without_tag(image)];
        // The filter `exec_create` also finds `exec_create: sh`.
        let long = ["health_status", "exec_create", "exec_start"];
        let begins = filters
            .values("event")
            .iter()
            .any(|wanted| long.contains(&wanted.as_str()));
        filters.any("type", |wanted| wanted == self.kind)
            && filters.any("event", |wanted| {
                wanted == self.action || (begins && self.action.starts_with(wanted))
            })
            && filters.any("scope", |wanted| wanted == self.scope)
            && filters.labels(|key| attributes.get(key).map(String::as_str))
            && OBJECTS.iter().all(|&kind| {
                filters.any(kind, |wanted| match kind {
                    "image" => images.contains(&wanted),
                    _ => object(wanted),
                })
            })
    }
}

/// A reference without its tag or digest.
fn without_tag(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

struct Listener {
    past: std::vec::IntoIter<Arc<Event>>,
    receiver: broadcast::Receiver<Arc<Event>>,
    filters: Filters,
    since: Option<i64>,
    until: Option<i64>,
}

impl Listener {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let event = match self.past.next() {
                Some(event) => event,
                None => match self.receive().await {
                    Ok(event) => event,
                    Err(RecvError::Lagged(count)) => {
                        tracing::warn!(count, "a client is too slow for its events");
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
            };
            let late = self.until.is_some_and(|until| event.time_nano > until);
            let early = self.since.is_some_and(|since| event.time_nano < since);
            if !late && !early && event.fits(&self.filters) {
                return Some(reply::json_line(&*event));
            }
        }
    }

    async fn receive(&mut self) -> Result<Arc<Event>, RecvError> {
        let Some(until) = self.until else {
            return self.receiver.recv().await;
        };
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let left = Duration::from_nanos(u64::try_from(until.saturating_sub(now)).unwrap_or(0));
        tokio::time::timeout(left, self.receiver.recv())
            .await
            .unwrap_or(Err(RecvError::Closed))
    }
}

/// `GET /events`.
pub(crate) async fn handle(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let time = |name| -> Result<Option<i64>, ApiError> {
        call.query
            .get(name)
            .map(|text| Ok(i64::try_from(times::parse(name, text)?).unwrap_or(i64::MAX)))
            .transpose()
    };
    let (since, until) = (time("since")?, time("until")?);
    if let (Some(_), Some(_), true) = (since, until, since > until) {
        let text = |name| call.query.get(name).unwrap_or_default();
        return Err(ApiError::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until")
        )));
    }
    let mut known = vec!["type", "event", "label", "scope"];
    known.extend(OBJECTS);
    let filters = call.query.filters(&known)?;
    let place = api.place(Kind::Follow, call.role).await?;
    let (past, receiver) = api.0.events.subscribe();
    let listener = Listener {
        past: match since.is_some() || until.is_some() {
            true => past.into_iter(),
            false => Vec::new().into_iter(),
        },
        receiver,
        filters,
        since,
        until,
    };
    Ok(reply::stream(
        "application/json",
        stream::unfold((listener, place), |(mut listener, place)| async move {
            let line = listener.next().await?;
            Some((line, (listener, place)))
        }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;

    fn filters(text: &str) -> Filters {
        let mut known = vec!["type", "event", "label", "scope"];
        known.extend(OBJECTS);
        Query::parse(Some(&format!("filters={text}")))
            .unwrap()
            .filters(&known)
            .unwrap()
    }

    #[test]
    fn events_are_filtered() {
        let attributes = [("name", "web"), ("image", "busybox"), ("tier", "front")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let event = Event::new("container", "die".into(), "abcdef".into(), attributes, 7);
        for fitting in [
            "{}",
            r#"{"type":["container"],"event":["start","die"]}"#,
            r#"{"container":["web"]}"#,
            r#"{"container":["abc"]}"#,
            r#"{"image":["busybox"]}"#,
            r#"{"label":["tier=front"]}"#,
        ] {
            assert!(event.fits(&filters(fitting)), "{fitting}");
        }
        for other in [
            r#"{"type":["image"]}"#,
            r#"{"event":["start"]}"#,
            r#"{"container":["db"]}"#,
            r#"{"volume":["v"]}"#,
            r#"{"label":["tier=back"]}"#,
        ] {
            assert!(!event.fits(&filters(other)), "{other}");
        }
    }
}
