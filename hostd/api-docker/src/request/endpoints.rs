//! Parses a client's request for a connection to a network: at the container's creation, and in
//! `POST /networks/{id}/connect`. `hostd-networks` checks what depends on the network itself, such
//! as its subnets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_model::limits::shortened;
use keelson_model::spec::{ConnectionSpec, ContainerLink, Mac};

use crate::error::ApiError;
use crate::wire::EndpointSettings;

/// Option: kernel parameters of the interface, `net.ipv4.conf.IFNAME.log_martians=1,…`.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// Option: the interface's name in the container.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";
/// The placeholder for the interface's name in a kernel parameter.
const PLACEHOLDER: &str = "IFNAME";

/// Longest name of an interface in bytes: `IFNAMSIZ` without the final zero.
const LONGEST_INTERFACE: usize = 15;
/// Longest name in a DNS message, and its longest label, in bytes (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
/// Largest total of a connection's texts in bytes, because they stay in memory as long as the
/// container exists.
const LARGEST: usize = 64 << 10;

/// Parses the settings of a connection to a network. `network` is the client's name for it.
///
/// # Errors
/// The input is invalid. The text names every wrong value, as in Docker.
pub(crate) fn connection(
    network: &str,
    settings: &EndpointSettings,
) -> Result<ConnectionSpec, ApiError> {
    let mut problems = Problems::default();
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let aliases = settings.aliases.clone().unwrap_or_default();
    if !is_user_defined(network) {
        if !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty() {
            problems.add(WrongSetting::AddressOfPredefined);
        }
        if !aliases.is_empty() {
            problems.add(WrongSetting::AliasOfPredefined);
        }
    }
    let ipv4 = given(&ipam.ipv4_address).and_then(|text| problems.take(ipv4(text)));
    let ipv6 = given(&ipam.ipv6_address).and_then(|text| problems.take(ipv6(text)));
    let link_local = ipam.link_local_ips.iter().flatten();
    let link_local = link_local
        .filter_map(|text| problems.take(link_local_address(text)))
        .collect();
    for alias in &aliases {
        problems.take(check_alias(alias));
    }
    let links = settings.links.iter().flatten();
    let links = links
        .filter_map(|text| problems.take(read_link(text)))
        .collect();
    let mac = given(&settings.mac_address).and_then(|text| problems.take(read_mac(text)));
    let mut options = settings.driver_opts.clone();
    let sysctls = options
        .remove(SYSCTLS)
        .map(|list| sysctls(&list, &mut problems));
    let interface = options
        .remove(INTERFACE)
        .filter(|name| !name.is_empty())
        .and_then(|name| problems.take(check_interface(&name).map(|()| name)));
    let size = size(settings);
    if size > LARGEST {
        problems.add(WrongSetting::Large(size));
    }
    problems.none()?;
    Ok(ConnectionSpec {
        network: network.to_owned(),
        aliases,
        links,
        ipv4,
        ipv6,
        link_local,
        mac,
        gateway_priority: settings.gw_priority,
        interface,
        sysctls: sysctls.unwrap_or_default(),
        options,
    })
}

/// Parses `container:alias`, or `container` alone, or `/container:/own/alias` as `inspect` shows
/// it.
///
/// # Errors
/// The input is invalid. The text is Docker's.
pub(crate) fn link(text: &str) -> Result<ContainerLink, ApiError> {
    read_link(text).map_err(|wrong| ApiError::invalid(wrong.to_string()))
}

/// Whether a network is not predefined, by its name.
pub(crate) fn is_user_defined(network: &str) -> bool {
    !matches!(network, "" | "default" | "bridge" | "host" | "none")
}

