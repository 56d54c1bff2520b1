//! The route table: what exists, who may use it, and what answers it.
//!
//! The table is the policy. Every route states its access. A path that is in no table does not exist,
//! for any caller. Only [`Match::admit`] hands out a handler, and only to a caller with a sufficient
//! role.

use http::{Method, Request, Response};
use hyper::body::Incoming;
use keelson_model::error::ErrorKind;

use crate::access::{Access, Caller};
use crate::audit::{AuditRecord, RecordedParameters};
use crate::error::Failure;
use crate::hijack::Hijacker;
use crate::reply::Body;

/// Whether requests are recorded in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// Yes.
    Recorded,
    /// No: they change nothing.
    ReadOnly,
    /// No, for this reason, although the method usually changes something.
    Left(&'static str),
}

/// What a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing that the handler reads.
    Nothing,
    /// A JSON document, read into memory as a whole.
    Document,
    /// Bytes that are read while they arrive.
    Stream,
}

/// One route. `H` is the type of the API's handlers. `D` is the type by which the API describes its
/// routes, if it does.
#[derive(Debug, Clone, Copy)]
pub struct ApiRoute<H: 'static, D: 'static = ()> {
    /// HTTP method, in capital letters.
    pub method: &'static str,
    /// Path. `{x}` stands for one segment, `{x*}` for one or more; at most one of them.
    pub path: &'static str,
    /// Minor number of the API version that introduced it. 0: every version has it.
    pub since: u16,
    /// Who may use it.
    pub access: Access,
    /// Whether it is recorded in the audit log.
    pub audit: Audit,
    /// What its body is.
    pub takes: Takes,
    /// Whether it is built. The handler of one that is not answers 501.
    pub built: bool,
    /// Whether the threads that serve connections answer it themselves. Such a route touches no file
    /// and waits for nothing.
    pub at_once: bool,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// How the API describes it.
    pub docs: D,
    handler: H,
}

impl<H: Copy + 'static> ApiRoute<H> {
    /// A route. Methods other than GET and HEAD are audited.
    pub const fn new(method: &'static str, path: &'static str, access: Access, handler: H) -> Self {
        let audit = match method.as_bytes() {
            b"GET" | b"HEAD" => Audit::ReadOnly,
            _ => Audit::Recorded,
        };
        Self {
            method,
            path,
            since: 0,
            access,
            audit,
            takes: Takes::Nothing,
            built: true,
            at_once: false,
            summary: "",
            docs: (),
            handler,
        }
    }

    /// Adds the description: what the route does, takes and answers.
    pub const fn described<D: Copy>(self, summary: &'static str, docs: D) -> ApiRoute<H, D> {
        ApiRoute {
            method: self.method,
            path: self.path,
            since: self.since,
            access: self.access,
            audit: self.audit,
            takes: self.takes,
            built: self.built,
            at_once: self.at_once,
            summary,
            docs,
            handler: self.handler,
        }
    }
}

impl<H: Copy + 'static, D: Copy + 'static> ApiRoute<H, D> {
    /// Sets the version that introduced it.
    pub const fn since(mut self, minor: u16) -> Self {
        self.since = minor;
        self
    }

    /// Is audited, although its method only reads.
    pub const fn audited(mut self) -> Self {
        self.audit = Audit::Recorded;
        self
    }

    /// Is not audited, although its method usually changes something.
    pub const fn not_audited(mut self, reason: &'static str) -> Self {
        self.audit = Audit::Left(reason);
        self
    }

    /// Sets what its body is.
    pub const fn takes(mut self, takes: Takes) -> Self {
        self.takes = takes;
        self
    }

    /// Its handler answers 501: the route is not built yet.
    pub const fn not_built(mut self) -> Self {
        self.built = false;
        self
    }

    /// The threads that serve connections answer it themselves.
    pub const fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// Whether requests are recorded in the audit log.
    pub const fn is_audited(&self) -> bool {
        matches!(self.audit, Audit::Recorded)
    }
}

/// The routes of an API.
#[derive(Debug, Clone, Copy)]
pub struct Table<H: 'static, D: 'static = ()> {
    routes: &'static [ApiRoute<H, D>],
    parameters: RecordedParameters,
}

impl<H: Copy + 'static, D: Copy + 'static> Table<H, D> {
    /// A table in which the first route that matches is taken. `parameters` names the query
    /// parameters that the audit log records.
    pub const fn new(routes: &'static [ApiRoute<H, D>], parameters: RecordedParameters) -> Self {
        Self { routes, parameters }
    }

