//! Version 1 (cloud-init documentation, "Networking config Version 1").

use std::net::IpAddr;

use super::parts;
use crate::fields::Fields;
use crate::notes::Notes;
use crate::settings::{Bond, Bridge, LinkSettings, Network, Vlan};
use crate::yaml::YamlNode;

/// Translates the mapping that has `version: 1`.
pub(super) fn translate(node: &YamlNode, notes: &mut Notes) -> Network {
    let mut network = Network::default();
    let mut fields = Fields::of(node, "", notes);
    fields.ignore(&["version"]);
    for item in fields.list("config", notes) {
        part(item, &mut network, notes);
    }
    fields.finish(notes);
    network
}

fn part(node: &YamlNode, network: &mut Network, notes: &mut Notes) {
    let kind = node
        .get("type")
        .and_then(YamlNode::text)
        .unwrap_or_default();
    let mut fields = Fields::of(node, "config[]", notes);
    fields.ignore(&["type"]);
    match kind {
        "physical" | "bond" | "bridge" | "vlan" => {
            if let Some(link) = link(kind, node, &mut fields, network, notes) {
                network.link.push(link);
            }
        }
        "nameserver" => {
            names(&mut fields, "address", "search", node, network, notes);
            fields.ignore(&["interface"]);
        }
        "route" => {
            let to = destination(&mut fields, notes);
            let via = gateway(&mut fields, notes);
            let metric = fields.number("metric", notes);
            // A route belongs to the link from which its router is reached.
            let link = via.and_then(|via| reaching(&mut network.link, via));
            match (to, via, link) {
                (Some(to), Some(_), Some(link)) => parts::add_route(link, &to, via, metric),
                _ => notes.at(
                    node.line,
                    "the route is not reached by an address before it and is left out",
                ),
            }
        }
        "loopback" => fields.ignore(&["name", "subnets"]),
        other => {
            let other: String = other.chars().take(40).collect();
            notes.at(
                node.line,
                format!("type {other:?} is not supported and is left out"),
            );
            return;
        }
    }
    fields.finish(notes);
}

fn link(
    kind: &str,
    node: &YamlNode,
    fields: &mut Fields<'_>,
    network: &mut Network,
    notes: &mut Notes,
) -> Option<LinkSettings> {
    let name = fields.text("name", notes).unwrap_or_default();
    if !parts::good_link(name) {
        notes.at(
            node.line,
            "config[].name is no valid name of a link, which is left out",
        );
        return None;
    }
    let mut link = LinkSettings {
        name: name.to_owned(),
        mtu: fields.number("mtu", notes),
        accept_ra: fields.boolean("accept-ra", notes),
        ..LinkSettings::default()
    };
    if let Some(text) = fields.text("mac_address", notes) {
        match parts::mac(text) {
            Some(mac) if kind == "physical" => link.mac = Some(mac),
            Some(_) => notes.at(node.line, "mac_address is not supported: it is not changed"),
            None => notes.at(node.line, "mac_address is no hardware address"),
        }
    }
    match kind {
        "bond" => {
            let members = fields.texts("bond_interfaces", notes);
            let mut bond = Bond {
                members: members.into_iter().map(str::to_owned).collect(),
                ..Bond::default()
            };
            if let Some(parameters) = fields.take("params") {
                bond_parameters(parameters, &mut bond, notes);
            }
            link.bond = Some(bond);
        }
        "bridge" => {
            let members = fields.texts("bridge_interfaces", notes);
            let mut bridge = Bridge {
                members: members.into_iter().map(str::to_owned).collect(),
                stp: None,
            };
            if let Some(parameters) = fields.take("params") {
                let mut parameters = Fields::of(parameters, "config[].params", notes);
                bridge.stp = parameters.boolean("bridge_stp", notes);
                parameters.ignore(&["bridge_fd"]);
                parameters.finish(notes);
            }
            link.bridge = Some(bridge);
        }
        "vlan" => {
            let id: Option<u16> = fields.number("vlan_id", notes);
            let parent = fields.text("vlan_link", notes);
            let (Some(id @ 0..=4094), Some(parent)) = (id, parent) else {
                notes.at(
                    node.line,
                    "a vlan needs vlan_id (0 to 4094) and vlan_link, and is left out",
                );
                return None;
            };
            let parent = parent.to_owned();
            link.vlan = Some(Vlan { id, parent });
        }
        _ => {}
    }
    for subnet in fields.list("subnets", notes) {
        self::subnet(subnet, &mut link, network, notes);
    }
    Some(link)
}

