//! The key sequence that detaches a client from a terminal without ending the container.

use crate::error::ApiError;

/// Docker's default: control-p, control-q.
const DEFAULT: &[u8] = &[16, 17];

/// Finds the sequence in a stream of bytes.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// How many keys of the sequence the last bytes matched. These bytes are held back.
    seen: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` or `a,ctrl-[`. `None` is the default sequence.
    ///
    /// # Errors
    /// `InvalidInput` naming the key that does not exist.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        let keys = match text {
            None => DEFAULT.to_vec(),
            Some(text) => text
                .split(',')
                .map(|key| {
                    key_code(key).ok_or_else(|| {
                        ApiError::invalid(format!(
                            "invalid detach keys ({text}): unknown key {key:?}"
                        ))
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(Self { keys, seen: 0 })
    }

    /// Adds to `out` the bytes for the container. Returns whether the sequence was complete; the
    /// bytes after it are dropped.
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in input {
            if self.keys.get(self.seen) == Some(&byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return true;
                }
                continue;
            }
            out.extend(self.keys.iter().take(self.seen));
            // This byte may begin the sequence again.
            if self.keys.first() == Some(&byte) {
                self.seen = 1;
            } else {
                self.seen = 0;
                out.push(byte);
            }
        }
        false
    }
}

fn key_code(key: &str) -> Option<u8> {
    match key.as_bytes() {
        [byte] => Some(*byte),
        [b'c', b't', b'r', b'l', b'-', byte] => match byte {
            b'a'..=b'z' => Some(byte - b'a' + 1),
            b'@' => Some(0),
            b'[' => Some(27),
            b'\\' => Some(28),
            b']' => Some(29),
            b'^' => Some(30),
            b'_' => Some(31),
            _ => None,
        },
        b"DEL" => Some(127),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sequence_is_found_across_reads() {
        let mut keys = DetachKeys::parse(None).unwrap();
        let mut out = Vec::new();
        assert!(!keys.feed(b"ab\x10", &mut out));
        assert_eq!(out, b"ab");
        assert!(!keys.feed(b"c\x10", &mut out));
        assert_eq!(out, b"ab\x10c");
        assert!(keys.feed(b"\x11rest", &mut out));
        assert_eq!(out, b"ab\x10c");
    }

    #[test]
    fn keys_are_read() {
        assert_eq!(DetachKeys::parse(Some("a,ctrl-z")).unwrap().keys, [97, 26]);
        assert!(DetachKeys::parse(Some("ctrl-1")).is_err());
        assert!(DetachKeys::parse(Some("shift-a")).is_err());
    }

    proptest! {
        #[test]
        fn without_the_first_key_nothing_changes(input in prop::collection::vec(32u8.., 0..50)) {
            let mut keys = DetachKeys::parse(None).unwrap();
            let mut out = Vec::new();
            prop_assert!(!keys.feed(&input, &mut out));
            prop_assert_eq!(out, input);
        }
    }
}
