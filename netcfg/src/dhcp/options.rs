//! The options of a DHCPv4 answer: joined as RFC 3396 says, and read as RFC 2132, RFC 3397 and RFC
//! 3442 say.
//!
//! All parts of an option form one value, wherever they are: adjacent, apart, or in the fields for
//! the boot file and the server's name. The codec of the crate `dhcproto` joins only adjacent
//! parts, and some of its decoders panic, so values are read here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use keelson_config::{check_domain_name, check_host_name};

const MAX_DOMAINS: usize = 16;
/// Longest name of the domain system, in characters.
const MAX_NAME: usize = 253;

/// Numbers of the options that are read or asked for (RFC 2132 unless said otherwise).
#[allow(missing_docs)] // Named after their options.
pub mod code {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DOMAIN_NAME_SERVER: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const INTERFACE_MTU: u8 = 26;
    pub const NTP_SERVERS: u8 = 42;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_IDENTIFIER: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    /// RFC 3397.
    pub const DOMAIN_SEARCH: u8 = 119;
    /// RFC 3442.
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// The number that Microsoft's servers used for this option before RFC 3442.
    pub const CLASSLESS_ROUTES_MICROSOFT: u8 = 249;
    pub const END: u8 = 255;
}

/// The options of an answer. An option is absent if it was missing or wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Most fields are named after their options (RFC 2132).
pub struct MessageOptions {
    pub mask: Option<Ipv4Addr>,
    pub routers: Vec<Ipv4Addr>,
    /// Destination, prefix length, router (0.0.0.0: on the link).
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    pub nameservers: Vec<Ipv4Addr>,
    pub search: Vec<String>,
    pub ntp_servers: Vec<Ipv4Addr>,
    pub mtu: Option<u16>,
    pub hostname: Option<String>,
    pub lease: Option<u32>,
    pub renew: Option<u32>,
    pub rebind: Option<u32>,
    pub server: Option<Ipv4Addr>,
    /// The server's words, printable characters only.
    pub message: Option<String>,
}

/// The values of all options of a message, by number. Each is joined from all its parts.
#[derive(Debug, Default)]
pub(super) struct Gathered(BTreeMap<u8, Vec<u8>>);

impl Gathered {
    /// Reads the options of a complete message, whose fixed part ends at byte 240.
    ///
    /// The order is that of RFC 3396 §5: the options field, the boot file's field, the server
    /// name's. Option 52 says which of those two have options; it counts only in the options field.
    pub(super) fn of(message: &[u8]) -> Self {
        let mut all = Self::default();
        all.add(message.get(240..).unwrap_or_default());
        let (file, server_name) = match all.byte(code::OVERLOAD) {
            Some(1) => (true, false),
            Some(2) => (false, true),
            Some(3) => (true, true),
            _ => (false, false),
        };
        if file {
            all.add(message.get(108..236).unwrap_or_default());
        }
        if server_name {
            all.add(message.get(44..108).unwrap_or_default());
        }
        all
    }

    /// A part that is cut off ends the field, as its end mark does.
    fn add(&mut self, mut field: &[u8]) {
        while let Some((number, rest)) = field.split_first() {
            match *number {
                code::PAD => field = rest,
                code::END => return,
                number => {
                    let Some((length, rest)) = rest.split_first() else {
                        return;
                    };
                    let Some((part, rest)) = rest.split_at_checked(usize::from(*length)) else {
                        return;
                    };
                    self.0.entry(number).or_default().extend(part);
                    field = rest;
                }
            }
        }
    }

    fn value(&self, number: u8) -> &[u8] {
        self.0.get(&number).map_or(&[], Vec::as_slice)
    }

    /// The first `N` bytes. There are more if a server sent an option of a fixed length twice; then
    /// the first one counts.
    fn fixed<const N: usize>(&self, number: u8) -> Option<[u8; N]> {
        let value = self.value(number);
        value.len().is_multiple_of(N).then_some(())?;
        value.first_chunk().copied()
    }

