//! References, manifests and image configurations.
#![no_main]

use keelson_oci::config::ImageConfig;
use keelson_oci::manifest::Document;
use keelson_oci::reference::Reference;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = ImageConfig::parse(bytes);
    let _ = Document::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(reference) = text.parse::<Reference>()
    {
        let again = reference.to_string().parse::<Reference>();
        assert_eq!(again.as_ref(), Ok(&reference));
    }
});
