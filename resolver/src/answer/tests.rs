//! Queries and their answers, as bytes.

use hickory_proto::op::{Message, MessageType, OpCode};
use keelson_resolver_protocol::{Container, Membership};
use proptest::prelude::*;

use super::*;
use crate::query::{QueryPacket, Transport, read};

fn membership(names: &[&str], addresses: &[&str]) -> Membership {
    Membership {
        network: "id".to_owned(),
        name: "net".to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        links: Vec::new(),
    }
}

fn table(ndots_set: bool) -> Table {
    let mut table = Table::default();
    for (id, addresses) in [
        ("web", vec!["10.0.0.2"]),
        ("both", vec!["10.0.0.3", "fd00::3"]),
    ] {
        table.set(Container {
            id: id.to_owned(),
            networks: vec![membership(&[id], &addresses)],
            ndots_set,
            ..Container::default()
        });
    }
    table
}

fn question(name: &str, kind: RecordType, class: DNSClass) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut query = Query::query(Name::from_ascii(name).unwrap(), kind);
    query.set_query_class(class);
    message.add_query(query);
    message
}

fn request(message: &Message, transport: Transport) -> Request {
    match read(&message.to_vec().unwrap(), transport) {
        QueryPacket::Question(request) => *request,
        other => panic!("{other:?}"),
    }
}

/// Returns the answer; `None` if name servers are asked.
fn ask(table: &Table, message: &Message) -> Option<Message> {
    match decide(table, "web", &request(message, Transport::Udp), |_| {}) {
        Decision::Answer(bytes) => Some(Message::from_vec(&bytes).unwrap()),
        Decision::Forward => None,
    }
}

fn data(answer: &Message) -> Vec<String> {
    answer
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

#[test]
fn addresses_are_answered_by_family_and_must_not_be_cached() {
    let table = table(false);
    let ask = |name, kind| ask(&table, &question(name, kind, DNSClass::IN)).unwrap();
    let answer = ask("Both.", RecordType::A);
    assert_eq!(data(&answer), ["10.0.0.3"]);
    assert_eq!(answer.answers[0].ttl, 0);
    // The case of the question is kept: clients may check it.
    assert_eq!(answer.answers[0].name.to_ascii(), "Both.");
    assert_eq!(answer.queries[0].name().to_ascii(), "Both.");
    assert_eq!(answer.metadata.id, 0x1234);
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert!(!answer.metadata.authoritative && !answer.metadata.truncation);
    assert_eq!(data(&ask("both.net.", RecordType::AAAA)), ["fd00::3"]);
    // One family, never both.
    assert_eq!(data(&ask("both.", RecordType::ANY)), ["10.0.0.3"]);
}

#[test]
fn a_name_without_such_records_exists() {
    let table = table(false);
    for kind in [
        RecordType::AAAA,
        RecordType::MX,
        RecordType::TXT,
        RecordType::HTTPS,
        RecordType::PTR,
        RecordType::Unknown(65_280),
    ] {
        let answer = ask(&table, &question("web.", kind, DNSClass::IN)).unwrap();
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{kind}"
        );
        assert!(answer.answers.is_empty(), "{kind}");
    }
    let answer = ask(&table, &question("web.", RecordType::A, DNSClass::CH)).unwrap();
    assert!(answer.answers.is_empty());
    let answer = ask(&table, &question("web.", RecordType::A, DNSClass::ANY)).unwrap();
    assert_eq!(data(&answer), ["10.0.0.2"]);
}

#[test]
fn addresses_are_translated_back() {
    let table = table(false);
    let ptr = |name| ask(&table, &question(name, RecordType::PTR, DNSClass::IN));
    assert_eq!(data(&ptr("2.0.0.10.in-addr.arpa.").unwrap()), ["web.net."]);
    let ipv6 = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.IP6.ARPA.";
    assert_eq!(data(&ptr(ipv6).unwrap()), ["both.net."]);
    for unknown in [
        "9.0.0.10.in-addr.arpa.",
        "0.0.10.in-addr.arpa.",
        "x.0.0.10.in-addr.arpa.",
        "300.0.0.10.in-addr.arpa.",
        "arpa.",
        ".",
    ] {
        assert!(ptr(unknown).is_none(), "{unknown}");
    }
}

