//! The data of the host API. The handlers read it; nothing here knows a route.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use futures::future::BoxFuture;
use hostd_host_services::Services;
use hostd_images::ImageStore;
use hostd_logs::HostLogs;
use http::{Request, Response};
use hyper::body::Incoming;
use keelson_http::Failure;
use keelson_http::reply::{self, Body};
use keelson_model::error::ErrorKind;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::configuration::Configuration;
use crate::pki::Pki;

/// Largest document in a request, in bytes.
const MAX_DOCUMENT: usize = 256 << 10;
/// How many checks of images may run at once. Each keeps the disk and the processors busy, and a
/// slow client makes it last longer.
pub(crate) const CHECKS: usize = 2;
/// How many clients may read logs of services at once.
pub(crate) const LOG_READERS: usize = 64;

/// A function that answers a route.
pub type Handler = for<'a> fn(&'a HostApi, Request<Incoming>) -> BoxFuture<'a, Answer>;
/// The result of a handler.
pub type Answer = Result<Response<Body>, Failure>;

/// Where the API's answers come from.
#[derive(Clone)]
pub struct HostSources {
    /// Version of hostd.
    pub version: &'static str,
    /// Problems with the machine or its configuration, one sentence each.
    pub warnings: Arc<RwLock<Vec<String>>>,
    /// The machine's services.
    pub services: Services,
    /// The image store.
    pub images: ImageStore,
    /// The machine's logs.
    pub logs: HostLogs,
    /// The machine's keys. `None`: hostd does not listen on TCP.
    pub pki: Option<Arc<Pki>>,
    /// PID 1's control socket.
    pub init_socket: PathBuf,
    /// The host configuration.
    pub configuration: Arc<Configuration>,
    /// The file in which netcfg reports the state of the network.
    pub network_status: PathBuf,
    /// The file in which `keelson-provision` reports what the platform says.
    pub provision_status: PathBuf,
}

/// The host API. Clones share it.
#[derive(Clone)]
pub struct HostApi {
    pub(crate) sources: Arc<HostSources>,
    /// Permits for the checks of images that run now.
    pub(crate) checks: Arc<Semaphore>,
    /// Permits for clients that read logs of services.
    pub(crate) log_readers: Arc<Semaphore>,
}

impl HostApi {
    /// An API that answers from these sources.
    pub fn new(sources: HostSources) -> Self {
        Self {
            sources: Arc::new(sources),
            checks: Arc::new(Semaphore::new(CHECKS)),
            log_readers: Arc::new(Semaphore::new(LOG_READERS)),
        }
    }

    pub(crate) fn pki(&self) -> Result<&Arc<Pki>, Failure> {
        self.sources.pki.as_ref().ok_or_else(|| {
            Failure::new(
                ErrorKind::Unavailable,
                "this machine has no certificate authority: hostd runs without --tls",
            )
        })
    }
}

/// Reads the JSON document in a request's body. An unknown member is an error.
pub(crate) async fn read_json<T: DeserializeOwned>(
    request: Request<Incoming>,
) -> Result<T, Failure> {
    read_json_up_to(request, MAX_DOCUMENT).await
}

/// The same for a document of at most `most` bytes.
pub(crate) async fn read_json_up_to<T: DeserializeOwned>(
    request: Request<Incoming>,
    most: usize,
) -> Result<T, Failure> {
    let bytes = reply::read_bytes(request.into_body(), most).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::invalid(format!("the request's body is wrong: {error}")))
}
