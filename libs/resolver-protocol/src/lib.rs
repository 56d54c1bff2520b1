//! The protocol between hostd and the containers' resolver: messages, and how they are sent.
//!
//! | module | what it holds |
//! |---|---|
//! | [`container`] | what the resolver knows of one container |
//! | [`message`] | requests, replies, and their encoding |
//! | [`sockets`] | a container's sockets, and their order as descriptors |
//! | [`channel`] | sending and receiving one message with its descriptors |
//!
//! hostd executes `keelson-resolver --socket PATH` with a connection as standard input and a socket
//! bound to `PATH` as standard output. Both are of type SOCK_SEQPACKET: a message is one packet of
//! JSON, with descriptors beside it. The resolver listens on the second one, so that a later hostd
//! can connect. A new connection replaces the previous one.
//!
//! hostd sends [`Request`]s with numbers of its choice. The resolver answers each with one
//! [`Reply::Done`] or [`Reply::Failed`] with the same number, in the order in which they came. It
//! answers [`Request::Hello`] with [`Reply::Welcome`] and one [`Reply::Holds`] for each container
//! whose sockets it has, and then `Done`.
//!
//! [`Request::Set`] describes one container completely and replaces what was known about it. A
//! restarted hostd describes all containers between [`Request::Begin`] and [`Request::End`]. At the
//! end, the resolver forgets the containers that were not named in between. Until then it answers
//! from its earlier knowledge, so there is no gap.
//!
//! # Compatibility
//!
//! A resolver may be older or newer than the hostd that talks to it. [`PROTOCOL`] is raised when
//! either side could misunderstand the other; hostd then kills the resolver and opens new sockets.
//! Otherwise members are only added. They are optional, and a reader ignores those that it does not
//! know.

pub mod channel;
pub mod container;
pub mod message;
pub mod sockets;

pub use channel::{ChannelError, Packet, receive, send};
pub use container::{Container, Membership, NamedLink, Origin, Upstream};
pub use message::{MAX_MESSAGE, MessageError, PROTOCOL, Reply, Request, decode, encode};
pub use sockets::{MAX_DESCRIPTORS, Ports, SocketKind, Sockets, SocketsError};
