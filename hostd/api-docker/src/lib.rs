//! The Docker Engine API, versions 1.24 to 1.51.
//!
//! A request goes through [`version`] and [`router`] to one handler. Handlers parse, issue one
//! call to the engine or the image store, and render; they hold no state. [`routes`] is the only
//! list of what exists, [`error`] the only place where failures become status codes.

mod containers;
pub mod error;
mod events;
pub mod hijack;
mod images;
mod info;
pub mod mux;
mod networks;
mod objects;
pub mod places;
pub mod query;
pub mod reply;
mod request;
pub mod router;
pub mod routes;
mod system;
mod times;
pub mod version;
pub mod wire;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use hostd_containers::{Engine, Scope, ScopedEngine};
use hostd_images::ImageStore;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use keelson_model::error::ErrorKind;
use keelson_model::host_api::Role;
use tokio::io::AsyncRead;

use error::ApiError;
use events::EventHub;
use places::{Kind, Place, Places};
use query::Query;
use reply::Body;
use routes::Operation;
use version::ApiVersion;

pub use request::read_old;

/// What the API tells about the host and cannot find out by itself.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Identifier of this engine; the same after a restart.
    pub id: String,
    /// Where the engine keeps its state.
    pub root: PathBuf,
    /// The runtime's executable.
    pub runtime: PathBuf,
    /// Version of this program.
    pub version: &'static str,
    /// What is wrong with the host or its configuration, one sentence each.
    pub warnings: Arc<RwLock<Vec<String>>>,
}

/// Whose containers this API deals with.
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
}

/// One request, taken apart.
struct Call {
    version: ApiVersion,
    name: String,
    query: Query,
    role: Role,
    request: Request<Incoming>,
}

impl Api {
    /// The API over an engine and its image store. Begins to collect events; must be called
    /// inside a tokio runtime.
    pub fn new(engine: Engine, images: ImageStore, places: Arc<Places>, facts: Facts) -> Self {
        let events = EventHub::start(engine.subscribe(), images.subscribe());
        Self(Arc::new(Inner {
            engine,
            images,
            facts,
            events,
            places,
        }))
    }

