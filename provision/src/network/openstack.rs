//! OpenStack's `network_data.json` (nova specification "metadata-service-network-info").

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::parts;
use crate::notes::Notes;
use crate::settings::{Bond, LinkSettings, Network, Vlan};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    links: Vec<WireLink>,
    networks: Vec<WireNetwork>,
    services: Vec<Service>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireLink {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    ethernet_mac_address: Option<String>,
    mtu: Option<u32>,
    bond_links: Vec<String>,
    bond_mode: Option<String>,
    bond_miimon: Option<u32>,
    vlan_id: Option<u16>,
    vlan_link: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireNetwork {
    link: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    ip_address: Option<String>,
    netmask: Option<String>,
    gateway: Option<String>,
    routes: Vec<WireRoute>,
    dns_nameservers: Vec<String>,
    services: Vec<Service>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireRoute {
    network: String,
    netmask: Option<String>,
    gateway: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    address: Option<String>,
}

/// Translates `network_data.json`.
///
/// # Errors
/// It is no such document.
pub fn translate(bytes: &[u8], notes: &mut Notes) -> Result<Network, serde_json::Error> {
    let document: Document = serde_json::from_slice(bytes)?;
    let mut network = Network::default();
    let mut links: Vec<(String, LinkSettings)> = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for wire in &document.links {
        let name = wire.name.clone().filter(|name| parts::good_link(name));
        let name = name.unwrap_or_else(|| match (wire.kind.as_deref(), wire.vlan_id) {
            (Some("vlan"), Some(id)) => format!("vlan{id}"),
            (kind, _) => {
                let stem = if kind == Some("bond") { "bond" } else { "eth" };
                let count = counts.entry(stem).or_default();
                *count += 1;
                format!("{stem}{}", *count - 1)
            }
        });
        links.push((
            wire.id.clone(),
            LinkSettings {
                name,
                mtu: wire.mtu,
                ..LinkSettings::default()
            },
        ));
    }
    let names: Vec<(String, String)> = links
        .iter()
        .map(|(id, link)| (id.clone(), link.name.clone()))
        .collect();
    let named = |id: &String| {
        let found = names.iter().find(|(known, _)| known == id);
        found.map_or_else(|| id.clone(), |(_, name)| name.clone())
    };
    for (wire, (_, link)) in document.links.iter().zip(&mut links) {
        let mac = wire.ethernet_mac_address.as_deref().and_then(parts::mac);
        match wire.kind.as_deref() {
            Some("bond") => {
                link.bond = Some(Bond {
                    members: wire.bond_links.iter().map(named).collect(),
                    mode: wire.bond_mode.clone(),
                    miimon: wire.bond_miimon,
                    ..Bond::default()
                });
            }
            Some("vlan") => match (wire.vlan_id, &wire.vlan_link) {
                (Some(id @ 0..=4094), Some(parent)) => {
                    let parent = named(parent);
                    link.vlan = Some(Vlan { id, parent });
                }
                _ => notes.say(format!("vlan {:?} has no vlan_id or vlan_link", link.name)),
            },
            _ => link.mac = mac,
        }
    }
    for item in &document.networks {
        let Some((_, link)) = links.iter_mut().find(|(id, _)| *id == item.link) else {
            notes.say("a network belongs to a link that is not there and is left out");
            continue;
        };
        add(item, link, &mut network, notes);
    }
    let servers = addresses(&document.services);
    network.resolve_with(servers, Vec::new());
    network.link = links.into_iter().map(|(_, link)| link).collect();
    Ok(network)
}

fn add(item: &WireNetwork, link: &mut LinkSettings, network: &mut Network, notes: &mut Notes) {
    match item.kind.as_deref() {
        Some("ipv4_dhcp") => link.dhcp4 = true,
        Some("ipv6_dhcp" | "ipv6_dhcpv6-stateful") => link.dhcp6 = true,
        Some("ipv6_slaac" | "ipv6_dhcpv6-stateless") => link.accept_ra = Some(true),
        Some("ipv4" | "ipv6") => {
            let text = item.ip_address.as_deref().unwrap_or_default();
            match parts::address(text, item.netmask.as_deref()) {
                Some(address) => link.addresses.push(address),
                None => notes.say("a network has no valid ip_address, which is left out"),
            }
        }
        _ => notes.say("a network has an unknown type and is left out"),
    }
    let router = |text: &Option<String>| -> Option<IpAddr> { text.as_deref()?.parse().ok() };
    if let Some(gateway) = router(&item.gateway) {
        parts::add_route(link, "default", Some(gateway), None);
    }
    for route in &item.routes {
        let to = parts::address(&route.network, route.netmask.as_deref());
        match (to, router(&route.gateway)) {
            (Some(to), via @ Some(_)) => parts::add_route(link, &to, via, None),
            _ => notes.say("a route of a network is none and is left out"),
        }
    }
    let mut servers = addresses(&item.services);
    servers.extend(
        item.dns_nameservers
            .iter()
            .filter_map(|text| text.parse::<IpAddr>().ok()),
    );
    network.resolve_with(servers, Vec::new());
}

fn addresses(services: &[Service]) -> Vec<IpAddr> {
    services
        .iter()
        .filter(|service| service.kind == "dns")
        .filter_map(|service| service.address.as_deref()?.parse().ok())
        .collect()
}
