//! Names of containers.

use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, ResponseCode};
use hickory_proto::rr::RecordType;
use keelson_model::spec::ContainerLink;

use crate::world::{Place, Run, beside, container, never, on_host, outcome, question};

#[test]
fn containers_find_each_other_in_their_network_and_nowhere_else() {
    on_host(|_| async {
        let run = Run::new("");
        let names = run.names(never());
        names.settle();
        let (web, db, other) = (Place::new(), Place::new(), Place::new());
        let one: &[(&str, &[&str], &[&str])] = &[(
            "front",
            &["web", "www", "0123456789ab"],
            &["10.1.0.2", "fd00::2"],
        )];
        names
            .set(container("web", one), Some(web.sockets(None)))
            .await
            .unwrap();
        let two: &[(&str, &[&str], &[&str])] = &[
            ("front", &["db"], &["10.1.0.3"]),
            ("back", &["db"], &["10.2.0.3"]),
        ];
        let mut linked = container("db", two);
        linked.networks[0].links.push(ContainerLink {
            container: "web".to_owned(),
            alias: "site".to_owned(),
        });
        names.set(linked, Some(db.sockets(None))).await.unwrap();
        let three: &[(&str, &[&str], &[&str])] = &[("back", &["other"], &["10.2.0.4"])];
        names
            .set(container("other", three), Some(other.sockets(None)))
            .await
            .unwrap();
        beside(move || {
            let ok = |list: &[&str]| Ok(list.iter().map(|&text| text.to_owned()).collect());
            let client = db.client();
            for name in ["web.", "WWW.", "0123456789ab.front.", "site.", "web.Front."] {
                assert_eq!(client.ask(name), ok(&["10.1.0.2"]), "{name}");
            }
            assert_eq!(client.ask("other."), ok(&["10.2.0.4"]));
            let ptr = question(1, "2.0.1.10.in-addr.arpa.", RecordType::PTR);
            assert_eq!(
                outcome(&client.exchange(&ptr).unwrap()),
                ok(&["web.front."])
            );
            let ipv6 = question(2, "web.", RecordType::AAAA);
            assert_eq!(outcome(&client.exchange(&ipv6).unwrap()), ok(&["fd00::2"]));
            let none = question(3, "other.", RecordType::AAAA);
            assert_eq!(outcome(&client.exchange(&none).unwrap()), ok(&[]));

            let client = web.client();
            assert_eq!(client.ask("db."), ok(&["10.1.0.3"]));
            // It shares no network with that one, and there is no name server.
            for name in ["other.", "other.back.", "db.back.", "site."] {
                assert_eq!(client.ask(name), Err(ResponseCode::ServFail), "{name}");
            }
        })
        .await;

        // A renamed container, and one that has stopped, at once.
        let renamed: &[(&str, &[&str], &[&str])] = &[("back", &["new"], &["10.2.0.4"])];
        names.set(container("other", renamed), None).await.unwrap();
        let client = other_client(&names).await;
        let asked = beside(move || (client.ask("new."), client.ask("other."), client)).await;
        assert_eq!(asked.0.unwrap(), ["10.2.0.4"]);
        assert_eq!(asked.1, Err(ResponseCode::ServFail));
        names.remove("other").await.unwrap();
        let client = asked.2;
        let asked = beside(move || client.ask("new.")).await;
        assert_eq!(asked, Err(ResponseCode::ServFail));
    });
}

/// A client of a further container in the network `back`.
async fn other_client(names: &hostd_networks::names::Names) -> crate::world::Client {
    let place = Place::new();
    let back: &[(&str, &[&str], &[&str])] = &[("back", &["further"], &["10.2.0.5"])];
    let sockets = place.sockets(None);
    names
        .set(container("further", back), Some(sockets))
        .await
        .unwrap();
    place.client()
}

#[test]
fn answers_have_chance_orders_and_fit_the_client() {
    on_host(|_| async {
        let run = Run::new("");
        let names = run.names(never());
        names.settle();
        let asker = Place::new();
        let me: &[(&str, &[&str], &[&str])] = &[("net", &["me"], &["10.3.0.1"])];
        names
            .set(container("me", me), Some(asker.sockets(None)))
            .await
            .unwrap();
        for number in 0..100 {
            let id = format!("replica-{number}");
            let address = format!("10.3.1.{number}");
            let networks: &[(&str, &[&str], &[&str])] = &[("net", &["many"], &[&address])];
            let sockets = Place::new().sockets(None);
            names
                .set(container(&id, networks), Some(sockets))
                .await
                .unwrap();
        }
        beside(move || {
            let client = asker.client();
            let cut = client
                .exchange(&question(1, "many.", RecordType::A))
                .unwrap();
            assert!(cut.metadata.truncation && cut.answers.len() > 25);
            let mut message = question(2, "many.", RecordType::A);
            message.set_edns(Edns::new());
            message.edns.as_mut().unwrap().set_max_payload(4096);
            let whole = client.exchange(&message).unwrap();
            assert!(!whole.metadata.truncation && whole.edns.is_some());
            assert_eq!(whole.answers.len(), 100);
            assert!(whole.answers.iter().all(|record| record.ttl == 0));
            let firsts: std::collections::BTreeSet<String> = (3..23)
                .map(|id| {
                    client
                        .exchange(&question(id, "many.", RecordType::A))
                        .unwrap()
                })
                .map(|answer| answer.answers[0].data.to_string())
                .collect();
            assert!(firsts.len() > 5, "{firsts:?}");

            let mut connection = asker.connection();
            connection.send(&question(30, "many.", RecordType::A).to_vec().unwrap());
            assert_eq!(connection.receive().answers.len(), 100);
        })
        .await;
    });
}

#[test]
fn garbage_is_refused_or_passed_over() {
    on_host(|_| async {
        let run = Run::new("");
        let names = run.names(never());
        names.settle();
        let place = Place::new();
        let me: &[(&str, &[&str], &[&str])] = &[("net", &["me"], &["10.3.0.1"])];
        names
            .set(container("me", me), Some(place.sockets(None)))
            .await
            .unwrap();
        beside(move || {
            let client = place.client();
            let good = question(9, "me.", RecordType::A).to_vec().unwrap();
            // Too short, an answer, and then all kinds of nonsense.
            client.send(b"x");
            let mut answer = good.clone();
            answer[2] |= 0x80;
            client.send(&answer);
            assert!(client.receive(Duration::from_millis(100)).is_none());
            let mut byte = 7_u8;
            for length in 12..200 {
                let nonsense: Vec<u8> = (0..length)
                    .map(|_| {
                        byte = byte.wrapping_mul(37).wrapping_add(11);
                        byte
                    })
                    .collect();
                client.send(&nonsense);
            }
            while client.receive(Duration::from_millis(100)).is_some() {}
            assert_eq!(client.ask("me.").unwrap(), ["10.3.0.1"]);

            let mut connection = place.connection();
            connection.send(b"");
            connection.send(b"nonsense");
            connection.send(&answer);
            connection.send(&good);
            assert_eq!(connection.receive().metadata.id, 9);
            // A frame that no question has ends the connection.
            std::io::Write::write_all(&mut connection.0, b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut connection.0, &mut rest);
            assert!(rest.is_empty());

            // Connections that say nothing are closed, so that others have their turn.
            let begin = Instant::now();
            let idle: Vec<_> = (0..150).map(|_| place.connection()).collect();
            let mut late = place.connection();
            late.send(&good);
            assert_eq!(late.receive().metadata.id, 9);
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{:?}",
                begin.elapsed()
            );
            drop(idle);
        })
        .await;
    });
}
