//! Tables in the kernel, in network namespaces of the tests' own.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;

use keelson_netlink::Namespace;
use keelson_nftables::{
    Batch, Chain, ChainKind, Data, Datum, Element, Family, Field, Hook, Kind, Monitor, Netfilter,
    Rule, Set, Table, TableChange, Value, Verdict,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const TABLE: Table = Table {
    family: Family::Inet,
    name: "test",
};
const PORTS: Set = Set {
    name: "ports",
    key: &[Kind::Ipv4, Kind::Protocol, Kind::Port],
    data: Some(Data::Values(&[Kind::Ipv4, Kind::Port])),
};
const LINKS: Set = Set {
    name: "links",
    key: &[Kind::Name],
    data: Some(Data::Verdict),
};
const SIDE: &str = "side";

fn run(test: impl FnOnce() + Send) {
    if keelson_testing::is_root() {
        Namespace::create().unwrap().run(test).unwrap();
    }
}

fn table() -> Batch {
    let mut batch = Batch::new();
    batch.add_table(TABLE);
    batch.add_chain(TABLE, &Chain::regular(SIDE));
    let chain = Chain::base("forward", ChainKind::Filter, Hook::Forward, 0);
    batch.add_chain(TABLE, &chain);
    batch.add_set(TABLE, &PORTS);
    batch.add_set(TABLE, &LINKS);
    let rule = Rule::new("forward").counter();
    batch.add_rule(TABLE, &rule.verdict_of(&[Field::InputName], LINKS.name));
    batch
}

fn port(number: u16, to: u16) -> Element {
    let address = Value::Ipv4(Ipv4Addr::new(192, 0, 2, 1));
    Element {
        key: vec![address.clone(), Value::Protocol(6), Value::Port(number)],
        datum: Some(Datum::Values(vec![address, Value::Port(to)])),
    }
}

fn link(name: &str, verdict: Verdict) -> Element {
    Element {
        key: vec![Value::Name(name.to_owned())],
        datum: Some(Datum::Verdict(verdict)),
    }
}

fn add(set: &Set, elements: &[Element]) -> Batch {
    let mut batch = Batch::new();
    batch.add_elements(TABLE, set, elements);
    batch
}

#[test]
fn elements_come_and_go() {
    run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        assert!(!netfilter.has_table(TABLE).unwrap());
        assert_eq!(netfilter.rules(TABLE).unwrap(), 0);
        netfilter.commit(&Batch::new()).unwrap();
        netfilter.commit(&table()).unwrap();
        assert!(netfilter.has_table(TABLE).unwrap());
        assert_eq!(netfilter.rules(TABLE).unwrap(), 1);
        // More than fit into one message or one answer.
        let many: Vec<_> = (1..=5000).map(|number| port(number, number)).collect();
        netfilter.commit(&add(&PORTS, &many)).unwrap();
        netfilter.commit(&add(&PORTS, &many)).unwrap();
        let mut found = netfilter.elements(TABLE, &PORTS, &[]).unwrap();
        found.sort();
        assert_eq!(found, many);
        let links = [
            link("br-0123456789ab", Verdict::Goto(SIDE)),
            link("eth0", Verdict::Drop),
        ];
        netfilter.commit(&add(&LINKS, &links)).unwrap();
        let mut found = netfilter.elements(TABLE, &LINKS, &[SIDE]).unwrap();
        found.sort();
        assert_eq!(found, links);
        let mut batch = Batch::new();
        batch.delete_elements(TABLE, &PORTS, &many[1..]);
        netfilter.commit(&batch).unwrap();
        assert_eq!(netfilter.elements(TABLE, &PORTS, &[]).unwrap(), many[..1]);
    });
}

#[test]
fn what_is_refused_is_named_and_changes_nothing() {
    run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        netfilter.commit(&table()).unwrap();
        netfilter.commit(&add(&PORTS, &[port(1, 1)])).unwrap();
        let before = netfilter.generation().unwrap();
        let mut batch = add(&PORTS, &[port(2, 2)]);
        batch.add_elements(TABLE, &PORTS, &[port(1, 9)]);
        batch.add_elements(TABLE, &PORTS, &[port(3, 3)]);
        let error = netfilter.commit(&batch).unwrap_err();
        assert!(error.is_other(), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("can't add to ports of table inet test: 192.0.2.1 . 6 . 1 and"),
            "{text}"
        );
        assert_eq!(netfilter.generation().unwrap(), before);
        assert_eq!(
            netfilter.elements(TABLE, &PORTS, &[]).unwrap(),
            [port(1, 1)]
        );

        let mut batch = Batch::new();
        batch.delete_elements(TABLE, &PORTS, &[port(7, 7)]);
        assert!(netfilter.commit(&batch).unwrap_err().is_missing());
        let mut batch = Batch::new();
        let rule = Rule::new("nowhere").comment("to be refused");
        batch.add_rule(TABLE, &rule.verdict(&Verdict::Drop));
        let text = netfilter.commit(&batch).unwrap_err().to_string();
        assert!(
            text.contains("add rule \"to be refused\" to chain nowhere of table inet test"),
            "{text}"
        );
        // A missing chain makes the whole transaction fail, too.
        let unknown = link("eth1", Verdict::Jump("elsewhere"));
        assert!(netfilter.commit(&add(&LINKS, &[unknown])).is_err());
        assert_eq!(netfilter.generation().unwrap(), before);
    });
}

#[test]
fn changes_of_others_are_reported() {
    run(|| {
        let mut own = Netfilter::open().unwrap();
        let mut other = Netfilter::open().unwrap();
        let mut monitor = Monitor::open(TABLE, own.port()).unwrap();
        own.commit(&table()).unwrap();
        assert_eq!(monitor.read().unwrap(), None);
        other.commit(&add(&PORTS, &[port(1, 1)])).unwrap();
        let mut readable = [PollFd::from_borrowed_fd(monitor.as_fd(), PollFlags::IN)];
        let patience = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut readable, Some(&patience)), Ok(1));
        assert_eq!(monitor.read().unwrap(), Some(TableChange::Changed));
        assert_eq!(monitor.read().unwrap(), None);
        // Changes of other tables are not reported.
        let foreign = Table {
            name: "foreign",
            ..TABLE
        };
        let mut batch = Batch::new();
        batch.add_table(foreign);
        other.commit(&batch).unwrap();
        assert_eq!(monitor.read().unwrap(), None);
        let mut batch = Batch::new();
        batch.delete_table(TABLE);
        other.commit(&batch).unwrap();
        own.commit(&table()).unwrap();
        assert_eq!(monitor.read().unwrap(), Some(TableChange::Deleted));
        if let Ok(status) = Command::new("nft").args(["flush", "ruleset"]).status() {
            assert!(status.success());
            assert_eq!(monitor.read().unwrap(), Some(TableChange::Deleted));
        }
    });
}

#[test]
fn base_chains_of_all_tables_are_listed() {
    run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        assert!(netfilter.base_chains().unwrap().is_empty());
        netfilter.commit(&table()).unwrap();
        let chains = netfilter.base_chains().unwrap();
        let [chain] = chains.as_slice() else {
            panic!("{chains:?}");
        };
        assert_eq!(
            (chain.table.as_str(), chain.name.as_str()),
            ("test", "forward")
        );
        assert_eq!((chain.hook, chain.priority), (2, 0));
    });
}
