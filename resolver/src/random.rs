//! Unpredictable numbers. Identifiers of queries to name servers must be unpredictable, so that
//! nobody else can answer them (RFC 5452).

use rustix::rand::{GetRandomFlags, getrandom};

/// A buffer of bytes from the kernel's generator.
#[derive(Debug)]
pub(crate) struct Random {
    bytes: [u8; 256],
    used: usize,
}

impl Random {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; 256],
            used: 256,
        }
    }

    /// Returns 16 random bits.
    pub(crate) fn next(&mut self) -> u16 {
        if let Some([high, low]) = self.take() {
            return u16::from_be_bytes([high, low]);
        }
        // The buffer is always filled: requests of up to 256 bytes are never interrupted
        // (getrandom(2)).
        self.used = 0;
        match getrandom(&mut self.bytes[..], GetRandomFlags::empty()) {
            Ok(_) => self.take().map_or(0, u16::from_be_bytes),
            Err(_) => 0,
        }
    }

    fn take(&mut self) -> Option<[u8; 2]> {
        let pair = self.bytes.get(self.used..)?.first_chunk().copied();
        self.used += 2;
        pair
    }

    /// Shuffles a list.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, usize::from(self.next()) % (last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_differ_and_lists_keep_their_members() {
        let mut random = Random::new();
        let numbers: BTreeSet<u16> = (0..1000).map(|_| random.next()).collect();
        assert!(numbers.len() > 900, "{}", numbers.len());
        let mut firsts = BTreeSet::new();
        for _ in 0..200 {
            let mut list = [1, 2, 3, 4];
            random.shuffle(&mut list);
            firsts.insert(list[0]);
            list.sort_unstable();
            assert_eq!(list, [1, 2, 3, 4]);
        }
        assert_eq!(firsts.len(), 4);
    }
}
