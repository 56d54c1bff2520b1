//! Vendors' documents about devices (CDI).
#![cfg_attr(fuzzing, no_main)]

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    hostd_containers::fuzzing::described_devices(bytes);
});
