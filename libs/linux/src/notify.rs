//! Notifications to a supervisor: the protocol of sd_notify(3).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Variable that names the supervisor's socket.
pub const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// What a process reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// `READY=1`: it does its work now.
    Ready,
    /// `WATCHDOG=1`: a sign of life.
    Alive,
    /// `STOPPING=1`: it ends.
    Stopping,
    /// `STATUS=…`: one line for people.
    Status(String),
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("READY=1"),
            Self::Alive => f.write_str("WATCHDOG=1"),
            Self::Stopping => f.write_str("STOPPING=1"),
            // A line feed would begin another assignment.
            Self::Status(text) => write!(f, "STATUS={}", text.replace('\n', " ")),
        }
    }
}

/// Parses a datagram: one assignment a line. Unknown assignments are skipped.
pub fn parse(bytes: &[u8]) -> Vec<Notification> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| match line {
            b"READY=1" => Some(Notification::Ready),
            b"WATCHDOG=1" => Some(Notification::Alive),
            b"STOPPING=1" => Some(Notification::Stopping),
            other => {
                let status = other.strip_prefix(b"STATUS=")?;
                Some(Notification::Status(
                    String::from_utf8_lossy(status).into_owned(),
                ))
            }
        })
        .collect()
}

/// Sends notifications to the supervisor, if there is one.
#[derive(Debug, Clone)]
pub struct Notifier {
    address: Option<OsString>,
}

impl Notifier {
    /// The supervisor that [`SOCKET_VARIABLE`] names.
    pub fn from_environment() -> Self {
        let address = std::env::var_os(SOCKET_VARIABLE);
        Self {
            address: address.filter(|address| !address.is_empty()),
        }
    }

    /// A supervisor that listens at a path, or at an abstract address that begins with `@`.
    pub fn new(address: OsString) -> Self {
        Self {
            address: Some(address),
        }
    }

    /// Sends a notification. Never blocks: a supervisor that does not read must not stop the
    /// processes that it supervises. Does nothing without a supervisor.
    ///
    /// # Errors
    /// Nobody listens, or the supervisor's queue is full ([`io::ErrorKind::WouldBlock`]).
    pub fn send(&self, notification: &Notification) -> io::Result<()> {
        let Some(address) = &self.address else {
            return Ok(());
        };
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(notification.to_string().as_bytes(), &address)?;
        Ok(())
    }

    /// The supervisor's address, for messages.
    pub fn address(&self) -> Option<&OsStr> {
        self.address.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_in_a_datagram() {
        assert_eq!(
            parse(b"READY=1\nSTATUS=answers\nMAINPID=3\nREADY=0\n"),
            [
                Notification::Ready,
                Notification::Status("answers".to_owned())
            ]
        );
        assert!(parse(b"").is_empty());
    }

    #[test]
    fn what_is_sent_is_parsed_and_nothing_blocks() {
        let name = format!("keelson-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let supervisor = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(OsString::from(format!("@{name}")));
        let sent = [
            Notification::Ready,
            Notification::Alive,
            Notification::Status("a b".to_owned()),
            Notification::Stopping,
        ];
        let mut buffer = [0; 64];
        for notification in sent {
            notifier.send(&notification).unwrap();
            let length = supervisor.recv(&mut buffer).unwrap();
            assert_eq!(parse(&buffer[..length]), [notification]);
        }
        // Nobody reads: the queue fills, and the sender does not wait.
        let refused = (0..100_000).find_map(|_| notifier.send(&Notification::Alive).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(supervisor);
        assert!(notifier.send(&Notification::Alive).is_err());
    }

    #[test]
    fn a_status_is_one_line() {
        let status = Notification::Status("a\nREADY=1".to_owned()).to_string();
        assert_eq!(
            parse(status.as_bytes()),
            [Notification::Status("a READY=1".to_owned())]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
