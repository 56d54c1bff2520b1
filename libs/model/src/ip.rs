//! IP addresses with their prefix length, as the configuration writes them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address of a link with the length of its network's prefix: `192.0.2.10/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPrefix {
    /// The address, host bits included.
    pub address: IpAddr,
    /// Length of the prefix in bits: up to 32 for IPv4, up to 128 for IPv6.
    pub length: u8,
}

/// Why a text is not an [`IpPrefix`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// There is no `/`.
    #[error("the prefix length is missing")]
    MissingLength,
    /// The part before the `/` is not an address.
    #[error("\"{0}\" is not an IP address")]
    Address(String),
    /// The part after the `/` is not a prefix length of this address family.
    #[error("\"{0}\" is not a prefix length between 1 and {1}")]
    Length(String, u8),
}

impl IpPrefix {
    /// Whether `other` lies in the network that this prefix names.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.length.min(32));
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(self.length.min(128));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for IpPrefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = text.split_once('/').ok_or(PrefixError::MissingLength)?;
        let address: IpAddr = address
            .parse()
            .map_err(|_| PrefixError::Address(address.to_owned()))?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        // Digits only: `u8::from_str` would take a leading plus sign.
        let length = Some(length)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse::<u8>().ok())
            .filter(|value| (1..=max).contains(value))
            .ok_or_else(|| PrefixError::Length(length.to_owned(), max))?;
        Ok(Self { address, length })
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_families() {
        for text in ["192.0.2.10/24", "2001:db8::10/64", "10.0.0.1/32"] {
            assert_eq!(text.parse::<IpPrefix>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let error = |text: &str| text.parse::<IpPrefix>().unwrap_err();
        assert_eq!(error("192.0.2.10"), PrefixError::MissingLength);
        assert_eq!(
            error("192.0.2.300/24"),
            PrefixError::Address("192.0.2.300".into())
        );
        assert_eq!(error("192.0.2.1/33"), PrefixError::Length("33".into(), 32));
        assert_eq!(error("192.0.2.1/+8"), PrefixError::Length("+8".into(), 32));
        assert_eq!(error("::1/0"), PrefixError::Length("0".into(), 128));
    }

    #[test]
    fn knows_its_network() {
        let prefix: IpPrefix = "192.0.2.10/24".parse().unwrap();
        assert!(prefix.contains("192.0.2.254".parse().unwrap()));
        assert!(!prefix.contains("192.0.3.1".parse().unwrap()));
        assert!(!prefix.contains("2001:db8::1".parse().unwrap()));
        let host: IpPrefix = "2001:db8::1/128".parse().unwrap();
        assert!(host.contains("2001:db8::1".parse().unwrap()));
        assert!(!host.contains("2001:db8::2".parse().unwrap()));
    }
}
