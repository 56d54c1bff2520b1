//! Selects the image of an index for a platform.

use keelson_oci::config::ImageConfig;
use keelson_oci::manifest::{Descriptor, Platform, host_architecture};

use crate::error::ImageError;

/// Words that mean an operating system if they stand alone.
const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "macos",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];
/// Words that mean an architecture if they stand alone.
const ARCHITECTURES: &[&str] = &[
    "386", "aarch64", "amd64", "arm", "arm64", "armel", "armhf", "i386", "i686", "loong64", "mips",
    "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm", "x86-64",
    "x86_64",
];

/// The wanted platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
    /// Whether the client asked for it; otherwise it is the machine's own.
    pub asked: bool,
}

impl WantedPlatform {
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
            [system] if SYSTEMS.contains(system) => (*system, host_architecture(), None),
            [architecture] if ARCHITECTURES.contains(architecture) => {
                ("linux", *architecture, None)
            }
            [other] => {
                return Err(ImageError::Invalid(format!(
                    "{other:?}: unknown operating system or architecture: invalid argument"
                )));
            }
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

    /// The platform for a configuration.
    pub(crate) fn named(self) -> Platform {
        // These are not the oldest variants, so other engines need to know them.
        let usual = match self.architecture.as_str() {
            "arm" => Some("v7".to_owned()),
            _ => None,
        };
        Platform {
            variant: self.variant.or(usual.filter(|_| self.asked)),
            architecture: self.architecture,
            os: self.os,
        }
    }

    /// The entry of an index that fits best. Attestations never fit. An entry of another artifact
    /// type fits only if no other entry does.
    pub(crate) fn choose<'a>(&self, entries: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let images = || entries.iter().filter(|entry| !entry.is_attestation());
        let rank = |entry: &'a Descriptor| {
            let rank = self.rank(entry.platform.as_ref()?)?;
            Some(((entry.is_other_than_image(), rank), entry))
        };
        let unnamed = || images().filter(|entry| entry.platform.is_none());
        images()
            .filter_map(rank)
            // The first of several equal ones, as in other engines.
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
            // No entry names a platform, so there is nothing to choose by.
            .or_else(|| unnamed().find(|entry| !entry.is_other_than_image()))
            .or_else(|| unnamed().next())
    }

    /// Whether an entry of an index may be an image for this platform.
    pub(crate) fn fits(&self, entry: &Descriptor) -> bool {
        let platform = entry.platform.as_ref();
        platform.is_none_or(|platform| self.rank(platform).is_some())
    }

    /// How well an image fits; 0 is best. A machine also runs images for older variants.
    fn rank(&self, platform: &Platform) -> Option<u32> {
        let (architecture, variant) = normal(&platform.architecture, platform.variant.as_deref());
        if platform.os != self.os || architecture != self.architecture {
            return None;
        }
        if variant == self.variant {
            return Some(0);
        }
        let wanted = level(&architecture, self.variant.as_deref())?;
        wanted.checked_sub(level(&architecture, variant.as_deref())?)
    }

    /// Whether an image's configuration is for this platform.
    pub(crate) fn fits_config(&self, config: &ImageConfig) -> bool {
        let platform = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            // Many builders omit it.
            variant: config.variant.clone().or_else(|| self.variant.clone()),
        };
        self.rank(&platform).is_some()
    }
}

impl std::fmt::Display for WantedPlatform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Other names of architectures, and their default variants: `None` means v7 for arm, v8 for arm64
/// and v1 for amd64.
fn normal(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant
        .filter(|variant| !variant.is_empty())
        // Some programs write only the number.
        .map(
            |variant| match variant.starts_with(|c: char| c.is_ascii_digit()) {
                true => format!("v{variant}"),
                false => variant.to_owned(),
            },
        );
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64", variant) => ("arm64", variant),
        ("i386" | "i686", variant) => ("386", variant),
        ("armel", _) => ("arm", Some("v6".to_owned())),
        ("armhf", variant) => ("arm", variant),
        (architecture, variant) => (architecture, variant),
    };
    let variant = match (architecture, variant.as_deref()) {
        ("arm64", Some("v8")) | ("arm", Some("v7")) | ("amd64", Some("v1")) => None,
        _ => variant,
    };
    (architecture.to_owned(), variant)
}

/// The number of a variant, for architectures in which each variant includes the one before.
fn level(architecture: &str, variant: Option<&str>) -> Option<u32> {
    let usual = match architecture {
        "arm" => 7,
        "arm64" => 8,
        "amd64" => 1,
        _ => return None,
    };
    match variant {
        None => Some(usual),
        Some(variant) => variant.strip_prefix('v')?.parse().ok(),
    }
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
            artifact_type: None,
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
            entry("linux", "amd64", Some("v3")),
            entry("unknown", "unknown", None),
        ];
        for (text, at) in [
            ("linux/amd64", Some(5)),
            ("x86_64", Some(5)),
            ("linux/arm/v7", Some(3)),
            ("linux/arm", Some(3)),
            ("linux/arm/v6", Some(2)),
            ("linux/arm/v8", Some(3)),
            ("linux/arm/7", Some(3)),
            ("armhf", Some(3)),
            ("linux/arm/v5", None),
            ("linux/arm64", Some(4)),
            ("linux/arm64/v8", Some(4)),
            ("linux/amd64/v3", Some(6)),
            ("linux/amd64/v2", Some(5)),
            ("linux/s390x", None),
        ] {
            let wanted = WantedPlatform::parse(Some(text)).unwrap();
            let chosen = wanted.choose(&entries);
            assert_eq!(chosen, at.map(|at| &entries[at]), "{text}");
        }
        for wrong in [
            "windows/amd64",
            "windows",
            "bogus",
            "linux//v7",
            "a/b/c/d",
            "linux/ä",
        ] {
            assert!(WantedPlatform::parse(Some(wrong)).is_err(), "{wrong}");
        }
        assert!(!WantedPlatform::parse(Some("")).unwrap().asked);
        // An image without a variant is accepted, one with another variant is not.
        let wanted = WantedPlatform::parse(Some("linux/arm/v6")).unwrap();
        let config = |variant: Option<&str>| ImageConfig {
            os: "linux".to_owned(),
            architecture: "arm".to_owned(),
            variant: variant.map(str::to_owned),
            ..ImageConfig::default()
        };
        assert!(wanted.fits_config(&config(None)));
        assert!(wanted.fits_config(&config(Some("v5"))));
        assert!(!wanted.fits_config(&config(Some("v7"))));
    }
}
