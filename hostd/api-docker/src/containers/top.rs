//! `GET /containers/{id}/top`: the processes of a container as ps(1) shows them.

mod columns;
mod options;

use std::collections::BTreeMap;
use std::fs;

use hostd_containers::host_memory;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::json;

use crate::error::ApiError;
use crate::reply::{self, Body};
use crate::{Api, Call};
use columns::Host;

/// What Docker asks ps for when the client says nothing.
const USUAL: &str = "-ef";

pub(crate) async fn top(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let columns = options::parse(call.query.get("ps_args").unwrap_or(USUAL))?;
    let processes = api.containers().processes(&call.name).await?;
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let host = Host {
        now: Timestamp::now(),
        memory: host_memory(),
        users: names(&text("/etc/passwd")),
        groups: names(&text("/etc/group")),
    };
    let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
    let rows = processes.iter().map(|process| {
        let cells = columns.iter();
        cells
            .map(|(_, column)| column.show(process, &host))
            .collect::<Vec<_>>()
    });
    Ok(reply::json(
        StatusCode::OK,
        &json!({"Titles": titles, "Processes": rows.collect::<Vec<_>>()}),
    ))
}

/// The names of the host's users or groups, by their numbers: `NAME:PASSWORD:NUMBER:…`. The first of
/// several names counts.
fn names(text: &str) -> BTreeMap<u32, String> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.split(':');
        let name = parts.next().unwrap_or_default();
        if let Some(number) = parts.nth(1).and_then(|number| number.parse().ok()) {
            all.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    all
}
