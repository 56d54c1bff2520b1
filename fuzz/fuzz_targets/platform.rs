//! Platforms of clients' requests and of indexes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        hostd_images::fuzzing::platform(text);
    }
});
