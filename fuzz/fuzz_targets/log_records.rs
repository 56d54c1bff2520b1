//! A log file with any content: decoding ends, and what is decoded lies inside.
#![cfg_attr(fuzzing, no_main)]

use keelson_log::format::{Decoded, decode};

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Decoded::Record(_, taken) | Decoded::End(taken) = decode(rest) {
        assert!(taken > 0 && taken <= rest.len());
        rest = &rest[taken..];
    }
});