/// What is wrong with a setting, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum WrongSetting {
    #[error("user specified IP address is supported on user defined networks only")]
    AddressOfPredefined,
    #[error("network-scoped alias is supported only for containers in user defined networks")]
    AliasOfPredefined,
    #[error("invalid {kind} address: {text}")]
    Address { kind: &'static str, text: String },
    #[error(
        "invalid alias {0:?}: it must be a name that DNS can carry, of at most {LONGEST_NAME} bytes in parts of 1 to {LONGEST_LABEL} bytes without spaces"
    )]
    Alias(String),
    #[error("empty string specified for links")]
    EmptyLink,
    #[error("bad format for links: {0}")]
    Link(String),
    #[error("invalid MAC address {text}{reason}")]
    Mac { text: String, reason: &'static str },
    #[error(
        "unrecognised network interface sysctl '{0}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
    )]
    Sysctl(String),
    #[error("expected sysctl '{0}' to have format name=value")]
    SysctlWithoutValue(String),
    #[error(
        "invalid interface name {0:?} ({INTERFACE}): use 1 to {LONGEST_INTERFACE} letters and digits, and not lo, all or default"
    )]
    Interface(String),
    #[error(
        "its texts have {0} bytes, at most {LARGEST} are allowed: use fewer Aliases, Links or DriverOpts"
    )]
    Large(usize),
}

/// All that is wrong. Docker reports it in one message.
#[derive(Default)]
struct Problems(Vec<WrongSetting>);

impl Problems {
    fn add(&mut self, problem: WrongSetting) {
        self.0.push(problem);
    }

    fn take<T>(&mut self, result: Result<T, WrongSetting>) -> Option<T> {
        result.map_err(|problem| self.0.push(problem)).ok()
    }

    fn none(self) -> Result<(), ApiError> {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        let text = match texts.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("* {}", many.join("\n* ")),
        };
        Err(ApiError::invalid(format!(
            "invalid endpoint settings:\n{text}"
        )))
    }
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn ipv4(text: &str) -> Result<Ipv4Addr, WrongSetting> {
    let address = text.parse::<Ipv4Addr>().ok();
    address
        .filter(|address| !address.is_unspecified())
        .ok_or_else(|| wrong_address("IPv4", text))
}

fn ipv6(text: &str) -> Result<Ipv6Addr, WrongSetting> {
    let address = text.parse::<Ipv6Addr>().ok();
    address
        .filter(|address| !address.is_unspecified() && address.to_ipv4_mapped().is_none())
        .ok_or_else(|| wrong_address("IPv6", text))
}

fn link_local_address(text: &str) -> Result<IpAddr, WrongSetting> {
    let address = text.parse::<IpAddr>().ok();
    address
        .filter(|address| !address.is_unspecified())
        .ok_or_else(|| wrong_address("link-local IP", text))
}

fn wrong_address(kind: &'static str, text: &str) -> WrongSetting {
    WrongSetting::Address {
        kind,
        text: text.to_owned(),
    }
}

/// A name that no DNS message can carry would never be found.
fn check_alias(alias: &str) -> Result<(), WrongSetting> {
    let name = alias.strip_suffix('.').unwrap_or(alias);
    let fits = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && !label.contains(|char: char| char.is_whitespace() || char.is_control())
    };
    match name.len() <= LONGEST_NAME && name.split('.').all(fits) {
        true => Ok(()),
        false => {
            let alias = shortened(alias, LONGEST_NAME);
            Err(WrongSetting::Alias(alias.to_string()))
        }
    }
}

fn read_link(text: &str) -> Result<ContainerLink, WrongSetting> {
    let wrong = || Err(WrongSetting::Link(text.to_owned()));
    let link = |container: &str, alias: &str| match container.is_empty() || alias.is_empty() {
        true => wrong(),
        false => Ok(ContainerLink {
            container: container.to_owned(),
            alias: alias.to_owned(),
        }),
    };
    if text.is_empty() {
        return Err(WrongSetting::EmptyLink);
    }
    match text.split_once(':') {
        None => link(text, text),
        Some((_, rest)) if rest.contains(':') => wrong(),
        Some((container, alias)) => match container.strip_prefix('/') {
            Some(container) => link(container, alias.rsplit('/').next().unwrap_or(alias)),
            None => link(container, alias),
        },
    }
}

