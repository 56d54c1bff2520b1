//! The documents of an image archive: manifest.json, index.json and the blobs that they name. The
//! input is split into files at bytes 0xff. Each also exists under its digest.
#![cfg_attr(fuzzing, no_main)]

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let names = ["manifest.json", "index.json", "config.json", "l/layer.tar"];
    let files: Vec<_> = bytes
        .split(|byte| *byte == 0xff)
        .enumerate()
        .take(16)
        .map(|(number, bytes)| (names.get(number).copied().unwrap_or_default(), bytes))
        .collect();
    hostd_images::fuzzing::archive(&files);
});
