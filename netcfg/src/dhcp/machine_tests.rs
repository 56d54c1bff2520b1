//! The state machine with simulated time, friendly servers and hostile ones.

mod leases;

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{self, DhcpOption, Encodable, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder};
use proptest::prelude::*;

use super::arp::{ArpPacket, Mac};
use super::lease::{INFINITE, Lease, LeaseError, LeaseRoute, LeftOut};
use super::machine::{Machine, Notice, Output, Remembered, StateName, Time};

const MAC: Mac = [2, 0, 0, 0, 0, 1];
const OTHER: Mac = [2, 0, 0, 0, 0, 9];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const START: Time = Duration::from_secs(1000);

/// A lease of one hour.
pub(crate) fn lease() -> Lease {
    Lease {
        address: ADDRESS,
        prefix: 24,
        server: SERVER,
        routes: vec![LeaseRoute {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway: Some(SERVER),
        }],
        nameservers: vec![Ipv4Addr::new(192, 0, 2, 53)],
        search: vec!["lan.example".into()],
        ntp_servers: vec![Ipv4Addr::new(192, 0, 2, 123)],
        mtu: None,
        hostname: None,
        seconds: 3600,
        renew: 1800,
        rebind: 3150,
    }
}

/// The client with a clock, and its outputs since the last check.
struct Bench {
    machine: Machine,
    now: Time,
    out: Vec<Output>,
}

impl Bench {
    fn new(remembered: Option<Remembered>) -> Self {
        let mut seed = 7u32;
        let random = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed
        };
        let name = Some("node".to_owned());
        Self {
            machine: Machine::new(MAC, name, Box::new(random), START, remembered),
            now: START,
            out: Vec::new(),
        }
    }

    fn up(&mut self) {
        let out = self.machine.carrier_up(self.now);
        self.out.extend(out);
    }

    /// Lets time pass, and calls the timer whenever the machine asks for it.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        let mut calls = 0;
        while let Some(deadline) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            let out = self.machine.timer(self.now);
            self.out.extend(out);
            calls += 1;
            assert!(calls < 10_000, "the machine is busy");
        }
        self.now = end;
    }

    fn hear(&mut self, bytes: &[u8]) {
        let out = self.machine.message(self.now, bytes);
        self.out.extend(out);
    }

    fn hear_arp(&mut self, packet: ArpPacket) {
        let out = self.machine.arp(self.now, &packet);
        self.out.extend(out);
    }

    /// Returns the requests since the last check, and forgets all outputs.
    fn sent(&mut self) -> Vec<v4::Message> {
        let out = std::mem::take(&mut self.out);
        out.iter().filter_map(request).collect()
    }

    fn last_request(&self) -> v4::Message {
        self.out.iter().rev().find_map(request).unwrap()
    }

    fn notices(&self) -> Vec<Notice> {
        let notice = |output: &Output| match output {
            Output::Notice(notice) => Some(notice.clone()),
            _ => None,
        };
        self.out.iter().filter_map(notice).collect()
    }

    fn state(&self) -> StateName {
        self.machine.state()
    }

    /// Answers the last request in the way of a friendly server.
    fn answer(&mut self, kind: MessageType, change: impl FnOnce(&mut v4::Message)) {
        let request = self.last_request();
        let bytes = reply(&request, kind, change);
        self.hear(&bytes);
    }

    fn bind(&mut self) {
        self.up();
        self.answer(MessageType::Offer, |_| {});
        self.answer(MessageType::Ack, |_| {});
        self.pass(2);
        assert_eq!(self.state(), StateName::Bound);
    }
}

fn request(output: &Output) -> Option<v4::Message> {
    let payload = match output {
        Output::Broadcast { payload, .. } | Output::Unicast { payload, .. } => payload,
        _ => return None,
    };
    Some(v4::Message::decode(&mut Decoder::new(payload)).unwrap())
}

