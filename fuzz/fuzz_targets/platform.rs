//! Platforms of clients' requests and of indexes.
#![cfg_attr(fuzzing, no_main)]

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        hostd_images::fuzzing::platform(text);
    }
});
