//! What a translation leaves out or changes, for the person who wrote the document.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most warnings of one translation. A document of a hostile source could cause millions.
const MOST: usize = 200;

/// One thing that was left out, or that has another effect than its author may expect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The document: `user-data`, `network-config`, ….
    pub document: String,
    /// Line in it, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// One sentence without a full stop.
    pub message: String,
}

/// `document:line: message`, the form that editors understand.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.document)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The warnings so far, and the document that is being read.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    document: String,
    warnings: Vec<Warning>,
    dropped: usize,
}

impl Notes {
    /// No warnings yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the document that the next warnings are about.
    pub fn enter(&mut self, document: &str) {
        document.clone_into(&mut self.document);
    }

    /// The document that is being read.
    #[must_use]
    pub fn document(&self) -> &str {
        &self.document
    }

    /// Adds a warning about a line of the present document.
    pub fn at(&mut self, line: usize, message: impl Into<String>) {
        self.add(Some(line).filter(|line| *line > 0), message.into());
    }

    /// Adds a warning about the present document as a whole.
    pub fn say(&mut self, message: impl Into<String>) {
        self.add(None, message.into());
    }

    fn add(&mut self, line: Option<usize>, message: String) {
        if self.warnings.len() >= MOST {
            self.dropped += 1;
            return;
        }
        self.warnings.push(Warning {
            document: self.document.clone(),
            line,
            message,
        });
    }

    /// All warnings, in the order in which they were found.
    #[must_use]
    pub fn finish(mut self) -> Vec<Warning> {
        if self.dropped > 0 {
            self.warnings.push(Warning {
                document: self.document,
                line: None,
                message: format!("there are {} more warnings", self.dropped),
            });
        }
        self.warnings
    }
}
