//! Contents that a document refers to: `source`, `compression`, `verification.hash`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256, Sha512};

use crate::gzip;
use crate::resources::{self, ResourceError, Resources};
use crate::yaml::YamlNode;

/// Why contents can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContentsError {
    /// The URL is none of data, http and https.
    #[error("source {0} is not supported: use data:, http: or https:")]
    Scheme(String),
    /// A `data:` URL without sense.
    #[error("a data: URL is not valid")]
    Data,
    /// Another compression.
    #[error("compression {0:?} is not supported: use gzip")]
    Compression(String),
    /// It can't be unpacked.
    #[error(transparent)]
    Gzip(#[from] gzip::GzipError),
    /// The contents are not those that were meant.
    #[error("the contents of {0} do not have the hash that the document names")]
    Hash(String),
    /// A hash that is neither SHA-256 nor SHA-512.
    #[error("the hash must begin with sha256- or sha512- and have as many digits")]
    HashForm,
    /// Larger than a file of a configuration may be.
    #[error("the contents have more than 4 MiB")]
    TooLarge,
}

/// Reads what `node` refers to: unpacked, and equal to its hash.
pub(super) fn read(
    node: &YamlNode,
    resources: &mut dyn Resources,
) -> Result<Vec<u8>, super::IgnitionError> {
    let text = |name: &str| node.get(name).and_then(YamlNode::text).unwrap_or_default();
    let url = text("source");
    let mut bytes = match url.split_once(':') {
        None if url.is_empty() => Vec::new(),
        Some(("data", rest)) => data(rest)?,
        Some(("http" | "https", _)) => resources.get(url)?,
        _ => return Err(ContentsError::Scheme(resources::shown(url)).into()),
    };
    match text("compression") {
        "" => {}
        "gzip" => {
            bytes = gzip::unpack(&bytes, resources::MAX_BYTES).map_err(ContentsError::from)?
        }
        other => return Err(ContentsError::Compression(other.chars().take(40).collect()).into()),
    }
    if bytes.len() > resources::MAX_BYTES {
        return Err(ContentsError::TooLarge.into());
    }
    // Of the unpacked contents.
    if let Some(hash) = node
        .get("verification")
        .and_then(|verification| verification.get("hash"))
        .and_then(YamlNode::text)
    {
        verify(&bytes, hash, url)?;
    }
    Ok(bytes)
}

/// Whether an error means that the network is needed.
pub(super) fn later(error: &super::IgnitionError) -> bool {
    matches!(
        error,
        super::IgnitionError::Resource(ResourceError::Later(_))
    )
}

fn verify(bytes: &[u8], hash: &str, url: &str) -> Result<(), ContentsError> {
    let found = match hash.split_once('-') {
        Some(("sha256", digits)) if digits.len() == 64 => {
            hex::encode(Sha256::digest(bytes)).eq_ignore_ascii_case(digits)
        }
        Some(("sha512", digits)) if digits.len() == 128 => {
            hex::encode(Sha512::digest(bytes)).eq_ignore_ascii_case(digits)
        }
        _ => return Err(ContentsError::HashForm),
    };
    match found {
        true => Ok(()),
        false => Err(ContentsError::Hash(resources::shown(url))),
    }
}

/// RFC 2397: `[MEDIA TYPE][;base64],DATA`.
fn data(rest: &str) -> Result<Vec<u8>, ContentsError> {
    let (head, body) = rest.split_once(',').ok_or(ContentsError::Data)?;
    let bytes = percent_decoded(body).ok_or(ContentsError::Data)?;
    if head.split(';').any(|word| word.trim() == "base64") {
        return BASE64_STANDARD
            .decode(bytes)
            .map_err(|_| ContentsError::Data);
    }
    Ok(bytes)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| plain)?);
            rest = after.get(2..)?;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_are_decoded() {
        assert_eq!(data(",a%20b%0A").unwrap(), b"a b\n");
        assert_eq!(data("text/plain;charset=utf-8;base64,aGk=").unwrap(), b"hi");
        for wrong in ["x", ",%2", ",%zz", ";base64,?", ",%+1"] {
            assert_eq!(data(wrong), Err(ContentsError::Data), "{wrong}");
        }
    }
}
