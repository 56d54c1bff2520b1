//! Checks of values that have the right type but may not be valid.

mod keys;
mod logs;
mod machine;
mod services;
mod words;

pub use machine::{parse_mode, sysctl_path};

use std::collections::HashSet;
use std::net::IpAddr;

use keelson_model::host::{
    EngineConfig, LinkConfig, MachineConfig, NetworkConfig, NetworksConfig, RegistriesConfig,
    UserNamespacesConfig,
};
use keelson_model::ip::IpPrefix;
use keelson_model::mark::PacketMark;
use keelson_model::users::UserRange;

use crate::path;

/// A wrong value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Path of the field.
    pub(crate) field: String,
    /// What is wrong, the value included.
    pub(crate) message: String,
    /// The remedy, if the schema's general remedy does not fit.
    pub(crate) remedy: Option<String>,
}

/// Checks the values of one layer. Lists are replaced whole when layers are merged, so nothing
/// here depends on another layer.
pub(crate) fn check(config: &MachineConfig) -> Vec<Fault> {
    let mut faults = Faults::default();
    if let Some(name) = &config.hostname
        && let Err(why) = check_host_name(name)
    {
        faults.add("hostname", format!("\"{name}\" {why}"));
    }
    check_network(&config.network, &mut faults);
    let mut listen = HashSet::new();
    for (index, address) in config.api.listen.iter().enumerate() {
        let field = format!("api.listen[{index}]");
        if address.port() == 0 {
            faults.add(&field, format!("\"{address}\" has port 0"));
        }
        if address.ip().is_multicast() {
            faults.add(&field, format!("\"{address}\" is a multicast address"));
        }
        if !listen.insert(address) {
            faults.add(&field, format!("\"{address}\" stands in the list twice"));
        }
    }
    for (index, server) in config.time.servers.iter().enumerate() {
        let good = match server.parse::<IpAddr>() {
            Ok(address) => check_unicast(address),
            Err(_) => check_domain_name(server),
        };
        if let Err(why) = good {
            faults.add(
                &format!("time.servers[{index}]"),
                format!("\"{server}\" {why}"),
            );
        }
    }
    check_engine(&config.engine, &mut faults);
    check_networks(&config.engine.networks, &mut faults);
    check_registries(&config.registries, &mut faults);
    services::check(&config.services, &mut faults);
    logs::check(&config.logs, &mut faults);
    machine::check(config, &mut faults);
    faults.list
}

fn check_network(network: &NetworkConfig, faults: &mut Faults) {
    let mut names = HashSet::new();
    for (index, link) in network.link.iter().enumerate() {
        let path = format!("network.link[{index}]");
        if !names.insert(link.name.as_str()) {
            faults.advise(
                &format!("{path}.name"),
                format!("\"{}\" is configured twice", link.name),
                "write one [[network.link]] for each link",
            );
        }
        check_link(link, &path, faults);
    }
    for (index, server) in network.nameservers.iter().enumerate() {
        // 127.0.0.0/8 and ::1 are valid here: a local resolver may run on the machine.
        if server.is_unspecified() || server.is_multicast() {
            faults.add(
                &format!("network.nameservers[{index}]"),
                format!("\"{server}\" is not the address of one machine"),
            );
        }
    }
    for (index, domain) in network.search.iter().enumerate() {
        if let Err(why) = check_domain_name(domain) {
            faults.add(
                &format!("network.search[{index}]"),
                format!("\"{domain}\" {why}"),
            );
        }
    }
}

fn check_link(link: &LinkConfig, path: &str, faults: &mut Faults) {
    if let Err(why) = check_link_name(&link.name) {
        faults.add(&format!("{path}.name"), format!("\"{}\" {why}", link.name));
    }
    for (index, text) in link.addresses.iter().enumerate() {
        let field = format!("{path}.addresses[{index}]");
        let checked = match text.parse::<IpPrefix>() {
            Ok(prefix) => check_unicast(prefix.address).map_err(str::to_owned),
            Err(error) => Err(format!("cannot be used: {error}")),
        };
        if let Err(why) = checked {
            faults.add(&field, format!("\"{text}\" {why}"));
        }
    }
    for (index, gateway) in link.gateways.iter().enumerate() {
        let field = format!("{path}.gateways[{index}]");
        if let Err(why) = check_unicast(*gateway) {
            faults.add(&field, format!("\"{gateway}\" {why}"));
        }
        let family = gateway.is_ipv4();
        if link
            .gateways
            .iter()
            .take(index)
            .any(|other| other.is_ipv4() == family)
        {
            faults.add(
                &field,
                format!("\"{gateway}\" is the second gateway of its family"),
            );
        }
        let addressed = link
            .addresses
            .iter()
            .filter_map(|text| text.parse::<IpPrefix>().ok())
            .any(|prefix| prefix.address.is_ipv4() == family);
        // The kernel refuses an IPv4 route on a link without an address. IPv6 always has a
        // link-local address.
        if family && !addressed {
            faults.advise(
                &field,
                format!("\"{gateway}\" is a gateway on a link without an address of its family"),
                "add an address to addresses, or leave the gateway to DHCP",
            );
        }
    }
    if let Some(mac) = &link.mac
        && !is_mac(mac)
    {
        faults.add(
            &format!("{path}.mac"),
            format!("\"{mac}\" is no hardware address"),
        );
    }
    if let Some(mtu) = link.mtu
        && !(576..=65535).contains(&mtu)
    {
        faults.add(&format!("{path}.mtu"), format!("{mtu} is out of range"));
    }
}

