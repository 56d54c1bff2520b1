//! Network namespaces (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::NetlinkError;

/// A network namespace, held open. The kernel removes it with its virtual links when nobody holds
/// it and no process is in it.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

/// The namespace of the calling thread. `/proc/self` would be that of the first thread.
const OWN: &str = "/proc/thread-self/ns/net";

impl Namespace {
    /// Creates a namespace. Its only link is the loopback link, switched off.
    ///
    /// # Errors
    /// The caller may not create one, or there are too many.
    pub fn create() -> Result<Self, NetlinkError> {
        // A thread of its own: a thread can't be sure to get back to where it was.
        let made = on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open(OWN)
        });
        let operation = "create";
        made.map(|file| Self(file.into()))
            .map_err(|source| NetlinkError::Namespace { operation, source })
    }

    /// The namespace of this process.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> Result<Self, NetlinkError> {
        Self::open(Path::new(OWN))
    }

    /// Opens a namespace by a path: `/proc/<pid>/ns/net` or a bind mount of one.
    ///
    /// # Errors
    /// There is no such file.
    pub fn open(path: &Path) -> Result<Self, NetlinkError> {
        let operation = "open";
        File::open(path)
            .map(|file| Self(file.into()))
            .map_err(|source| NetlinkError::Namespace { operation, source })
    }

    /// Runs a function in the namespace, on a thread of its own. A process that the function starts
    /// is in the namespace too.
    ///
    /// # Errors
    /// The caller may not enter the namespace, or no thread could be started.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
        run_in(self.as_fd(), function)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// See [`Namespace::run`].
pub(crate) fn run_in<T: Send>(
    namespace: BorrowedFd<'_>,
    function: impl FnOnce() -> T + Send,
) -> Result<T, NetlinkError> {
    on_new_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(function())
    })
    .map_err(|source| NetlinkError::Namespace {
        operation: "enter",
        source,
    })
}

/// Runs a function on a new thread and waits for it. A panic continues in the caller.
fn on_new_thread<T: Send>(function: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, function)?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
