//! Version 2: a subset of netplan (cloud-init documentation, "Networking config Version 2").

use std::net::IpAddr;

use super::parts;
use crate::fields::Fields;
use crate::notes::Notes;
use crate::settings::{Bond, Bridge, LinkSettings, Network, Vlan};
use crate::yaml::YamlNode;

/// Members of a link that say nothing about its state in the end.
const SATISFIED: &[&str] = &[
    "dhcp-identifier",
    "emit-lldp",
    "optional",
    "optional-addresses",
    "renderer",
    "critical",
];
const UNSUPPORTED: &[(&str, &str)] = &[
    ("addresses-label", "addresses have no labels"),
    ("activation-mode", "links are always activated"),
    ("dhcp4-overrides", "leases are used as they are"),
    ("dhcp6-overrides", "leases are used as they are"),
    ("ipv6-privacy", "use host.toml"),
    ("link-local", "use host.toml"),
    ("macaddress", "the hardware address is not changed"),
    ("routing-policy", "use host.toml"),
    ("wakeonlan", "it is not changed"),
    ("auth", "802.1X is not there"),
    ("openvswitch", "Open vSwitch is not there"),
];

/// Translates the mapping that has `version: 2`.
pub(super) fn translate(node: &YamlNode, notes: &mut Notes) -> Network {
    let mut network = Network::default();
    let mut fields = Fields::of(node, "", notes);
    fields.ignore(&["version", "renderer"]);
    for kind in [Kind::Ethernet, Kind::Bond, Kind::Bridge, Kind::Vlan] {
        let Some(links) = fields.take(kind.section()) else {
            continue;
        };
        if links.map().is_none() {
            fields.wrong(links, kind.section(), "a mapping", notes);
        }
        for entry in links.map().unwrap_or_default() {
            if let Some(link) = link(kind, &entry.key, &entry.node, &mut network, notes) {
                network.link.push(link);
            }
        }
    }
    use_final_names(node, &mut network);
    fields.unsupported(
        &[
            ("wifis", "there are no wireless drivers"),
            ("modems", "there are no modems"),
            ("tunnels", "use host.toml"),
            ("vrfs", "use host.toml"),
            ("dummy-devices", "use host.toml"),
            ("openvswitch", "Open vSwitch is not there"),
        ],
        notes,
    );
    fields.finish(notes);
    network
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ethernet,
    Bond,
    Bridge,
    Vlan,
}

impl Kind {
    fn section(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernets",
            Self::Bond => "bonds",
            Self::Bridge => "bridges",
            Self::Vlan => "vlans",
        }
    }
}

fn link(
    kind: Kind,
    id: &str,
    node: &YamlNode,
    network: &mut Network,
    notes: &mut Notes,
) -> Option<LinkSettings> {
    let path = format!(
        "{}.{}",
        kind.section(),
        id.chars().take(40).collect::<String>()
    );
    let mut fields = Fields::of(node, &path, notes);
    let mut link = LinkSettings {
        // Without `match` the id is the name.
        name: id.to_owned(),
        ..LinkSettings::default()
    };
    if let Some(wanted) = fields.take("match") {
        chosen_by(wanted, &path, &mut link, notes);
    }
    let labelled = link.mac.is_some() || link.driver.is_some();
    // Links keep the kernel's names. A link that is not chosen by its name may be called anything.
    if let Some(name) = fields.text("set-name", notes)
        && labelled
    {
        link.name = name.to_owned();
    }
    if !parts::good_link(&link.name) {
        if !labelled {
            notes.at(
                node.line,
                format!("{path} has no valid name of a link and is left out"),
            );
            return None;
        }
        // The id is only a label then.
        link.name = format!("link{}", network.link.len());
    }
    ip(&mut fields, node, &path, &mut link, network, notes);
    let members = |fields: &mut Fields<'_>, notes: &mut Notes| -> Vec<String> {
        let names = fields.texts("interfaces", notes);
        names.into_iter().map(str::to_owned).collect()
    };
    match kind {
        Kind::Ethernet => {}
        Kind::Bond => {
            let mut bond = Bond {
                members: members(&mut fields, notes),
                ..Bond::default()
            };
            if let Some(parameters) = fields.take("parameters") {
                bond_parameters(parameters, &path, &mut bond, notes);
            }
            link.bond = Some(bond);
        }
        Kind::Bridge => {
            let mut bridge = Bridge {
                members: members(&mut fields, notes),
                stp: None,
            };
            if let Some(parameters) = fields.take("parameters") {
                let path = format!("{path}.parameters");
                let mut parameters = Fields::of(parameters, &path, notes);
                bridge.stp = parameters.boolean("stp", notes);
                parameters.finish(notes);
            }
            link.bridge = Some(bridge);
        }
        Kind::Vlan => {
            let id: Option<u16> = fields.number("id", notes);
            let parent = fields.text("link", notes);
            let (Some(id @ 0..=4094), Some(parent)) = (id, parent) else {
                notes.at(
                    node.line,
                    format!("{path} needs id (0 to 4094) and link, and is left out"),
                );
                return None;
            };
            link.vlan = Some(Vlan {
                id,
                parent: parent.to_owned(),
            });
        }
    }
    fields.ignore(SATISFIED);
    fields.unsupported(UNSUPPORTED, notes);
    fields.finish(notes);
    Some(link)
}

