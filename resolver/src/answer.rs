//! Decides on a query by the table: an answer, or a query to name servers.

use std::net::IpAddr;

use hickory_proto::op::{Edns, EmitAndCount, Header, HeaderCounts, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use hickory_proto::{ProtoError, rr::RecordData};

use crate::limits::USUAL_ANSWER;
use crate::query::{Extension, HEADER, Refusal, Request};
use crate::table::{Addresses, Table};

/// Time to live of answers in seconds. Clients must not cache them, because a restarted container
/// has other addresses.
const TTL: u32 = 0;
/// The largest datagram that we offer to accept, in bytes. It passes every link without
/// fragmentation.
const OWN_PAYLOAD: u16 = 1232;
/// Length of our EDNS record in bytes.
const EXTENSION: usize = 11;

/// The decision on a query.
#[derive(Debug)]
pub enum Decision {
    /// Send this answer.
    Answer(Vec<u8>),
    /// Ask the container's name servers.
    Forward,
}

/// Decides what to do with a container's query. `shuffle` puts addresses into random order.
pub fn decide(
    table: &Table,
    asker: &str,
    request: &Request,
    shuffle: impl FnOnce(&mut Addresses),
) -> Decision {
    let kind = request.question.query_type();
    // Zone transfers are for servers, and we have no zone.
    if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return Decision::Answer(refuse(request, ResponseCode::Refused));
    }
    let Some(name) = text(request.question.name()) else {
        return Decision::Forward;
    };
    if let Some(mut addresses) = table.find(asker, &name) {
        let class = request.question.query_class();
        // A name without an address of this family still exists: with NXDOMAIN clients would give
        // up on the other family, too (RFC 4074, 3).
        let records = match (class, kind) {
            (DNSClass::IN | DNSClass::ANY, RecordType::A | RecordType::AAAA | RecordType::ANY) => {
                shuffle(&mut addresses);
                records(request.question.name(), kind, &addresses)
            }
            _ => Vec::new(),
        };
        return Decision::Answer(write(request, ResponseCode::NoError, &records));
    }
    if kind == RecordType::PTR
        && let Some(address) = address_of(request.question.name())
        && let Some(name) = table.reverse(asker, address)
        && let Some(name) = from_text(&name)
    {
        let owner = request.question.name().clone();
        let record = Record::from_rdata(owner, TTL, PTR(name).into_rdata());
        return Decision::Answer(write(request, ResponseCode::NoError, &[record]));
    }
    // With `ndots` set, the client tries a name of one label with its search domains when it is not
    // found. A name server might know the bare name as something else.
    if matches!(kind, RecordType::A | RecordType::AAAA)
        && !name.contains('.')
        && table.container(asker).is_some_and(|asker| asker.ndots_set)
    {
        return Decision::Answer(write(request, ResponseCode::NoError, &[]));
    }
    Decision::Forward
}

/// An answer without records.
#[must_use]
pub fn refuse(request: &Request, code: ResponseCode) -> Vec<u8> {
    write(request, code, &[])
}

/// The answer to a malformed query.
#[must_use]
pub fn refusal(refusal: &Refusal) -> Vec<u8> {
    let question = refusal.question.as_ref();
    let (metadata, code) = (&refusal.metadata, refusal.code);
    encode(
        metadata,
        question,
        code,
        &[],
        refusal.extension,
        USUAL_ANSWER,
    )
}

/// Prepares a name server's answer for the client: with the client's identifier, and truncated if
/// it is too long.
#[must_use]
pub fn passed_on(request: &Request, mut answer: Vec<u8>) -> Vec<u8> {
    if answer.len() > request.limit() {
        let mut cut = write(request, ResponseCode::NoError, &[]);
        // Keep the server's flags and code, and mark the answer as truncated.
        if let (Some(flags), Some(theirs)) = (cut.get_mut(2..4), answer.get(2..4)) {
            flags.copy_from_slice(theirs);
            if let Some(first) = flags.first_mut() {
                *first |= TRUNCATED;
            }
        }
        return cut;
    }
    if let Some(number) = answer.first_chunk_mut() {
        *number = request.metadata.id.to_be_bytes();
    }
    answer
}

/// The bit in the header's third byte that marks a truncated answer (TC).
const TRUNCATED: u8 = 2;

