//! A configuration file of any content yields a layer or problems that name a place.
#![cfg_attr(fuzzing, no_main)]

use std::path::Path;

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    if let Err(problems) = keelson_config::parse(bytes, Path::new("host.toml")) {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(!problem.to_string().is_empty());
        }
    }
});
