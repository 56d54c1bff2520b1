//! Limits of what clients and name servers can make the resolver store or wait for.

use std::time::Duration;

/// Longest query in bytes. A name has at most 255 bytes, options seldom more than a hundred.
pub(crate) const MAX_REQUEST: usize = 4096;
/// Longest answer in bytes, over TCP.
pub(crate) const MAX_ANSWER: usize = u16::MAX as usize;
/// Longest answer over UDP for clients that announce no size (RFC 1035, 4.2.1).
pub(crate) const USUAL_ANSWER: usize = 512;
/// Longest datagram of IPv4 without its headers.
pub(crate) const MAX_DATAGRAM: usize = 65_507;

/// Open queries to name servers, for all containers together.
pub(crate) const IN_FLIGHT: usize = 4096;
/// Open queries of one container.
pub(crate) const IN_FLIGHT_OF_ONE: usize = 1024;
/// With this many open queries, each container is limited to [`SHARE`], so that a few busy
/// containers leave room for the others.
pub(crate) const CROWDED: usize = IN_FLIGHT / 2;
/// Open queries of one container while there are many.
pub(crate) const SHARE: usize = 32;

/// Name servers that are asked for one query (resolv.conf(5), MAXNS).
pub(crate) const MAX_UPSTREAMS: usize = 3;
/// How long all servers together have to answer one query. Clients wait for five seconds
/// (resolv.conf(5)) and then turn to their next server, but they have none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// Connections of one container's clients.
pub(crate) const CONNECTIONS: usize = 128;
/// Open queries of one connection.
pub(crate) const QUESTIONS_OF_CONNECTION: usize = 32;
/// How long a connection stays open without a query.
pub(crate) const IDLE: Duration = Duration::from_secs(10);
/// The same, when more than half of [`CONNECTIONS`] are in use.
pub(crate) const IDLE_WHEN_CROWDED: Duration = Duration::from_secs(1);
/// How long a client may take to read an answer.
pub(crate) const WRITING: Duration = Duration::from_secs(2);

/// Datagrams of one container that are served before the next container's turn.
pub(crate) const TURN: usize = 32;

/// How long to wait for open queries before the sockets are handed over.
pub(crate) const HAND_OVER: Duration = Duration::from_secs(1);
/// How often the resolver checks that hostd's directory still exists while hostd is gone.
pub(crate) const ABANDONED: Duration = Duration::from_secs(5);
/// Most bytes that are written to the log. The log is in memory.
pub(crate) const LOG: usize = 64 * 1024;
