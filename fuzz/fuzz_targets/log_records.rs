//! A log file with any content: decoding ends, and decoded records are inside the file. Records
//! found after damage are complete.
#![cfg_attr(fuzzing, no_main)]

use keelson_log::format::{Decoded, decode, next_whole};

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    loop {
        match decode(rest) {
            Decoded::Record(_, taken) | Decoded::End(taken) => {
                assert!(taken > 0 && taken <= rest.len());
                rest = &rest[taken..];
            }
            Decoded::Incomplete | Decoded::Invalid => match next_whole(rest) {
                Ok(at) => {
                    assert!(at > 0);
                    rest = &rest[at..];
                    assert!(matches!(
                        decode(rest),
                        Decoded::Record(..) | Decoded::End(_)
                    ));
                }
                Err(open) => {
                    assert!(open <= rest.len());
                    break;
                }
            },
        }
    }
});
