//! Errors of the engine, in the words that Docker's clients match on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostd_images::ImageError;
use hostd_networks::NetworkError;
use hostd_volumes::VolumeError;
use keelson_blocking::TaskDied;
use keelson_log::LogError;
use keelson_model::error::ErrorKind;
use keelson_oci::digest::DigestError;
use keelson_shim_protocol::{FailReason, Response, exit_code};
use keelson_store::StoreError;
use keelson_sys::userns::MakeError;

use crate::copy_error::CopyError;
use crate::refused::Refused;

/// An error of the container engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No container has this name or identifier.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// More than one identifier begins with it.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// The name is taken.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// Without the leading slash.
        name: String,
        /// The identifier of the container that has the name.
        id: String,
    },
    /// The container's state forbids the operation.
    #[error("{0}")]
    Conflict(String),
    /// The caller's input is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Keelson does not have this yet.
    #[error("{0}")]
    NotImplemented(String),
    /// The container's state forbids the request.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Several callers waited for the operation that failed.
    #[error(transparent)]
    Shared(Arc<EngineError>),
    /// The operation was cancelled because the engine ends.
    #[error("container {0}: cancelled, because the engine is shutting down")]
    Abandoned(String),
    /// The container could not be started.
    #[error("failed to create task for container: {message}")]
    Start {
        /// What failed and on which object.
        message: String,
        /// The kind of failure, which determines the exit code.
        reason: FailReason,
    },
    /// There is no such execution.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// An additional process could not be started.
    #[error(
        "OCI runtime exec failed: exec failed: unable to start container process: {message}: unknown"
    )]
    Exec {
        /// What failed and on which object.
        message: String,
        /// The kind of failure, which determines the exit code.
        reason: FailReason,
    },
    /// A container's shim does not answer, or its answer is invalid.
    #[error("container {id}: {operation}: {reason}")]
    Shim {
        /// The container.
        id: String,
        /// The request.
        operation: &'static str,
        /// The error instead of an answer.
        reason: String,
    },
    /// A file of a container could not be read or written.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The image store's error.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The volume store's error.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// An error of the networks.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The document store's error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation: `mkdir`, `open`, ….
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A task of this program panicked.
    #[error(transparent)]
    Died(#[from] TaskDied),
    /// The document belongs to another container.
    #[error("{} belongs to container {id}", path.display())]
    ForeignDocument {
        /// The document.
        path: PathBuf,
        /// The container that it names.
        id: String,
    },
    /// A required document is missing.
    #[error("{} is missing", .0.display())]
    MissingDocument(PathBuf),
    /// A document belongs to another execution.
    #[error("{}: it belongs to execution {exec}", path.display())]
    ForeignExec {
        /// The document.
        path: PathBuf,
        /// The execution that it names.
        exec: String,
    },
    /// A document is longer than any that hostd writes.
    #[error("{} is too long: {length} bytes", path.display())]
    LargeDocument {
        /// The document.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// A file of the engine's own can't be read or written as JSON.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The stored view of clients on a container is not JSON.
    #[error("container {id}: its view for clients can't be read: {source}")]
    Shown {
        /// The container.
        id: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// The identifier of an image in a specification is wrong.
    #[error("{of}: image identifier {image:?}: {source}")]
    ImageId {
        /// The container, or its mount.
        of: String,
        /// The identifier.
        image: String,
        /// The cause.
        source: DigestError,
    },
    /// A volume of a running container is not known to be mounted.
    #[error("container {id}: the mount point of volume {volume} is unknown; restart the container")]
    VolumeNotMounted {
        /// The container.
        id: String,
        /// The volume.
        volume: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread for an export: {0}")]
    NoThread(#[source] io::Error),
    /// The shim's answer does not belong to the request.
    #[error("exec: unexpected answer of the shim: {0:?}")]
    UnexpectedAnswer(Box<Response>),
    /// The user namespace for an id-mapped mount could not be created.
    #[error("users of a container ({map}): {source}")]
    UserMap {
        /// The map: `inside outside count`.
        map: String,
        /// The kernel's answer.
        source: MakeError,
    },
}

impl EngineError {
    pub(crate) fn io(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Json { path, source }
    }

    /// The error for a wrong identifier of an image in a container's specification.
    pub(crate) fn image_id(id: &str, image: &str) -> impl FnOnce(DigestError) -> Self {
        Self::image_id_of(move || format!("container {id}"), image)
    }

    /// The same for a part of a container.
    pub(crate) fn image_id_of(
        of: impl FnOnce() -> String,
        image: &str,
    ) -> impl FnOnce(DigestError) -> Self {
        move |source| Self::ImageId {
            of: of(),
            image: image.to_owned(),
            source,
        }
    }

    /// The exit code of a run that could not be started for this reason.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Start { reason, .. } => reason.exit_code(),
            Self::Shared(error) => error.exit_code(),
            _ => exit_code::NOT_STARTED,
        }
    }

    /// The kind, from which status and exit code follow.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchContainer(_) | Self::NoSuchExec(_) => ErrorKind::NotFound,
            Self::NameInUse { .. } | Self::Conflict(_) => ErrorKind::Conflict,
            Self::AmbiguousId(_) | Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::Refused(refused) => refused.kind(),
            Self::Shared(error) => error.kind(),
            Self::Start { reason, .. } | Self::Exec { reason, .. } => match reason {
                FailReason::NotFound | FailReason::NotExecutable => ErrorKind::InvalidInput,
                FailReason::Internal => ErrorKind::Internal,
            },
            Self::Copy(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Volume(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Store(_)
            | Self::Shim { .. }
            | Self::Log(_)
            | Self::Io { .. }
            | Self::Died(_)
            | Self::Abandoned(_)
            | Self::ForeignDocument { .. }
            | Self::MissingDocument(_)
            | Self::ForeignExec { .. }
            | Self::LargeDocument { .. }
            | Self::Json { .. }
            | Self::Shown { .. }
            | Self::ImageId { .. }
            | Self::VolumeNotMounted { .. }
            | Self::NoThread(_)
            | Self::UnexpectedAnswer(_)
            | Self::UserMap { .. } => ErrorKind::Internal,
        }
    }
}