    /// All routes.
    pub fn routes(&self) -> &'static [ApiRoute<H, D>] {
        self.routes
    }

    /// The route for a method and path, for a client of this minor version.
    pub fn find<'a>(&self, method: &Method, path: &'a str, minor: u16) -> Option<Match<'a, H, D>> {
        let method = method.as_str();
        let parameters = self.parameters;
        self.routes
            .iter()
            .filter(|route| route.method == method && route.since <= minor)
            .find_map(|route| {
                let value = match_path(route.path, path)?;
                Some(Match {
                    route,
                    value,
                    parameters,
                })
            })
    }
}

/// A route that matches, and the value of its placeholder.
#[derive(Debug)]
pub struct Match<'a, H: 'static, D: 'static = ()> {
    /// The route.
    pub route: &'static ApiRoute<H, D>,
    /// The placeholder's value as it is in the path; empty when the route has none.
    pub value: &'a str,
    parameters: RecordedParameters,
}

/// The handler of a request that its caller may send.
#[derive(Debug)]
pub struct Admitted<H: 'static> {
    /// The function that answers it.
    pub handler: H,
    /// The record that is written when it is answered.
    pub record: Option<AuditRecord>,
}

impl<H: Copy + 'static, D: Copy + 'static> Match<'_, H, D> {
    /// Returns the handler when the caller may use the route. `path` is the path in the error.
    ///
    /// # Errors
    /// Forbidden, naming the caller's role and the role that the route requires.
    pub fn admit(
        &self,
        caller: &Caller,
        request: &Request<Incoming>,
        path: &str,
    ) -> Result<Admitted<H>, Failure> {
        let record = self.route.is_audited().then(|| {
            let hijacker = request.extensions().get::<Hijacker>().cloned();
            let parameters = self.parameters;
            AuditRecord::begin(
                caller,
                request.method(),
                request.uri(),
                parameters,
                hijacker,
            )
        });
        if self.route.access.admits(caller.role) {
            return Ok(Admitted {
                handler: self.route.handler,
                record,
            });
        }
        let refused = Failure::new(
            ErrorKind::Forbidden,
            format!(
                "role {} may not {} {path}: it takes role {}",
                caller.role.as_str(),
                request.method(),
                self.route.access.as_str()
            ),
        );
        if let Some(record) = record {
            record.answered(http::StatusCode::FORBIDDEN);
        }
        Err(refused)
    }
}

/// Waits for the answer and records its status.
pub async fn recorded(
    record: Option<AuditRecord>,
    answer: impl Future<Output = Response<Body>>,
) -> Response<Body> {
    let answer = answer.await;
    if let Some(record) = record {
        record.answered(answer.status());
    }
    answer
}

/// Matches a path against a pattern with at most one placeholder and returns its value.
fn match_path<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some("");
    };
    let (placeholder, after) = rest.split_once('}')?;
    let value = path.strip_prefix(before)?.strip_suffix(after)?;
    let many = placeholder.ends_with('*');
    (!value.is_empty() && (many || !value.contains('/'))).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table<u8> = Table::new(
        &[
            ApiRoute::new("GET", "/things/json", Access::Reader, 1),
            ApiRoute::new("GET", "/things/{id}/json", Access::Reader, 2),
            ApiRoute::new("GET", "/names/{name*}/json", Access::Operator, 3),
            ApiRoute::new("POST", "/things/prune", Access::Operator, 4).since(25),
        ],
        &[],
    );

    fn found(method: Method, path: &str, minor: u16) -> Option<(u8, &str)> {
        let found = TABLE.find(&method, path, minor)?;
        Some((found.route.handler, found.value))
    }

    #[test]
    fn placeholders_take_one_segment_or_more() {
        assert_eq!(found(Method::GET, "/things/json", 24), Some((1, "")));
        assert_eq!(found(Method::GET, "/things/a/json", 24), Some((2, "a")));
        assert_eq!(
            found(Method::GET, "/names/a/b:1/json", 24),
            Some((3, "a/b:1"))
        );
        for path in ["/things", "/things/a/b/json", "/things//json", "/", ""] {
            assert_eq!(found(Method::GET, path, 24), None, "{path}");
        }
        assert_eq!(found(Method::POST, "/things/json", 24), None);
    }

    #[test]
    fn a_route_is_hidden_from_older_versions() {
        assert_eq!(found(Method::POST, "/things/prune", 24), None);
        assert_eq!(found(Method::POST, "/things/prune", 25), Some((4, "")));
    }

    #[test]
    fn changing_methods_are_audited() {
        let routes = TABLE.routes().iter();
        let audited: Vec<bool> = routes.map(ApiRoute::is_audited).collect();
        assert_eq!(audited, [false, false, false, true]);
    }
}
