//! The digest by which the kernel's fs-verity identifies a file: SHA-256 of a descriptor that
//! holds the root of a Merkle tree over blocks of 4096 bytes (Documentation/filesystems/
//! fsverity.rst of the kernel, "Merkle tree" and "File digest computation"), without a salt.

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

const BLOCK: usize = 4096;
const LOG_BLOCK: u8 = 12;
const HASH: usize = 32;
/// `FS_VERITY_HASH_ALG_SHA256`.
const ALGORITHM: u8 = 1;
/// Bytes of `struct fsverity_descriptor`.
const DESCRIPTOR: usize = 256;

/// Computes the digest of a file from pieces. Memory: one block for each level of the tree.
#[derive(Debug, Clone)]
pub struct VerityDigester {
    size: u64,
    /// Level 0 collects data, the others the hashes of the blocks below.
    levels: Vec<Vec<u8>>,
}

impl Default for VerityDigester {
    fn default() -> Self {
        Self::new()
    }
}

impl VerityDigester {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self {
            size: 0,
            levels: vec![Vec::with_capacity(BLOCK)],
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let gathered = self.levels.first().map_or(0, Vec::len);
            // A full block is kept until more data arrives: the last one may be the tree's root.
            if gathered == BLOCK {
                self.close(0);
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - gathered));
            if let Some(level) = self.levels.first_mut() {
                level.extend_from_slice(now);
            }
            bytes = later;
        }
    }

    /// Hashes the block of a level into the level above. A full block there goes up first.
    fn close(&mut self, level: usize) {
        let above = level + 1;
        if self
            .levels
            .get(above)
            .is_some_and(|block| block.len() == BLOCK)
        {
            self.close(above);
        }
        if above == self.levels.len() {
            self.levels.push(Vec::with_capacity(BLOCK));
        }
        let Some(block) = self.levels.get_mut(level) else {
            return;
        };
        let hash = hash_block(block);
        block.clear();
        if let Some(block) = self.levels.get_mut(above) {
            block.extend_from_slice(&hash);
        }
    }

    /// The digest of all bytes added.
    pub fn finish(mut self) -> Digest {
        let mut root = [0; HASH];
        if self.size > 0 {
            let mut level = 0;
            while level + 1 < self.levels.len() {
                self.close(level);
                level += 1;
            }
            if let Some(block) = self.levels.last() {
                root = hash_block(block);
            }
        }
        let mut descriptor = Vec::with_capacity(DESCRIPTOR);
        // Version, algorithm, block size, no salt; then a reserved field.
        descriptor.extend([1, ALGORITHM, LOG_BLOCK, 0, 0, 0, 0, 0]);
        descriptor.extend(self.size.to_le_bytes());
        descriptor.extend(root);
        descriptor.resize(DESCRIPTOR, 0);
        Digest::of(&descriptor)
    }
}

/// Hash of a block, filled up with zeros.
fn hash_block(block: &[u8]) -> [u8; HASH] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut hasher = Sha256::new();
    hasher.update(block);
    hasher.update(ZEROS.get(block.len()..).unwrap_or_default());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> Digest {
        let mut digester = VerityDigester::new();
        digester.update(bytes);
        digester.finish()
    }

    /// The tree as the kernel's documentation describes it: level by level, with everything in
    /// memory.
    fn plainly(bytes: &[u8]) -> Digest {
        let mut level = bytes.to_vec();
        let mut root = [0; HASH];
        while !level.is_empty() {
            let hashes: Vec<_> = level.chunks(BLOCK).map(hash_block).collect();
            if let [only] = hashes[..] {
                root = only;
                break;
            }
            level = hashes.concat();
        }
        let mut descriptor = vec![1, 1, 12, 0, 0, 0, 0, 0];
        descriptor.extend((bytes.len() as u64).to_le_bytes());
        descriptor.extend(root);
        descriptor.resize(256, 0);
        Digest::of(&descriptor)
    }

    #[test]
    fn digests_that_the_kernels_tools_give() {
        for (text, hex) in [
            (
                "",
                "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
            ),
            (
                "hello world",
                "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64",
            ),
        ] {
            assert_eq!(of(text.as_bytes()).hex(), hex, "{text:?}");
        }
    }

    #[test]
    fn every_number_of_levels_is_right() {
        let bytes: Vec<u8> = (0..3 * 128 * BLOCK as u64 + 5000)
            .map(|number| ((number * number) >> 7) as u8)
            .collect();
        for blocks in [1, 2, 127, 128, 129, 256, 257, 385] {
            for odd in [-1, 0, 1] {
                let length = (blocks * BLOCK as i64 + odd) as usize;
                assert_eq!(of(&bytes[..length]), plainly(&bytes[..length]), "{length}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(length in 0_usize..40_000, cut in 0_usize..40_000) {
            let bytes: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
            let (first, second) = bytes.split_at(cut.min(length));
            let mut digester = VerityDigester::new();
            digester.update(first);
            digester.update(second);
            prop_assert_eq!(digester.finish(), plainly(&bytes));
        }
    }
}
