//! The bounds of everything that clients and name servers can make the resolver hold or wait for.

use std::time::Duration;

/// Longest request in bytes. A name has 255 at most, options seldom more than a hundred.
pub(crate) const MAX_REQUEST: usize = 4096;
/// Longest answer in bytes, over TCP.
pub(crate) const MAX_ANSWER: usize = u16::MAX as usize;
/// Longest answer over UDP that clients who name no size understand (RFC 1035, 4.2.1).
pub(crate) const USUAL_ANSWER: usize = 512;
/// Longest datagram of IPv4 without its headers.
pub(crate) const MAX_DATAGRAM: usize = 65_507;

/// How many questions are asked for all containers at the same time.
pub(crate) const IN_FLIGHT: usize = 4096;
/// How many of them are one container's.
pub(crate) const IN_FLIGHT_OF_ONE: usize = 1024;
/// From so many on, a container gets [`SHARE`] only, so that a few that ask without an end leave room
/// for the others.
pub(crate) const CROWDED: usize = IN_FLIGHT / 2;
/// What a container gets when many questions are asked.
pub(crate) const SHARE: usize = 32;

/// How many name servers are asked for one question (resolv.conf(5), MAXNS).
pub(crate) const MAX_UPSTREAMS: usize = 3;
/// How long one question is asked of all of them. Clients wait for five seconds (resolv.conf(5)), then
/// they ask the next server, and there is none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// Connections of one container's clients.
pub(crate) const CONNECTIONS: usize = 128;
/// Questions that are asked for one connection at the same time.
pub(crate) const QUESTIONS_OF_CONNECTION: usize = 32;
/// How long a connection lives without a question.
pub(crate) const IDLE: Duration = Duration::from_secs(10);
/// The same, when more than half of [`CONNECTIONS`] are in use.
pub(crate) const IDLE_WHEN_CROWDED: Duration = Duration::from_secs(1);
/// How long a client may take to read an answer.
pub(crate) const WRITING: Duration = Duration::from_secs(2);

/// Datagrams of one container that are served before the next one's turn.
pub(crate) const TURN: usize = 32;

/// How long questions that were asked already are waited for before the sockets are handed over.
pub(crate) const HAND_OVER: Duration = Duration::from_secs(1);
/// How often the resolver looks whether hostd's directory is still there, when hostd is not.
pub(crate) const ABANDONED: Duration = Duration::from_secs(5);
/// How many bytes are written to the log. It lies in memory.
pub(crate) const LOG: usize = 64 * 1024;
