//! Containers whose files can't be read.
//!
//! They are shown as dead with the reason, keep their identifier, name and files, and may be
//! removed on purpose. None of their files is written. Once the fault is gone, the next engine
//! finds them unchanged.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hostd_images::Holder;
use jiff::Timestamp;
use keelson_model::spec::ContainerSpec;
use keelson_store::document::Rest;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::EngineError;
use crate::container::{Beginning, Container};
use crate::document::{ContainerDocument, Identity};
use crate::engine::Inner;
use crate::types::Scope;

/// Larger damaged documents are not searched for readable parts.
const MAX_DOCUMENT: u64 = 16 << 20;

impl Inner {
    /// Shows a container that can't be read as a dead one.
    pub(crate) fn quarantine(&self, id: &str, reason: &EngineError) {
        tracing::error!(id, error = %reason, "container can't be read; its files are left alone");
        let mut document = match self.objects.directory(id) {
            Ok(directory) => remains(&directory, id),
            Err(error) => return tracing::error!(id, %error, "container can't be shown"),
        };
        let scope = document.scope;
        let taken = |name: &str| {
            self.with_mut(scope, |registry| registry.reserve(name, id))
                .is_err()
        };
        if document.name.is_empty() || taken(&document.name) {
            id.get(..12).unwrap_or(id).clone_into(&mut document.name);
            if taken(&document.name) {
                tracing::warn!(id, name = document.name, "a dead container has no name");
            }
        }
        let why = format!("the container can't be read: {reason}");
        let lease = self.lease_again(&document);
        let identity = (id, document.name.as_str(), scope, document.created);
        match self.snapshot(identity, self.spec_of(&document), document.shown()) {
            Ok(snapshot) => {
                let container = Arc::new(Container::new(snapshot, Beginning::Unreadable(why)));
                container.hold(lease);
                // Any image may be its own or be mounted in it: a truncated document does not show
                // what followed.
                container.live().volumes.leases = vec![self.volumes.hold_all(id)];
                let any = self.images.lease_again(None, Holder::container(id));
                container.hold_mounted(vec![any]);
                self.with_mut(scope, |registry| registry.insert(id, container));
            }
            Err(error) => tracing::error!(id, %error, "container can't be shown"),
        }
    }

    /// The known parts of a container's specification. They are only shown, and need not be valid.
    fn spec_of(&self, document: &ContainerDocument) -> ContainerSpec {
        document
            .spec
            .clone()
            .or_else(|| self.read_old(document).ok())
            .unwrap_or_else(|| {
                let mut spec = ContainerSpec::new(document.root(), document.path.clone());
                spec.process.args.clone_from(&document.args);
                spec
            })
    }
}

/// The known facts about a container whose document can't be read.
fn remains(directory: &Path, id: &str) -> ContainerDocument {
    let path = directory.join(crate::document::CONTAINER);
    let small = fs::metadata(&path).is_ok_and(|found| found.len() <= MAX_DOCUMENT);
    let bytes = match small {
        true => fs::read(&path).unwrap_or_default(),
        false => Vec::new(),
    };
    let members = salvage(&bytes);
    let identity = Identity::read(directory);
    let text = |name: &str| member::<String>(&members, name).filter(|text| !text.is_empty());
    let (scope, image_id, name) = match identity {
        Some(identity) => (identity.scope, identity.image_id, identity.name),
        None => (Scope::User, String::new(), String::new()),
    };
    ContainerDocument {
        id: id.to_owned(),
        name: text("name").unwrap_or(name),
        scope: member(&members, "scope").unwrap_or(scope),
        created: member(&members, "created").unwrap_or_else(|| made(directory)),
        image: text("image").unwrap_or_else(|| image_id.clone()),
        image_id: text("image_id").unwrap_or(image_id),
        path: text("path").unwrap_or_default(),
        args: member(&members, "args").unwrap_or_default(),
        config: member(&members, "config").unwrap_or_default(),
        host_config: member(&members, "host_config").unwrap_or_default(),
        spec: member(&members, "spec"),
        // None of its files is written.
        rest: Rest::default(),
    }
}

fn member<T: DeserializeOwned>(members: &Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(members.get(name)?.clone()).ok()
}

/// The approximate time of a container's creation, by its directory.
fn made(directory: &Path) -> Timestamp {
    fs::metadata(directory)
        .and_then(|found| found.created().or_else(|_| found.modified()))
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok())
        .unwrap_or_default()
}

/// The members of a JSON object. If it is truncated, those that are complete.
fn salvage(bytes: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_slice(&closed(bytes)))
        .unwrap_or_default()
}

/// The text up to the last complete member or element, with open brackets closed.
fn closed(bytes: &[u8]) -> Vec<u8> {
    let (mut open, mut inside, mut escaped) = (Vec::new(), false, false);
    let mut last = Vec::new();
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ if inside => {}
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => drop(open.pop()),
            b',' => last = vec![(index, open.clone())],
            _ => {}
        }
    }
    let Some((end, closers)) = last.pop() else {
        return Vec::new();
    };
    let mut text = bytes.get(..end).unwrap_or_default().to_vec();
    text.extend(closers.iter().rev());
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_whole_is_salvaged() {
        let whole = json!({
            "version": 1, "id": "x", "name": "web", "args": ["a", "b,]\"c"],
            "config": {"Image": "box", "Labels": {"k": "v"}}, "host_config": {"Memory": 5},
        });
        let text = whole.to_string();
        assert_eq!(Value::Object(salvage(text.as_bytes())), whole);
        for end in 0..text.len() {
            for (name, value) in salvage(&text.as_bytes()[..end]) {
                let full = &whole[&name];
                assert!(
                    *full == value || full.is_object() || full.is_array(),
                    "{end}"
                );
            }
        }
        let cut = text.find("\"host_config\"").unwrap_or(text.len());
        let members = salvage(&text.as_bytes()[..cut]);
        assert_eq!(members.get("config"), whole.get("config"));
        assert!(salvage(b"").is_empty());
        assert!(salvage(b"\0\0\0").is_empty());
    }
}
