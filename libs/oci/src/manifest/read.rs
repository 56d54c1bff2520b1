//! Reads manifests and indexes.

use std::collections::BTreeMap;

use keelson_model::json::{self, Json, JsonError, lenient, some_strings};
use serde::{Deserialize, Deserializer};

use super::media_type::{is_config, is_index, is_manifest, says_nothing};
use super::{
    ArchiveImage, Descriptor, DocumentKind, Index, MAX_MANIFEST_SIZE, ManifestDocument,
    ManifestError, Platform,
};

/// How many unreadable entries of an index are reported.
const REMARKS: usize = 3;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    #[serde(default)]
    schema_version: Option<Json>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Json>,
    #[serde(default)]
    layers: Option<Json>,
    #[serde(default)]
    manifests: Option<Json>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Typed {
    #[serde(deserialize_with = "lenient")]
    media_type: String,
}

#[derive(Deserialize)]
#[serde(rename = "Descriptor", rename_all = "camelCase")]
struct DescriptorMembers {
    #[serde(default)]
    media_type: String,
    digest: crate::digest::Digest,
    size: u64,
    #[serde(default, deserialize_with = "lenient")]
    platform: Option<PlatformMembers>,
    #[serde(default, deserialize_with = "lenient")]
    annotations: Option<BTreeMap<String, Json>>,
    #[serde(default, deserialize_with = "lenient")]
    artifact_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename = "Platform")]
struct PlatformMembers {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename = "ArchiveImage", rename_all = "PascalCase")]
struct ArchiveMembers {
    config: String,
    #[serde(default, deserialize_with = "some_strings")]
    repo_tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "some_strings")]
    layers: Option<Vec<String>>,
    #[serde(default, deserialize_with = "lenient")]
    parent: Option<String>,
}

fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = DescriptorMembers::deserialize(deserializer)?;
        let text = |(name, value)| match value {
            Json::String(text) => Some((name, text)),
            _ => None,
        };
        let platform = read.platform.map(|platform| Platform {
            architecture: platform.architecture,
            os: platform.os,
            variant: said(platform.variant),
        });
        Ok(Self {
            media_type: read.media_type,
            digest: read.digest,
            size: read.size,
            platform: platform
                .filter(|platform| !(platform.os.is_empty() && platform.architecture.is_empty())),
            annotations: read
                .annotations
                .map(|annotations| annotations.into_iter().filter_map(text).collect()),
            artifact_type: said(read.artifact_type),
        })
    }
}

impl ArchiveImage {
    /// Reads `manifest.json`.
    ///
    /// # Errors
    /// Names the member that is wrong or missing.
    pub fn parse_list(bytes: &[u8]) -> Result<Vec<Self>, JsonError> {
        let list: Vec<ArchiveMembers> = json::from_slice(bytes)?;
        let some = |list: Option<Vec<String>>| {
            let mut list = list.unwrap_or_default();
            list.retain(|text| !text.is_empty());
            list
        };
        let image = |read: ArchiveMembers| Self {
            config: read.config,
            repo_tags: some(read.repo_tags),
            layers: some(read.layers),
            parent: said(read.parent),
        };
        Ok(list.into_iter().map(image).collect())
    }
}

impl ManifestDocument {
    /// The media type that a manifest or index states, if it has one.
    pub fn media_type_of(bytes: &[u8]) -> Option<String> {
        let members: Typed = json::from_slice(bytes).ok()?;
        said(Some(members.media_type))
    }

    /// Reads a manifest or index and determines which it is.
    ///
    /// # Errors
    /// When it is neither, or a member that is needed cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<DocumentKind, ManifestError> {
        if bytes.len() as u64 > MAX_MANIFEST_SIZE {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let members: Members = json::from_slice(bytes)?;
        if let Some(version) = members.schema_version {
            match json::from_member("schemaVersion", version)? {
                2 => {}
                other => return Err(ManifestError::Schema(other)),
            }
        }
        let media_type = said(members.media_type);
        if let Some(media_type) = &media_type
            && !is_index(media_type)
            && !is_manifest(media_type)
        {
            return Err(ManifestError::MediaType(media_type.clone()));
        }
        let says = |is: fn(&str) -> bool| media_type.as_deref().is_none_or(is);
        let artifact_type = said(members.artifact_type);
        match (members.config, members.layers, members.manifests) {
            (Some(config), layers, None) if says(is_manifest) => {
                let kind = Typed::deserialize(config.clone()).unwrap_or_default();
                let kind = kind.media_type;
                // A generic type may be an image's, unless the manifest itself says otherwise.
                if !is_config(&kind) && (!says_nothing(&kind) || artifact_type.is_some()) {
                    return Err(ManifestError::Artifact(artifact_type.unwrap_or(kind)));
                }
                let config = json::from_member("config", config)?;
                let layers = json::from_member("layers", layers.unwrap_or(Json::Null))?;
                Ok(DocumentKind::Manifest(config, layers))
            }
            (None, None, Some(manifests)) if says(is_index) => {
                Ok(DocumentKind::Index(index(manifests)?))
            }
            (None, None, None) if media_type.as_deref().is_some_and(is_index) => {
                Ok(DocumentKind::Index(Index::default()))
            }
            (None, _, None) => match artifact_type {
                Some(kind) => Err(ManifestError::Artifact(kind)),
                None => Err(ManifestError::Incomplete),
            },
            _ => Err(ManifestError::Incomplete),
        }
    }
}

/// Unreadable entries are assumed to be for other platforms, as long as a readable one is for this
/// platform.
fn index(manifests: Json) -> Result<Index, JsonError> {
    let list: Vec<Json> = json::from_member("manifests", manifests)?;
    let mut index = Index::default();
    for (at, entry) in list.into_iter().enumerate() {
        match json::from_member(&format!("manifests[{at}]"), entry) {
            Ok(entry) => index.entries.push(entry),
            Err(error) if index.passed_over.len() < REMARKS => {
                index.passed_over.push(error.to_string());
            }
            Err(_) => {}
        }
    }
    Ok(index)
}
