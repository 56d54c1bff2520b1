//! The chains and rules. They are the same on every machine and never change, except the rules for
//! packets that do not belong to containers.

use std::net::{Ipv4Addr, Ipv6Addr};

use keelson_nftables::{
    Batch, Chain, ChainKind, Family, Field, Hook, Reject, Rule, Table, Value, Verdict,
};

use super::part::{Elements, Part};
use super::transit::Transit;
use crate::settings::FilterOptions;

/// The table.
pub(super) const TABLE: Table = Table {
    family: Family::Inet,
    name: "keelson",
};

/// Chains to which maps jump.
pub(super) const SEPARATE: &str = "separate";
pub(super) const TO_NAT: &str = "to_nat";
pub(super) const TO_OPEN: &str = "to_open";
pub(super) const TO_ROUTED: &str = "to_routed";
/// All of them, for parsing the verdicts of maps.
pub(super) const TARGETS: &[&str] = &[SEPARATE, TO_NAT, TO_OPEN, TO_ROUTED];

const UNTRACKED: &str = "untracked";
const INPUT: &str = "input";
const FORWARD: &str = "forward";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";
const PUBLISHED: &str = "published";
const DIRECT: &str = "direct";
const REFUSE: &str = "refuse";

/// The usual priorities of nft(8): `raw`, `dstnat`, `filter`, `srcnat`.
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

const CHAINS: &[Chain] = &[
    Chain::base(UNTRACKED, ChainKind::Filter, Hook::Prerouting, RAW),
    Chain::base(INPUT, ChainKind::Filter, Hook::Input, FILTER),
    Chain::base(FORWARD, ChainKind::Filter, Hook::Forward, FILTER),
    Chain::base(PREROUTING, ChainKind::Nat, Hook::Prerouting, DSTNAT),
    Chain::base(OUTPUT, ChainKind::Nat, Hook::Output, DSTNAT),
    Chain::base(POSTROUTING, ChainKind::Nat, Hook::Postrouting, SRCNAT),
    Chain::regular(PUBLISHED),
    Chain::regular(SEPARATE),
    Chain::regular(TO_NAT),
    Chain::regular(TO_OPEN),
    Chain::regular(TO_ROUTED),
    Chain::regular(DIRECT),
    Chain::regular(REFUSE),
];

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

/// The transaction that makes the table anew with all its elements, whatever was there. Packets meet
/// either the old table or the whole new one.
pub(super) fn whole(elements: &Elements, transit: &Transit, options: FilterOptions) -> Batch {
    let mut batch = Batch::new();
    batch.add_table(TABLE);
    batch.delete_table(TABLE);
    batch.add_table(TABLE);
    for chain in CHAINS {
        batch.add_chain(TABLE, chain);
    }
    for part in Part::ALL {
        batch.add_set(TABLE, &part.set());
    }
    for rule in rules(transit, options) {
        batch.add_rule(TABLE, &rule);
    }
    for part in Part::ALL {
        batch.add_elements(TABLE, &part.set(), &elements.of(part));
    }
    batch
}

const fn name(part: Part) -> &'static str {
    part.set().name
}

/// All rules, those of one chain in their order.
pub(super) fn rules(transit: &Transit, options: FilterOptions) -> Vec<Rule> {
    let mut rules = Vec::new();
    rules.extend(untracked());
    rules.extend(input());
    rules.extend(forward(transit, options));
    rules.extend(to_networks(options));
    rules.extend(destinations());
    rules.extend(sources());
    rules
}

/// Ports published at 127.0.0.1 need `route_localnet` on bridges. Without this rule, neighbours on
/// the wire and containers could reach services that listen only at 127.0.0.1 (CVE-2020-8558).
fn untracked() -> Vec<Rule> {
    let loopback = Value::Ipv4(Ipv4Addr::new(127, 0, 0, 0));
    let foreign = || Rule::new(UNTRACKED).family(Family::Ipv4).not_input("lo");
    vec![
        foreign()
            .within(Field::DestinationIpv4, &loopback, 8)
            .verdict(&Verdict::Drop),
        foreign()
            .within(Field::SourceIpv4, &loopback, 8)
            .verdict(&Verdict::Drop),
    ]
}

