//! Interprets media types. In practice they have parameters, and old registries use generic types
//! for images.

use super::{DOCKER_CONFIG, DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};

/// Generic types that registries use for unknown content, in addition to the empty one. Clients as
/// old as Docker 1.10 pushed configurations with these.
const UNKNOWN: [&str; 3] = ["application/octet-stream", "application/json", "text/html"];

/// The type without parameters and space.
pub(super) fn plain(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

fn is_one(media_type: &str, types: &[&str]) -> bool {
    let media_type = plain(media_type);
    types.iter().any(|one| one.eq_ignore_ascii_case(media_type))
}

pub(super) fn is_index(media_type: &str) -> bool {
    is_one(media_type, &[OCI_INDEX, DOCKER_LIST])
}

pub(super) fn is_manifest(media_type: &str) -> bool {
    is_one(media_type, &[OCI_MANIFEST, DOCKER_MANIFEST])
}

/// Whether it is the type of an image's configuration.
pub(super) fn is_config(media_type: &str) -> bool {
    is_one(media_type, &[OCI_CONFIG, DOCKER_CONFIG])
}

/// Whether it is generic.
pub(super) fn says_nothing(media_type: &str) -> bool {
    plain(media_type).is_empty() || is_one(media_type, &UNKNOWN)
}

/// Whether a layer's media type names a format other than a file system archive. For generic types,
/// the content decides.
pub fn names_other_format(media_type: &str) -> bool {
    let media_type = plain(media_type).to_ascii_lowercase();
    let (class, kind) = media_type.split_once('/').unwrap_or(("", ""));
    const FORMATS: [&str; 8] = [
        "json",
        "xml",
        "yaml",
        "toml",
        "encrypted",
        "wasm",
        "spdx",
        "cyclonedx",
    ];
    let mut words = kind.split(['+', '.', '-']);
    words.any(|word| FORMATS.contains(&word))
        || kind.contains("in-toto")
        || matches!(class, "text" | "image" | "audio" | "video" | "font")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_other_formats_are_known() {
        for layer in [
            "",
            "application/octet-stream",
            "application/x-tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.docker.container.image.rootfs.diff+x-gtar",
        ] {
            assert!(!names_other_format(layer), "{layer}");
        }
        for other in [
            "application/vnd.dev.cosign.simplesigning.v1+json",
            "application/vnd.in-toto+json",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.w3c.wasm.content.layer.v1+wasm",
            "text/spdx+xml; charset=utf-8",
        ] {
            assert!(names_other_format(other), "{other}");
        }
    }
}
