//! Image configurations: the JSON document whose digest is the image's identifier (OCI image
//! specification, config.md; Docker's image.md v1.2).
//!
//! Unknown members are kept, so that clients see the document that the image's author wrote.

mod limits;
mod read;

use std::collections::BTreeMap;

use keelson_model::json::JsonError;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::digest::Digest;

/// Largest configuration that is read, in bytes.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// An image configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ImageConfig {
    /// When the image was made: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Processor architecture in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Variant of the architecture: `v8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system in Go's words: `linux`.
    pub os: String,
    /// Version of the operating system, where one is required.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The default settings of a container of this image.
    #[serde(skip_serializing_if = "ContainerDefaults::is_empty")]
    pub config: ContainerDefaults,
    /// The layers.
    pub rootfs: RootFs,
    /// How the image was made, oldest step first.
    pub history: Vec<History>,
    /// Everything else that the document holds (`docker_version`, `comment`, …).
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the layers' uncompressed tar archives, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct History {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The default settings of an image's containers, under the names of the image specification.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerDefaults {
    /// `user[:group]`, names or numbers; empty is root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `port/protocol`; the values are empty objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// The program; `cmd` has its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the command if there is no entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that get a volume each; the values are empty objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Value>>,
    /// The working directory; empty is `/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Signal that asks the command to end: `SIGTERM`, `15`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Docker's health check, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// Instructions that a build from this image runs first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Shell of shell-form instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Unknown members.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The shell of images that name none.
pub const USUAL_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The shortest time of a health check that may be given, in nanoseconds; 0 is the usual time.
pub const SHORTEST_HEALTH_TIME: i64 = 1_000_000;

impl ContainerDefaults {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a document is not a usable image configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON that the specification asks for.
    #[error("the image configuration is not valid: {0}")]
    Json(#[from] JsonError),
    /// Larger than [`MAX_CONFIG_SIZE`].
    #[error("the image configuration has {0} bytes; at most {MAX_CONFIG_SIZE} are accepted")]
    TooLarge(u64),
    /// A member is too large. Every container, event and response of the image has a copy of it.
    #[error(
        "member {member} of the image configuration has {size} bytes; at most {limit} are accepted"
    )]
    MemberTooLarge {
        /// The member.
        member: &'static str,
        /// Bytes of its names and values.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Layers of another kind.
    #[error("the image's rootfs type is {0:?}; only \"layers\" is supported")]
    RootFsType(String),
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Names the member that is wrong, missing or too large.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let config = Self::parse_stored(bytes)?;
        limits::check(&config)?;
        Ok(config)
    }

    /// Reads the configuration of an image that was accepted before, perhaps by a release with
    /// other limits.
    ///
    /// # Errors
    /// Names the member that is wrong or missing.
    pub fn parse_stored(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() as u64 > MAX_CONFIG_SIZE {
            return Err(ConfigError::TooLarge(bytes.len() as u64));
        }
        let mut config = read::config(bytes)?;
        match config.rootfs.kind.as_str() {
            "layers" => {}
            "" => "layers".clone_into(&mut config.rootfs.kind),
            other => return Err(ConfigError::RootFsType(other.to_owned())),
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_unknown_members_and_accepts_nulls() {
        let text = r#"{"architecture":"amd64","os":"linux","docker_version":"28",
            "config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,"ArgsEscaped":true,"User":null},
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.config.env, None);
        assert_eq!(config.config.other.get("ArgsEscaped"), Some(&true.into()));
        assert_eq!(config.other.get("docker_version"), Some(&"28".into()));
        let again = serde_json::to_vec(&config).unwrap();
        assert_eq!(ImageConfig::parse(&again).unwrap(), config);
    }

    #[test]
    fn refuses_other_documents() {
        assert!(ImageConfig::parse(b"{}").is_err());
        assert!(ImageConfig::parse(b"[]").is_err());
        assert!(ImageConfig::parse(br#"{"rootfs":{"type":"zfs"}}"#).is_err());
        assert!(
            ImageConfig::parse(br#"{"rootfs":{"type":"layers","diff_ids":["md5:00"]}}"#).is_err()
        );
    }
}
