//! Marks of packets, by which packet filters tell each other something (`fwmark`).

use std::str::FromStr;

/// A mark of packets: those that have `value` in the bits of `mask`. Written `0x1` or `0x1/0xff`, or in
/// decimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketMark {
    /// The bits that count are these.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
}

/// A text is no mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mark of packets: use 0x1, or 0x1/0xff with a mask that is not zero")]
pub struct MarkError(String);

impl FromStr for PacketMark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        let number = |part: &str| match part.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => part.parse().ok(),
        };
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (number(value), number(mask)),
            None => (number(text), Some(u32::MAX)),
        };
        match (value, mask) {
            (Some(value), Some(mask)) if mask != 0 && value & !mask == 0 => {
                Ok(Self { value, mask })
            }
            _ => Err(MarkError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read() {
        let mark = |text: &str| text.parse::<PacketMark>();
        let of = |value, mask| Ok(PacketMark { value, mask });
        assert_eq!(mark("0x1"), of(1, u32::MAX));
        assert_eq!(mark("0x10/0xf0"), of(16, 240));
        assert_eq!(mark("2/3"), of(2, 3));
        for bad in ["", "x", "0x1/0", "4/3", "1/", "-1", "0x1ffffffff"] {
            let error = mark(bad).unwrap_err().to_string();
            assert!(error.contains("use 0x1"), "{error}");
        }
    }
}
