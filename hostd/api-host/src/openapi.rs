//! The host API's description: OpenAPI 3.1, made from the table of routes and the types of `wire`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use keelson_http::Access;
use keelson_http::reply;
use keelson_http::route::Takes;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ComponentsBuilder, ObjectBuilder, Ref, Schema};
use utoipa::openapi::{
    Content, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, RefOr, Required, Response,
    ResponseBuilder,
};

use crate::api::HostApi;
use crate::routes::{Answer, ROUTES};
use crate::wire;

/// What a route takes and answers, beside what the table says.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Name of the operation, for clients that are made from the description.
    pub id: &'static str,
    /// The document in the request.
    pub takes: Option<Shape>,
    /// Status of success.
    pub status: u16,
    /// Media type of success.
    pub media: &'static str,
    /// The document of success; with [`LINES`] that of each line.
    pub answer: Shape,
    /// Failures of its own, beside those that every route has.
    pub failures: &'static [u16],
}

/// Media type of one JSON document.
pub const JSON: &str = "application/json";
/// Media type of JSON documents line by line.
pub const LINES: &str = "application/x-ndjson";

/// The schema of a type, which is put among the named ones.
pub type Shape = fn(&mut BTreeMap<String, RefOr<Schema>>) -> RefOr<Schema>;

/// A document of this type.
pub(crate) fn one<T: ToSchema>(named: &mut BTreeMap<String, RefOr<Schema>>) -> RefOr<Schema> {
    let mut nested = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut nested);
    named.extend(nested);
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

/// A list of documents of this type.
pub(crate) fn list<T: ToSchema>(named: &mut BTreeMap<String, RefOr<Schema>>) -> RefOr<Schema> {
    let items = one::<T>(named);
    RefOr::T(Schema::Array(ArrayBuilder::new().items(items).build()))
}

/// Any object.
pub(crate) fn any(_: &mut BTreeMap<String, RefOr<Schema>>) -> RefOr<Schema> {
    RefOr::T(Schema::Object(ObjectBuilder::new().build()))
}

/// `GET /host/v1/openapi.json`.
pub(crate) async fn answer(_: &HostApi, _: Request<Incoming>) -> Answer {
    Ok(reply::json(StatusCode::OK, &document()))
}

/// The description.
pub fn document() -> OpenApi {
    let mut named = BTreeMap::new();
    let failure = one::<wire::Error>(&mut named);
    let mut paths = PathsBuilder::new();
    for route in ROUTES.routes() {
        let docs = route.docs;
        let success = ResponseBuilder::new()
            .description(reason(docs.status))
            .content(docs.media, Content::new(Some((docs.answer)(&mut named))));
        let mut operation = OperationBuilder::new()
            .operation_id(Some(docs.id))
            .summary(Some(route.summary))
            .extensions(Some(access(route.access)))
            .response(docs.status.to_string(), success.build());
        if let Some(takes) = docs.takes {
            let body = RequestBodyBuilder::new()
                .content(JSON, Content::new(Some(takes(&mut named))))
                .required(Some(Required::True));
            operation = operation.request_body(Some(body.build()));
        }
        let refused = (route.access != Access::Reader).then_some(403);
        let wrong = matches!(route.takes, Takes::Document).then_some(400);
        let failures = docs.failures.iter().copied();
        for status in failures.chain(refused).chain(wrong).chain([500, 503]) {
            operation = operation.response(status.to_string(), failed(status, &failure));
        }
        paths = add(paths, route.method, route.path, operation.build());
    }
    let info = InfoBuilder::new()
        .title("Keelson host API")
        .version("1")
        .description(Some(
            "The machine itself: its state, boot, services, power, client certificates, and the check \
             of its images. Every failure answers the document Error. x-access is the least role that \
             may use a route.",
        ));
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(
            ComponentsBuilder::new().schemas_from_iter(named).build(),
        ))
        .build()
}

fn add(paths: PathsBuilder, method: &str, path: &str, operation: Operation) -> PathsBuilder {
    let method = match method {
        "GET" => HttpMethod::Get,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        "HEAD" => HttpMethod::Head,
        _ => HttpMethod::Post,
    };
    paths.path(path, PathItem::new(method, operation))
}

fn access(access: Access) -> Extensions {
    [("x-access", json!(access.as_str()))].into_iter().collect()
}

fn reason(status: u16) -> Cow<'static, str> {
    let status = StatusCode::from_u16(status).ok();
    let reason = status.and_then(|status| status.canonical_reason());
    Cow::Borrowed(reason.unwrap_or_default())
}

fn failed(status: u16, shape: &RefOr<Schema>) -> Response {
    ResponseBuilder::new()
        .description(reason(status))
        .content(JSON, Content::new(Some(shape.clone())))
        .build()
}

/// The text of `docs/host-api.json`.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_checked_in_description_is_current() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/host-api.json");
        let wanted = text();
        if std::env::var_os("KEELSON_WRITE_OPENAPI").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/host-api.json is not current: KEELSON_WRITE_OPENAPI=1 cargo test -p hostd-api-host openapi"
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
            document()
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
