//! Names that others know.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hostd_networks::names::{ContainerNames, Names};

use crate::world::{
    ELSEWHERE, NameServer, Place, Run, beside, container, link, never, on_host, outcome, question,
};

/// A container with these name servers, which it reaches in other namespaces.
async fn asker(names: &Names, place: &Place, servers: &[&str]) -> ContainerNames {
    let me: &[(&str, &[&str], &[&str])] = &[("net", &["me"], &["10.3.0.1"])];
    let mut container = container("me", me);
    container.wishes.servers = servers.iter().map(|text| text.parse().unwrap()).collect();
    let sockets = place.sockets(None);
    names.set(container.clone(), Some(sockets)).await.unwrap();
    container
}

fn elsewhere() -> Result<Vec<String>, ResponseCode> {
    Ok(vec![ELSEWHERE.to_string()])
}

#[test]
fn others_are_asked_from_the_containers_namespace_in_their_order() {
    on_host(|_| async {
        let run = Run::new("nameserver 192.0.2.99\n");
        let names = run.names(never());
        names.settle();
        let place = Place::new();
        let (first, second) = (Place::new(), Place::new());
        link(&first.namespace, &place.namespace, 1).await;
        link(&second.namespace, &place.namespace, 2).await;
        let servers = [NameServer::start(&first), NameServer::start(&second)];
        asker(&names, &place, &["10.99.1.1", "10.99.2.1"]).await;
        beside(move || {
            let client = place.client();
            assert_eq!(client.ask("a.example."), elsewhere());
            assert_eq!(client.ask("single."), elsewhere());
            assert_eq!(servers[0].count("a.example"), 1);
            assert_eq!(servers[1].count(""), 0);
            // That it does not exist is an answer.
            assert_eq!(client.ask("nx.example."), Err(ResponseCode::NXDomain));
            assert_eq!(servers[1].count("nx"), 0);
            // These are none.
            assert_eq!(client.ask("servfail.example."), Err(ResponseCode::ServFail));
            assert_eq!(client.ask("refused.example."), Err(ResponseCode::Refused));
            assert_eq!(
                (servers[1].count("servfail"), servers[1].count("refused")),
                (1, 1)
            );
            servers[0].broken.store(true, Ordering::Relaxed);
            assert_eq!(client.ask("b.example."), elsewhere());
            servers[0].broken.store(false, Ordering::Relaxed);
            // Each question has a port of its own.
            for number in 0..20 {
                assert_eq!(client.ask(&format!("port{number}.example.")), elsewhere());
            }
            let asked = servers[0].asked.lock().unwrap();
            let ports: BTreeSet<u16> = asked
                .iter()
                .filter(|(name, _)| name.starts_with("port"))
                .map(|(_, port)| *port)
                .collect();
            assert!(ports.len() > 15, "{ports:?}");
        })
        .await;
    });
}

#[test]
fn a_server_that_is_gone_or_silent_is_followed_by_the_next_in_time() {
    on_host(|_| async {
        let run = Run::new("");
        let names = run.names(never());
        names.settle();
        let place = Place::new();
        let (first, second) = (Place::new(), Place::new());
        link(&first.namespace, &place.namespace, 1).await;
        link(&second.namespace, &place.namespace, 2).await;
        let server = NameServer::start(&second);
        // The first has the address, and nobody listens.
        let me = asker(&names, &place, &["10.99.1.1", "10.99.2.1"]).await;
        let client = place.client();
        let (client, server) = beside(move || {
            let begin = Instant::now();
            assert_eq!(client.ask("a.example."), elsewhere());
            assert!(
                begin.elapsed() < Duration::from_secs(1),
                "{:?}",
                begin.elapsed()
            );
            (client, server)
        })
        .await;
        // Packets to an address that nobody has are lost.
        let mut lost = me.clone();
        lost.wishes.servers[0] = "10.99.1.77".parse().unwrap();
        names.set(lost, None).await.unwrap();
        let client = beside(move || {
            let begin = Instant::now();
            assert_eq!(client.ask("b.example."), elsewhere());
            assert!(
                begin.elapsed() < Duration::from_secs(3),
                "{:?}",
                begin.elapsed()
            );
            // Below what clients wait for.
            let begin = Instant::now();
            assert_eq!(client.ask("silent.example."), Err(ResponseCode::ServFail));
            assert!(
                begin.elapsed() < Duration::from_millis(4800),
                "{:?}",
                begin.elapsed()
            );
            assert_eq!(server.count("silent"), 1);
            client
        })
        .await;
        // Nobody at all.
        let mut none = me;
        none.wishes.servers = vec!["127.0.0.11".parse().unwrap()];
        names.set(none, None).await.unwrap();
        let asked = beside(move || client.ask("c.example.")).await;
        assert_eq!(asked, Err(ResponseCode::ServFail));
    });
}

