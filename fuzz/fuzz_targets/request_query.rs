//! The query part of a request.
#![cfg_attr(fuzzing, no_main)]

use hostd_api_docker::query::Query;

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(query) = Query::parse(Some(text))
    {
        let _ = query.filters(&["status", "label", "name"]);
        let _ = query.number::<i64>("tail");
    }
});
