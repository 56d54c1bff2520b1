//! Pull from and push to registries.

mod downloads;
mod layers;
mod platform;
mod pull;
mod push;
mod remote;

use std::sync::Arc;

use keelson_model::error::ErrorKind;
use keelson_oci::digest::Digest;
use keelson_oci::manifest::Platform;
use keelson_oci::reference::Reference;
use keelson_registry::{
    Asked, Client, Credentials, Missing, RegistryError, RegistryOptions, Repository,
};
use tokio::sync::mpsc;

pub(crate) use platform::WantedPlatform;
pub(crate) use pull::pull;
#[cfg(test)]
pub(crate) use push::CompressedRecord;
pub(crate) use push::push;
pub(crate) use remote::{inspect, tags};

use self::downloads::Downloads;
use crate::error::ImageError;
use crate::types::{ImageId, Progress, Step};

/// The registries, and the running downloads. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Registries {
    pub client: Client,
    /// The downloads of running pulls.
    downloads: Arc<Downloads>,
}

impl Registries {
    pub(crate) fn new(options: RegistryOptions) -> Self {
        Self {
            client: Client::new(options),
            downloads: Arc::default(),
        }
    }
}

/// Layers that are downloaded or uploaded at the same time.
const PARALLEL: usize = 3;

/// Options of a pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// `os[/architecture[/variant]]`; the machine's own when absent.
    pub platform: Option<String>,
    /// Credentials for the registry that the reference names. Mirrors never get them.
    pub credentials: Option<Credentials>,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// The digest that the name had in the registry: of a manifest or of an index.
    pub digest: Digest,
    /// Familiar name with tag or digest.
    pub reference: String,
    /// Whether the name refers to something new.
    pub updated: bool,
}

/// A tag that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of its manifest.
    pub size: u64,
}

/// The target of a name in its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The platforms that there are images for.
    pub platforms: Vec<Platform>,
}

/// Checks credentials with a registry.
pub(crate) async fn login(
    client: &Client,
    domain: &str,
    credentials: Credentials,
) -> Result<(), RegistryError> {
    use keelson_registry::RepositoryAccess;
    Repository::open(
        client,
        domain,
        "",
        RepositoryAccess::Pull,
        Some(credentials),
    )
    .await?
    .login()
    .await
}

/// Reports a step that must not be lost.
pub(crate) async fn tell(progress: &mpsc::Sender<Progress>, id: &str, step: Step) {
    // If the receiver is gone, the work is cancelled elsewhere.
    let _ = progress
        .send(Progress {
            id: id.to_owned(),
            step,
            current: 0,
            total: None,
        })
        .await;
}

/// Reports progress. It is dropped if the receiver is slow.
pub(crate) fn tell_bytes(
    progress: &mpsc::Sender<Progress>,
    id: &str,
    step: Step,
    current: u64,
    total: u64,
) {
    let _ = progress.try_send(Progress {
        id: id.to_owned(),
        step,
        current,
        total: Some(total),
    });
}

/// A registry's failure, in Docker's words where clients match on them.
fn pull_failed(reference: &Reference, error: RegistryError) -> ImageError {
    let remote = |kind, message| ImageError::Registry { kind, message };
    match error {
        RegistryError::NotFound {
            what: Asked::Manifest(_),
            missing,
            reason,
            ..
        } => {
            let not_found =
                |reason: &str| format!("manifest for {} not found: {reason}", reference.familiar());
            let message = match missing {
                Missing::Repository => access_denied("pull", reference, &reason),
                Missing::Object => not_found(&reason),
                Missing::Unsaid => not_found("manifest unknown: manifest unknown"),
            };
            remote(ErrorKind::NotFound, message)
        }
        RegistryError::NotFound {
            what: Asked::Tags,
            reason,
            ..
        } => remote(
            ErrorKind::NotFound,
            format!(
                "repository {} not found: {reason}",
                reference.familiar_name()
            ),
        ),
        // Like registries, Docker does not distinguish "forbidden" from "does not exist".
        RegistryError::Denied { reason, .. } => remote(
            ErrorKind::NotFound,
            access_denied("pull", reference, &reason),
        ),
        error => remote(
            error.kind(),
            format!("cannot pull {}: {error}", reference.familiar()),
        ),
    }
}

fn push_failed(reference: &Reference, error: RegistryError) -> ImageError {
    let (kind, message) = match error {
        RegistryError::Denied { reason, .. } => (
            ErrorKind::Forbidden,
            access_denied("push", reference, &reason),
        ),
        error => (
            error.kind(),
            format!("cannot push {}: {error}", reference.familiar()),
        ),
    };
    ImageError::Registry { kind, message }
}

fn access_denied(operation: &str, reference: &Reference, reason: &str) -> String {
    format!(
        "{operation} access denied for {}, repository does not exist or may require 'docker \
         login': {reason}",
        reference.familiar_name()
    )
}
