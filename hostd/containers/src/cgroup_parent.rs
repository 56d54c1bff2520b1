//! The parent cgroup of all containers of an engine.

use std::str::FromStr;

/// Name of a cgroup directly below the root of the hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupParent(String);

impl CgroupParent {
    /// The name that the OS uses.
    pub const USUAL: &str = "keelson";

    /// The name, without slashes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CgroupParent {
    fn default() -> Self {
        Self(Self::USUAL.to_owned())
    }
}

/// The text is not a valid name of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid name of a cgroup: use letters, digits, - and _")]
pub struct CgroupParentError(String);

impl FromStr for CgroupParent {
    type Err = CgroupParentError;

    fn from_str(text: &str) -> Result<Self, CgroupParentError> {
        // The kernel's own files in the root have a dot in their names; new ones may come.
        let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if text.is_empty() || text.len() > 200 || !text.chars().all(usable) {
            return Err(CgroupParentError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}
