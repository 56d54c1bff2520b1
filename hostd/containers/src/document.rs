//! The documents of a container on disk.
//!
//! `container.json` describes the container; it changes only when the container is created, renamed
//! or updated. Only its member `spec` matters. Older engines read the other members, which say the
//! same in a client's words; so no migration is needed after a rollback. A document without `spec`
//! was written by such an engine. `state.json` has the container's state. It is written on every
//! start and exit, and may be lost in a power cut, because no container runs after that anyway.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use jiff::Timestamp;
use keelson_model::spec::{ContainerSpec, Donors, IoLimits, LogSpec, NamespaceMode, RootSpec};
use keelson_store::Document;
use keelson_store::document::{Members, Misfit, Rest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::EngineError;
use crate::types::{Scope, Shown, Snapshot, State};

/// Name of the document that makes a container exist.
pub(crate) const CONTAINER: &str = "container.json";
/// Name of the document with its state.
pub(crate) const STATE: &str = "state.json";

/// Name of the link with a summary of the document.
const IDENTITY: &str = "identity";

/// `container.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerDocument {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) created: Timestamp,
    /// `sha256:…`; empty for a system container.
    pub(crate) image_id: String,
    /// The image as it was named, or the EROFS file of a system container.
    pub(crate) image: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    /// [`Shown::config`].
    pub(crate) config: Value,
    /// [`Shown::host`].
    pub(crate) host_config: Value,
    /// After the others, so that a truncated document still has the shown members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spec: Option<ContainerSpec>,
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

impl ContainerDocument {
    /// Makes the document of a container.
    pub(crate) fn of(snapshot: &Snapshot) -> Result<Self, EngineError> {
        let spec = &snapshot.spec;
        let member = |of: fn(&Shown) -> &str| match &snapshot.shown {
            // Engines of before the specification need the member, and find nothing in it.
            None => Ok(json!({})),
            Some(shown) => serde_json::from_str(of(shown)).map_err(|source| EngineError::Shown {
                id: snapshot.id.clone(),
                source,
            }),
        };
        Ok(Self {
            id: snapshot.id.clone(),
            name: snapshot.name.clone(),
            scope: snapshot.scope,
            created: snapshot.created,
            image_id: snapshot.image_id().to_owned(),
            image: snapshot.image().into_owned(),
            path: spec.process.command.clone(),
            args: spec.process.args.clone(),
            config: member(|shown| &shown.config)?,
            host_config: member(|shown| &shown.host)?,
            spec: Some((**spec).clone()),
            rest: snapshot.rest.clone(),
        })
    }

    /// What clients see.
    pub(crate) fn shown(&self) -> Option<Shown> {
        let is_empty = |member: &Value| match member {
            Value::Object(members) => members.is_empty(),
            _ => true,
        };
        (!is_empty(&self.config) || !is_empty(&self.host_config)).then(|| Shown {
            config: self.config.to_string().into(),
            host: self.host_config.to_string().into(),
        })
    }

    /// The root file system of a document without specification.
    pub(crate) fn root(&self) -> RootSpec {
        match self.scope {
            Scope::System if self.image_id.is_empty() => RootSpec::System {
                path: self.image.clone().into(),
                lower: Vec::new(),
                read_only: false,
            },
            _ => RootSpec::Image {
                id: self.image_id.clone(),
                name: self.image.clone(),
                read_only: false,
            },
        }
    }
}

impl Document for ContainerDocument {
    /// Version 2 has members that an engine of version 1 would ignore, so that it would run a
    /// different container: volumes, logs that are sent to a server or dropped, namespaces of other
    /// containers, device rules, vendors' devices, an init, health checks, another runtime, limits
    /// of block devices, another cgroup, and mounted images.
    const VERSION: u32 = 2;
    const WRITES: u32 = 1;

    fn own_version(&self) -> Option<u32> {
        let of_2 = self.spec.as_ref().is_some_and(|spec| {
            let namespaces = &spec.namespaces;
            !spec.volumes.is_empty()
                || !spec.images.is_empty()
                || !matches!(spec.log, LogSpec::Files { .. })
                || namespaces.pid != NamespaceMode::Private
                || namespaces.donors != Donors::default()
                || !spec.device_rules.is_empty()
                || spec.process.init
                || spec.health.is_some()
                || !spec.described_devices.is_empty()
                || spec.runtime.is_some()
                || spec.limits.io != IoLimits::default()
                || spec.cgroup_parent.is_some()
        });
        Some(if of_2 { 2 } else { 1 })
    }

    fn forward(_: u32, members: Members) -> Result<Members, Misfit> {
        Ok(members)
    }

    fn backward(_: u32, members: Members) -> Result<Members, Misfit> {
        Ok(members)
    }
}

/// The facts about a container that must be known even if its document can't be read: its scope,
/// its name, and the image that must not be removed. Stored as the target of a symbolic link
/// (`user sha256:… web`) beside the document, and read only if that is unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) scope: Scope,
    /// Empty for a system container.
    pub(crate) image_id: String,
    pub(crate) name: String,
}

