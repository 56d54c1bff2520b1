//! Documents of the metadata services of clouds, without their transport.

use crate::seed::{Bytes, Seed};

pub mod azure;
pub mod gce;
pub mod openstack;

/// What a metadata service says about one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceData {
    /// The cloud's name of the machine.
    pub id: String,
    /// Its host name.
    pub hostname: Option<String>,
    /// Keys for the default user, each once.
    pub public_keys: Vec<String>,
    /// What the owner wants.
    pub user_data: Option<Bytes>,
}

impl InstanceData {
    /// The seed of a source that says no more than this.
    #[must_use]
    pub fn into_seed(self, source: &str, place: &str) -> Seed {
        let mut seed = Seed::new(source, place, &self.id);
        seed.hostname = self.hostname;
        seed.public_keys = self.public_keys;
        seed.user_data = self.user_data;
        seed
    }
}

/// Adds keys that are not there yet.
pub(crate) fn add_keys(known: &mut Vec<String>, keys: impl IntoIterator<Item = String>) {
    for key in keys {
        if !key.is_empty() && !known.contains(&key) {
            known.push(key);
        }
    }
}

/// What a text in base64 says, also one in several lines. `None` if it is not base64.
pub(crate) fn decoded(text: &str) -> Option<Bytes> {
    use base64::Engine as _;
    let dense: String = text.split_ascii_whitespace().collect();
    let bytes = base64::prelude::BASE64_STANDARD.decode(dense).ok()?;
    Some(Bytes(bytes))
}