/// Joins a name's labels with dots. `None` if it can't be the name of a container, because a label
/// has a dot in it or is no text.
fn text(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        let label = std::str::from_utf8(label).ok()?;
        if label.contains('.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    Some(text)
}

fn from_text(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

/// Parses the address in a name below `in-addr.arpa` or `ip6.arpa`.
fn address_of(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// The records of one family, never of both. A query for ANY gets one of them, which is enough (RFC
/// 8482, 4.1).
fn records(name: &Name, kind: RecordType, addresses: &Addresses) -> Vec<Record> {
    let record = |data: RData| Record::from_rdata(name.clone(), TTL, data);
    let ipv6 = match kind {
        RecordType::AAAA => true,
        RecordType::ANY => addresses.ipv4.is_empty(),
        _ => false,
    };
    if ipv6 {
        let all = addresses.ipv6.iter();
        all.map(|&address| record(RData::AAAA(AAAA(address))))
            .collect()
    } else {
        let all = addresses.ipv4.iter();
        all.map(|&address| record(RData::A(A(address)))).collect()
    }
}

fn write(request: &Request, code: ResponseCode, records: &[Record]) -> Vec<u8> {
    let (metadata, question) = (&request.metadata, Some(&request.question));
    encode(
        metadata,
        question,
        code,
        records,
        request.extension,
        request.limit(),
    )
}

/// Encodes an answer, with as many records as fit.
fn encode(
    metadata: &Metadata,
    question: Option<&Query>,
    code: ResponseCode,
    records: &[Record],
    extension: Option<Extension>,
    limit: usize,
) -> Vec<u8> {
    let mut answer = Metadata::response_from_request(metadata);
    answer.recursion_available = true;
    answer.response_code = code;
    let mut bytes = Vec::with_capacity(USUAL_ANSWER);
    if try_encode(answer, question, records, extension, limit, &mut bytes).is_err() {
        // This can't fail: the question always fits.
        bytes.clear();
        let mut encoder = BinEncoder::new(&mut bytes);
        let header = Header {
            metadata: answer,
            counts: HeaderCounts::default(),
        };
        if header.emit(&mut encoder).is_err() {
            bytes.clear();
        }
    }
    bytes
}

fn try_encode(
    mut metadata: Metadata,
    question: Option<&Query>,
    records: &[Record],
    extension: Option<Extension>,
    limit: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), ProtoError> {
    let size = |size: usize| u16::try_from(size).unwrap_or(u16::MAX);
    let reserved = if extension.is_some() { EXTENSION } else { 0 };
    let mut encoder = BinEncoder::new(bytes);
    encoder.set_max_size(size(limit - reserved));
    let place = encoder.place::<Header>()?;
    let mut counts = HeaderCounts::default();
    if let Some(question) = question {
        question.emit(&mut encoder)?;
        counts.queries = 1;
    }
    let written = match EmitAndCount::emit(&mut records.iter(), &mut encoder) {
        Err(ProtoError::NotAllRecordsWritten { count, .. }) => {
            metadata.truncation = true;
            count
        }
        other => other?,
    };
    counts.answers = size(written);
    if let Some(extension) = extension {
        encoder.set_max_size(size(limit));
        let mut edns = Edns::new();
        edns.set_max_payload(OWN_PAYLOAD);
        edns.set_dnssec_ok(extension.dnssec);
        edns.set_rcode_high(metadata.response_code.high());
        edns.emit(&mut encoder)?;
        counts.additionals = 1;
    }
    place.replace(&mut encoder, Header { metadata, counts })
}

/// Whether a packet answers a query. The caller has checked the identifier.
#[must_use]
pub fn answers(packet: &[u8], question: &[u8]) -> bool {
    let Some(header) = packet.first_chunk::<HEADER>() else {
        return false;
    };
    let [_, _, flags, codes, q1, q2, ..] = *header;
    if flags & 0x80 == 0 {
        return false;
    }
    match u16::from_be_bytes([q1, q2]) {
        // Some servers refuse without repeating the question.
        0 => codes & 0x0f != 0,
        // Servers may change the case of letters.
        1 => packet
            .get(HEADER..HEADER + question.len())
            .is_some_and(|theirs| theirs.eq_ignore_ascii_case(question)),
        _ => false,
    }
}

/// Whether to ask another server after this answer, because this server can't tell.
#[must_use]
pub fn is_failure(packet: &[u8]) -> bool {
    const SERVFAIL: u8 = 2;
    const REFUSED: u8 = 5;
    let code = packet.get(3).map_or(SERVFAIL, |codes| codes & 0x0f);
    matches!(code, SERVFAIL | REFUSED)
}

#[cfg(test)]
mod tests;
