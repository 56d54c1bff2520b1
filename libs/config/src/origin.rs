//! Where each value of the effective configuration came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A layer of the configuration. Later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerKind {
    /// The defaults of the programs.
    BuiltIn,
    /// The image: `/usr/lib/keelson/host.toml`.
    Image,
    /// The kernel command line: `keelson.config.KEY=VALUE`.
    CommandLine,
    /// What started the machine: a cloud, a seed disk, QEMU.
    Platform,
    /// `/etc/keelson/host.toml` and `/etc/keelson/host.toml.d/`.
    Operator,
    /// The operator's last good configuration, which stands in for a bad one.
    LastGood,
}

impl LayerKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Image => "image",
            Self::CommandLine => "command-line",
            Self::Platform => "platform",
            Self::Operator => "operator",
            Self::LastGood => "last-good",
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueOrigin {
    /// The layer.
    pub layer: LayerKind,
    /// The file; absent for built-in values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The line in the file, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

impl ValueOrigin {
    /// The origin of what no file says.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            layer: LayerKind::BuiltIn,
            file: None,
            line: None,
        }
    }
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.layer.as_str())?;
        if let Some(file) = &self.file {
            write!(f, " {}", file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        Ok(())
    }
}

/// The origin of each value, by its path. Values are all that is no table; a list is one value.
pub type Origins = BTreeMap<String, ValueOrigin>;