    /// Answers a request. When the request takes the connection over (see [`hijack`]) the future
    /// never ends.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let mut response = match self.dispatch(request).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        };
        for (name, value) in self.common_headers() {
            if let Some(name) = name {
                response.headers_mut().entry(name).or_insert(value);
            }
        }
        response
    }

    /// The containers that clients of this API have.
    fn containers(&self) -> ScopedEngine<'_> {
        self.0.engine.scoped(SCOPE)
    }

    /// Takes a place for work whose length the client decides.
    async fn place(&self, kind: Kind, role: Role) -> Result<Place, ApiError> {
        self.0.places.take(kind, role).await
    }

    /// An archive that a client sends. It fails when nothing comes for too long.
    fn upload(&self, body: Incoming) -> impl AsyncRead + Send + Unpin + 'static + use<> {
        reply::paced_reader(body, self.0.places.shortage().clone())
    }

    /// Headers that every answer carries.
    fn common_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("api-version", HeaderValue::from_static("1.51"));
        headers.insert("docker-experimental", HeaderValue::from_static("false"));
        headers.insert("ostype", HeaderValue::from_static("linux"));
        if let Ok(server) =
            HeaderValue::from_str(&format!("Keelson/{} (linux)", self.0.facts.version))
        {
            headers.insert(header::SERVER, server);
        }
        headers
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let path = request.uri().path();
        let (version, rest) = version::split(path).map_err(ApiError::invalid)?;
        let Some(found) = router::find(request.method().as_str(), rest, version)? else {
            return Ok(reply::json(
                StatusCode::NOT_FOUND,
                &serde_json::json!({"message": "page not found"}),
            ));
        };
        tracing::debug!(method = %request.method(), path, "request");
        let operation = found.route.operation;
        if operation == Operation::NotBuilt {
            if let Some(message) = router::missing_object(found.route, &found.name) {
                return Err(ApiError::new(ErrorKind::NotFound, message));
            }
            let error =
                ApiError::not_built(format!("{} {rest} is not built yet", request.method()));
            reply::drain(reply::reader(request.into_body()));
            return Err(error);
        }
        // Whoever is not known reads at most.
        let role = request.extensions().get().copied().unwrap_or(Role::Reader);
        if role == Role::Reader && operation.fetches() {
            return Err(ApiError::new(
                ErrorKind::Forbidden,
                format!(
                    "role {} may not {} {rest}: it makes this machine speak to others",
                    role.as_str(),
                    request.method()
                ),
            ));
        }
        // Given back when the request was dealt with, or its connection is taken over.
        let _document = match operation.reads_document() && is_large(request.body()) {
            true => Some(self.place(Kind::Document, role).await?),
            false => None,
        };
        let call = Call {
            version,
            name: found.name,
            role,
            query: Query::parse(request.uri().query())?,
            request,
        };
        match operation {
            Operation::Ping => Ok(info::ping()),
            Operation::Version => Ok(info::version(self)),
            Operation::Info => Ok(info::info(self, call.version)),
            Operation::DiskUsage => system::disk_usage(self, &call).await,
            Operation::Events => events::handle(self, &call).await,
            Operation::ContainerList => containers::list::list(self, &call).await,
            Operation::ContainerCreate => containers::create::create(self, call).await,
            Operation::ContainerInspect => containers::inspect::inspect(self, &call).await,
            Operation::ContainerTop => containers::lifecycle::top(self, &call).await,
            Operation::ContainerLogs => containers::streams::logs(self, &call).await,
            Operation::ContainerResize => containers::lifecycle::resize(self, &call).await,
            Operation::ContainerStart => containers::lifecycle::start(self, &call).await,
            Operation::ContainerStop => containers::lifecycle::stop(self, &call).await,
            Operation::ContainerRestart => containers::lifecycle::restart(self, &call).await,
            Operation::ContainerKill => containers::lifecycle::kill(self, &call).await,
            Operation::ContainerRename => containers::lifecycle::rename(self, &call).await,
            Operation::ContainerUpdate => containers::lifecycle::update(self, call).await,
            Operation::ContainerPause => containers::lifecycle::pause(self, &call).await,
            Operation::ContainerUnpause => containers::lifecycle::unpause(self, &call).await,
            Operation::ContainerAttach => containers::streams::attach(self, call).await,
            Operation::ContainerWait => containers::lifecycle::wait(self, &call).await,
            Operation::ContainerDelete => containers::lifecycle::delete(self, &call).await,
            Operation::ContainerChanges => containers::content::changes(self, &call).await,
            Operation::ContainerExport => containers::content::export(self, &call).await,
            Operation::ContainerCommit => containers::content::commit(self, call).await,
            Operation::ExecCreate => containers::exec::create(self, call).await,
            Operation::ExecStart => containers::exec::start(self, call).await,
            Operation::ExecResize => containers::exec::resize(self, &call).await,
            Operation::ExecInspect => containers::exec::inspect(self, &call),
            Operation::ImageList => images::list::list(self, call).await,
            Operation::ImageInspect => images::show::inspect(self, call).await,
            Operation::ImageHistory => images::show::history(self, &call),
            Operation::ImageCreate => images::change::create(self, call).await,
            Operation::ImageLoad => images::change::load(self, call).await,
            Operation::ImageSave => images::change::save(self, &call).await,
            Operation::ImageSearch => images::search::search(self, &call).await,
            Operation::ImageTag => images::change::tag(self, &call).await,
            Operation::ImageDelete => images::change::delete(self, &call).await,
            Operation::ImagePush => images::remote::push(self, &call).await,
            Operation::Distribution => images::remote::distribution(self, &call).await,
            Operation::Auth => images::remote::login(self, call).await,
            Operation::ImagePrune => images::change::prune(self, &call).await,
            Operation::NetworkList => networks::list(self, &call),
            Operation::NetworkInspect => networks::inspect(self, &call),
            Operation::VolumeList => objects::volumes(&call),
            Operation::PluginList => objects::plugins(&call),
            Operation::NotBuilt => Err(ApiError::not_built("not built yet")),
        }
    }
}

/// A body from this size on, in bytes, or one whose size is not known, is read only when there are
/// not too many of them.
const LARGE: u64 = 64 << 10;

fn is_large(body: &Incoming) -> bool {
    body.size_hint().upper().is_none_or(|size| size > LARGE)
}

/// Runs work that blocks (file system) outside the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        ApiError::new(
            keelson_model::error::ErrorKind::Internal,
            format!("a background task failed: {e}"),
        )
    })
}
