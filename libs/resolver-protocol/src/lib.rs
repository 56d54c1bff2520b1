//! What hostd and the resolver of containers say to each other: the messages, and how they are carried.
//!
//! | module | what it holds |
//! |---|---|
//! | [`container`] | what the resolver knows of one container |
//! | [`message`] | requests, replies, and their form as bytes |
//! | [`sockets`] | the sockets in a container's network namespace, and their order as descriptors |
//! | [`channel`] | one message with its descriptors, in one system call |
//!
//! hostd executes `keelson-resolver --socket PATH` with a connection as standard input and a socket
//! bound to `PATH` as standard output. Both are of type SOCK_SEQPACKET: a message is one packet of
//! JSON, with descriptors beside it. The resolver listens on the second one, so that a later hostd
//! can connect; a new connection takes the place of the one before.
//!
//! hostd sends [`Request`]s with numbers of its choice. The resolver answers each with one
//! [`Reply::Done`] or [`Reply::Failed`] that bears the number, in the order in which they came. To
//! [`Request::Hello`] it says [`Reply::Welcome`] and one [`Reply::Holds`] for each container whose
//! sockets it has, before it is done.
//!
//! The state is whole for each container: [`Request::Set`] says everything about it and replaces what
//! was known. Between [`Request::Begin`] and [`Request::End`] a hostd that was started anew says
//! everything about all; what is not named in between is forgotten at the end. Until then the resolver
//! answers from what it knew, so there is no gap.
//!
//! # Compatibility
//!
//! A resolver may be older or newer than the hostd that talks to it. [`PROTOCOL`] is raised when either
//! could misunderstand the other; then hostd kills the resolver and opens new sockets. Otherwise members
//! are only added, are optional, and are passed over by those that don't know them.

pub mod channel;
pub mod container;
pub mod message;
pub mod sockets;

pub use channel::{ChannelError, Packet, receive, send};
pub use container::{Container, Link, Membership, Origin, Upstream};
pub use message::{MAX_MESSAGE, MessageError, PROTOCOL, Reply, Request, decode, encode};
pub use sockets::{MAX_DESCRIPTORS, Ports, SocketKind, Sockets, SocketsError};