/// Six pairs of hexadecimal digits with colons.
fn is_mac(text: &str) -> bool {
    let pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(pair)
}

fn check_engine(engine: &EngineConfig, faults: &mut Faults) {
    if engine.stop_timeout > 86_400 {
        faults.add(
            "engine.stop_timeout",
            format!("{} is out of range", engine.stop_timeout),
        );
    }
    if engine.log_max_size < 64 << 10 {
        faults.add(
            "engine.log_max_size",
            format!("{} is too small", engine.log_max_size),
        );
    }
    if !(1..=1000).contains(&engine.log_max_files) {
        faults.add(
            "engine.log_max_files",
            format!("{} is out of range", engine.log_max_files),
        );
    }
    for path in engine
        .cdi_directories
        .iter()
        .filter(|path| !path.is_absolute())
    {
        faults.add(
            "engine.cdi_directories",
            format!("{} is not an absolute path", path.display()),
        );
    }
    check_users(&engine.user_namespaces, faults);
    for (name, runtime) in &engine.runtimes {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            faults.add(
                "engine.runtimes",
                format!("{name:?} is no name of a runtime"),
            );
        }
        if !runtime.path.is_absolute() {
            faults.add(
                &path::join(&path::join("engine.runtimes", name), "path"),
                format!("{} is not an absolute path", runtime.path.display()),
            );
        }
    }
}

/// Ids below this belong to the host's own users, and 65534 is nobody.
const FIRST_USER: u32 = 65_536;

fn check_users(users: &UserNamespacesConfig, faults: &mut Faults) {
    let UserNamespacesConfig { base, size, .. } = *users;
    if base < FIRST_USER {
        faults.add(
            "engine.user_namespaces.base",
            format!("{base} is too small"),
        );
    }
    // With fewer, the "nobody" of most images does not exist.
    if size < FIRST_USER {
        faults.add(
            "engine.user_namespaces.size",
            format!("{size} is too small"),
        );
    }
    if !(UserRange { base, size }).is_valid() {
        faults.add(
            "engine.user_namespaces.size",
            format!("{size} ids from {base} on are more than there are"),
        );
    }
}

/// Whether a range lies in a subnet.
fn is_part(range: IpPrefix, subnet: IpPrefix) -> bool {
    range.length >= subnet.length && subnet.contains(range.address)
}

fn check_networks(networks: &NetworksConfig, faults: &mut Faults) {
    const AT: &str = "engine.networks";
    let bridge = networks.bridge.as_str();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..16).contains(&bridge.len()) || !bridge.bytes().all(is_plain) || bridge.starts_with('.')
    {
        faults.add(
            &format!("{AT}.bridge"),
            format!("{bridge:?} is no name of a link"),
        );
    }
    for (member, address, ipv6) in [
        ("address", &networks.address, false),
        ("address_ipv6", &networks.address_ipv6, true),
    ] {
        let Some(text) = address else { continue };
        let why = match text.parse::<IpPrefix>() {
            Ok(prefix) if prefix.address.is_ipv6() == ipv6 => continue,
            Ok(_) => "is of the other family".to_owned(),
            Err(error) => error.to_string(),
        };
        faults.add(&format!("{AT}.{member}"), format!("\"{text}\": {why}"));
    }
    for (member, range, address) in [
        ("range", &networks.range, &networks.address),
        ("range_ipv6", &networks.range_ipv6, &networks.address_ipv6),
    ] {
        let Some(text) = range else { continue };
        let address = address.as_ref().and_then(|text| text.parse().ok());
        let why = match (text.parse::<IpPrefix>(), address) {
            (Err(error), _) => error.to_string(),
            (Ok(_), None) => "there is no address whose subnet it could be a part of".to_owned(),
            (Ok(range), Some(subnet)) if !is_part(range, subnet) => {
                format!("is no part of the subnet of {subnet}")
            }
            (Ok(_), Some(_)) => continue,
        };
        faults.add(&format!("{AT}.{member}"), format!("\"{text}\": {why}"));
    }
    if let Some(text) = &networks.accept_mark
        && let Err(error) = text.parse::<PacketMark>()
    {
        faults.add(&format!("{AT}.accept_mark"), error.to_string());
    }
    if let Some(mtu) = networks.mtu
        && !(68..=65535).contains(&mtu)
    {
        faults.add(&format!("{AT}.mtu"), format!("{mtu} is out of range"));
    }
    for (index, pool) in networks.address_pools.iter().enumerate() {
        let why = match pool.base.parse::<IpPrefix>() {
            Ok(base) => {
                let most = if base.address.is_ipv6() { 128 } else { 32 };
                if (base.length..=most).contains(&pool.size) {
                    continue;
                }
                format!(
                    "size {} is not between {} and {most}",
                    pool.size, base.length
                )
            }
            Err(error) => format!("base \"{}\": {error}", pool.base),
        };
        faults.add(&format!("{AT}.address_pools[{index}]"), why);
    }
}

