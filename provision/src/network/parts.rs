//! Addresses and the like, as foreign documents write them.

use std::net::IpAddr;

use crate::settings::{LinkSettings, RouteSettings};

/// A hardware address in small letters with colons.
pub(super) fn mac(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase().replace('-', ":");
    let parts: Vec<&str> = text.split(':').collect();
    let good = matches!(parts.len(), 6 | 20)
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    good.then_some(text)
}

/// An address with prefix length. The length may stand apart, or be an IPv4 netmask.
pub(super) fn address(text: &str, netmask: Option<&str>) -> Option<String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, netmask),
    };
    let address: IpAddr = address.trim().parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(length) => prefix(length.trim())?,
    };
    (length <= most).then(|| format!("{address}/{length}"))
}

/// A prefix length in digits, or as netmask.
fn prefix(text: &str) -> Option<u32> {
    if let Ok(length) = text.parse() {
        return Some(length);
    }
    let (bits, width) = match text.parse().ok()? {
        IpAddr::V4(mask) => (u128::from(u32::from(mask)) << 96, 32),
        IpAddr::V6(mask) => (u128::from(mask), 128),
    };
    let ones = bits.leading_ones();
    (bits.count_ones() == ones && ones <= width).then_some(ones)
}

/// Adds a route: one to everywhere is a gateway, unless it has a metric.
pub(super) fn add_route(
    link: &mut LinkSettings,
    to: &str,
    via: Option<IpAddr>,
    metric: Option<u32>,
) {
    let default = to == "default" || to.ends_with("/0");
    match via {
        Some(gateway) if default && metric.is_none() => {
            let family = |known: &IpAddr| known.is_ipv4() == gateway.is_ipv4();
            if !link.gateways.iter().any(family) {
                link.gateways.push(gateway);
            }
        }
        _ => {
            let to = match (to, via) {
                ("default", Some(IpAddr::V6(_))) => "::/0".to_owned(),
                ("default", _) => "0.0.0.0/0".to_owned(),
                (to, _) => to.to_owned(),
            };
            link.routes.push(RouteSettings { to, via, metric });
        }
    }
}

/// A name that the kernel takes for a link.
pub(super) fn good_link(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':'))
        && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_forms() {
        assert_eq!(address("192.0.2.1/24", None).unwrap(), "192.0.2.1/24");
        assert_eq!(
            address("192.0.2.1", Some("255.255.255.0")).unwrap(),
            "192.0.2.1/24"
        );
        assert_eq!(address("192.0.2.1", Some("24")).unwrap(), "192.0.2.1/24");
        assert_eq!(
            address("192.0.2.1/255.255.0.0", None).unwrap(),
            "192.0.2.1/16"
        );
        assert_eq!(
            address("2001:db8::1", Some("64")).unwrap(),
            "2001:db8::1/64"
        );
        assert_eq!(
            address("2001:db8::1", Some("ffff:ffff::")).unwrap(),
            "2001:db8::1/32"
        );
        assert_eq!(address("192.0.2.1", None).unwrap(), "192.0.2.1/32");
        for wrong in [
            "192.0.2.1/33",
            "192.0.2.1/255.0.255.0",
            "x/24",
            "",
            "192.0.2.1/-1",
        ] {
            assert_eq!(address(wrong, None), None, "{wrong}");
        }
        assert_eq!(mac("52-54-00-AB-cd-01").unwrap(), "52:54:00:ab:cd:01");
        assert_eq!(mac("52:54:00:ab:cd"), None);
    }
}