impl Identity {
    /// Writes the identity of a document's container, and replaces an earlier one.
    pub(crate) fn write(directory: &Path, document: &ContainerDocument) -> Result<(), EngineError> {
        let image = match document.image_id.as_str() {
            "" => "-",
            id => id,
        };
        let text = format!("{} {image} {}", document.scope.as_str(), document.name);
        let (temporary, path) = (directory.join(".new-identity"), directory.join(IDENTITY));
        // Left by an engine that was killed at this point.
        let _ = fs::remove_file(&temporary);
        symlink(text, &temporary).map_err(EngineError::io("symlink", &temporary))?;
        fs::rename(&temporary, &path).map_err(EngineError::io("rename", &temporary))
    }

    /// Reads it; `None` if there is none, or this release can't read it.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        let target = fs::read_link(directory.join(IDENTITY)).ok()?;
        let mut words = target.to_str()?.splitn(3, ' ');
        let scope = match words.next()? {
            "user" => Scope::User,
            "system" => Scope::System,
            _ => return None,
        };
        let image_id = words.next().filter(|id| *id != "-").unwrap_or_default();
        Some(Self {
            scope,
            image_id: image_id.to_owned(),
            name: words.next()?.to_owned(),
        })
    }
}

/// `state.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StateDocument {
    /// `/proc/sys/kernel/random/boot_id` when it was written.
    pub(crate) boot: String,
    pub(crate) state: State,
    /// Members that a newer release wrote and this one does not know.
    #[serde(flatten)]
    rest: Rest,
}

impl StateDocument {
    /// Makes the document of a state, marked with the current boot.
    pub(crate) fn new(boot: String, mut state: State) -> Self {
        let rest = std::mem::take(&mut state.document_rest);
        Self { boot, state, rest }
    }

    /// Returns the boot in which it was written, and the state with unknown members.
    pub(crate) fn into_parts(self) -> (String, State) {
        let mut state = self.state;
        state.document_rest = self.rest;
        (self.boot, state)
    }
}

impl Document for StateDocument {
    const VERSION: u32 = 1;
}

