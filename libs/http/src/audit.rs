//! The record of what callers changed.
//!
//! Every audited request becomes one event with the tracing target [`TARGET`], also when it is
//! refused. The event is written when the status of the answer is known. A request that takes its
//! connection over is recorded with the status in its head. A request whose client leaves before the
//! answer is recorded with status 0.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode, Uri};
use keelson_model::host_api::Role;

use crate::access::Caller;
use crate::hijack::Hijacker;

/// The tracing target of the events.
pub const TARGET: &str = "audit";
/// Longest recorded path and query, in bytes.
const MAX_TARGET: usize = 1024;

/// Names of the query parameters that are recorded: those that name an object. Others may carry
/// secrets.
pub type RecordedParameters = &'static [&'static str];

/// An audited request. It is recorded when this is dropped, also when no answer was made.
#[derive(Debug)]
pub struct AuditRecord {
    caller: Arc<str>,
    role: Role,
    method: Method,
    target: String,
    begun: Instant,
    hijacker: Option<Hijacker>,
    status: u16,
}

impl AuditRecord {
    /// Begins the record of a request that has just arrived.
    pub fn begin(
        caller: &Caller,
        method: &Method,
        uri: &Uri,
        parameters: RecordedParameters,
        hijacker: Option<Hijacker>,
    ) -> Self {
        Self {
            caller: Arc::clone(&caller.name),
            role: caller.role,
            method: method.clone(),
            target: target(uri, parameters),
            begun: Instant::now(),
            hijacker,
            status: 0,
        }
    }

    /// Records the request with the status of its answer.
    pub fn answered(mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for AuditRecord {
    fn drop(&mut self) {
        let taken_over = self.hijacker.as_ref().and_then(Hijacker::taken_over);
        let status = match (self.status, taken_over) {
            (0, Some(status)) => status.as_u16(),
            (status, _) => status,
        };
        let milliseconds = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: TARGET,
            caller = %self.caller,
            role = self.role.as_str(),
            method = %self.method,
            path = %self.target,
            status,
            milliseconds,
            "request"
        );
    }
}

/// The path with the recorded query parameters, cut to [`MAX_TARGET`] bytes.
fn target(uri: &Uri, parameters: RecordedParameters) -> String {
    let mut text = uri.path().to_owned();
    let mut separator = '?';
    for pair in uri.query().unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if parameters.contains(&name) && !value.is_empty() {
            let _ = write!(text, "{separator}{name}={value}");
            separator = '&';
        }
    }
    if text.len() > MAX_TARGET {
        let end = text.floor_char_boundary(MAX_TARGET);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_that_name_objects_are_recorded() {
        let of = |text: &str| target(&text.parse().unwrap(), &["name", "tag"]);
        assert_eq!(of("/a/b"), "/a/b");
        assert_eq!(
            of("/a?fromSrc=http://u:secret@host/&name=web&tag=&tag=1"),
            "/a?name=web&tag=1"
        );
        let long = of(&format!("/{}?name=web", "x".repeat(4000)));
        assert!(long.len() < MAX_TARGET + 8 && long.ends_with('…'));
    }
}
