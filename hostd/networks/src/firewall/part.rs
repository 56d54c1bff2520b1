//! The sets and maps of the table, and elements of them.

use std::collections::BTreeMap;
use std::collections::btree_map;

use keelson_nftables::{Data, Datum, Element, Kind, Set, Value};

use Kind::{Ipv4, Ipv6, Name, Port, Protocol};

/// A set or map of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    /// The bridges of networks.
    Bridges,
    /// A bridge, twice: matches packets that go back to the bridge from which they came.
    Same,
    /// A bridge, twice: the verdict on packets between its containers that pass through the host.
    Within,
    /// A bridge: the verdict on packets that leave its network.
    From,
    /// A bridge: the verdict on IPv4 packets that enter its network.
    To4,
    /// The same for IPv6.
    To6,
    /// Bridges whose containers must not reach the host by IPv4.
    Isolated4,
    /// The same for IPv6.
    Isolated6,
    /// A link of the host and a bridge: neighbours on the link reach published ports directly.
    Trusted,
    /// Bridges: packets that leave them get the address of the outgoing link.
    Masquerade4,
    /// The same for IPv6.
    Masquerade6,
    /// A bridge: packets that leave it get this source address.
    Source4,
    /// The same for IPv6.
    Source6,
    /// Address of a container that publishes ports, twice: matches packets to itself.
    Self4,
    /// The same for IPv6.
    Self6,
    /// Address of the host, protocol and port: the target's address and port.
    Ports4,
    /// The same for IPv6.
    Ports6,
    /// Protocol and port, at any address of the host: the target's address and port.
    Any4,
    /// The same for IPv6.
    Any6,
    /// Address of a container, protocol and port that are reached directly.
    Open4,
    /// The same for IPv6.
    Open6,
    /// Protocol and port published at `::1` or a link-local address, which can't be served.
    Refused6,
    /// Two links of the host between which other packets than those of containers are forwarded.
    Transit,
}

impl Part {
    pub(super) const ALL: [Self; 23] = [
        Self::Bridges,
        Self::Same,
        Self::Within,
        Self::From,
        Self::To4,
        Self::To6,
        Self::Isolated4,
        Self::Isolated6,
        Self::Trusted,
        Self::Masquerade4,
        Self::Masquerade6,
        Self::Source4,
        Self::Source6,
        Self::Self4,
        Self::Self6,
        Self::Ports4,
        Self::Ports6,
        Self::Any4,
        Self::Any6,
        Self::Open4,
        Self::Open6,
        Self::Refused6,
        Self::Transit,
    ];

    pub(super) const fn set(self) -> Set {
        const BRIDGE: &[Kind] = &[Name];
        const LINKS: &[Kind] = &[Name, Name];
        const TWICE4: &[Kind] = &[Ipv4, Ipv4];
        const TWICE6: &[Kind] = &[Ipv6, Ipv6];
        const SERVICE4: &[Kind] = &[Ipv4, Protocol, Port];
        const SERVICE6: &[Kind] = &[Ipv6, Protocol, Port];
        const SERVICE: &[Kind] = &[Protocol, Port];
        const PLACE4: Option<Data> = Some(Data::Values(&[Ipv4, Port]));
        const PLACE6: Option<Data> = Some(Data::Values(&[Ipv6, Port]));
        let (name, key, data) = match self {
            Self::Bridges => ("bridges", BRIDGE, None),
            Self::Same => ("same", LINKS, None),
            Self::Within => ("within", LINKS, Some(Data::Verdict)),
            Self::From => ("from", BRIDGE, Some(Data::Verdict)),
            Self::To4 => ("to4", BRIDGE, Some(Data::Verdict)),
            Self::To6 => ("to6", BRIDGE, Some(Data::Verdict)),
            Self::Isolated4 => ("isolated4", BRIDGE, None),
            Self::Isolated6 => ("isolated6", BRIDGE, None),
            Self::Trusted => ("trusted", LINKS, None),
            Self::Masquerade4 => ("masquerade4", BRIDGE, None),
            Self::Masquerade6 => ("masquerade6", BRIDGE, None),
            Self::Source4 => ("source4", BRIDGE, Some(Data::Values(&[Ipv4]))),
            Self::Source6 => ("source6", BRIDGE, Some(Data::Values(&[Ipv6]))),
            Self::Self4 => ("self4", TWICE4, None),
            Self::Self6 => ("self6", TWICE6, None),
            Self::Ports4 => ("ports4", SERVICE4, PLACE4),
            Self::Ports6 => ("ports6", SERVICE6, PLACE6),
            Self::Any4 => ("any4", SERVICE, PLACE4),
            Self::Any6 => ("any6", SERVICE, PLACE6),
            Self::Open4 => ("open4", SERVICE4, None),
            Self::Open6 => ("open6", SERVICE6, None),
            Self::Refused6 => ("refused6", SERVICE, None),
            Self::Transit => ("transit", LINKS, None),
        };
        Set { name, key, data }
    }
}

/// Elements of the table's sets and maps, which networks and endpoints add to the packet filter.
/// There is one for each key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Elements(BTreeMap<(Part, Vec<Value>), Option<Datum>>);

impl Elements {
    /// Adds the elements of another network or endpoint.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there are no elements.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn put(&mut self, part: Part, key: impl Into<Vec<Value>>, datum: Option<Datum>) {
        self.0.insert((part, key.into()), datum);
    }

    pub(super) fn get(&self, part: Part, key: &[Value]) -> Option<&Option<Datum>> {
        self.0.get(&(part, key.to_vec()))
    }

    pub(super) fn contains(&self, part: Part, key: &[Value], datum: &Option<Datum>) -> bool {
        self.get(part, key) == Some(datum)
    }

    pub(super) fn remove(&mut self, part: Part, key: &[Value]) {
        self.0.remove(&(part, key.to_vec()));
    }

    /// All elements, grouped by set.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Part, &[Value], &Option<Datum>)> {
        let all: btree_map::Iter<'_, _, _> = self.0.iter();
        all.map(|((part, key), datum)| (*part, key.as_slice(), datum))
    }

    /// The elements of one set, in the kernel's form.
    pub(super) fn of(&self, part: Part) -> Vec<Element> {
        let first = (part, Vec::new());
        let from = self.0.range(first..);
        from.take_while(|((found, _), _)| *found == part)
            .map(|((_, key), datum)| Element {
                key: key.clone(),
                datum: datum.clone(),
            })
            .collect()
    }
}
