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

pub(crate) use platform::Wanted;
pub(crate) use pull::pull;
#[cfg(test)]
pub(crate) use push::CompressedRecord;
pub(crate) use push::push;
pub(crate) use remote::{inspect, tags};

use self::downloads::Downloads;
use crate::error::ImageError;
use crate::types::{ImageId, Progress, Step};

/// The registries, and what is on its way from them. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Registries {
    pub client: Client,
    /// What running pulls are fetching.
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

/// How an image is pulled.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// `os[/architecture[/variant]]`; the machine's own when absent.
    pub platform: Option<String>,
    /// For the registry that the reference names; mirrors never get them.
    pub credentials: Option<Credentials>,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// What the name stood for in the registry: the digest of a manifest or of an index.
    pub digest: Digest,
    /// Familiar name with tag or digest.
    pub reference: String,
    /// Whether the name stands for something new.
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

/// What a name stands for in its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The machines that there are images for.
    pub platforms: Vec<Platform>,
}

/// Checks credentials with a registry.
pub(crate) async fn login(
    client: &Client,
    domain: &str,
    credentials: Credentials,
) -> Result<(), RegistryError> {
    use keelson_registry::Access;
    Repository::open(client, domain, "", Access::Pull, Some(credentials))
        .await?
        .login()
        .await
}

/// Tells people about a step that must not be lost.
pub(crate) async fn tell(progress: &mpsc::Sender<Progress>, id: &str, step: Step) {
    // Without a listener the work is cancelled elsewhere.
    let _ = progress
        .send(Progress {
            id: id.to_owned(),
            step,
            current: 0,
            total: None,
        })
        .await;
}

/// Tells people how far something is; left out when they are slow.
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

/// A registry's failure in Docker's words, where clients know them.
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
        // Docker does not tell "forbidden" from "not there", as registries do not.
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
