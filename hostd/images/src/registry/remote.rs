//! Asks registries about images without pulling them, and reads the answers.

use keelson_model::error::ErrorKind;
use keelson_oci::config::{ImageConfig, MAX_CONFIG_SIZE};
use keelson_oci::manifest::{DocumentKind, ManifestDocument, Platform};
use keelson_oci::reference::Reference;
use keelson_registry::{
    Asked, Client, Credentials, Manifest, Mirror, RegistryError, Repository, RepositoryAccess,
};

use super::{Distribution, pull_failed};
use crate::error::ImageError;

/// The source that a repository is read from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// A mirror of Docker Hub.
    Mirror(&'a Mirror),
    /// The registry that the reference names.
    Registry,
}

impl<'a> Source<'a> {
    /// All sources for a reference, in the order in which they are asked.
    pub(super) fn all(client: &'a Client, reference: &Reference) -> Vec<Self> {
        let mirrors: &[Mirror] = match reference.domain() {
            "docker.io" => &client.options().mirrors,
            _ => &[],
        };
        let mirrors = mirrors.iter().map(Self::Mirror);
        mirrors.chain([Self::Registry]).collect()
    }

    /// Opens the repository there. Mirrors never get the credentials of a request.
    pub(super) async fn open(
        &self,
        client: &Client,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Repository, RegistryError> {
        let (domain, path) = (reference.domain(), reference.path());
        match self {
            Self::Mirror(mirror) => Repository::open_mirror(client, mirror, path).await,
            Self::Registry => {
                Repository::open(client, domain, path, RepositoryAccess::Pull, credentials).await
            }
        }
    }

    /// Whether the next source is asked after this error. If the disk is full, for example, the
    /// next one would fail, too.
    pub(super) fn is_passed_over(&self, error: &ImageError) -> bool {
        match self {
            Self::Mirror(mirror) if error.kind() != ErrorKind::Internal => {
                tracing::warn!(%mirror, %error, "mirror is passed over");
                true
            }
            _ => false,
        }
    }
}

/// Resolves a name in its registry, or in a mirror of it.
pub(crate) async fn inspect(
    client: &Client,
    name: &str,
    credentials: Option<Credentials>,
) -> Result<Distribution, ImageError> {
    let reference = name.parse::<Reference>()?.with_default_tag();
    let failed = |error| match error {
        denied @ RegistryError::Denied { .. } => ImageError::Registry {
            kind: ErrorKind::Forbidden,
            message: format!("cannot inspect {}: {denied}", reference.familiar()),
        },
        other => pull_failed(&reference, other),
    };
    for source in Source::all(client, &reference) {
        let attempt = match source.open(client, &reference, credentials.clone()).await {
            Ok(repository) => inspect_in(&repository, &reference).await,
            Err(error) => Err(error),
        };
        match attempt.map_err(failed) {
            Err(error) if source.is_passed_over(&error) => {}
            outcome => return outcome,
        }
    }
    Err(wrong(&reference, "it has no registry"))
}

async fn inspect_in(
    repository: &Repository,
    reference: &Reference,
) -> Result<Distribution, RegistryError> {
    let manifest = root_manifest(repository, reference).await?;
    let platforms = match ManifestDocument::parse(&manifest.bytes) {
        Ok(DocumentKind::Index(index)) => index
            .entries
            .into_iter()
            .filter_map(|entry| entry.platform)
            .collect(),
        Ok(DocumentKind::Manifest(config, _)) => {
            let raw = repository
                .small_blob(config.digest, config.size, MAX_CONFIG_SIZE)
                .await?;
            // Also for images that can't run here.
            match ImageConfig::parse(&raw) {
                Ok(config) => vec![Platform {
                    architecture: config.architecture,
                    os: config.os,
                    variant: config.variant,
                }],
                Err(_) => Vec::new(),
            }
        }
        // Artifacts count, too; only a document without any description does not.
        Err(error) if error.is_other_kind() => Vec::new(),
        Err(error) => {
            return Err(RegistryError::Protocol {
                host: repository.host().to_owned(),
                what: Asked::Manifest(manifest.digest.to_string()),
                reason: error.to_string(),
            });
        }
    };
    Ok(Distribution {
        size: manifest.bytes.len() as u64,
        digest: manifest.digest,
        media_type: ManifestDocument::media_type_of(&manifest.bytes).unwrap_or(manifest.media_type),
        platforms,
    })
}

/// All tags of a repository in its registry, or in a mirror of it, as references.
pub(crate) async fn tags(
    client: &Client,
    name: &str,
    credentials: Option<Credentials>,
) -> Result<Vec<String>, ImageError> {
    let reference = name.parse::<Reference>()?;
    let failed = |error| pull_failed(&reference, error);
    for source in Source::all(client, &reference) {
        let attempt = match source.open(client, &reference, credentials.clone()).await {
            Ok(repository) => repository.tags().await,
            Err(error) => Err(error),
        };
        match attempt.map_err(failed) {
            Err(error) if source.is_passed_over(&error) => {}
            // A registry may send anything.
            outcome => {
                return Ok(outcome?
                    .iter()
                    .filter_map(|tag| Some(reference.with_tag(tag).ok()?.familiar()))
                    .collect());
            }
        }
    }
    Err(wrong(&reference, "it has no registry"))
}

pub(super) async fn root_manifest(
    repository: &Repository,
    reference: &Reference,
) -> Result<Manifest, RegistryError> {
    let wanted = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    repository.manifest(&wanted, reference.digest()).await
}

pub(super) fn wrong(reference: &Reference, reason: &str) -> ImageError {
    ImageError::Archive(format!("cannot pull {}: {reason}", reference.familiar()))
}

pub(super) fn parse(
    reference: &Reference,
    manifest: &Manifest,
) -> Result<DocumentKind, ImageError> {
    ManifestDocument::parse(&manifest.bytes)
        .map_err(|error| wrong(reference, &format!("manifest {}: {error}", manifest.digest)))
}

pub(super) fn parse_config(reference: &Reference, raw: &[u8]) -> Result<ImageConfig, ImageError> {
    let config = ImageConfig::parse(raw).map_err(|error| wrong(reference, &error.to_string()))?;
    if !config.os.is_empty() && config.os != "linux" {
        return Err(wrong(
            reference,
            &format!(
                "it is for operating system {:?}; only linux images run here",
                config.os
            ),
        ));
    }
    Ok(config)
}
