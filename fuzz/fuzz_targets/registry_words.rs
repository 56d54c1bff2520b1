//! A registry's headers and documents, and the machine's file of credentials.
#![cfg_attr(fuzzing, no_main)]

use keelson_registry::auth::Challenge;
use keelson_registry::fuzzing;

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    fuzzing::auth_file(bytes);
    fuzzing::answers(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Challenge::parse(text);
        fuzzing::headers(text);
    }
});
