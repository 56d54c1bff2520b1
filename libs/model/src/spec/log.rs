//! The destination of a container's output.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;

/// The destination of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "snake_case")]
pub enum LogSpec {
    /// The engine's own files, which rotate.
    Files {
        /// Bytes after which a file is rotated. `None`: the host's configuration.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_size: Option<u64>,
        /// How many files are kept, including the current one; at least 1. `None`: the host's
        /// configuration.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_files: Option<u32>,
        /// Attributes of each line, for clients that ask for them.
        #[serde(default, skip_serializing_if = "is_default")]
        marks: LogMarks,
    },
    /// Nowhere: only attached callers get it.
    Nowhere,
    /// A syslog server, and the engine's own files with the host's limits.
    Syslog {
        /// How the server is reached.
        server: SyslogServer,
        /// 0 to 23, as RFC 5424 numbers them.
        facility: u8,
        /// The format of a line.
        #[serde(default, skip_serializing_if = "is_default")]
        format: SyslogFormat,
        /// Attributes of each line.
        #[serde(default, skip_serializing_if = "is_default")]
        marks: LogMarks,
    },
}

impl LogSpec {
    /// What stands beside each line.
    pub fn marks(&self) -> Option<&LogMarks> {
        match self {
            Self::Files { marks, .. } | Self::Syslog { marks, .. } => Some(marks),
            Self::Nowhere => None,
        }
    }
}

impl Default for LogSpec {
    fn default() -> Self {
        Self::Files {
            max_size: None,
            max_files: None,
            marks: LogMarks::default(),
        }
    }
}

/// The attributes of a log's lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogMarks {
    /// Names and values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The container's name in the log, a template with its properties: `{{.Name}}`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

/// A syslog server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogServer {
    /// This machine's server: `/dev/log`, or another usual socket.
    Local,
    /// A unix socket of either kind.
    Unix(PathBuf),
    /// Datagrams: `host:port`.
    Udp(String),
    /// A stream: `host:port`.
    Tcp(String),
}

/// The format of lines for a syslog server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// The format for this machine's server: without a host name.
    #[default]
    Local,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424 with whole seconds.
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}
