//! The errors of the image store.

use std::io;
use std::path::{Path, PathBuf};

use keelson_blocking::TaskDied;
use keelson_model::error::ErrorKind;
use keelson_store::StoreError;

/// An error of the image store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such image. The text is what Docker's clients match on.
    #[error("No such image: {0}")]
    NotFound(String),
    /// Start-up could not read the image. Its files are kept.
    #[error(
        "image {id} can't be read: {reason}. Its files are kept; pull or load it again, or remove \
         it; hostctl image verify says more"
    )]
    Unreadable {
        /// The image.
        id: keelson_oci::digest::Digest,
        /// Which file, and why it can't be read.
        reason: String,
    },
    /// A short identifier fits more than one image.
    #[error("image identifier {0} is ambiguous: more than one image begins with it")]
    Ambiguous(String),
    /// A reference, a change or another argument is wrong.
    #[error("{0}")]
    Invalid(String),
    /// An archive cannot be used; nothing of it was kept.
    #[error("{0}")]
    Archive(String),
    /// Containers or other images prevent it. In Docker's words.
    #[error("{0}")]
    Conflict(String),
    /// A feature that is not supported.
    #[error("{0}")]
    NotImplemented(String),
    /// The client went away before the archive was complete.
    #[error("the archive ended before it was complete: {0}")]
    Interrupted(String),
    /// A registry failed, or sent something unusable. The text names the image.
    #[error("{message}")]
    Registry {
        /// What the caller can do about it.
        kind: ErrorKind,
        /// In Docker's words where clients know them.
        message: String,
    },
    /// A system call failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// The operation: `create`, `mount`, ….
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The disk is full. Nothing of the unfinished object is kept.
    #[error("cannot {operation} {}: {source}; {advice}", path.display())]
    Disk {
        /// The operation: `create`, `write`, ….
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
        /// How much space is free, and what to do.
        advice: String,
    },
    /// Adds the task that failed to another error.
    #[error("{what}: {source}")]
    During {
        /// The task: `cannot pull a:1: layer sha256:…`.
        what: String,
        /// The error.
        source: Box<ImageError>,
    },
    /// A document of the store cannot be read or written.
    #[error(transparent)]
    Store(StoreError),
    /// A layer's archive cannot be used.
    #[error(transparent)]
    Layer(#[from] keelson_oci::layer::TreeError),
    /// A task of this program panicked; the store is unchanged.
    #[error(transparent)]
    Died(#[from] TaskDied),
    /// The store itself is damaged.
    #[error("the image store is damaged: {0}")]
    Damaged(String),
}

impl From<StoreError> for ImageError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io {
                operation,
                path,
                source,
            } if advice(&source, &path).is_some() => Self::io(operation, &path)(source),
            other => Self::Store(other),
        }
    }
}

impl From<keelson_oci::archive::ArchiveError> for ImageError {
    fn from(error: keelson_oci::archive::ArchiveError) -> Self {
        Self::Layer(error.into())
    }
}

impl From<keelson_oci::reference::ReferenceError> for ImageError {
    fn from(error: keelson_oci::reference::ReferenceError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl ImageError {
    /// Makes an error from a failed system call.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match advice(&source, path) {
            Some(advice) => Self::Disk {
                operation,
                path: path.to_owned(),
                source,
                advice,
            },
            None => Self::Io {
                operation,
                path: path.to_owned(),
                source,
            },
        }
    }

    /// Adds the task to errors that do not name it.
    pub(crate) fn during(self, what: impl Into<String>) -> Self {
        Self::During {
            what: what.into(),
            source: Box::new(self),
        }
    }

    /// Whether the disk is full for this process.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Disk { source, .. } => is_full(source),
            Self::During { source, .. } => source.is_full(),
            _ => false,
        }
    }

    /// The kind, from which status and exit code follow.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Ambiguous(_)
            | Self::Invalid(_)
            | Self::Archive(_)
            | Self::Layer(_)
            | Self::Interrupted(_) => ErrorKind::InvalidInput,
            Self::Registry { kind, .. } => *kind,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::During { source, .. } => source.kind(),
            Self::Io { .. }
            | Self::Disk { .. }
            | Self::Store(_)
            | Self::Died(_)
            | Self::Damaged(_)
            | Self::Unreadable { .. } => ErrorKind::Internal,
        }
    }
}

/// What a check finds wrong with a file of the store, as the end of a sentence that names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Flaw {
    /// The file does not exist.
    #[error("it is missing")]
    Missing,
    /// The file can't be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// The file is not the document that it should be.
    #[error(transparent)]
    Document(#[from] StoreError),
    /// The file is not a layer's archive.
    #[error(transparent)]
    Archive(#[from] keelson_oci::layer::TreeError),
    /// The layer has no index, so the file can't be one.
    #[error(transparent)]
    Index(#[from] keelson_oci::layer::erofs::IndexError),
    /// The content is not what was stored.
    #[error("{0}")]
    Differs(String),
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What a person can do about an error of the disk. `None` for all other errors.
fn advice(error: &io::Error, path: &Path) -> Option<String> {
    const MIB: f64 = 1_048_576.0;
    const FREE: &str = "nothing of it was kept. Remove what is not needed (docker system prune) \
                        or enlarge the disk, and try again";
    match error.kind() {
        io::ErrorKind::StorageFull => {
            // The file may not exist, but its directory does.
            let space = path
                .ancestors()
                .find_map(|path| rustix::fs::statvfs(path).ok())?;
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let size = |blocks: u64| (blocks * space.f_frsize) as f64 / MIB;
            Some(format!(
                "{:.1} MiB of {:.1} MiB and {} of {} inodes were free then; {FREE}",
                size(space.f_bavail),
                size(space.f_blocks),
                space.f_favail,
                space.f_files,
            ))
        }
        io::ErrorKind::QuotaExceeded => Some(format!(
            "the quota of hostd's user or project is used up; {FREE}"
        )),
        io::ErrorKind::ReadOnlyFilesystem => Some(
            "the file system is read-only. The kernel makes it so after errors of the disk: see \
             the kernel's log, repair it or mount it writable, and try again"
                .to_owned(),
        ),
        io::ErrorKind::PermissionDenied => Some(
            "hostd may not write there: it must run as root, and the directory must not be immutable \
             (chattr -i)"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_disk_say_what_to_do() {
        for (number, words) in [
            (rustix::io::Errno::NOSPC, "inodes were free"),
            (rustix::io::Errno::DQUOT, "quota"),
            (rustix::io::Errno::ROFS, "read-only"),
            (rustix::io::Errno::PERM, "immutable"),
            (rustix::io::Errno::ACCESS, "run as root"),
        ] {
            let path = Path::new("/proc/not/there");
            let stored = StoreError::Io {
                operation: "write",
                path: path.to_owned(),
                source: number.into(),
            };
            for error in [
                ImageError::io("write", path)(number.into()),
                ImageError::from(stored),
            ] {
                let error = error.during("cannot load a:1");
                let text = error.to_string();
                assert!(text.starts_with("cannot load a:1: cannot write /proc/not/there: "));
                assert!(text.contains(words), "{text}");
                assert_eq!(error.kind(), ErrorKind::Internal);
            }
        }
    }
}
