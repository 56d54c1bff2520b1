//! Any bytes as a `config.json`: it is taken, or refused with words that name a member.
#![no_main]

use keelson_runtime::check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match check::config(bytes) {
        Ok(filter) => assert!(filter.is_none_or(|it| (1..=4096).contains(&it.instructions.len()))),
        Err(message) => assert!(message.contains(": "), "{message}"),
    }
});