    pub(super) fn byte(&self, number: u8) -> Option<u8> {
        self.fixed(number).map(u8::from_be_bytes)
    }

    fn number(&self, number: u8) -> Option<u32> {
        self.fixed(number).map(u32::from_be_bytes)
    }

    fn address(&self, number: u8) -> Option<Ipv4Addr> {
        self.fixed::<4>(number).map(Ipv4Addr::from)
    }

    /// `None` if the length is not a multiple of an address.
    fn addresses(&self, number: u8) -> Vec<Ipv4Addr> {
        let (addresses, rest) = self.value(number).as_chunks::<4>();
        match rest {
            [] => addresses.iter().copied().map(Ipv4Addr::from).collect(),
            _ => Vec::new(),
        }
    }

    /// Without the NULs that some servers end texts with.
    fn text(&self, number: u8) -> Option<&str> {
        let text = std::str::from_utf8(self.value(number)).ok()?;
        let text = text.trim_end_matches('\0');
        (!text.is_empty()).then_some(text)
    }

    /// The options of a lease.
    pub(super) fn read(&self) -> MessageOptions {
        let mut search = domains(
            names(self.value(code::DOMAIN_SEARCH))
                .iter()
                .map(String::as_str),
        );
        if search.is_empty() {
            // Many servers put several domains here.
            let text = self.text(code::DOMAIN_NAME).unwrap_or_default();
            search = domains(text.split_whitespace());
        }
        let mut routes = classless_routes(self.value(code::CLASSLESS_ROUTES)).unwrap_or_default();
        if routes.is_empty() {
            let value = self.value(code::CLASSLESS_ROUTES_MICROSOFT);
            routes = classless_routes(value).unwrap_or_default();
        }
        MessageOptions {
            mask: self.address(code::SUBNET_MASK),
            routers: self.addresses(code::ROUTER),
            routes,
            nameservers: self.addresses(code::DOMAIN_NAME_SERVER),
            search,
            ntp_servers: self.addresses(code::NTP_SERVERS),
            mtu: self.fixed(code::INTERFACE_MTU).map(u16::from_be_bytes),
            hostname: self.text(code::HOST_NAME).and_then(host_name),
            lease: self.number(code::LEASE_TIME),
            renew: self.number(code::RENEWAL),
            rebind: self.number(code::REBINDING),
            server: self.address(code::SERVER_IDENTIFIER),
            message: self.text(code::MESSAGE).map(|text| {
                let printable = text.chars().filter(|character| !character.is_control());
                printable.take(128).collect()
            }),
        }
    }
}

/// Servers may send the whole domain name; the machine's name is its first label.
fn host_name(text: &str) -> Option<String> {
    let label = text.split('.').next().unwrap_or_default();
    check_host_name(label).is_ok().then(|| label.to_owned())
}

/// The routes of RFC 3442: prefix length, the significant bytes of the network, the router.
/// `None` if a description is wrong or cut off, because the next one can't be found then.
fn classless_routes(mut value: &[u8]) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let Some((length, rest)) = value.split_first() {
        if *length > 32 {
            return None;
        }
        let (significant, rest) = rest.split_at_checked(usize::from(length.div_ceil(8)))?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut network = [0; 4];
        for (byte, given) in network.iter_mut().zip(significant) {
            *byte = *given;
        }
        routes.push((network.into(), *length, Ipv4Addr::from(*router)));
        value = rest;
    }
    Some(routes)
}

/// The names of a search list (RFC 3397), which are compressed as in messages of the domain
/// system (RFC 1035 §4.1.4). Names after a wrong one can't be found; those before it are used.
fn names(value: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut position = 0;
    while position < value.len() && names.len() < MAX_DOMAINS {
        let Some((name, next)) = name(value, position) else {
            break;
        };
        names.push(name);
        position = next;
    }
    names
}

