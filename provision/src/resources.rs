//! What a document refers to by URL. Translators ask for it and read no network themselves.

use std::collections::BTreeMap;

/// Largest resource, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// Most resources of one seed.
pub const MOST: usize = 64;

/// Why a resource is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// It needs the network, which is not up yet.
    #[error("{0} is read when the network is up")]
    Later(String),
    /// It can't be had.
    #[error("read {url}: {reason}")]
    Failed {
        /// Which one, without its query: that may be a secret.
        url: String,
        /// Why.
        reason: String,
    },
}

/// Gives resources by URL.
pub trait Resources {
    /// The bytes of `url`.
    ///
    /// # Errors
    /// [`ResourceError`].
    fn get(&mut self, url: &str) -> Result<Vec<u8>, ResourceError>;
}

/// Resources that were read before: what is not among them needs the network.
impl Resources for BTreeMap<String, Vec<u8>> {
    fn get(&mut self, url: &str) -> Result<Vec<u8>, ResourceError> {
        BTreeMap::get(self, url)
            .cloned()
            .ok_or_else(|| ResourceError::Later(shown(url)))
    }
}

/// A URL without what may be secret: name and password, query, fragment.
#[must_use]
pub fn shown(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(mut url) => {
            // These fail for URLs that have no host, and so none of it.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            let text = match url.scheme() {
                "data" => "data:…".to_owned(),
                _ => url.to_string(),
            };
            text.chars().take(200).collect()
        }
        Err(_) => "an invalid URL".to_owned(),
    }
}
