//! Containers in the JSON of the Docker Engine API (version 1.51, definitions `ContainerConfig`,
//! `HostConfig`, `Mount`, …), in requests and answers.
//!
//! [`keelson_model::json`] reads requests as Docker's own decoder does, so these types are only lists of
//! members. A member with a field here is obeyed or refused ([`crate::request`]). A member without one
//! is unknown to Docker, too, and ignored as there.

mod host;
mod parts;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use host::{HostConfig, LogConfig, RestartPolicy, Zero};
pub use parts::{
    BindOptions, DeviceMapping, DeviceRequest, DriverConfig, EndpointIpam, EndpointSettings,
    ImageOptions, Mount, NetworkingConfig, PortBinding, ThrottleDevice, TmpfsOptions, Ulimit,
    VolumeOptions, WeightDevice,
};

use keelson_model::json::{Json, JsonError};

/// The body of `POST /containers/create`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateBody {
    /// What runs in the container.
    #[serde(flatten)]
    pub config: Config,
    /// How it runs on this host.
    pub host_config: HostConfig,
    /// To which networks it is connected.
    pub networking_config: NetworkingConfig,
}

impl CreateBody {
    /// Reads the body. It holds the members of the configuration beside the two other objects.
    ///
    /// # Errors
    /// A member has another type than its field.
    pub fn read(document: Json) -> Result<Self, JsonError> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct Others {
            host_config: HostConfig,
            networking_config: NetworkingConfig,
        }

        let config = Config::deserialize(document.clone())?;
        let others = Others::deserialize(document)?;
        Ok(Self {
            config,
            host_config: others.host_config,
            networking_config: others.networking_config,
        })
    }
}

/// What runs in the container, independent of the host. Images carry the same type as defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// Host name inside the container; the engine takes the first 12 digits of the identifier
    /// when it is empty.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// `user`, `uid`, `user:group`, … resolved in the container's root file system.
    pub user: String,
    /// Whether the client that creates the container will attach to standard input.
    pub attach_stdin: bool,
    /// Whether it will attach to standard output.
    pub attach_stdout: bool,
    /// Whether it will attach to standard error.
    pub attach_stderr: bool,
    /// `port/protocol` → `{}`; documentation of the image, publishes nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// A terminal instead of three pipes.
    pub tty: bool,
    /// Keep standard input open while no client is attached.
    pub open_stdin: bool,
    /// Close standard input after the first attached client is gone.
    pub stdin_once: bool,
    /// `NAME=value`; `NAME` alone removes a variable of the image.
    pub env: Vec<String>,
    /// Command, or arguments of the entry point. A single string stands for a list of one.
    #[serde(deserialize_with = "words")]
    pub cmd: Option<Vec<String>>,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Windows only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Image as the client named it.
    pub image: String,
    /// Paths that are volumes even when nothing is mounted there.
    pub volumes: BTreeMap<String, Empty>,
    /// Directory in which the command starts; made when it does not exist.
    pub working_dir: String,
    /// Entry point. `None`: the image's; `[""]`: none.
    #[serde(deserialize_with = "words")]
    pub entrypoint: Option<Vec<String>>,
    /// Loopback only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network_disabled: bool,
    /// Hardware address (before API 1.44).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Instructions for builds on top of the image.
    pub on_build: Option<Vec<String>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the command to end, by name or number; SIGTERM when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds between the stop signal and SIGKILL; -1 waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of the image's shell-form instructions.
    #[serde(deserialize_with = "words", skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// A health check. Times are nanoseconds; 0 inherits the image's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    /// `[]` inherits, `["NONE"]` disables, `["CMD", …]`, `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: i64,
    /// For one check.
    pub timeout: i64,
    /// Failures in a row that mean unhealthy.
    pub retries: i64,
    /// Time in which failures don't count.
    pub start_period: i64,
    /// Between two checks during the start period.
    pub start_interval: i64,
}

/// An object without members: the value of sets that are written as objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Empty {}

/// A list of words, or one string that stands for a list of one.
pub(crate) fn words<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    struct Words;

    impl<'de> Visitor<'de> for Words {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of strings, or a string")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![text.to_owned()]))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Some)
        }
    }

    deserializer.deserialize_any(Words)
}

#[cfg(test)]
mod tests;