#[test]
fn big_answers_come_by_tcp_and_with_edns() {
    on_host(|_| async {
        let run = Run::new("");
        let names = run.names(never());
        names.settle();
        let (place, server_place) = (Place::new(), Place::new());
        link(&server_place.namespace, &place.namespace, 1).await;
        let server = NameServer::start(&server_place);
        asker(&names, &place, &["10.99.1.1"]).await;
        beside(move || {
            let client = place.client();
            let cut = client
                .exchange(&question(1, "big.example.", RecordType::TXT))
                .unwrap();
            assert!(cut.metadata.truncation);
            let mut message = question(2, "big.example.", RecordType::TXT);
            message.set_edns(Edns::new());
            message.edns.as_mut().unwrap().set_max_payload(60_000);
            assert_eq!(client.exchange(&message).unwrap().answers.len(), 200);
            // Twenty questions on one connection, of which some take longer than others.
            let mut connection = place.connection();
            for id in 0..20 {
                let name = if id % 4 == 0 { "big.example." } else { "me." };
                connection.send(&question(id, name, RecordType::TXT).to_vec().unwrap());
            }
            let mut seen = BTreeSet::new();
            for _ in 0..20 {
                let answer = connection.receive();
                let expected = if answer.metadata.id % 4 == 0 { 200 } else { 0 };
                assert_eq!(answer.answers.len(), expected);
                seen.insert(answer.metadata.id);
            }
            assert_eq!(seen.len(), 20);
            drop(server);
        })
        .await;
    });
}

#[test]
fn the_hosts_own_servers_are_asked_from_the_host_unless_there_is_no_way_out() {
    on_host(|host: Arc<Place>| async move {
        let run = Run::new("nameserver 127.0.0.53\n");
        let names = run.names(never());
        names.settle();
        let local = NameServer::start_at(&host, "127.0.0.53:53".parse().unwrap());
        let places = [Place::new(), Place::new()];
        for (number, place) in places.iter().enumerate() {
            let id = format!("c{number}");
            let networks: &[(&str, &[&str], &[&str])] = &[("net", &[&id], &["10.3.0.1"])];
            let mut container = container(&id, networks);
            // The second one is in internal networks only.
            container.may_ask_host = number == 0;
            names
                .set(container, Some(place.sockets(None)))
                .await
                .unwrap();
        }
        let clients = places.each_ref().map(|place| place.client());
        let (local, clients) = beside(move || {
            assert_eq!(clients[0].ask("a.example."), elsewhere());
            assert_eq!(local.count("a.example"), 1);
            assert_eq!(
                clients[1].ask("secret.example."),
                Err(ResponseCode::ServFail)
            );
            assert_eq!(local.count("secret"), 0);
            assert_eq!(clients[1].ask("c0.").unwrap(), ["10.3.0.1"]);
            let mut message = question(7, "big.example.", RecordType::TXT);
            message.set_edns(Edns::new());
            message.edns.as_mut().unwrap().set_max_payload(60_000);
            assert_eq!(clients[0].exchange(&message).unwrap().answers.len(), 200);
            (local, clients)
        })
        .await;
        // The host gets others, by DHCP for example.
        let other = NameServer::start_at(&host, "127.0.0.54:53".parse().unwrap());
        run.write("nameserver 127.0.0.54\n");
        let mut tries = 0;
        let [client, _] = clients;
        let mut client = client;
        while other.count("") == 0 {
            assert!(tries < 50);
            tries += 1;
            client = beside(move || {
                assert_eq!(client.ask("later.example."), elsewhere());
                std::thread::sleep(Duration::from_millis(50));
                client
            })
            .await;
        }
        drop(local);
    });
}

