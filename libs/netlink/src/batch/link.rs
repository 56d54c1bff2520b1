//! Parses a link from the kernel's message. A message has about sixty attributes. Reading only
//! those that are needed takes a fiftieth of the time that the general parser takes, and a
//! container's start waits for several such messages.

use super::answer::{u16_at, u32_at};
use crate::Link;

/// Length of `struct ifinfomsg`.
const HEADER: usize = 16;

const ETHERNET: u16 = 1;
const FLAG_UP: u32 = 1;
const FLAG_LOOPBACK: u32 = 1 << 3;
const FLAG_CARRIER: u32 = 1 << 16;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const ALIAS: u16 = 20;
const MAX_MTU: u16 = 51;

/// Inside of [`LINK_INFO`].
const KIND: u16 = 1;
const PORT_KIND: u16 = 4;
const PORT_DATA: u16 = 5;

/// Inside of [`PORT_DATA`] of a bridge.
const PORT_STATE: u16 = 1;
const FORWARDING: u8 = 3;

/// The type of an attribute may carry two flags: nested, and network byte order.
const TYPE: u16 = 0x3fff;

/// The link of a message without its header; `None` when it is too short or has no name.
pub(crate) fn link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        name: String::new(),
        mac: None,
        ethernet: false,
        kind: None,
        controller: None,
        parent: None,
        alias: None,
        forwards: None,
        loopback: flags & FLAG_LOOPBACK != 0,
        up: flags & FLAG_UP != 0,
        carrier: flags & FLAG_CARRIER != 0,
        mtu: 0,
        max_mtu: None,
    };
    for (kind, value) in attributes(body.get(HEADER..)?) {
        match kind {
            ADDRESS => link.mac = value.try_into().ok(),
            NAME => link.name = text(value),
            MTU => link.mtu = u32_at(value, 0)?,
            LINK => link.parent = u32_at(value, 0),
            MASTER => link.controller = u32_at(value, 0),
            ALIAS => link.alias = Some(text(value)),
            // Zero means that the driver has no limit.
            MAX_MTU => link.max_mtu = u32_at(value, 0).filter(|mtu| *mtu > 0),
            LINK_INFO => info(value, &mut link),
            _ => {}
        }
    }
    link.ethernet = u16_at(body, 2)? == ETHERNET && link.mac.is_some();
    (!link.name.is_empty()).then_some(link)
}

/// Parses the attributes of virtual links (veth, bridge, dummy, VLAN, tun …) and of ports.
fn info(value: &[u8], link: &mut Link) {
    let mut is_bridges = false;
    for (kind, value) in attributes(value) {
        match kind {
            KIND => link.kind = Some(text(value)),
            PORT_KIND => is_bridges = text(value) == "bridge",
            PORT_DATA if is_bridges => {
                let state = attributes(value).find(|(kind, _)| *kind == PORT_STATE);
                link.forwards = state.map(|(_, value)| value == [FORWARDING]);
            }
            _ => {}
        }
    }
}

/// Returns the types and values of attributes, up to the end or the first truncated one.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A text without the zero at its end.
fn text(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn port() -> Vec<u8> {
        let mut body = vec![0, 0, 1, 0];
        body.extend(7u32.to_ne_bytes());
        body.extend((FLAG_UP | FLAG_CARRIER).to_ne_bytes());
        body.extend([0; 4]);
        body.extend(attribute(NAME, b"veth1\0"));
        body.extend(attribute(ADDRESS, &[2, 0, 0, 0, 0, 1]));
        body.extend(attribute(MTU, &1400u32.to_ne_bytes()));
        body.extend(attribute(MASTER, &3u32.to_ne_bytes()));
        body.extend(attribute(ALIAS, b"text\0"));
        body.extend(attribute(LINK, &2u32.to_ne_bytes()));
        let mut info = attribute(KIND, b"veth\0");
        info.extend(attribute(PORT_KIND, b"bridge\0"));
        // The kernel marks nested attributes.
        info.extend(attribute(PORT_DATA | 0x8000, &attribute(PORT_STATE, &[3])));
        body.extend(attribute(LINK_INFO | 0x8000, &info));
        body
    }

    #[test]
    fn a_port_is_read() {
        let link = link(&port()).unwrap();
        assert_eq!((link.index, link.mtu), (7, 1400));
        assert_eq!(
            (link.name.as_str(), link.kind.as_deref()),
            ("veth1", Some("veth"))
        );
        assert_eq!((link.controller, link.parent), (Some(3), Some(2)));
        assert_eq!(link.alias.as_deref(), Some("text"));
        assert_eq!(link.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(link.forwards, Some(true));
        assert!(link.up && link.carrier && link.ethernet && !link.loopback);
    }

    #[test]
    fn a_message_that_is_cut_off_is_read_without_a_panic() {
        let body = port();
        for length in 0..body.len() {
            if let Some(link) = link(&body[..length]) {
                assert_eq!(link.name, "veth1");
            }
        }
        assert_eq!(link(&[0xff; 64]), None);
    }

    proptest::proptest! {
        /// Reading any answer ends and never panics.
        #[test]
        fn any_bytes_are_read(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            place in 0usize..80,
        ) {
            drop(link(&bytes));
            // Try bytes that are almost a valid link, too.
            let mut body = port();
            for (to, from) in body.iter_mut().skip(place).zip(&bytes) {
                *to = *from;
            }
            drop(link(&body));
            let count = super::super::answer::messages(&bytes).count();
            proptest::prop_assert!(count <= bytes.len() / 16);
        }
    }
}
