//! Makes the host API's OpenAPI 3.1 description from its routes and the types of `wire`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::StatusCode;
use keelson_http::Access;
use keelson_http::route::{ApiRoute, Takes};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ComponentsBuilder, ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::{
    Content, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, RefOr, Required, Response,
    ResponseBuilder,
};

use crate::state::Handler;
use crate::wire;

/// The part of a route's description that the table itself does not hold.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Name of the operation. Generated clients name their functions after it.
    pub id: &'static str,
    /// The query parameters. None is required.
    pub query: &'static [QueryParameter],
    /// The document in the request's body.
    pub takes: Option<Shape>,
    /// Status of success.
    pub status: u16,
    /// Media type of success.
    pub media: &'static str,
    /// The document in a successful answer. With [`LINES`]: the document in each line.
    pub answer: Shape,
    /// Status of failures that only some routes have.
    pub failures: &'static [u16],
}

/// A query parameter.
#[derive(Debug, Clone, Copy)]
pub struct QueryParameter {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

impl QueryParameter {
    pub(crate) const fn new(name: &'static str, meaning: &'static str) -> Self {
        Self { name, meaning }
    }
}

/// Media type of one JSON document.
pub const JSON: &str = "application/json";
/// Media type of JSON documents, one per line.
pub const LINES: &str = "application/x-ndjson";

/// Returns the schema of a type, and adds it to the named schemas.
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

/// Describes these routes.
pub(crate) fn document(routes: &[ApiRoute<Handler, Described>]) -> OpenApi {
    let mut named = BTreeMap::new();
    let failure = one::<wire::Error>(&mut named);
    let mut paths = PathsBuilder::new();
    for route in routes {
        let docs = route.docs;
        let success = ResponseBuilder::new()
            .description(reason(docs.status))
            .content(docs.media, Content::new(Some((docs.answer)(&mut named))));
        let mut operation = OperationBuilder::new()
            .operation_id(Some(docs.id))
            .summary(Some(route.summary))
            .extensions(Some(access(route.access)))
            .response(docs.status.to_string(), success.build());
        if let Some(name) = placeholder(route.path) {
            operation = operation.parameter(
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .schema(Some(ObjectBuilder::new().schema_type(Type::String))),
            );
        }
        for parameter in docs.query {
            let string = ObjectBuilder::new().schema_type(Type::String);
            let parameter = ParameterBuilder::new()
                .name(parameter.name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(parameter.meaning))
                .schema(Some(string));
            operation = operation.parameter(parameter.build());
        }
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
            "The machine itself: its state, boot, configuration, services, logs, power, client \
             certificates, and the check of its images. Every failure answers the document Error. x-access is the least role that \
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

/// The name in a path's braces.
fn placeholder(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once('{')?;
    Some(rest.split_once('}')?.0)
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
