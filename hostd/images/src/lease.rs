//! Who holds images (docs/decisions/0018-what-is-in-use-is-held-by-leases.md).

use std::fmt;
use std::sync::OnceLock;

use keelson_lease::{Claim, Lease};

use crate::types::ImageId;

/// A function that returns whether a holder runs.
type Probe = Box<dyn Fn() -> bool + Send + Sync>;

/// Who holds an image.
pub struct Holder {
    kind: HolderKind,
    running: OnceLock<Probe>,
}

/// The kind of holder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HolderKind {
    /// The container with this identifier.
    Container(String),
    /// A commit, of its parent.
    Commit,
    /// The engine, while it has not read its containers yet.
    Start,
}

impl Holder {
    /// A container, by its identifier.
    pub fn container(id: &str) -> Self {
        Self::new(HolderKind::Container(id.to_owned()))
    }

    /// The engine, until it has read which containers there are.
    pub fn start() -> Self {
        Self::new(HolderKind::Start)
    }

    pub(crate) fn commit() -> Self {
        Self::new(HolderKind::Commit)
    }

    fn new(kind: HolderKind) -> Self {
        Self {
            kind,
            running: OnceLock::new(),
        }
    }

    /// The holder's container, if it is one.
    pub(crate) fn container_id(&self) -> Option<&str> {
        match &self.kind {
            HolderKind::Container(id) => Some(id),
            _ => None,
        }
    }

    /// Whether it runs (or is paused). A container that is being made does not run.
    pub(crate) fn is_running(&self) -> bool {
        self.running.get().is_some_and(|running| running())
    }

    /// For errors: `stopped container c0ffeec0ffee`.
    pub(crate) fn with_state(&self) -> String {
        match (&self.kind, self.is_running()) {
            (HolderKind::Container(_), true) => format!("running {self}"),
            (HolderKind::Container(_), false) => format!("stopped {self}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            HolderKind::Container(id) => write!(f, "container {}", id.get(..12).unwrap_or(id)),
            HolderKind::Commit => f.write_str("a commit"),
            HolderKind::Start => f.write_str("the engine, which is starting"),
        }
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

/// Keeps an image in the store until its last clone is dropped.
#[derive(Debug, Clone)]
pub struct ImageLease(pub(crate) Lease<ImageId, Holder>);

impl ImageLease {
    /// The image. `None` if it is unknown: it may be any image.
    pub fn image(&self) -> Option<ImageId> {
        match self.0.claim() {
            Claim::One(id) => Some(*id),
            Claim::Any => None,
        }
    }

    /// Sets the function that says whether the holder runs. The store calls it under its lock, so
    /// it must neither wait nor call the store. Call this once. Before that, the holder counts as
    /// not running.
    pub fn ask(&self, running: impl Fn() -> bool + Send + Sync + 'static) {
        // If it is set twice, the first one stays: it is the same container.
        let _ = self.0.holder().running.set(Box::new(running));
    }
}