fn reply(
    request: &v4::Message,
    kind: MessageType,
    change: impl FnOnce(&mut v4::Message),
) -> Vec<u8> {
    let mut message = v4::Message::default();
    message
        .set_opcode(Opcode::BootReply)
        .set_xid(request.xid())
        .set_chaddr(request.chaddr());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(SERVER));
    if kind != MessageType::Nak {
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        options.insert(DhcpOption::AddressLeaseTime(3600));
        options.insert(DhcpOption::Router(vec![SERVER]));
        message.set_yiaddr(ADDRESS);
    }
    change(&mut message);
    message.to_vec().unwrap()
}

fn kind(message: &v4::Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

fn requested(message: &v4::Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
        _ => None,
    }
}

fn bound_lease(out: &[Output]) -> Option<&Lease> {
    out.iter().rev().find_map(|output| match output {
        Output::Bound { lease, .. } => Some(lease),
        _ => None,
    })
}

#[test]
fn a_lease_is_acquired_probed_and_announced() {
    let mut bench = Bench::new(None);
    assert_eq!(bench.machine.deadline(), None);
    bench.up();
    let discover = bench.last_request();
    assert_eq!(kind(&discover), MessageType::Discover);
    assert!(discover.opts().get(OptionCode::Hostname).is_some());
    bench.answer(MessageType::Offer, |_| {});
    let select = bench.last_request();
    assert_eq!(kind(&select), MessageType::Request);
    assert_eq!(requested(&select), Some(ADDRESS));
    assert_eq!(select.xid(), discover.xid());
    assert_eq!(select.ciaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(select.opts().get(OptionCode::ServerIdentifier).is_some());
    bench.answer(MessageType::Ack, |_| {});
    assert_eq!(bench.state(), StateName::Probing);
    assert!(bound_lease(&bench.out).is_none());
    bench.pass(5);
    assert_eq!(bench.state(), StateName::Bound);
    let lease = bound_lease(&bench.out).unwrap();
    assert_eq!((lease.address, lease.prefix), (ADDRESS, 24));
    assert_eq!((lease.renew, lease.rebind), (1800, 3150));
    let arps: Vec<ArpPacket> = bench
        .out
        .iter()
        .filter_map(|output| match output {
            Output::Arp(packet) => Some(*packet),
            _ => None,
        })
        .collect();
    let probe = ArpPacket::probe(MAC, ADDRESS);
    let announcement = ArpPacket::announcement(MAC, ADDRESS);
    assert_eq!(arps, [probe, probe, probe, announcement, announcement]);
}

#[test]
fn without_a_server_it_asks_for_ever_and_warns_less_and_less() {
    let mut bench = Bench::new(None);
    bench.up();
    bench.pass(9);
    assert!(bench.notices().is_empty());
    bench.pass(2);
    assert_eq!(bench.notices(), [Notice::NoServer { seconds: 10 }]);
    bench.pass(24 * 3600);
    let warnings = bench.notices().len();
    assert!((25..40).contains(&warnings), "{warnings}");
    let requests = bench.sent();
    assert!(
        requests
            .iter()
            .all(|request| kind(request) == MessageType::Discover)
    );
    let most = 24 * 3600 / 60 + 10;
    assert!((1000..most).contains(&requests.len()), "{}", requests.len());
    assert!(requests.last().unwrap().secs() > 60_000);
    assert_eq!(bench.state(), StateName::Selecting);
}

#[test]
fn an_offer_that_is_not_confirmed_is_dropped() {
    let mut bench = Bench::new(None);
    bench.up();
    bench.answer(MessageType::Offer, |_| {});
    bench.sent();
    bench.pass(60);
    let sent = bench.sent();
    let requests = sent
        .iter()
        .filter(|m| kind(m) == MessageType::Request)
        .count();
    assert_eq!(requests, 3);
    assert_eq!(kind(sent.last().unwrap()), MessageType::Discover);
}

#[test]
fn renewing_is_unicast_and_extends_the_lease() {
    let mut bench = Bench::new(None);
    bench.bind();
    bench.out.clear();
    bench.pass(1800);
    assert_eq!(bench.state(), StateName::Renewing);
    let Some(Output::Unicast { source, server, .. }) = bench.out.last() else {
        panic!("{:?}", bench.out);
    };
    assert_eq!((*source, *server), (ADDRESS, SERVER));
    let renew = bench.last_request();
    assert_eq!(renew.ciaddr(), ADDRESS);
    assert!(requested(&renew).is_none());
    assert!(renew.opts().get(OptionCode::ServerIdentifier).is_none());
    bench.answer(MessageType::Ack, |_| {});
    assert_eq!(bench.state(), StateName::Bound);
    let (_, granted) = bench.machine.lease().unwrap();
    assert!(granted > START + Duration::from_secs(1700));
}

#[test]
fn a_silent_server_leads_to_rebinding_and_to_the_end_of_the_lease() {
    let mut bench = Bench::new(None);
    bench.bind();
    bench.pass(3149);
    assert_eq!(bench.state(), StateName::Rebinding);
    assert!(matches!(bench.notices()[..], [Notice::NotRenewed { .. }]));
    let Some(Output::Broadcast { source, .. }) = bench
        .out
        .iter()
        .rev()
        .find(|output| matches!(output, Output::Broadcast { .. }))
    else {
        panic!("{:?}", bench.out);
    };
    assert_eq!(*source, ADDRESS);
    bench.out.clear();
    bench.pass(500);
    assert!(bench.out.contains(&Output::Unbound));
    assert!(bench.notices().contains(&Notice::Expired));
    assert_eq!(bench.state(), StateName::Selecting);
    assert_eq!(requested(&bench.last_request()), Some(ADDRESS));
}

#[test]
fn any_server_may_rebind() {
    let mut bench = Bench::new(None);
    bench.bind();
    bench.pass(3149);
    let other = Ipv4Addr::new(192, 0, 2, 2);
    bench.answer(MessageType::Ack, |message| {
        message
            .opts_mut()
            .insert(DhcpOption::ServerIdentifier(other));
    });
    assert_eq!(bench.state(), StateName::Bound);
    assert_eq!(bench.machine.lease().unwrap().0.server, other);
}

#[test]
fn a_remembered_lease_is_confirmed_first() {
    let mut bench = Bench::new(Some(Remembered {
        lease: lease(),
        granted: None,
        in_use: false,
    }));
    bench.up();
    let reboot = bench.last_request();
    assert_eq!(kind(&reboot), MessageType::Request);
    assert_eq!(requested(&reboot), Some(ADDRESS));
    assert!(reboot.opts().get(OptionCode::ServerIdentifier).is_none());
    assert_eq!(bench.state(), StateName::Rebooting);
    bench.answer(MessageType::Ack, |_| {});
    bench.pass(2);
    assert_eq!(bench.state(), StateName::Bound);
}

#[test]
fn a_remembered_lease_that_nobody_confirms_is_not_used() {
    let mut bench = Bench::new(Some(Remembered {
        lease: lease(),
        granted: None,
        in_use: false,
    }));
    bench.up();
    bench.pass(30);
    assert!(bound_lease(&bench.out).is_none());
    assert_eq!(bench.state(), StateName::Selecting);
    assert_eq!(requested(&bench.last_request()), Some(ADDRESS));
    assert_eq!(bench.notices().len(), 2);
}

#[test]
fn a_remembered_lease_is_checked_again() {
    let mut wrong = lease();
    wrong.address = Ipv4Addr::BROADCAST;
    let mut bench = Bench::new(Some(Remembered {
        lease: wrong,
        granted: Some(START),
        in_use: true,
    }));
    assert!(bench.machine.lease().is_none());
    bench.up();
    assert_eq!(kind(&bench.last_request()), MessageType::Discover);
}

#[test]
fn a_lease_outlives_a_short_loss_of_carrier() {
    let mut bench = Bench::new(None);
    bench.bind();
    bench.out.clear();
    let out = bench.machine.carrier_down();
    assert_eq!(out, []);
    bench.pass(60);
    bench.up();
    assert_eq!(bench.state(), StateName::Rebooting);
    // No server answers: the rest of the lease may be used.
    bench.pass(30);
    assert_eq!(bench.state(), StateName::Bound);
    assert!(bench.notices().is_empty());
    assert!(!bench.out.contains(&Output::Unbound));
    // The server of another network refuses.
    bench.machine.carrier_down();
    bench.up();
    bench.answer(MessageType::Nak, |_| {});
    assert!(bench.out.contains(&Output::Unbound));
    assert_eq!(bench.state(), StateName::Waiting);
    bench.pass(2);
    assert_eq!(requested(&bench.last_request()), None);
}

#[test]
fn a_lease_ends_while_there_is_no_carrier() {
    let mut bench = Bench::new(None);
    bench.bind();
    bench.machine.carrier_down();
    bench.pass(3600);
    assert!(bench.out.contains(&Output::Unbound));
    assert_eq!(bench.state(), StateName::Down);
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn refusals_are_followed_by_growing_pauses() {
    let mut bench = Bench::new(None);
    bench.up();
    let mut waits = Vec::new();
    for _ in 0..10 {
        bench.answer(MessageType::Offer, |_| {});
        bench.answer(MessageType::Nak, |_| {});
        assert_eq!(bench.state(), StateName::Waiting);
        let deadline = bench.machine.deadline().unwrap();
        waits.push(deadline - bench.now);
        // A warning may come first.
        while bench.state() == StateName::Waiting {
            bench.pass(1);
        }
    }
    assert!(waits[0] < Duration::from_secs(1), "{waits:?}");
    assert!(waits[9] > Duration::from_secs(8), "{waits:?}");
}

#[test]
fn an_address_in_use_is_declined() {
    let mut bench = Bench::new(None);
    bench.up();
    bench.answer(MessageType::Offer, |_| {});
    bench.answer(MessageType::Ack, |_| {});
    assert_eq!(bench.machine.probing(), Some(ADDRESS));
    bench.hear_arp(ArpPacket::probe(MAC, ADDRESS));
    assert_eq!(bench.state(), StateName::Probing);
    bench.hear_arp(ArpPacket {
        request: false,
        ..ArpPacket::announcement(OTHER, ADDRESS)
    });
    let decline = bench.last_request();
    assert_eq!(kind(&decline), MessageType::Decline);
    assert_eq!(requested(&decline), Some(ADDRESS));
    assert!(bound_lease(&bench.out).is_none());
    assert_eq!(bench.state(), StateName::Waiting);
    bench.pass(9);
    assert_eq!(bench.state(), StateName::Waiting);
    bench.pass(2);
    assert_eq!(bench.state(), StateName::Selecting);
}

#[test]
fn release_returns_the_lease() {
    let mut bench = Bench::new(None);
    bench.bind();
    let out = bench.machine.release();
    assert!(matches!(out[0], Output::Unicast { .. }));
    assert_eq!(kind(&request(&out[0]).unwrap()), MessageType::Release);
    assert_eq!(out[1], Output::Unbound);
    assert!(bench.machine.lease().is_none());
}

#[test]
fn an_infinite_lease_is_never_renewed() {
    let mut bench = Bench::new(None);
    bench.up();
    for kind in [MessageType::Offer, MessageType::Ack] {
        bench.answer(kind, |message| {
            let options = message.opts_mut();
            options.insert(DhcpOption::AddressLeaseTime(INFINITE));
        });
    }
    bench.pass(10);
    assert_eq!(bench.state(), StateName::Bound);
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn answers_to_others_are_ignored() {
    let mut bench = Bench::new(None);
    bench.up();
    bench.answer(MessageType::Offer, |message| {
        message.set_xid(message.xid() ^ 1);
    });
    bench.answer(MessageType::Offer, |message| {
        message.set_chaddr(&OTHER);
    });
    bench.answer(MessageType::Offer, |message| {
        message.set_opcode(Opcode::BootRequest);
    });
    bench.answer(MessageType::Ack, |_| {});
    bench.answer(MessageType::Nak, |_| {});
    assert_eq!(bench.state(), StateName::Selecting);
    bench.answer(MessageType::Offer, |_| {});
    assert_eq!(bench.state(), StateName::Requesting);
    // Another server must not confirm or refuse what this one offered.
    for kind in [MessageType::Ack, MessageType::Nak] {
        bench.answer(kind, |message| {
            let options = message.opts_mut();
            options.insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(192, 0, 2, 66)));
        });
    }
    bench.answer(MessageType::Ack, |message| {
        message.set_yiaddr(Ipv4Addr::new(192, 0, 2, 51));
    });
    assert_eq!(bench.state(), StateName::Requesting);
}

/// Whatever is received, the lease in use passes the checks.
fn holds_no_garbage(machine: &Machine) {
    if let Some((lease, _)) = machine.lease() {
        lease.check().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_messages_never_panic(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..8),
        bound in any::<bool>(),
    ) {
        let mut bench = Bench::new(None);
        if bound { bench.bind() } else { bench.up() }
        for packet in packets {
            bench.hear(&packet);
            if let Some(arp) = ArpPacket::parse(&packet) {
                bench.hear_arp(arp);
            }
            holds_no_garbage(&bench.machine);
        }
    }

    #[test]
    fn damaged_answers_never_give_a_garbage_lease(
        changes in proptest::collection::vec((0usize..600, any::<u8>()), 0..6),
        options in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 0usize..700,
        ack in any::<bool>(),
        wait in prop_oneof![Just(0u64), Just(1800), Just(3200)],
    ) {
        let mut bench = Bench::new(None);
        bench.bind();
        bench.pass(wait);
        let request = bench.last_request();
        let kind = if ack { MessageType::Ack } else { MessageType::Nak };
        let mut bytes = reply(&request, kind, |_| {});
        // Arbitrary options in the place of the end mark.
        bytes.pop();
        bytes.extend(&options);
        for (offset, value) in changes {
            // The header stays whole, so that the damage gets past the first checks.
            if offset >= 240 && let Some(byte) = bytes.get_mut(offset) {
                *byte = value;
            }
        }
        bytes.truncate(cut.max(240));
        bench.hear(&bytes);
        holds_no_garbage(&bench.machine);
        bench.pass(10_000);
        holds_no_garbage(&bench.machine);
    }

    #[test]
    fn arbitrary_options_make_a_sane_lease_or_none(
        address in any::<[u8; 4]>(),
        mask in any::<u32>(),
        prefix in 0u32..=32,
        lease_time in any::<u32>(),
        renew in any::<u32>(),
        rebind in any::<u32>(),
        router in any::<[u8; 4]>(),
        contiguous in any::<bool>(),
    ) {
        let mask = if contiguous { u32::MAX.checked_shl(32 - prefix).unwrap_or(0) } else { mask };
        let change = |message: &mut v4::Message| {
            message.set_yiaddr(address);
            let options = message.opts_mut();
            options.insert(DhcpOption::SubnetMask(Ipv4Addr::from_bits(mask)));
            options.insert(DhcpOption::AddressLeaseTime(lease_time));
            options.insert(DhcpOption::Renewal(renew));
            options.insert(DhcpOption::Rebinding(rebind));
            options.insert(DhcpOption::Router(vec![router.into()]));
        };
        let mut bench = Bench::new(None);
        bench.up();
        bench.answer(MessageType::Offer, change);
        if bench.state() == StateName::Requesting {
            bench.answer(MessageType::Ack, change);
            bench.pass(2);
            prop_assert_eq!(bench.state(), StateName::Bound);
        }
        holds_no_garbage(&bench.machine);
        bench.pass(100);
    }

    #[test]
    fn the_machine_survives_any_order_of_events(
        events in proptest::collection::vec((0u8..9, 0u64..4000), 1..40),
    ) {
        let mut bench = Bench::new(None);
        bench.up();
        for (event, seconds) in events {
            match event {
                0 => bench.up(),
                1 => bench.out.extend(bench.machine.carrier_down()),
                2..=4 if bench.out.iter().any(|output| request(output).is_some()) => {
                    let kind = match event {
                        2 => MessageType::Offer,
                        3 => MessageType::Ack,
                        _ => MessageType::Nak,
                    };
                    bench.answer(kind, |_| {});
                }
                5 => bench.hear_arp(ArpPacket::announcement(OTHER, ADDRESS)),
                _ => bench.pass(seconds),
            }
            holds_no_garbage(&bench.machine);
            if bench.state() != StateName::Down && bench.machine.lease().is_none() {
                prop_assert!(bench.machine.deadline().is_some());
            }
        }
    }
}