fn subnet(node: &YamlNode, link: &mut LinkSettings, network: &mut Network, notes: &mut Notes) {
    const PATH: &str = "config[].subnets[]";
    let mut fields = Fields::of(node, PATH, notes);
    let kind = fields.text("type", notes).unwrap_or_default();
    match kind {
        "dhcp" | "dhcp4" => link.dhcp4 = true,
        "dhcp6" | "ipv6_dhcpv6-stateful" => link.dhcp6 = true,
        "ipv6_slaac" | "ipv6_dhcpv6-stateless" => link.accept_ra = Some(true),
        "static" | "static6" => {
            let text = fields.text("address", notes).unwrap_or_default();
            let mask = fields.text("netmask", notes);
            match parts::address(text, mask) {
                Some(address) => link.addresses.push(address),
                None => notes.at(
                    node.line,
                    format!("{PATH}.address is no address and is left out"),
                ),
            }
        }
        "manual" => {}
        _ => notes.at(
            node.line,
            format!("{PATH}.type is not supported and is left out"),
        ),
    }
    if let Some(text) = fields.text("gateway", notes) {
        match text.parse() {
            Ok(gateway) => parts::add_route(link, "default", Some(gateway), None),
            Err(_) => notes.at(
                node.line,
                format!("{PATH}.gateway is no address and is left out"),
            ),
        }
    }
    for item in fields.list("routes", notes) {
        let mut route = Fields::of(item, "config[].subnets[].routes[]", notes);
        let to = destination(&mut route, notes);
        let via = gateway(&mut route, notes);
        let metric = route.number("metric", notes);
        route.finish(notes);
        match to {
            Some(to) => parts::add_route(link, &to, via, metric),
            None => notes.at(
                item.line,
                format!("{PATH}.routes[] is no route and is left out"),
            ),
        }
    }
    names(
        &mut fields,
        "dns_nameservers",
        "dns_search",
        node,
        network,
        notes,
    );
    fields.ignore(&[
        "control",
        "ipv4",
        "ipv6",
        "broadcast",
        "scope",
        "pointopoint",
    ]);
    fields.finish(notes);
}

fn names(
    fields: &mut Fields<'_>,
    servers: &str,
    search: &str,
    node: &YamlNode,
    network: &mut Network,
    notes: &mut Notes,
) {
    let words = fields.texts(servers, notes);
    let mut found = Vec::new();
    // Older writers put several into one text.
    for word in words.iter().flat_map(|text| text.split([' ', ','])) {
        match word.parse() {
            Ok(server) => found.push(server),
            Err(_) if word.is_empty() => {}
            Err(_) => notes.at(
                node.line,
                format!("{servers} has no address and is left out"),
            ),
        }
    }
    let domains = fields.texts(search, notes);
    let domains = domains
        .iter()
        .flat_map(|text| text.split_ascii_whitespace())
        .map(str::to_owned)
        .collect();
    network.resolve_with(found, domains);
}

fn destination(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<String> {
    let network = fields.text("network", notes);
    let network = network.or(fields.text("destination", notes))?;
    let mask = fields.text("netmask", notes);
    let mask = mask.or(fields.text("prefix", notes));
    parts::address(network, mask)
}

fn gateway(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<IpAddr> {
    fields.text("gateway", notes)?.parse().ok()
}

/// The link with an address in whose subnet `router` is.
fn reaching(links: &mut [LinkSettings], router: IpAddr) -> Option<&mut LinkSettings> {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    let inside = |text: &String| {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length: u32 = length.parse().ok()?;
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        let same = address.is_ipv4() == router.is_ipv4();
        Some(same && (bits(address) ^ bits(router)) & mask == 0)
    };
    links
        .iter_mut()
        .find(|link| link.addresses.iter().any(|text| inside(text) == Some(true)))
}

fn bond_parameters(node: &YamlNode, bond: &mut Bond, notes: &mut Notes) {
    for entry in node.map().unwrap_or_default() {
        // `bond-mode` and `bond_mode` are both in use, and the kernel's name without either.
        let name = entry.key.replace('-', "_");
        let name = name.strip_prefix("bond_").unwrap_or(&name);
        match (name, entry.node.text()) {
            ("mode", Some(mode)) => bond.mode = Some(mode.to_owned()),
            ("miimon", Some(_)) => {
                bond.miimon = entry
                    .node
                    .integer()
                    .and_then(|value| u32::try_from(value).ok());
            }
            (name, Some(value)) => {
                bond.options.insert(name.to_owned(), value.to_owned());
            }
            (_, None) => notes.at(entry.line, "params[] must be a text and is left out"),
        }
    }
}
