//! The network namespaces of containers.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::KernelError;

/// A container's network namespace, held open. It exists while it is held, even after the container
/// has ended, so hold it for an operation only. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ContainerNamespace(Arc<OwnedFd>);

impl ContainerNamespace {
    /// Opens the namespace of a process. The caller must make sure that the process id still
    /// belongs to that process.
    pub(crate) fn of_process(pid: u32) -> Result<Self, KernelError> {
        Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// Opens a namespace by a path: `/proc/<pid>/ns/net`, or a bind mount of one.
    pub(crate) fn open(path: &Path) -> Result<Self, KernelError> {
        match File::open(path) {
            Ok(file) => Ok(OwnedFd::from(file).into()),
            Err(source) => Err(KernelError::Namespace {
                path: path.to_owned(),
                source,
            }),
        }
    }
}

impl From<OwnedFd> for ContainerNamespace {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl AsFd for ContainerNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