/// The name at a position, and where the next one begins.
fn name(value: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut position = start;
    let mut next = None;
    // A pointer must lead backwards, so that names end.
    let mut limit = start;
    loop {
        let length = *value.get(position)?;
        position += 1;
        match length {
            0 => break,
            1..=63 => {
                let end = position + usize::from(length);
                let label = std::str::from_utf8(value.get(position..end)?).ok()?;
                // A dot inside of a label would look like two.
                if label.contains('.') || name.len() + label.len() > MAX_NAME {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(label);
                position = end;
            }
            0xc0.. => {
                let low = *value.get(position)?;
                next.get_or_insert(position + 1);
                let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                if target >= limit {
                    return None;
                }
                limit = target;
                position = target;
            }
            _ => return None,
        }
    }
    Some((name, next.unwrap_or(position)))
}

/// The names that are allowed in resolv.conf: a line break in a domain would otherwise add lines
/// there.
fn domains<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in names {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if check_domain_name(&name).is_ok() && !out.contains(&name) && out.len() < MAX_DOMAINS {
            out.push(name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn option(number: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number, u8::try_from(value.len()).unwrap()];
        bytes.extend(value);
        bytes
    }

    /// A message with these options in the options field and in the two others.
    fn message(options: &[u8], file: &[u8], server_name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[108..108 + file.len()].copy_from_slice(file);
        bytes[44..44 + server_name.len()].copy_from_slice(server_name);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn overloaded_fields_continue_in_their_order() {
        let one = option(code::ROUTER, &[192, 0]);
        let two = option(code::ROUTER, &[2, 1, 192, 0]);
        let three = option(code::ROUTER, &[2, 2]);
        for (overload, expected) in [
            (1, &[192, 0, 2, 1, 192, 0][..]),
            (2, &[192, 0, 2, 2]),
            (3, &[192, 0, 2, 1, 192, 0, 2, 2]),
            (0, &[192, 0]),
            (9, &[192, 0]),
        ] {
            let options = [option(code::OVERLOAD, &[overload]), one.clone()].concat();
            let gathered = Gathered::of(&message(&options, &two, &three));
            assert_eq!(gathered.value(code::ROUTER), expected, "{overload}");
        }
        // An overload option outside of the options field is ignored.
        let file = [option(code::OVERLOAD, &[3]), two.clone()].concat();
        let options = [option(code::OVERLOAD, &[1]), one.clone()].concat();
        let gathered = Gathered::of(&message(&options, &file, &three));
        assert_eq!(gathered.value(code::ROUTER), [192, 0, 2, 1, 192, 0]);
    }

    #[test]
    fn if_a_fixed_option_is_sent_twice_the_first_counts() {
        let options = [
            option(code::SUBNET_MASK, &[255, 255, 255, 0]),
            option(code::LEASE_TIME, &[0, 0, 2, 88]),
            option(code::SUBNET_MASK, &[255, 255, 0, 0]),
            option(code::LEASE_TIME, &[0, 0, 2]),
        ]
        .concat();
        let read = Gathered::of(&message(&options, &[], &[])).read();
        assert_eq!(read.mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(read.lease, None, "seven bytes are no number");
    }

    #[test]
    fn compressed_search_lists_are_read() {
        // eng.example.com, then marketing. + a pointer into it: the example of RFC 3397.
        let mut value = b"\x03eng\x07example\x03com\x00\x09marketing".to_vec();
        value.extend([0xc0, 4]);
        assert_eq!(names(&value), ["eng.example.com", "marketing.example.com"]);
        // A pointer to a pointer.
        value.extend([4]);
        value.extend(b"east");
        value.extend([0xc0, 17]);
        assert_eq!(names(&value)[2], "east.marketing.example.com");
        // Forwards, to itself, cut off, and of a kind that does not exist: the names before it
        // count.
        let start = value.len();
        for wrong in [
            &[0xc0, 200][..],
            &[0xc0, start as u8],
            &[0xc0],
            &[9, b'a'],
            &[0x80, 1],
            b"\x03a.b\x00",
        ] {
            let mut value = value.clone();
            value.extend(wrong);
            assert_eq!(names(&value).len(), 3, "{wrong:?}");
        }
    }

    #[test]
    fn classless_routes_are_all_or_none() {
        let value = [
            0, 192, 0, 2, 1, 9, 10, 128, 192, 0, 2, 2, 32, 198, 51, 100, 7, 0, 0, 0, 0,
        ];
        assert_eq!(
            classless_routes(&value).unwrap(),
            [
                ([0, 0, 0, 0].into(), 0, [192, 0, 2, 1].into()),
                ([10, 128, 0, 0].into(), 9, [192, 0, 2, 2].into()),
                ([198, 51, 100, 7].into(), 32, [0, 0, 0, 0].into()),
            ]
        );
        assert_eq!(classless_routes(&value[..value.len() - 1]), None);
        assert_eq!(classless_routes(&[33, 1, 2, 3, 4, 5, 192, 0, 2, 1]), None);
    }

    #[test]
    fn the_old_number_of_classless_routes_is_read_where_the_new_one_is_absent() {
        let old = option(code::CLASSLESS_ROUTES_MICROSOFT, &[0, 192, 0, 2, 2]);
        let new = option(code::CLASSLESS_ROUTES, &[0, 192, 0, 2, 1]);
        let routers = |options: &[u8]| {
            let read = Gathered::of(&message(options, &[], &[])).read();
            read.routes.iter().map(|route| route.2).collect::<Vec<_>>()
        };
        assert_eq!(routers(&old), [Ipv4Addr::new(192, 0, 2, 2)]);
        let both = [old, new].concat();
        assert_eq!(routers(&both), [Ipv4Addr::new(192, 0, 2, 1)]);
    }

    proptest! {
        /// However a server splits its options, and wherever it puts the parts, the result is the
        /// same.
        #[test]
        fn parts_are_joined_wherever_they_are(
            values in proptest::collection::btree_map(1u8..=254, proptest::collection::vec(any::<u8>(), 1..30), 1..6),
            cuts in proptest::collection::vec((0usize..6, 1usize..8), 0..40),
            last in 0usize..3,
        ) {
            let mut whole = Gathered::default();
            let mut rest: Vec<(u8, Vec<u8>)> = Vec::new();
            for (number, value) in values {
                if number != code::OVERLOAD {
                    whole.0.insert(number, value.clone());
                    rest.push((number, value));
                }
            }
            // Parts of all options in a random order; each option's own parts stay in order.
            let mut parts: Vec<Vec<u8>> = vec![option(code::OVERLOAD, &[3])];
            for (which, length) in cuts {
                if let Some((number, value)) = rest.get_mut(which)
                    && !value.is_empty()
                {
                    let tail = value.split_off(length.min(value.len()));
                    parts.push(option(*number, value));
                    *value = tail;
                }
            }
            parts.extend(rest.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| option(*n, v)));
            // The last ones go into the other fields, where they fit.
            let (mut options, mut file, mut server_name) = (Vec::new(), Vec::new(), Vec::new());
            let first = parts.len().saturating_sub(last);
            for (position, part) in parts.into_iter().enumerate() {
                if position == 0 || position < first {
                    options.extend(part);
                } else if server_name.is_empty() && position == first {
                    file.extend(part);
                } else {
                    server_name.extend(part);
                }
            }
            options.push(code::END);
            whole.0.insert(code::OVERLOAD, vec![3]);
            let found = Gathered::of(&message(&options, &file, &server_name));
            prop_assert_eq!(&found.0, &whole.0);
            prop_assert_eq!(found.read(), whole.read());
        }

        #[test]
        fn arbitrary_search_lists_end(value in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(names(&value).len() <= MAX_DOMAINS);
            let _ = classless_routes(&value);
        }
    }
}
