//! How much one source of events may do before the others have their turn: a storm of ends,
//! datagrams or connections must not keep PID 1 from feeding the watchdog, from restarting a service
//! or from stopping the machine.

/// Children that are reaped in one turn.
pub(super) const CHILDREN: usize = 512;
/// Datagrams, device events or connections that are taken in one turn. What is left makes the next
/// epoll_wait return at once.
pub(super) const MESSAGES: usize = 64;

/// Calls `step` until it finds nothing, at most `most` times. Returns whether something may be left.
pub(super) fn take(most: usize, mut step: impl FnMut() -> bool) -> bool {
    (0..most).all(|_| step())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::super::notify::NotifySocket;
    use super::*;

    #[test]
    fn a_source_that_never_ends_has_its_share_only() {
        let mut steps = 0;
        let endless = || {
            steps += 1;
            true
        };
        assert!(take(MESSAGES, endless));
        assert_eq!(steps, MESSAGES);
        let mut left = 3;
        let ending = || {
            left -= 1;
            left > 0
        };
        assert!(!take(MESSAGES, ending));
        assert_eq!(left, 0);
    }

    #[test]
    fn a_storm_of_notifications_is_left_for_the_next_turn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = NotifySocket::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while sender.send_to(b"garbage", &path).is_ok() {
            sent += 1;
        }
        assert!(sent > 3);
        let mut seen = 0;
        let mut step = || {
            let found = matches!(socket.receive(), Ok(Some(_)));
            seen += usize::from(found);
            found
        };
        assert!(take(3, &mut step));
        assert!(!take(sent, &mut step));
        assert_eq!(seen, sent);
    }
}