#[test]
fn one_that_asks_without_end_leaves_room_for_others() {
    on_host(|_| async {
        let run = Run::new("");
        let names = run.names(never());
        names.settle();
        let (loud, quiet, server_place) = (Place::new(), Place::new(), Place::new());
        link(&server_place.namespace, &loud.namespace, 1).await;
        link(&server_place.namespace, &quiet.namespace, 2).await;
        let server = NameServer::start(&server_place);
        asker(&names, &loud, &["10.99.1.1"]).await;
        let other: &[(&str, &[&str], &[&str])] = &[("net", &["other"], &["10.3.0.2"])];
        let mut other = container("other", other);
        other.wishes.servers = vec!["10.99.2.1".parse().unwrap()];
        names.set(other, Some(quiet.sockets(None))).await.unwrap();
        beside(move || {
            let flood = loud.client();
            let silent = question(1, "silent.example.", RecordType::A)
                .to_vec()
                .unwrap();
            let known = question(2, "me.", RecordType::A).to_vec().unwrap();
            let client = quiet.client();
            let mut slowest = Duration::ZERO;
            for round in 0..50 {
                for _ in 0..100 {
                    flood.send(&silent);
                    flood.send(&known);
                }
                let begin = Instant::now();
                assert_eq!(client.ask("me.").unwrap(), ["10.3.0.1"]);
                assert_eq!(client.ask(&format!("r{round}.example.")), elsewhere());
                slowest = slowest.max(begin.elapsed());
            }
            assert!(slowest < Duration::from_secs(1), "{slowest:?}");
            // The flood itself is refused when it is too much.
            let mut refused = 0;
            for _ in 0..100 {
                for _ in 0..50 {
                    flood.send(&silent);
                }
                while let Some(bytes) = flood.receive(Duration::from_millis(10)) {
                    let answer = Message::from_vec(&bytes).unwrap();
                    refused += usize::from(outcome(&answer) == Err(ResponseCode::Refused));
                }
                if refused > 50 {
                    break;
                }
            }
            assert!(refused > 50, "{refused}");
            drop(server);
        })
        .await;
    });
}

#[test]
fn a_container_may_serve_names_itself_and_be_asked_by_both_families() {
    on_host(|_| async {
        let run = Run::new("");
        let names = run.names(never());
        names.settle();
        let place = Place::new();
        // It has port 53 for itself, at all addresses.
        let own = [
            NameServer::start(&place),
            NameServer::start_at(&place, "[::1]:53".parse().unwrap()),
        ];
        let mut me = asker(&names, &place, &["127.0.0.1"]).await;
        let client = place.client();
        for round in 0..4 {
            // The same sockets ask servers of one family and then of the other.
            let server = ["127.0.0.1", "::1"][round % 2];
            me.wishes.servers = vec![server.parse().unwrap()];
            names.set(me.clone(), None).await.unwrap();
            let (client, place) = (&client, &place);
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| {
                    assert_eq!(client.ask(&format!("r{round}.example.")), elsewhere());
                    assert_eq!(client.ask("me.").unwrap(), ["10.3.0.1"]);
                    let mut connection = place.connection();
                    let big = question(1, "big.example.", RecordType::TXT);
                    connection.send(&big.to_vec().unwrap());
                    assert_eq!(connection.receive().answers.len(), 200);
                });
                asking.join().unwrap();
            });
            assert_eq!(own[round % 2].count(&format!("r{round}")), 1);
            assert_eq!(own[(round + 1) % 2].count(&format!("r{round}")), 0);
        }
    });
}
