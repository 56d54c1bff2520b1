//! Layers of any content, separated by NUL bytes, can be merged: each value of the result comes from
//! a layer, and the result is a configuration again.
#![cfg_attr(fuzzing, no_main)]

use std::path::Path;

use keelson_config::{LayerKind, Merged, parse};

const KINDS: [LayerKind; 4] = [
    LayerKind::Image,
    LayerKind::CommandLine,
    LayerKind::Platform,
    LayerKind::Operator,
];

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let mut merged = Merged::default();
    for (text, kind) in bytes.split(|byte| *byte == 0).zip(KINDS) {
        if let Ok(layer) = parse(text, Path::new(kind.as_str())) {
            merged.add(kind, layer);
        }
    }
    let text = keelson_config::masked(&merged.table).to_string();
    assert!(merged.origins.values().all(|origin| origin.file.is_some()));
    for path in merged.origins.keys() {
        assert!(!path.is_empty());
    }
    // What the layers say one by one is right together, too.
    let whole = merged.table.to_string();
    if let Err(problems) = parse(whole.as_bytes(), Path::new("merged")) {
        assert!(
            whole.len() > keelson_config::MAX_LAYER_BYTES,
            "{problems:?}\n{text}"
        );
    }
});