/// `02:42:ac:11:00:02`, `02-42-ac-11-00-02` or `0242.ac11.0002`.
fn read_mac(text: &str) -> Result<Mac, WrongSetting> {
    let wrong = |reason| {
        Err(WrongSetting::Mac {
            text: text.to_owned(),
            reason,
        })
    };
    let Some(mac) = mac_digits(text).and_then(|digits| {
        let mut mac = Mac::default();
        hex_pairs(&digits, &mut mac).then_some(mac)
    }) else {
        return wrong("");
    };
    if mac == Mac::default() {
        return wrong(": it is zero, which no interface can have");
    }
    match mac.first().is_some_and(|byte| byte & 1 == 1) {
        true => wrong(
            ": it is a group's address, which no interface can have; the last bit of the first byte must be 0",
        ),
        false => Ok(mac),
    }
}

/// The twelve digits, if the separators are in the right places.
fn mac_digits(text: &str) -> Option<String> {
    let (separator, width) = match text {
        text if text.contains('.') => ('.', 4),
        text if text.contains('-') => ('-', 2),
        _ => (':', 2),
    };
    let parts: Vec<&str> = text.split(separator).collect();
    let fits = parts.len() * width == 12 && parts.iter().all(|part| part.len() == width);
    fits.then(|| parts.concat())
}

fn hex_pairs(digits: &str, mac: &mut Mac) -> bool {
    let digits = digits.as_bytes();
    digits.iter().all(u8::is_ascii_hexdigit)
        && digits.len() == 2 * mac.len()
        && mac.iter_mut().zip(digits.chunks(2)).all(|(byte, pair)| {
            let value = std::str::from_utf8(pair).ok();
            let value = value.and_then(|pair| u8::from_str_radix(pair, 16).ok());
            value.inspect(|value| *byte = *value).is_some()
        })
}

/// Parses a list of parameters. The keys are their names, with [`PLACEHOLDER`] in place of the
/// interface's name.
fn sysctls(list: &str, problems: &mut Problems) -> BTreeMap<String, String> {
    let list = list.split(',');
    list.filter_map(|entry| problems.take(sysctl(entry)))
        .collect()
}

fn sysctl(entry: &str) -> Result<(String, String), WrongSetting> {
    let unknown = || WrongSetting::Sysctl(entry.to_owned());
    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
    let parts: Vec<&str> = name.split('.').collect();
    let [net, family, kind, interface, parameter] = parts.as_slice() else {
        return Err(unknown());
    };
    // The command line writes it in lower case.
    let is_placeholder = [PLACEHOLDER, "ifname"].contains(interface);
    if *net != "net" || !matches!(*family, "ipv4" | "ipv6" | "mpls") || !is_placeholder {
        return Err(unknown());
    }
    // The parts become components of a path.
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !plain(kind) || !plain(parameter) {
        return Err(unknown());
    }
    if !entry.contains('=') || value.is_empty() || value.contains(char::is_control) {
        return Err(WrongSetting::SysctlWithoutValue(entry.to_owned()));
    }
    let name = format!("net.{family}.{kind}.{PLACEHOLDER}.{parameter}");
    Ok((name, value.to_owned()))
}

fn check_interface(name: &str) -> Result<(), WrongSetting> {
    // The kernel's rules (`dev_valid_name`), and `%`, which it would put a number for.
    let fits = |char: char| char.is_ascii_graphic() && !matches!(char, '/' | ':' | '%');
    let ok = (1..=LONGEST_INTERFACE).contains(&name.len())
        && name.chars().all(fits)
        && !matches!(name, "." | ".." | "lo" | "all" | "default");
    match ok {
        true => Ok(()),
        false => {
            let name = shortened(name, LARGEST);
            Err(WrongSetting::Interface(name.to_string()))
        }
    }
}

/// The total of all stored texts in bytes.
fn size(settings: &EndpointSettings) -> usize {
    let lists = [&settings.aliases, &settings.links];
    let lists = lists.into_iter().flatten().flatten().map(String::len);
    let options = settings.driver_opts.iter();
    let options = options.map(|(name, value)| name.len() + value.len());
    let addresses = settings
        .ipam_config
        .iter()
        .flat_map(|ipam| &ipam.link_local_ips);
    let addresses = addresses.flatten().map(String::len);
    lists.chain(options).chain(addresses).sum()
}

#[cfg(test)]
mod tests;