fn check_registries(registries: &RegistriesConfig, faults: &mut Faults) {
    if let Some(path) = &registries.auth_file
        && !path.starts_with('/')
    {
        faults.add(
            "registries.auth_file",
            format!("\"{path}\" is not an absolute path"),
        );
    }
    for (index, mirror) in registries.mirrors.iter().enumerate() {
        let rest = mirror
            .strip_prefix("https://")
            .or_else(|| mirror.strip_prefix("http://"));
        let good = match rest {
            Some(rest) => check_authority(rest.strip_suffix('/').unwrap_or(rest)),
            None => Err("begins with neither https:// nor http://"),
        };
        if let Err(why) = good {
            faults.add(
                &format!("registries.mirrors[{index}]"),
                format!("\"{mirror}\" {why}"),
            );
        }
    }
    for (index, rule) in registries.insecure.iter().enumerate() {
        let good = match rule.contains('/') {
            true => match rule.parse::<IpPrefix>() {
                Ok(_) => Ok(()),
                Err(_) => Err("is neither a host nor a prefix"),
            },
            false => check_authority(rule),
        };
        if let Err(why) = good {
            faults.add(
                &format!("registries.insecure[{index}]"),
                format!("\"{rule}\" {why}"),
            );
        }
    }
}

/// Whether `text` is `host`, `host:port`, `[v6]` or `[v6]:port`.
fn check_authority(text: &str) -> Result<(), &'static str> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("has brackets around what is no IPv6 address");
            }
            (
                "",
                port.strip_prefix(':').or((!port.is_empty()).then_some("")),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("has no valid port");
    }
    match text.starts_with('[') {
        true => Ok(()),
        false => check_domain_name(host),
    }
}

/// Whether `name` is one label of a host name (RFC 1123).
///
/// # Errors
/// The end of a sentence that begins with the name.
pub fn check_host_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > 63 {
        return Err("is longer than 63 characters");
    }
    if name.contains('.') {
        return Err("has a dot: it is the machine's name without the domain");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Err("has characters other than letters, digits and hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err("begins or ends with a hyphen");
    }
    Ok(())
}

/// Whether `name` is a domain name of host name labels, with or without the final dot.
/// Underscores are allowed, as in many private domains.
///
/// # Errors
/// The end of a sentence that begins with the name.
pub fn check_domain_name(name: &str) -> Result<(), &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > 253 {
        return Err("is longer than 253 characters");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("has a label that is empty or longer than 63 characters");
        }
        if !label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return Err("has characters other than letters, digits, hyphens and dots");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("has a label that begins or ends with a hyphen");
        }
    }
    Ok(())
}

/// Whether the kernel accepts `name` as the name of a link, and the link may be configured.
///
/// # Errors
/// The end of a sentence that begins with the name.
pub fn check_link_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => return Err("is empty"),
        "." | ".." => return Err("is not a name"),
        "lo" => return Err("is the loopback link, which needs no configuration"),
        _ => {}
    }
    // IFNAMSIZ counts the final NUL.
    if name.len() > 15 {
        return Err("is longer than 15 bytes");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
    {
        return Err("has a blank, a slash, a colon or a character that is not ASCII");
    }
    Ok(())
}

fn check_unicast(address: IpAddr) -> Result<(), &'static str> {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || broadcast || address.is_multicast() {
        return Err("is not the address of one machine");
    }
    if address.is_loopback() {
        return Err("is a loopback address");
    }
    Ok(())
}

#[derive(Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
}

impl Faults {
    pub(crate) fn add(&mut self, field: &str, message: String) {
        self.list.push(Fault {
            field: field.to_owned(),
            message,
            remedy: None,
        });
    }

    pub(crate) fn advise(&mut self, field: &str, message: String, remedy: &str) {
        self.list.push(Fault {
            field: field.to_owned(),
            message,
            remedy: Some(remedy.to_owned()),
        });
    }
}