/// `match`.
fn chosen_by(node: &YamlNode, path: &str, link: &mut LinkSettings, notes: &mut Notes) {
    let path = format!("{path}.match");
    let mut fields = Fields::of(node, &path, notes);
    if let Some(text) = fields.text("macaddress", notes) {
        link.mac = parts::mac(text);
        if link.mac.is_none() {
            notes.at(
                node.line,
                format!("{path}.macaddress is no hardware address"),
            );
        }
    }
    if let Some(driver) = fields.texts("driver", notes).first() {
        link.driver = Some((*driver).to_owned());
    }
    let name = fields.text("name", notes);
    if let Some(name) = name.filter(|_| link.mac.is_none() && link.driver.is_none()) {
        link.name = name.to_owned();
    }
    fields.finish(notes);
}

/// Addresses, routes, name servers.
fn ip(
    fields: &mut Fields<'_>,
    node: &YamlNode,
    path: &str,
    link: &mut LinkSettings,
    network: &mut Network,
    notes: &mut Notes,
) {
    link.dhcp4 = fields.boolean("dhcp4", notes).unwrap_or(false);
    link.dhcp6 = fields.boolean("dhcp6", notes).unwrap_or(false);
    link.accept_ra = fields.boolean("accept-ra", notes);
    link.mtu = fields.number("mtu", notes);
    for item in fields.list("addresses", notes) {
        // netplan also has {ADDRESS: {label: …}}.
        let text = item
            .text()
            .or_else(|| Some(item.map()?.first()?.key.as_str()));
        match text.and_then(|text| parts::address(text, None)) {
            Some(address) => link.addresses.push(address),
            None => notes.at(
                item.line,
                format!("{path}.addresses[] is no address and is left out"),
            ),
        }
    }
    for item in fields.list("routes", notes) {
        let mut route = Fields::of(item, &format!("{path}.routes[]"), notes);
        let to = route.text("to", notes).unwrap_or_default();
        let via = route.text("via", notes);
        let metric = route.number("metric", notes);
        route.ignore(&["on-link", "type", "scope"]);
        route.unsupported(
            &[("table", "use host.toml"), ("from", "use host.toml")],
            notes,
        );
        route.finish(notes);
        let gateway: Option<IpAddr> = via.and_then(|via| via.parse().ok());
        let whole = match to {
            "default" => Some("default".to_owned()),
            to => parts::address(to, None),
        };
        match whole {
            Some(to) if gateway.is_some() || via.is_none() => {
                parts::add_route(link, &to, gateway, metric);
            }
            _ => notes.at(
                item.line,
                format!("{path}.routes[] is no route and is left out"),
            ),
        }
    }
    // Deprecated, and still in most files.
    for name in ["gateway4", "gateway6"] {
        let Some(text) = fields.text(name, notes) else {
            continue;
        };
        match text.parse() {
            Ok(gateway) => parts::add_route(link, "default", Some(gateway), None),
            Err(_) => notes.at(
                node.line,
                format!("{path}.{name} is no address and is left out"),
            ),
        }
    }
    if let Some(names) = fields.take("nameservers") {
        let path = format!("{path}.nameservers");
        let mut names = Fields::of(names, &path, notes);
        let servers = names.texts("addresses", notes);
        let search = names.texts("search", notes);
        names.finish(notes);
        let servers = servers
            .into_iter()
            .filter_map(|text| {
                let server = text.parse().ok();
                if server.is_none() {
                    notes.at(
                        node.line,
                        format!("{path}.addresses[] is no address and is left out"),
                    );
                }
                server
            })
            .collect();
        let search = search.into_iter().map(str::to_owned).collect();
        network.resolve_with(servers, search);
    }
}

fn bond_parameters(node: &YamlNode, path: &str, bond: &mut Bond, notes: &mut Notes) {
    /// netplan's name, the kernel's.
    const OPTIONS: [(&str, &str); 9] = [
        ("lacp-rate", "lacp_rate"),
        ("transmit-hash-policy", "xmit_hash_policy"),
        ("ad-select", "ad_select"),
        ("primary", "primary"),
        ("up-delay", "updelay"),
        ("down-delay", "downdelay"),
        ("fail-over-mac-policy", "fail_over_mac"),
        ("min-links", "min_links"),
        ("primary-reselect-policy", "primary_reselect"),
    ];
    let path = format!("{path}.parameters");
    let mut fields = Fields::of(node, &path, notes);
    bond.mode = fields.text("mode", notes).map(str::to_owned);
    bond.miimon = fields.number("mii-monitor-interval", notes);
    for (name, kernel) in OPTIONS {
        if let Some(value) = fields.text(name, notes) {
            bond.options.insert(kernel.to_owned(), value.to_owned());
        }
    }
    fields.finish(notes);
}

/// Members and parents are named by id; links may have got another name.
fn use_final_names(node: &YamlNode, network: &mut Network) {
    let mut renamed: Vec<(String, String)> = Vec::new();
    for entry in node
        .get("ethernets")
        .and_then(YamlNode::map)
        .unwrap_or_default()
    {
        let wanted = entry.node.get("match");
        let chosen = |by: &str| wanted.and_then(|wanted| wanted.get(by)?.text());
        let labelled = ["macaddress", "driver"]
            .into_iter()
            .any(|by| chosen(by).is_some());
        let set = entry.node.get("set-name").and_then(YamlNode::text);
        let name = match labelled {
            true => set,
            false => chosen("name"),
        };
        if let Some(name) = name {
            renamed.push((entry.key.clone(), name.to_owned()));
        }
    }
    network.rename_references(&renamed);
}
