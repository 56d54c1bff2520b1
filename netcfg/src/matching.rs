//! Which link an entry of the configuration is about.

use keelson_model::host::LinkConfig;

use crate::dhcp::arp::mac_text;
use crate::model::Link;

/// Whether an entry of the configuration is about this link.
pub(crate) fn is_meant(wanted: &LinkConfig, link: &Link) -> bool {
    match &wanted.mac {
        Some(mac) => link
            .mac
            .is_some_and(|own| link.physical && mac_text(&own).eq_ignore_ascii_case(mac)),
        // Links of containers and bridges are never taken for a link that a pattern means.
        None if wanted.name.contains(['*', '?']) => {
            link.physical && fits(wanted.name.as_bytes(), link.name.as_bytes())
        }
        None => link.name == wanted.name,
    }
}

/// Whether a name fits a pattern, in which `*` stands for any characters and `?` for one. Both have at
/// most 15 bytes.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            fits(rest, name)
                || name
                    .split_first()
                    .is_some_and(|(_, name)| fits(pattern, name))
        }
        ([b'?', pattern @ ..], [_, name @ ..]) => fits(pattern, name),
        ([wanted, pattern @ ..], [found, name @ ..]) => wanted == found && fits(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, physical: bool) -> Link {
        Link {
            index: 2,
            name: name.into(),
            mac: Some([2, 0, 0, 0, 0, 0xa]),
            ethernet: true,
            physical,
            loopback: false,
            up: true,
            carrier: true,
            mtu: 1500,
            max_mtu: None,
            accept_ra: None,
        }
    }

    fn named(name: &str) -> LinkConfig {
        LinkConfig {
            name: name.to_owned(),
            ..LinkConfig::default()
        }
    }

    #[test]
    fn links_are_meant_by_name_pattern_or_address() {
        let eth10 = link("eth10", true);
        for fitting in ["eth10", "eth*", "*", "eth??", "e*1*", "eth10*"] {
            assert!(is_meant(&named(fitting), &eth10), "{fitting}");
        }
        for other in ["eth1", "eth?", "en*", "eth10?", "", "*eth"] {
            assert!(!is_meant(&named(other), &eth10), "{other}");
        }
        // A bridge is meant by its name only.
        assert!(!is_meant(&named("br*"), &link("br0", false)));
        assert!(is_meant(&named("br0"), &link("br0", false)));
        let by_address = LinkConfig {
            mac: Some("02:00:00:00:00:0A".to_owned()),
            ..named("whatever")
        };
        assert!(is_meant(&by_address, &eth10));
        assert!(!is_meant(&by_address, &link("br0", false)));
    }
}
