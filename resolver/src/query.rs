//! Parses a client's packet: its header, one question, and what the client can do (EDNS, RFC 6891).

use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::limits::{MAX_ANSWER, MAX_DATAGRAM, MAX_REQUEST, USUAL_ANSWER};

/// Length of a header in bytes.
pub(crate) const HEADER: usize = 12;

/// The transport of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams, which limit the length of answers.
    Udp,
    /// A connection.
    Tcp,
}

/// A query.
#[derive(Debug, Clone)]
pub struct Request {
    /// The header without its counts.
    pub metadata: Metadata,
    /// The question.
    pub question: Query,
    /// Offset of the question's end in the packet.
    pub question_end: usize,
    /// What the client can do.
    pub extension: Option<Extension>,
    /// Its transport.
    pub transport: Transport,
}

/// What a client can do, by its EDNS record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// The longest datagram that it accepts, in bytes.
    pub payload: u16,
    /// It wants signatures (RFC 3225).
    pub dnssec: bool,
}

/// The result of parsing a packet.
#[derive(Debug)]
pub enum QueryPacket {
    /// A question.
    Question(Box<Request>),
    /// A malformed query, and what to answer.
    Refused(Box<Refusal>),
    /// Must not be answered: it is itself an answer, or too short.
    Nothing,
}

/// How to refuse a packet.
#[derive(Debug)]
pub struct Refusal {
    /// The header without its counts.
    pub metadata: Metadata,
    /// The question, as far as it can be read.
    pub question: Option<Query>,
    /// The response code.
    pub code: ResponseCode,
    /// Whether the client knows EDNS.
    pub extension: Option<Extension>,
}

impl Request {
    /// The longest answer that the client accepts, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        match (self.transport, self.extension) {
            (Transport::Tcp, _) => MAX_ANSWER,
            (Transport::Udp, None) => USUAL_ANSWER,
            (Transport::Udp, Some(extension)) => {
                usize::from(extension.payload).clamp(USUAL_ANSWER, MAX_DATAGRAM)
            }
        }
    }
}

/// Parses a packet.
#[must_use]
pub fn read(bytes: &[u8], transport: Transport) -> QueryPacket {
    let Ok(header) = hickory_proto::op::Header::read(&mut BinDecoder::new(bytes)) else {
        return QueryPacket::Nothing;
    };
    let metadata = header.metadata;
    // Two servers that answered each other's answers would never stop.
    if metadata.message_type == MessageType::Response {
        return QueryPacket::Nothing;
    }
    let refuse = |code, question, extension| {
        QueryPacket::Refused(Box::new(Refusal {
            metadata,
            question,
            code,
            extension,
        }))
    };
    if metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp, None, None);
    }
    // More than one question has no meaning (RFC 9619).
    if header.counts.queries != 1 || bytes.len() > MAX_REQUEST {
        return refuse(ResponseCode::FormErr, None, None);
    }
    let mut decoder = BinDecoder::new(bytes);
    let question = decoder
        .read_slice(HEADER)
        .ok()
        .and_then(|_| Query::read(&mut decoder).ok());
    let Some(question) = question else {
        return refuse(ResponseCode::FormErr, None, None);
    };
    let question_end = decoder.index();
    // The remaining records, which include EDNS.
    let Ok(message) = Message::from_vec(bytes) else {
        return refuse(ResponseCode::FormErr, Some(question), None);
    };
    let extension = message.edns.as_ref().map(|edns| Extension {
        payload: edns.max_payload(),
        dnssec: edns.flags().dnssec_ok,
    });
    if message.edns.is_some_and(|edns| edns.version() > 0) {
        return refuse(ResponseCode::BADVERS, Some(question), extension);
    }
    QueryPacket::Question(Box::new(Request {
        metadata,
        question,
        question_end,
        extension,
        transport,
    }))
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Edns;
    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let name = Name::from_ascii(name).unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message
    }

    fn refusal(bytes: &[u8]) -> ResponseCode {
        match read(bytes, Transport::Udp) {
            QueryPacket::Refused(refusal) => refusal.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_query_says_how_long_answers_may_be() {
        let mut message = question("a.example.");
        let limit = |message: &Message, transport| match read(&message.to_vec().unwrap(), transport)
        {
            QueryPacket::Question(request) => {
                assert_eq!(request.question_end, HEADER + 11 + 4);
                request.limit()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(limit(&message, Transport::Udp), 512);
        assert_eq!(limit(&message, Transport::Tcp), 65_535);
        for (payload, expected) in [(0, 512), (511, 512), (1232, 1232), (65_535, 65_507)] {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
            assert_eq!(limit(&message, Transport::Udp), expected);
        }
    }

    #[test]
    fn what_is_no_query_is_refused_or_ignored() {
        let good = question("a.").to_vec().unwrap();
        assert!(matches!(
            read(&good[..11], Transport::Udp),
            QueryPacket::Nothing
        ));
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert!(matches!(
            read(&answer, Transport::Udp),
            QueryPacket::Nothing
        ));
        let mut update = good.clone();
        update[2] |= 5 << 3;
        assert_eq!(refusal(&update), ResponseCode::NotImp);
        for count in [0, 2] {
            let mut several = good.clone();
            several[5] = count;
            assert_eq!(refusal(&several), ResponseCode::FormErr);
        }
        assert_eq!(refusal(&good[..good.len() - 1]), ResponseCode::FormErr);
        let mut long = good.clone();
        long.resize(MAX_REQUEST + 1, 0);
        assert_eq!(refusal(&long), ResponseCode::FormErr);
        let mut later = question("a.");
        let mut edns = Edns::new();
        edns.set_version(1);
        later.set_edns(edns);
        assert_eq!(refusal(&later.to_vec().unwrap()), ResponseCode::BADVERS);
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes, Transport::Udp);
        }

        /// Tries valid packets with a few wrong bytes.
        #[test]
        fn damaged_packets_never_panic(
            at in proptest::collection::vec((0..60_usize, any::<u8>()), 1..6),
            edns: bool,
        ) {
            let mut message = question("name.example.");
            if edns {
                message.set_edns(Edns::new());
            }
            let mut bytes = message.to_vec().unwrap();
            for (index, value) in at {
                if let Some(byte) = bytes.get_mut(index) {
                    *byte = value;
                }
            }
            let _ = read(&bytes, Transport::Udp);
        }
    }
}
