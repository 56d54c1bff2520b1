//! Requests, replies, and their encoding: a JSON array of the request's number and the message.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::sockets::{Ports, SocketKind};

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;

/// Largest message that either side accepts, in bytes of JSON. A container in a hundred networks with ten
/// names in each takes a tenth of it.
pub const MAX_MESSAGE: usize = 512 * 1024;

/// What hostd sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first message of a connection.
    Hello {
        /// hostd's [`PROTOCOL`].
        protocol: u32,
    },
    /// Descriptions of all containers follow.
    Begin,
    /// Describes a container completely. If descriptors come with it, they replace the container's
    /// sockets; otherwise it keeps those that it has.
    Set {
        /// The container.
        container: Container,
        /// The kinds of the descriptors that come with the message, in their order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sockets: Vec<SocketKind>,
    },
    /// The container has ended.
    Remove {
        /// Its identifier.
        container: String,
    },
    /// Forgets the containers that were not named since [`Request::Begin`].
    End,
    /// Returns the sockets of all containers, each in a [`Reply::Sockets`], and ends.
    HandOver,
}

/// What the resolver answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Welcome {
        /// The resolver's [`PROTOCOL`].
        protocol: u32,
        /// The version of the program, for people.
        program: String,
    },
    /// A container whose sockets the resolver has.
    Holds {
        /// Its identifier.
        container: String,
        /// The ports on which it is served.
        ports: Ports,
    },
    /// The sockets of a container come as descriptors.
    Sockets {
        /// Its identifier.
        container: String,
        /// The kinds of the descriptors, in their order.
        sockets: Vec<SocketKind>,
    },
    /// The request succeeded.
    Done,
    /// The request failed, and nothing of it was done.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// Why a message can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("the message has {0} bytes, at most {MAX_MESSAGE} are allowed")]
    TooLong(usize),
    /// It is not the JSON of a message.
    #[error("the message can't be read or written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Encodes a message.
///
/// # Errors
/// It is too long.
pub fn encode<T: Serialize>(number: u64, message: &T) -> Result<Vec<u8>, MessageError> {
    let bytes = serde_json::to_vec(&(number, message))?;
    match bytes.len() {
        length if length <= MAX_MESSAGE => Ok(bytes),
        length => Err(MessageError::TooLong(length)),
    }
}

/// Decodes a message. Returns the request's number and the message.
/// # Errors
/// The bytes are no message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(u64, T), MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong(bytes.len()));
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::container::{Membership, NamedLink, Origin, Upstream};

    fn container() -> Container {
        Container {
            id: "c".repeat(64),
            networks: vec![Membership {
                network: "n".repeat(64),
                name: "net".to_owned(),
                names: vec!["web".to_owned(), "cccccccccccc".to_owned()],
                addresses: vec![Ipv4Addr::new(172, 18, 0, 2).into()],
                links: vec![NamedLink {
                    alias: "db".to_owned(),
                    target: "postgres".to_owned(),
                }],
            }],
            upstreams: vec![
                Upstream::new(Ipv4Addr::new(192, 0, 2, 53).into(), Origin::Container),
                Upstream {
                    zone: Some("eth0".to_owned()),
                    ..Upstream::new("fe80::1".parse().unwrap(), Origin::Host)
                },
            ],
            ndots_set: true,
        }
    }

    /// A resolver of this release and a hostd of another one rely on this form.
    #[test]
    fn the_form_stays() {
        let request = Request::Set {
            container: container(),
            sockets: vec![SocketKind::UdpListener, SocketKind::TcpListener],
        };
        let bytes = encode(7, &request).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(text, include_str!("../tests/golden/set.json").trim());
        assert_eq!(decode::<Request>(&bytes).unwrap(), (7, request));
        let replies = [
            Reply::Welcome {
                protocol: PROTOCOL,
                program: "1".to_owned(),
            },
            Reply::Holds {
                container: "c".to_owned(),
                ports: Ports { udp: 1, tcp: 2 },
            },
            Reply::Done,
            Reply::Failed {
                reason: "so".to_owned(),
            },
        ];
        let text: Vec<String> = replies
            .iter()
            .map(|reply| String::from_utf8(encode(1, reply).unwrap()).unwrap())
            .collect();
        let golden = include_str!("../tests/golden/replies.json");
        assert_eq!(text.join("\n"), golden.trim());
    }

    #[test]
    fn unknown_members_are_ignored() {
        let text = br#"[1,{"set":{"container":{"id":"x","later":1},"more":[]}}]"#;
        let (number, request) = decode::<Request>(text).unwrap();
        let container = Container {
            id: "x".to_owned(),
            ..Container::default()
        };
        let sockets = Vec::new();
        assert_eq!((number, request), (1, Request::Set { container, sockets }));
    }

    #[test]
    fn too_long_and_malformed_messages_are_refused() {
        let mut container = container();
        container.id = "x".repeat(MAX_MESSAGE);
        let sockets = Vec::new();
        let error = encode(1, &Request::Set { container, sockets }).unwrap_err();
        assert!(matches!(error, MessageError::TooLong(_)), "{error}");
        let error = decode::<Request>(&vec![b' '; MAX_MESSAGE + 1]).unwrap_err();
        assert!(matches!(error, MessageError::TooLong(_)), "{error}");
        for wrong in ["", "[]", "[1,{}]", "[-1,\"begin\"]", "[1,\"hello\"]"] {
            let error = decode::<Request>(wrong.as_bytes()).unwrap_err();
            assert!(matches!(error, MessageError::Json(_)), "{wrong}: {error}");
        }
        assert_eq!(
            decode::<Request>(b"[1,\"begin\"]").unwrap().1,
            Request::Begin
        );
    }
}
