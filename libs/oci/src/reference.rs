//! Names of images: `[registry/]path[:tag][@digest]`, with the grammar and the normalisation of
//! the distribution project's `reference` package, which all Docker clients follow.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
/// Longest repository name, in bytes, with its registry.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A normalised reference: the registry is always named, and the path of an official image of
/// Docker Hub begins with `library/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Does not follow the grammar. The words are those of Docker.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the path, which people often write.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The name is too long.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// 64 hexadecimal digits, which would be taken for an identifier.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
}

impl Reference {
    /// The registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The path within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and path: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it: `busybox`, `user/image`, `quay.io/a/b`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            // `a/b` is not short for `library/a/b`.
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The reference as people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffixes(self.familiar_name())
    }

    /// With the tag `latest` when there is neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same repository with this digest instead of tag and digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The same repository with this tag instead of tag and digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    fn with_suffixes(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffixes(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| ReferenceError::Format)?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) || !is_domain(domain) {
            return Err(ReferenceError::Format);
        }
        let domain = if domain == LEGACY_DOMAIN {
            DEFAULT_DOMAIN
        } else {
            domain
        };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        if !path.split('/').all(is_path_component) {
            let lower = path.to_ascii_lowercase();
            return Err(
                if lower != path && lower.split('/').all(is_path_component) {
                    ReferenceError::Uppercase(remainder.split(':').next().unwrap_or("").to_owned())
                } else {
                    ReferenceError::Format
                },
            );
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            domain: domain.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// A first component with a dot, a colon or an upper-case letter, or `localhost`, is a registry.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

/// Host name, IPv4 address or bracketed IPv6 address, with an optional port.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let valid = !address.is_empty()
                    && address
                        .bytes()
                        .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
                return valid && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = label.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z');
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| match separator {
        b"" | b"." | b"_" | b"__" => true,
        dashes => dashes.iter().all(|byte| *byte == b'-'),
    })
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Reference {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn normalises_as_docker_does() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("a/b:c", "docker.io/a/b:c", "a/b:c"),
            ("localhost/a", "localhost/a", "localhost/a"),
            ("localhost:5000/a", "localhost:5000/a", "localhost:5000/a"),
            ("[::1]:5000/a:b", "[::1]:5000/a:b", "[::1]:5000/a:b"),
            ("Registry/a", "Registry/a", "Registry/a"),
            (
                "quay.io/a/b-c__d.e/f",
                "quay.io/a/b-c__d.e/f",
                "quay.io/a/b-c__d.e/f",
            ),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ] {
            let reference = parse(text);
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
        let digest = Digest::of(b"x");
        let both = parse(&format!("a:b@{digest}"));
        assert_eq!(both.tag(), Some("b"));
        assert_eq!(both.digest(), Some(digest));
        assert_eq!(both.clone().with_default_tag(), both);
        assert_eq!(parse("a").with_default_tag().tag(), Some("latest"));
        assert_eq!(both.with_digest(digest).familiar(), format!("a@{digest}"));
        assert_eq!(both.with_tag("v").unwrap().familiar(), "a:v");
        assert!(both.with_tag("").is_err());
    }

    #[test]
    fn refuses_what_docker_refuses() {
        for text in [
            "",
            ":",
            ":tag",
            "a:",
            "a:b:c",
            "a@",
            "a@sha256:00",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a//b",
            "/a",
            "a/",
            "https://a/b",
            "a b",
            "a:-x",
            "[::1/a",
            "a.b:x/c",
            "ä",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert_eq!(
            "Busybox".parse::<Reference>(),
            Err(ReferenceError::Uppercase("Busybox".to_owned()))
        );
        assert_eq!(
            "a".repeat(300).parse::<Reference>(),
            Err(ReferenceError::TooLong)
        );
        assert!(matches!(
            "0".repeat(64).parse::<Reference>(),
            Err(ReferenceError::LooksLikeId(_))
        ));
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = text.parse::<Reference>();
        }

        #[test]
        fn both_forms_parse_to_the_same(
            domain in "(|localhost/|[a-z]{1,5}\\.[a-z]{2}(:[0-9]{1,4})?/)",
            path in "[a-z0-9]{1,6}([._-]|__|---)?[a-z0-9]{1,4}(/[a-z0-9]{1,5}){0,3}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})?",
        ) {
            let reference = parse(&format!("{domain}{path}{tag}"));
            prop_assert_eq!(&parse(&reference.to_string()), &reference);
            prop_assert_eq!(&parse(&reference.familiar()), &reference);
        }
    }
}
