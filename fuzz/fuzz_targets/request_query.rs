//! The query part of a request.
#![no_main]

use hostd_api_docker::query::Query;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let query = Query::parse(Some(text));
        let _ = query.filters(&["status", "label", "name"]);
        let _ = query.number::<i64>("tail");
    }
});
