//! Parsers of bytes from outside that are private otherwise, for the fuzz targets.

use keelson_oci::digest::Digest;

use crate::contents::{Contents, LayerBlob};
use crate::registry::WantedPlatform;

/// The documents of an image archive, by path. Each is also present under its digest, as a document
/// and as a layer.
pub fn archive(files: &[(&str, &[u8])]) {
    let mut contents = Contents::default();
    for (name, bytes) in files {
        let digest = Digest::of(bytes);
        let blob = format!("blobs/sha256/{}", digest.hex());
        let layer = LayerBlob {
            diff_id: digest,
            blob: digest,
            blob_size: bytes.len() as u64,
        };
        for name in [(*name).to_owned(), blob] {
            contents.layers.insert(name.clone(), Ok(layer));
            contents.documents.insert(name, bytes.to_vec());
        }
    }
    if let Ok(wanted) = WantedPlatform::parse(None) {
        let _ = contents.images(&wanted);
    }
}

/// A platform as a client writes it.
pub fn platform(text: &str) {
    if let Ok(wanted) = WantedPlatform::parse(Some(text)) {
        let again = WantedPlatform::parse(Some(&wanted.to_string()));
        assert_eq!(
            again.map(|again| again.to_string()).ok(),
            Some(wanted.to_string())
        );
    }
}
