//! What registries say about images, without pulling them; and how that is read.

use keelson_model::error::ErrorKind;
use keelson_oci::config::{ImageConfig, MAX_CONFIG_SIZE};
use keelson_oci::manifest::{Document, DocumentKind, Platform};
use keelson_oci::reference::Reference;
use keelson_registry::{Access, Client, Credentials, Manifest, RegistryError, Repository};

use super::{Distribution, pull_failed};
use crate::error::ImageError;

/// What a name stands for in its registry.
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
    let repository = Repository::open(
        client,
        reference.domain(),
        reference.path(),
        Access::Pull,
        credentials,
    )
    .await
    .map_err(failed)?;
    let manifest = root_manifest(&repository, &reference)
        .await
        .map_err(failed)?;
    let platforms = match parse(&reference, &manifest)? {
        DocumentKind::Index(entries) => entries
            .into_iter()
            .filter_map(|entry| entry.platform)
            .collect(),
        DocumentKind::Manifest(config, _) => {
            let raw = repository
                .small_blob(config.digest, config.size, MAX_CONFIG_SIZE)
                .await
                .map_err(failed)?;
            let config = parse_config(&reference, &raw)?;
            vec![Platform {
                architecture: config.architecture,
                os: config.os,
                variant: config.variant,
            }]
        }
    };
    Ok(Distribution {
        size: manifest.bytes.len() as u64,
        digest: manifest.digest,
        media_type: manifest.media_type,
        platforms,
    })
}

/// All tags of a repository, as references.
pub(crate) async fn tags(
    client: &Client,
    name: &str,
    credentials: Option<Credentials>,
) -> Result<Vec<String>, ImageError> {
    let reference = name.parse::<Reference>()?;
    let failed = |error| pull_failed(&reference, error);
    let repository = Repository::open(
        client,
        reference.domain(),
        reference.path(),
        Access::Pull,
        credentials,
    )
    .await
    .map_err(failed)?;
    let tags = repository.tags().await.map_err(failed)?;
    // A registry may say anything.
    Ok(tags
        .iter()
        .filter_map(|tag| Some(reference.with_tag(tag).ok()?.familiar()))
        .collect())
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
    Document::parse(&manifest.bytes)
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
