//! Manifests: Docker's archive manifest, OCI manifest and index, and Docker schema 2, which is
//! read by the same types. Unknown members are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::digest::Digest;

/// Largest manifest or index that is read, in bytes (the limit that registries have).
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// Annotation of an index entry: the image's full name.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation of an index entry: the image's name, or just its tag.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation that we give the entry of a manifest of plain layers which an image came with, in
/// contrast to one that was made for an archive.
pub const ANNOTATION_ORIGINAL: &str = "io.keelson.manifest.original";
/// Annotation that marks an index entry as something about another entry, not an image.
pub const ANNOTATION_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the configuration that an OCI manifest names.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an OCI layer without compression; `+gzip` and `+zstd` are appended for others.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of the configuration that Docker's manifest names.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Media type of Docker's layer without compression; `.gzip` is appended for the usual one.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

const INDEX_TYPES: [&str; 2] = [OCI_INDEX, DOCKER_LIST];
const MANIFEST_TYPES: [&str; 2] = [OCI_MANIFEST, DOCKER_MANIFEST];
const CONFIG_TYPES: [&str; 2] = [OCI_CONFIG, DOCKER_CONFIG];

/// One image of `manifest.json` in a `docker save` archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveImage {
    /// Path of the configuration in the archive.
    pub config: String,
    /// Names with tag.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Paths of the layers in the archive, lowest first.
    #[serde(default)]
    pub layers: Option<Vec<String>>,
    /// The image in the same archive that it was made from.
    #[serde(default)]
    pub parent: Option<String>,
}

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Which machines an image is for.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Remarks.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Which machines an image is for, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `v8`.
    #[serde(default)]
    pub variant: Option<String>,
}

/// A manifest or an index; which of them, [`Document::kind`] tells.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// 2.
    pub schema_version: u32,
    /// What the document is; OCI allows to leave it out.
    #[serde(default)]
    pub media_type: Option<String>,
    /// Of an artifact: what it is.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// Of a manifest: the configuration.
    #[serde(default)]
    pub config: Option<Descriptor>,
    /// Of a manifest: the layers, lowest first.
    #[serde(default)]
    pub layers: Option<Vec<Descriptor>>,
    /// Of an index: the manifests.
    #[serde(default)]
    pub manifests: Option<Vec<Descriptor>>,
}

/// What a [`Document`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentKind {
    /// One image: its configuration and its layers, lowest first.
    Manifest(Descriptor, Vec<Descriptor>),
    /// Several images to choose from.
    Index(Vec<Descriptor>),
}

/// Why a document is no manifest that we can use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that the specification asks for.
    #[error("not valid JSON of a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Too large.
    #[error("{0} bytes, where at most {MAX_MANIFEST_SIZE} are accepted")]
    TooLarge(usize),
    /// Another version of the format.
    #[error(
        "schema version {0} is not supported, only 2 is; copy the image to a present registry, or \
         push it again with a present engine, which converts it"
    )]
    Schema(u32),
    /// Not the media type of an image.
    #[error("media type {0:?} is not that of a container image")]
    MediaType(String),
    /// Something else that is kept in registries: a chart, a signature, ….
    #[error(
        "media type {0:?} is not that of a container image but of an artifact; a tool for such \
         artifacts can fetch it"
    )]
    Artifact(String),
    /// Neither an image's nor an index's members.
    #[error("it has neither config and layers nor manifests, or not those of its media type")]
    Incomplete,
}

impl Document {
    /// Reads a manifest or index and tells which it is.
    pub fn parse(bytes: &[u8]) -> Result<DocumentKind, ManifestError> {
        if bytes.len() as u64 > MAX_MANIFEST_SIZE {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let document: Self = serde_json::from_slice(bytes)?;
        if document.schema_version != 2 {
            return Err(ManifestError::Schema(document.schema_version));
        }
        if let Some(media_type) = &document.media_type
            && !INDEX_TYPES.contains(&media_type.as_str())
            && !MANIFEST_TYPES.contains(&media_type.as_str())
        {
            return Err(ManifestError::MediaType(media_type.clone()));
        }
        let says = |types: [&str; 2]| match &document.media_type {
            Some(media_type) => types.contains(&media_type.as_str()),
            None => true,
        };
        let (index, manifest) = (says(INDEX_TYPES), says(MANIFEST_TYPES));
        match (document.config, document.layers, document.manifests) {
            (Some(config), Some(layers), None) if manifest => {
                if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
                    let kind = document.artifact_type.unwrap_or(config.media_type);
                    return Err(ManifestError::Artifact(kind));
                }
                Ok(DocumentKind::Manifest(config, layers))
            }
            (None, None, Some(manifests)) if index => Ok(DocumentKind::Index(manifests)),
            _ => Err(ManifestError::Incomplete),
        }
    }
}

impl Descriptor {
    /// The annotation of this name.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether it describes an attestation about another manifest instead of an image.
    pub fn is_attestation(&self) -> bool {
        self.annotation(ANNOTATION_REFERENCE_TYPE).is_some()
    }

    /// Whether the layer is one that must be fetched from elsewhere.
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains("nondistributable") || self.media_type.contains("foreign")
    }

    /// Whether it is for this machine: Linux and this architecture. Without a platform it may be.
    pub fn fits(&self, architecture: &str) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
    }
}

/// The architecture that this program was built for, in Go's words.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_manifest_from_index() {
        let digest = Digest::of(b"x");
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{digest}","size":1}},
            "layers":[{{"digest":"{digest}","size":2,"mediaType":"a"}}],"x":1}}"#,
            CONFIG_TYPES[0]
        );
        assert!(matches!(
            Document::parse(manifest.as_bytes()),
            Ok(DocumentKind::Manifest(_, layers)) if layers.len() == 1
        ));
        assert!(matches!(
            Document::parse(br#"{"schemaVersion":2,"manifests":[]}"#),
            Ok(DocumentKind::Index(_))
        ));
        for bad in [
            &br#"{"schemaVersion":1,"manifests":[]}"#[..],
            br#"{"schemaVersion":2}"#,
            br#"{"schemaVersion":2,"mediaType":"text/html","manifests":[]}"#,
            // One that an engine could take for the one, and another for the other.
            br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            br#"{"schemaVersion":2,"manifests":[],
                "mediaType":"application/vnd.oci.image.manifest.v1+json"}"#,
            b"[]",
        ] {
            assert!(Document::parse(bad).is_err());
        }
        let helm = manifest.replace(CONFIG_TYPES[0], "application/vnd.cncf.helm.config.v1+json");
        assert!(matches!(
            Document::parse(helm.as_bytes()),
            Err(ManifestError::Artifact(kind)) if kind.contains("helm")
        ));
        let signature = helm.replacen('{', r#"{"artifactType":"application/x-signature","#, 1);
        assert!(matches!(
            Document::parse(signature.as_bytes()),
            Err(ManifestError::Artifact(kind)) if kind == "application/x-signature"
        ));
    }
}
