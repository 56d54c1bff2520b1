//! References, manifests, image configurations and compressed streams.
#![cfg_attr(fuzzing, no_main)]

use keelson_oci::compression::Compression;
use keelson_oci::config::ImageConfig;
use keelson_oci::manifest::{ArchiveImage, ManifestDocument};
use keelson_oci::reference::Reference;

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let _ = ImageConfig::parse(bytes);
    let _ = ManifestDocument::parse(bytes);
    let _ = ArchiveImage::parse_list(bytes);
    if let Ok(compression) = Compression::detect(bytes)
        && let Ok(decoder) = compression.decoder(bytes)
    {
        let mut limited = std::io::Read::take(decoder, 1 << 20);
        let _ = std::io::copy(&mut limited, &mut std::io::sink());
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(reference) = text.parse::<Reference>()
    {
        let again = reference.to_string().parse::<Reference>();
        assert_eq!(again.as_ref(), Ok(&reference));
    }
});