#[test]
fn unknown_names_are_for_others_unless_ndots_is_set() {
    let asked = |ndots, name, kind| ask(&table(ndots), &question(name, kind, DNSClass::IN));
    assert!(asked(false, "unknown.", RecordType::A).is_none());
    assert!(asked(true, "example.org.", RecordType::A).is_none());
    assert!(asked(true, "unknown.", RecordType::MX).is_none());
    assert!(asked(true, ".", RecordType::NS).is_none());
    for kind in [RecordType::A, RecordType::AAAA] {
        let answer = asked(true, "unknown.", kind).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
    }
    // A label with a dot in it is no container's name.
    assert!(asked(false, "web\\.net.", RecordType::A).is_none());
    let refused = asked(false, "web.", RecordType::AXFR).unwrap();
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn long_answers_are_cut_to_what_the_client_takes() {
    let mut table = Table::default();
    let addresses: Vec<String> = (0..300)
        .map(|number| format!("10.1.{}.{}", number / 200, number % 200))
        .collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    table.set(Container {
        id: "web".to_owned(),
        networks: vec![membership(&["many"], &addresses)],
        ..Container::default()
    });
    let answer = |message: &Message, transport| {
        let Decision::Answer(bytes) = decide(&table, "web", &request(message, transport), |_| {})
        else {
            panic!("known");
        };
        let answer = Message::from_vec(&bytes).unwrap();
        (bytes.len(), answer)
    };
    let mut message = question("many.", RecordType::A, DNSClass::IN);
    let (length, cut) = answer(&message, Transport::Udp);
    assert!(length <= 512 && length > 480, "{length}");
    assert!(cut.metadata.truncation && cut.edns.is_none());
    assert_eq!(cut.answers.len(), (512 - 22) / 16);
    let (_, whole) = answer(&message, Transport::Tcp);
    assert_eq!(
        (whole.answers.len(), whole.metadata.truncation),
        (300, false)
    );

    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_dnssec_ok(true);
    message.set_edns(edns);
    let (length, cut) = answer(&message, Transport::Udp);
    assert!(length <= 1232 && length > 1200, "{length}");
    assert!(cut.metadata.truncation);
    let edns = cut.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.version()), (OWN_PAYLOAD, 0));
    assert!(edns.flags().dnssec_ok);
    message.edns.as_mut().unwrap().set_max_payload(8192);
    let (_, whole) = answer(&message, Transport::Udp);
    assert_eq!(
        (whole.answers.len(), whole.metadata.truncation),
        (300, false)
    );
}

#[test]
fn refusals_repeat_what_could_be_read() {
    let mut message = question("web.", RecordType::A, DNSClass::IN);
    let mut edns = Edns::new();
    edns.set_version(3);
    message.set_edns(edns);
    let QueryPacket::Refused(refused) = read(&message.to_vec().unwrap(), Transport::Udp) else {
        panic!("a later version");
    };
    let answer = Message::from_vec(&refusal(&refused)).unwrap();
    // The number of BADVERS is also that of BADSIG.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert_eq!(answer.queries.len(), 1);
}

#[test]
fn what_others_answer_is_passed_on_as_it_is_or_cut() {
    let message = question("example.org.", RecordType::TXT, DNSClass::IN);
    let request = request(&message, Transport::Udp);
    let mut theirs = message.clone();
    theirs.metadata.message_type = MessageType::Response;
    theirs.metadata.response_code = ResponseCode::NXDomain;
    let bytes = theirs.to_vec().unwrap();
    let passed = passed_on(&request, [&[0, 1], &bytes[2..]].concat());
    assert_eq!(passed, bytes);

    let long = [bytes.clone(), vec![0; 512]].concat();
    let cut = Message::from_vec(&passed_on(&request, long)).unwrap();
    assert!(cut.metadata.truncation);
    assert_eq!(cut.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!((cut.metadata.id, cut.queries.len()), (0x1234, 1));
}

#[test]
fn only_answers_to_the_question_count() {
    let message = question("example.org.", RecordType::TXT, DNSClass::IN);
    let bytes = message.to_vec().unwrap();
    let asked = &bytes[HEADER..];
    assert!(!answers(&bytes, asked));
    let mut answer = bytes.clone();
    answer[2] |= 0x80;
    assert!(answers(&answer, asked));
    assert!(answers(&answer.to_ascii_uppercase(), asked));
    assert!(!answers(&answer[..20], asked));
    answer[HEADER + 1] = b'x';
    assert!(!answers(&answer, asked));
    let mut without = answer[..HEADER].to_vec();
    without[5] = 0;
    assert!(!answers(&without, asked));
    without[3] |= 5;
    assert!(answers(&without, asked) && is_failure(&without));
    without[3] = 3;
    assert!(!is_failure(&without));
}

proptest! {
    /// Every query gets an answer that can be parsed, within the client's limit.
    #[test]
    fn every_answer_can_be_read(
        labels in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..20), 0..6),
        kind: u16,
        class: u16,
        payload in proptest::option::of(any::<u16>()),
    ) {
        let name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        let mut query = Query::query(name, RecordType::from(kind));
        query.set_query_class(DNSClass::from(class));
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        message.add_query(query);
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        if let QueryPacket::Question(request) = read(&message.to_vec().unwrap(), Transport::Udp) {
            let table = table(true);
            let bytes = match decide(&table, "web", &request, |_| {}) {
                Decision::Answer(bytes) => bytes,
                Decision::Forward => refuse(&request, ResponseCode::ServFail),
            };
            prop_assert!(bytes.len() <= request.limit());
            let answer = Message::from_vec(&bytes).unwrap();
            prop_assert_eq!(&answer.queries[0], &message.queries[0]);
        }
    }
}
