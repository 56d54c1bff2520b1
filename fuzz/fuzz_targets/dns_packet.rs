//! Packets of containers to their resolver, and answers of name servers: each question gets an answer that
//! can be read, within the client's limit.
#![cfg_attr(fuzzing, no_main)]

use keelson_resolver::answer::{self, Decision};
use keelson_resolver::query::{QueryPacket, Transport, read};
use keelson_resolver::table::Table;
use keelson_resolver_protocol::{Container, Membership};

fn table() -> Table {
    let mut table = Table::default();
    table.set(Container {
        id: "me".to_owned(),
        networks: vec![Membership {
            network: "n".to_owned(),
            name: "net".to_owned(),
            names: vec!["web".to_owned(), "a.b".to_owned()],
            addresses: (1..60)
                .flat_map(|number| {
                    let v6 = format!("fd00::{number}");
                    [[10, 0, 0, number].into(), v6.parse().unwrap()]
                })
                .collect(),
            links: Vec::new(),
        }],
        ..Container::default()
    });
    table
}

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    thread_local! {
        static TABLE: Table = table();
    }
    for transport in [Transport::Udp, Transport::Tcp] {
        match read(bytes, transport) {
            QueryPacket::Question(request) => {
                let decision = TABLE.with(|table| answer::decide(table, "me", &request, |_| {}));
                let bytes_of_answer = match decision {
                    Decision::Answer(answer) => answer,
                    // As if the packet were a name server's answer.
                    Decision::Forward => answer::passed_on(&request, bytes.to_vec()),
                };
                assert!(bytes_of_answer.len() <= request.limit().max(bytes.len()));
                assert_eq!(bytes_of_answer.first_chunk(), bytes.first_chunk::<2>());
                let asked = bytes.get(12..request.question_end).unwrap();
                let _ = answer::answers(&bytes_of_answer, asked);
            }
            QueryPacket::Refused(refusal) => {
                let answer = answer::refusal(&refusal);
                assert!(answer.len() >= 12 && answer.len() <= 512);
                // Nobody answers an answer.
                assert!(matches!(read(&answer, transport), QueryPacket::Nothing));
            }
            QueryPacket::Nothing => {}
        }
    }
    let _ = answer::is_failure(bytes);
});
