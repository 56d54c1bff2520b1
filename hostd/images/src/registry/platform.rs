//! Which image of an index is meant.

use keelson_oci::config::ImageConfig;
use keelson_oci::manifest::{Descriptor, Platform, host_architecture};

use crate::error::ImageError;

/// The platform that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    os: String,
    architecture: String,
    variant: Option<String>,
    /// Whether somebody asked for it; else it is the machine's own.
    pub asked: bool,
}

impl Wanted {
    /// Reads `os[/architecture[/variant]]` or a single architecture.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ImageError> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self {
                os: "linux".to_owned(),
                architecture: host_architecture().to_owned(),
                variant: None,
                asked: false,
            });
        };
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        if parts.len() > 3 || !parts.iter().all(|part| plain(part)) {
            return Err(ImageError::Invalid(format!(
                "platform {text:?} is not valid: expected os/architecture[/variant], such as \
                 linux/amd64"
            )));
        }
        let (os, architecture, variant) = match parts.as_slice() {
            ["linux"] => ("linux", host_architecture(), None),
            [architecture] => ("linux", *architecture, None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant, ..] => (*os, *architecture, Some(*variant)),
            [] => ("linux", host_architecture(), None),
        };
        if os != "linux" {
            return Err(ImageError::Invalid(format!(
                "platform {text:?}: operating system {os:?} is not supported, only linux is"
            )));
        }
        let (architecture, variant) = normal(architecture, variant);
        Ok(Self {
            os: os.to_owned(),
            architecture,
            variant,
            asked: true,
        })
    }

    /// The entry of an index that fits; attestations never do.
    pub(crate) fn choose<'a>(&self, entries: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let images = || entries.iter().filter(|entry| !entry.is_attestation());
        images()
            .find(|entry| entry.platform.as_ref().is_some_and(|p| self.fits(p)))
            // Without any platform there is nothing to choose by.
            .or_else(|| images().find(|entry| entry.platform.is_none()))
    }

    fn fits(&self, platform: &Platform) -> bool {
        let (architecture, variant) = normal(&platform.architecture, platform.variant.as_deref());
        platform.os == self.os
            && architecture == self.architecture
            && (self.variant.is_none() || variant == self.variant)
    }

    /// Whether an image is for this platform, by its configuration.
    pub(crate) fn fits_config(&self, config: &ImageConfig) -> bool {
        self.fits(&Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            variant: config.variant.clone(),
        })
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Other names of architectures, and the variants that are not written.
fn normal(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.filter(|variant| !variant.is_empty());
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64", variant) => ("arm64", variant),
        ("i386" | "i686", variant) => ("386", variant),
        ("armhf", None) => ("arm", Some("v7")),
        (architecture, variant) => (architecture, variant),
    };
    let variant = match (architecture, variant) {
        ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) => None,
        (_, variant) => variant,
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use keelson_oci::digest::Digest;

    use super::*;

    fn entry(os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: Digest::of(format!("{os}{architecture}{variant:?}").as_bytes()),
            size: 1,
            platform: Some(Platform {
                architecture: architecture.to_owned(),
                os: os.to_owned(),
                variant: variant.map(str::to_owned),
            }),
            annotations: None,
        }
    }

    #[test]
    fn the_fitting_entry_is_chosen() {
        let mut attestation = entry("linux", "amd64", None);
        attestation.annotations = Some(
            [(
                "vnd.docker.reference.type".to_owned(),
                "attestation-manifest".to_owned(),
            )]
            .into(),
        );
        let entries = [
            attestation,
            entry("windows", "amd64", None),
            entry("linux", "arm", Some("v6")),
            entry("linux", "arm", Some("v7")),
            entry("linux", "arm64", Some("v8")),
            entry("linux", "amd64", None),
        ];
        for (text, at) in [
            ("linux/amd64", Some(5)),
            ("x86_64", Some(5)),
            ("linux/arm/v7", Some(3)),
            ("linux/arm", Some(2)),
            ("linux/arm64", Some(4)),
            ("linux/arm64/v8", Some(4)),
            ("linux/s390x", None),
        ] {
            let wanted = Wanted::parse(Some(text)).unwrap();
            let chosen = wanted.choose(&entries);
            assert_eq!(chosen, at.map(|at| &entries[at]), "{text}");
        }
        for wrong in ["windows/amd64", "linux//v7", "a/b/c/d", "linux/ä"] {
            assert!(Wanted::parse(Some(wrong)).is_err(), "{wrong}");
        }
        assert!(!Wanted::parse(Some("")).unwrap().asked);
    }
}
