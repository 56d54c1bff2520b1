//! The Docker Engine API, versions 1.24 to 1.51.
//!
//! A handler parses the request, makes one call to the engine or the image store, and renders the
//! result. Handlers hold no state. In the order in which a request meets the modules:
//!
//! - [`version`]: splits the path into API version and page.
//! - [`routes`]: the table of routes, the only list of what exists and who may use it.
//! - [`query`]: query parameters and filters.
//! - `containers`, `images`, `networks`, `volumes`, `events`, `system`, `info`: the handlers.
//! - `objects`: handlers of routes that are not built, and of empty lists.
//! - `request`: from a client's container to the engine's specification.
//! - `membership`: the networks of a container.
//! - `offers`: the runtimes, drivers and limits that this engine has.
//! - [`wire`]: containers in Docker's JSON.
//! - [`mux`]: Docker's framing of output streams.
//! - `times`: times and durations in Docker's spelling.
//! - [`error`]: turns failures of the engine and the store into those of the API.

mod containers;
pub mod error;
mod events;
mod images;
mod info;
mod membership;
pub mod mux;
mod networks;
mod objects;
mod offers;
pub mod query;
mod request;
pub mod routes;
mod system;
mod times;
pub mod version;
mod volumes;
pub mod wire;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use hostd_containers::{Engine, Scope, ScopedEngine};
use hostd_images::ImageStore;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use keelson_http::route::{Admitted, Takes, recorded};
use keelson_http::{Caller, hijack, places, reply};
use keelson_model::error::ErrorKind;
use keelson_model::host_api::Role;
use tokio::io::AsyncRead;

use error::ApiError;
use events::EventHub;
use offers::Runtimes;
use places::{Kind, Place, Places};
use query::{Query, percent_decode};
use reply::Body;
use routes::{Handler, ROUTES};
use version::ApiVersion;

pub use request::read_old;

/// Largest JSON document in a request, in bytes.
const MAX_DOCUMENT: usize = 4 << 20;

/// Facts about the host that the API shows and can't find out by itself.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Identifier of this engine; the same after a restart.
    pub id: String,
    /// The runtime's executable.
    pub runtime: PathBuf,
    /// Version of this program.
    pub version: &'static str,
    /// Problems of the host or its configuration, one sentence each.
    pub warnings: Arc<RwLock<Vec<String>>>,
}

/// The scope of the containers that this API shows.
const SCOPE: Scope = Scope::User;

/// The Docker Engine API. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    engine: Engine,
    images: ImageStore,
    facts: Facts,
    events: EventHub,
    places: Arc<Places>,
    runtimes: Runtimes,
    /// Headers of every answer.
    headers: HeaderMap,
}

/// One request in its parts.
pub struct Call {
    version: ApiVersion,
    name: String,
    query: Query,
    role: Role,
    request: Request<Incoming>,
}

impl Api {
    /// The API of an engine and its image store. It begins to collect events, so it must be called
    /// inside a tokio runtime.
    pub fn new(engine: Engine, images: ImageStore, places: Arc<Places>, facts: Facts) -> Self {
        let events = EventHub::start(
            engine.subscribe_from_opening(),
            images.subscribe(),
            engine.volumes().subscribe(),
            engine.networks().subscribe(),
        );
        let runtimes = Runtimes::new(&facts.runtime, &engine.defaults().runtimes);
        let headers = common_headers(facts.version);
        Self(Arc::new(Inner {
            engine,
            images,
            facts,
            events,
            places,
            runtimes,
            headers,
        }))
    }

    /// Finds the route of a request and checks whether the caller may use it.
    pub fn route(&self, request: Request<Incoming>, caller: &Caller) -> Routed {
        Routed {
            api: self.clone(),
            found: find(request, caller),
        }
    }

    /// The containers of this API's clients.
    fn containers(&self) -> ScopedEngine<'_> {
        self.0.engine.scoped(SCOPE)
    }

    /// Takes a place for work that lasts as long as the client likes.
    async fn place(&self, kind: Kind, role: Role) -> Result<Place, ApiError> {
        Ok(self.0.places.take(kind, role).await?)
    }

    /// An archive that a client sends. Reading fails when nothing arrives for too long.
    fn upload(&self, body: Incoming) -> impl AsyncRead + Send + Unpin + 'static + use<> {
        reply::paced_reader(body, self.0.places.shortage().clone())
    }

    /// Headers that every answer carries.
    fn common_headers(&self) -> &HeaderMap {
        &self.0.headers
    }
}

fn common_headers(version: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert("ostype", HeaderValue::from_static("linux"));
    let texts = [
        (
            HeaderName::from_static("api-version"),
            ApiVersion::MAX.to_string(),
        ),
        (header::SERVER, format!("Keelson/{version} (linux)")),
    ];
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A request and the handler that answers it, or the reason why none does.
pub struct Routed {
    api: Api,
    found: Result<Found, ApiError>,
}

struct Found {
    admitted: Admitted<Handler>,
    takes: Takes,
    at_once: bool,
    version: ApiVersion,
    name: String,
    role: Role,
    request: Request<Incoming>,
}

fn find(request: Request<Incoming>, caller: &Caller) -> Result<Found, ApiError> {
    let path = request.uri().path();
    let (version, rest) =
        version::split(path).map_err(|error| ApiError::invalid(error.to_string()))?;
    // Checks the whole path: a wrong escape is reported before a missing page.
    let is_plain = !rest.contains('%');
    if !is_plain {
        percent_decode(rest, false)?;
    }
    let Some(found) = ROUTES.find(request.method(), rest, version.minor()) else {
        return Err(ApiError::new(ErrorKind::NotFound, "page not found"));
    };
    tracing::debug!(method = %request.method(), path, "request");
    Ok(Found {
        admitted: found.admit(caller, &request, rest)?,
        takes: found.route.takes,
        at_once: found.route.at_once,
        version,
        name: match is_plain {
            true => found.value.to_owned(),
            false => percent_decode(found.value, false)?,
        },
        role: caller.role,
        request,
    })
}

impl Routed {
    /// Whether the threads that serve connections should answer it themselves. Such a request touches
    /// no file and waits for nothing.
    pub fn at_once(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| found.at_once)
    }

    /// Answers the request. The future never ends when the request takes its connection over (see
    /// [`hijack`]).
    pub async fn answer(self) -> Response<Body> {
        let Self { api, found } = self;
        let mut response = match found {
            Ok(found) => found.answer(&api).await,
            Err(error) => error.into_response(),
        };
        for (name, value) in api.common_headers() {
            let entry = response.headers_mut().entry(name);
            entry.or_insert_with(|| value.clone());
        }
        response
    }
}

impl Found {
    async fn answer(self, api: &Api) -> Response<Body> {
        let Admitted { handler, record } = self.admitted;
        let answer = async {
            // Held until the request is answered or its connection is taken over.
            let _document = match self.takes {
                Takes::Document if reply::is_large(self.request.body()) => {
                    Some(api.place(Kind::Document, self.role).await?)
                }
                _ => None,
            };
            let call = Call {
                version: self.version,
                name: self.name,
                query: Query::parse(self.request.uri().query())?,
                role: self.role,
                request: self.request,
            };
            handler(api, call).await
        };
        recorded(record, async {
            answer.await.unwrap_or_else(ApiError::into_response)
        })
        .await
    }
}

/// Runs blocking work (file system) outside the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    Ok(keelson_http::error::blocking(work).await?)
}
