//! Descriptors that the event loop watches.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor until the result is dropped.
///
/// `AsyncFd::with_interest` is deprecated because of types whose descriptor changes or is closed
/// early, and its successor is unsafe for that reason. The types used here keep their descriptor.
#[expect(deprecated, reason = "the successor is unsafe")]
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

/// Watches a descriptor that the caller keeps open.
#[expect(deprecated, reason = "as above")]
pub(crate) fn watch_borrowed(
    descriptor: BorrowedFd<'_>,
    interest: Interest,
) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    AsyncFd::with_interest(descriptor, interest)
}
