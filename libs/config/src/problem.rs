//! Faults of a configuration file, and their remedies.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One fault in one layer. Unless it is a warning, the layer was left out of the effective
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file as the operator knows it.
    pub file: PathBuf,
    /// Line of the fault, counted from 1; absent when the file could not be read at all.
    pub line: Option<usize>,
    /// Column of the fault in characters, counted from 1.
    pub column: Option<usize>,
    /// Path of the field, for example `network.link[0].mtu`; empty when no field is concerned.
    pub field: String,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What would be right, one sentence without a full stop.
    pub remedy: String,
    /// Whether the layer counts all the same.
    #[serde(default)]
    pub warning: bool,
    /// Whether the schema has no such field.
    #[serde(skip)]
    pub unknown_field: bool,
}

impl Problem {
    /// A fault of a file as a whole.
    pub(crate) fn of_file(file: impl Into<PathBuf>, message: String, remedy: &str) -> Self {
        Self {
            file: file.into(),
            line: None,
            column: None,
            field: String::new(),
            message,
            remedy: remedy.to_owned(),
            warning: false,
            unknown_field: false,
        }
    }
}

/// `file:line: message: remedy`, the form that editors understand.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, ": {}", self.remedy)?;
        }
        Ok(())
    }
}