/// `::1` and link-local addresses can't be translated: IPv6 has no `route_localnet`. The socket
/// that reserves a UDP port would silently take the packets.
fn input() -> Vec<Rule> {
    const SERVICE: &[Field] = &[Field::Protocol, Field::DestinationPort];
    let refused = |network, bits| {
        Rule::new(INPUT)
            .family(Family::Ipv6)
            .within(Field::DestinationIpv6, &Value::Ipv6(network), bits)
            .member(SERVICE, name(Part::Refused6))
            .verdict(&Verdict::Goto(REFUSE))
    };
    let isolated = |family, part| {
        Rule::new(INPUT)
            .family(family)
            .member(&[Field::InputName], name(part))
            .verdict(&Verdict::Drop)
    };
    vec![
        isolated(Family::Ipv4, Part::Isolated4),
        isolated(Family::Ipv6, Part::Isolated6),
        refused(Ipv6Addr::LOCALHOST, 128),
        refused(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        Rule::new(REFUSE).protocol(TCP).reject(Reject::Reset),
        Rule::new(REFUSE).reject(Reject::PortUnreachable),
    ]
}

fn forward(transit: &Transit, options: FilterOptions) -> Vec<Rule> {
    const LINKS: &[Field] = &[Field::InputName, Field::OutputName];
    let mut rules = vec![
        Rule::new(FORWARD)
            .comment("connections that were allowed to begin")
            .known()
            .verdict(&Verdict::Accept),
    ];
    if let Some(mark) = options.accept_mark {
        rules.push(
            Rule::new(FORWARD)
                .comment("marked by somebody else")
                .marked(mark.value, mark.mask)
                .verdict(&Verdict::Accept),
        );
    }
    rules.extend([
        Rule::new(FORWARD)
            .comment("between containers of a network")
            .verdict_of(LINKS, name(Part::Within)),
        Rule::new(FORWARD)
            .comment("out of internal networks")
            .verdict_of(&[Field::InputName], name(Part::From)),
        Rule::new(FORWARD)
            .comment("into networks")
            .family(Family::Ipv4)
            .verdict_of(&[Field::OutputName], name(Part::To4)),
        Rule::new(FORWARD)
            .comment("into networks")
            .family(Family::Ipv6)
            .verdict_of(&[Field::OutputName], name(Part::To6)),
        Rule::new(FORWARD)
            .comment("out of networks")
            .member(&[Field::InputName], name(Part::Bridges))
            .verdict(&Verdict::Accept),
    ]);
    if transit.drop_ipv4 || transit.drop_ipv6 {
        rules.push(
            Rule::new(FORWARD)
                .comment("configured")
                .member(LINKS, name(Part::Transit))
                .verdict(&Verdict::Accept),
        );
    }
    let no_router = |family| {
        Rule::new(FORWARD)
            .comment("this machine is no router")
            .family(family)
            .verdict(&Verdict::Drop)
    };
    rules.extend(transit.drop_ipv4.then(|| no_router(Family::Ipv4)));
    rules.extend(transit.drop_ipv6.then(|| no_router(Family::Ipv6)));
    rules
}

/// Each ends with a drop of its own: the policy of the base chain is somebody else's to change.
fn to_networks(options: FilterOptions) -> Vec<Rule> {
    let redirected = |chain| Rule::new(chain).redirected().verdict(&Verdict::Accept);
    let open = |family, field, part| {
        Rule::new(DIRECT)
            .family(family)
            .member(
                &[field, Field::Protocol, Field::DestinationPort],
                name(part),
            )
            .verdict(&Verdict::Accept)
    };
    let drop = |chain| Rule::new(chain).verdict(&Verdict::Drop);
    vec![
        redirected(SEPARATE),
        drop(SEPARATE),
        redirected(TO_NAT),
        // From links that are trusted, or from all; other networks stay apart.
        match options.direct_routing {
            false => Rule::new(TO_NAT)
                .member(&[Field::InputName, Field::OutputName], name(Part::Trusted))
                .verdict(&Verdict::Goto(DIRECT)),
            true => Rule::new(TO_NAT)
                .not_member(&[Field::InputName], name(Part::Bridges))
                .verdict(&Verdict::Goto(DIRECT)),
        },
        drop(TO_NAT),
        redirected(TO_OPEN),
        // Networks are separated from each other, however open they are to the outside.
        Rule::new(TO_OPEN)
            .member(&[Field::InputName], name(Part::Bridges))
            .verdict(&Verdict::Drop),
        Rule::new(TO_OPEN).verdict(&Verdict::Accept),
        redirected(TO_ROUTED),
        Rule::new(TO_ROUTED)
            .protocol(ICMP)
            .verdict(&Verdict::Accept),
        Rule::new(TO_ROUTED)
            .protocol(ICMPV6)
            .verdict(&Verdict::Accept),
        Rule::new(TO_ROUTED).verdict(&Verdict::Goto(DIRECT)),
        open(Family::Ipv4, Field::DestinationIpv4, Part::Open4),
        open(Family::Ipv6, Field::DestinationIpv6, Part::Open6),
        drop(DIRECT),
    ]
}

/// Published ports, for packets to any address of this machine: from outside, from containers and
/// from this machine itself.
fn destinations() -> Vec<Rule> {
    const SERVICE: &[Field] = &[Field::Protocol, Field::DestinationPort];
    const SERVICE4: &[Field] = &[
        Field::DestinationIpv4,
        Field::Protocol,
        Field::DestinationPort,
    ];
    const SERVICE6: &[Field] = &[
        Field::DestinationIpv6,
        Field::Protocol,
        Field::DestinationPort,
    ];
    let local = |chain| {
        Rule::new(chain)
            .to_local()
            .verdict(&Verdict::Jump(PUBLISHED))
    };
    let published = |family, fields, part| {
        Rule::new(PUBLISHED)
            .family(family)
            .destination_of(family, fields, name(part))
    };
    let not_served = |network, bits| {
        Rule::new(PUBLISHED)
            .family(Family::Ipv6)
            .within(Field::DestinationIpv6, &Value::Ipv6(network), bits)
            .verdict(&Verdict::Return)
    };
    vec![
        local(PREROUTING),
        local(OUTPUT),
        published(Family::Ipv4, SERVICE4, Part::Ports4),
        published(Family::Ipv4, SERVICE, Part::Any4),
        not_served(Ipv6Addr::LOCALHOST, 128),
        not_served(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        published(Family::Ipv6, SERVICE6, Part::Ports6),
        published(Family::Ipv6, SERVICE, Part::Any6),
    ]
}

fn sources() -> Vec<Rule> {
    const LINKS: &[Field] = &[Field::InputName, Field::OutputName];
    const FROM: &[Field] = &[Field::InputName];
    let rule = || Rule::new(POSTROUTING);
    let to_itself = |family, fields: [Field; 2], part| {
        let rule = rule().redirected().family(family);
        rule.member(&fields, name(part)).masquerade()
    };
    vec![
        // Otherwise the answer would go directly from container to container, from an address to
        // which the first one has not sent anything.
        rule()
            .comment("to a published port of the same network")
            .redirected()
            .member(LINKS, name(Part::Same))
            .masquerade(),
        // If a host filters bridged packets (`br_netfilter`), such packets stay within the bridge
        // and have no input link here. The answers then pass here too, so only a container that is
        // its own client must not see its own address.
        to_itself(
            Family::Ipv4,
            [Field::SourceIpv4, Field::DestinationIpv4],
            Part::Self4,
        ),
        to_itself(
            Family::Ipv6,
            [Field::SourceIpv6, Field::DestinationIpv6],
            Part::Self6,
        ),
        rule()
            .member(LINKS, name(Part::Same))
            .verdict(&Verdict::Return),
        // The source may be 127.0.0.1, which means something else in the container.
        rule()
            .comment("from this machine to a published port")
            .redirected()
            .from_local()
            .member(&[Field::OutputName], name(Part::Bridges))
            .masquerade(),
        rule()
            .family(Family::Ipv4)
            .source_of(Family::Ipv4, FROM, name(Part::Source4)),
        rule()
            .family(Family::Ipv6)
            .source_of(Family::Ipv6, FROM, name(Part::Source6)),
        rule()
            .family(Family::Ipv4)
            .member(FROM, name(Part::Masquerade4))
            .masquerade(),
        rule()
            .family(Family::Ipv6)
            .member(FROM, name(Part::Masquerade6))
            .masquerade(),
    ]
}
