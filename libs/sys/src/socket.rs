//! Properties of sockets that rustix does not return.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How many bytes were written to a unix stream socket and not read by its peer yet (SIOCOUTQ,
/// unix(7)). The kernel adds an overhead for each piece, so only 0 is exact.
///
/// # Errors
/// When the descriptor is not a socket.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call's duration, and the call writes one integer,
    // whose address is valid for it.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_that_the_peer_has_read_are_not_counted() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        assert_eq!(unread(one.as_fd()).unwrap(), 0);
        one.write_all(b"text").unwrap();
        assert!(unread(one.as_fd()).unwrap() > 0);
        other.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(unread(one.as_fd()).unwrap(), 0);
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(unread(file.as_fd()).is_err());
    }
}