/// Identifier of the running boot of the kernel. Empty if the kernel does not provide it.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keelson_model::spec::{HealthCheck, ImageMount};
    use keelson_store::document::{assert_first_release_reads, assert_goes_back, parse};

    use super::*;

    #[test]
    fn documents_survive_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONTAINER);
        let document = ContainerDocument {
            id: "a".repeat(64),
            name: "web".to_owned(),
            scope: Scope::User,
            created: Timestamp::now(),
            image_id: "sha256:x".to_owned(),
            image: "busybox".to_owned(),
            path: "sh".to_owned(),
            args: vec!["-c".to_owned()],
            config: json!({"A": 1}),
            host_config: json!({"B": [null, 1.5]}),
            spec: None,
            rest: Rest::default(),
        };
        let spec = ContainerSpec::new(document.root(), "sh");
        let document = ContainerDocument {
            spec: Some(spec),
            ..document
        };
        let era = keelson_store::Era::Blessed;
        let durability = keelson_store::Durability::Relaxed;
        keelson_store::document::write(&path, &document, era, durability).unwrap();
        let read = keelson_store::document::read(&path).unwrap();
        assert_eq!(read.as_ref(), Some(&document));
        for name in ["web", "two"] {
            let named = ContainerDocument {
                name: name.to_owned(),
                ..document.clone()
            };
            Identity::write(directory.path(), &named).unwrap();
            let identity = Identity::read(directory.path()).unwrap();
            assert_eq!((identity.scope, &*identity.name), (Scope::User, name));
            assert_eq!(identity.image_id, "sha256:x");
        }
        assert!(!boot_id().is_empty());
    }

    /// As the first releases had it; both configurations had no member that had to be there.
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "what must be there")]
    struct Old {
        id: String,
        name: String,
        scope: Scope,
        created: Timestamp,
        image_id: String,
        image: String,
        path: String,
        args: Vec<String>,
        config: serde_json::Map<String, Value>,
        host_config: serde_json::Map<String, Value>,
    }

    const GOLDEN: [(u32, &str); 2] = [
        (1, include_str!("../tests/golden/container.1.json")),
        (2, include_str!("../tests/golden/container.2.json")),
    ];

    #[test]
    fn container_json_goes_back() {
        assert_goes_back::<ContainerDocument>(&GOLDEN);
        let path = Path::new(CONTAINER);
        let mut document: ContainerDocument = parse(path, GOLDEN[0].1.as_bytes()).unwrap();
        assert!(document.spec.is_none() && document.shown().is_some());
        document.spec = Some(ContainerSpec::new(document.root(), "sh"));
        assert_first_release_reads::<_, Old>(&document, 1);
    }

    #[test]
    fn documents_that_older_engines_would_misunderstand_are_too_new_for_them() {
        let path = Path::new(CONTAINER);
        let document: ContainerDocument = parse(path, GOLDEN[1].1.as_bytes()).unwrap();
        let spec = document.spec.clone().unwrap();
        type Part = fn(&mut ContainerSpec, ContainerSpec);
        let parts: &[Part] = &[
            |plain, spec| plain.volumes = spec.volumes,
            |plain, spec| plain.log = spec.log,
            |plain, spec| plain.namespaces.pid = spec.namespaces.pid,
            |plain, spec| plain.namespaces.donors = spec.namespaces.donors,
            |plain, spec| plain.device_rules = spec.device_rules,
            |plain, _| plain.described_devices.push("v.com/c=d".to_owned()),
            |plain, _| plain.process.init = true,
            |plain, _| {
                plain.health = Some(HealthCheck {
                    command: vec!["true".to_owned()],
                    interval: Duration::from_secs(1),
                    timeout: Duration::from_secs(1),
                    retries: 1,
                    start_period: Duration::ZERO,
                    start_interval: Duration::from_secs(1),
                });
            },
            |plain, _| plain.runtime = Some("crun".to_owned()),
            |plain, _| plain.limits.io.weight = Some(10),
            |plain, _| {
                plain.images.push(ImageMount {
                    target: "/i".into(),
                    name: "box".to_owned(),
                    id: "sha256:0".to_owned(),
                    subpath: None,
                });
            },
            |plain, _| plain.cgroup_parent = Some("/a".into()),
        ];
        for (index, part) in parts.iter().enumerate() {
            let mut plain = ContainerSpec::new(document.root(), "sh");
            let version = |plain: &ContainerSpec| {
                let document = ContainerDocument {
                    spec: Some(plain.clone()),
                    ..document.clone()
                };
                let bytes =
                    keelson_store::document::bytes(path, &document, keelson_store::Era::Blessed);
                let value: Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
                (value["version"].clone(), value["readable_from"].clone())
            };
            assert_eq!(version(&plain), (json!(1), json!(1)));
            part(&mut plain, spec.clone());
            assert_eq!(version(&plain), (json!(2), json!(2)), "{index}");
        }
    }

    #[test]
    fn the_document_of_a_service_has_what_the_first_releases_need() {
        let root = RootSpec::System {
            path: "/usr/r.erofs".into(),
            lower: Vec::new(),
            read_only: true,
        };
        let snapshot = Snapshot {
            id: "a".repeat(64),
            name: "time".to_owned(),
            scope: Scope::System,
            created: Timestamp::UNIX_EPOCH,
            spec: std::sync::Arc::new(ContainerSpec::new(root.clone(), "/bin/d")),
            shown: None,
            rest: Rest::default(),
            state: State::default(),
            health: None,
            directory: "/f".into(),
            run_directory: "/r".into(),
            log_path: "/l".into(),
            cgroup: "/c".to_owned(),
        };
        let document = ContainerDocument::of(&snapshot).unwrap();
        assert_first_release_reads::<_, Old>(&document, 1);
        assert_eq!(document.image, "/usr/r.erofs");
        assert_eq!(document.shown(), None);
    }

    #[test]
    fn state_json_migrates_forward_and_back() {
        let text = include_str!("../tests/golden/state.1.json");
        let read: StateDocument = parse(Path::new(STATE), text.as_bytes()).unwrap();
        assert_eq!(read.state.exit_code, 3);
        assert_eq!(read.state.restart_count, 2);
        assert_goes_back::<StateDocument>(&[(1, text)]);
    }
}
