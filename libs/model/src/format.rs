//! What a document says about its format
//! (docs/decisions/0019-formats-that-go-back.md). Documents of the engine have `keelson-store` for
//! this; these are the members of the small documents of the machine.

use serde::{Deserialize, Serialize};

/// The first members of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentFormat {
    /// The version of the format, from 1.
    pub version: u32,
    /// The oldest version whose readers understand the document; `version` itself if it is missing.
    /// They ignore members that they do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readable_from: Option<u32>,
}

impl DocumentFormat {
    /// The first version.
    pub const FIRST: Self = Self {
        version: 1,
        readable_from: Some(1),
    };

    /// Whether readers of a version understand the document.
    pub const fn is_readable_by(self, version: u32) -> bool {
        let oldest = match self.readable_from {
            Some(oldest) => oldest,
            None => self.version,
        };
        oldest <= version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_who_can_read_it() {
        let of = |text: &str| serde_json::from_str::<DocumentFormat>(text).unwrap();
        assert!(of(r#"{"version":1}"#).is_readable_by(1));
        assert!(!of(r#"{"version":2}"#).is_readable_by(1));
        assert!(of(r#"{"version":2,"readable_from":1,"more":0}"#).is_readable_by(1));
        assert!(!of(r#"{"version":3,"readable_from":2}"#).is_readable_by(1));
        assert!(DocumentFormat::FIRST.is_readable_by(1));
    }
}
