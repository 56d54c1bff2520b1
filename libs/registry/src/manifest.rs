//! Manifests and tags.

use bytes::Bytes;
use http::{Method, header};
use keelson_model::json::{self, JsonError, lenient_list};
use keelson_oci::digest::Digest;
use keelson_oci::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST_SIZE, OCI_INDEX, OCI_MANIFEST,
};
use serde::Deserialize;

use crate::asked::Asked;
use crate::client::Ask;
use crate::error::RegistryError;
use crate::repository::{MAX_DOCUMENT, Repository};
use crate::uri::{authority, join};

/// How many pages of tags are read.
const MAX_PAGES: usize = 200;
/// How many tags of a repository are read.
const MAX_TAGS: usize = 100_000;
/// Media types of manifests that are asked for.
const ACCEPT: [&str; 4] = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX];

/// A manifest as received, checked against the requested digest, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Byte for byte.
    pub bytes: Vec<u8>,
    /// Digest of the bytes.
    pub digest: Digest,
    /// The media type that the registry states.
    pub media_type: String,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default, deserialize_with = "lenient_list")]
    tags: Vec<String>,
}

/// Reads a page of tags.
pub(crate) fn parse_tags(bytes: &[u8]) -> Result<Vec<String>, JsonError> {
    let page: Tags = json::from_slice(bytes)?;
    let tags = page.tags.into_iter();
    Ok(tags.filter(|tag| !tag.is_empty()).collect())
}

impl Repository {
    /// Fetches a manifest or index by tag or digest.
    pub async fn manifest(
        &self,
        reference: &str,
        expected: Option<Digest>,
    ) -> Result<Manifest, RegistryError> {
        let what = Asked::Manifest(reference.to_owned());
        let uri = self.resource(&format!("manifests/{reference}"))?;
        let mut ask = Ask::new(Method::GET, uri, what.clone());
        for media_type in ACCEPT {
            ask = ask.header(header::ACCEPT, media_type);
        }
        let mut tried = 0;
        let (bytes, media_type, claimed) = loop {
            tried += 1;
            let response = self.request(ask.clone()).await?;
            if !response.status().is_success() {
                return Err(self.client.refusal(response, &ask).await);
            }
            let text = |name: &str| {
                let value = response.headers().get(name)?.to_str().ok()?;
                Some(value.to_owned())
            };
            let media_type = text("content-type").unwrap_or_default();
            let claimed = text("docker-content-digest");
            match self.client.read(response, MAX_MANIFEST_SIZE, &ask).await {
                Ok(bytes) => break (bytes, media_type, claimed),
                Err(RegistryError::Unreachable { .. })
                    if tried < self.client.options.deadlines.attempts =>
                {
                    self.client.pause(tried, None).await;
                }
                Err(error) => return Err(error),
            }
        };
        let digest = Digest::of(&bytes);
        // The reference's digest is decisive; the registry's own digest detects damage in transit.
        let expected = expected.or_else(|| claimed?.parse().ok()).unwrap_or(digest);
        if digest != expected {
            return Err(RegistryError::Digest {
                host: self.host().to_owned(),
                what,
                expected,
                found: Box::new(digest),
            });
        }
        let media_type = media_type.split(';').next().unwrap_or_default();
        Ok(Manifest {
            bytes,
            digest,
            media_type: media_type.trim().to_owned(),
        })
    }

    /// Whether the registry has a manifest with this digest.
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let uri = self.resource(&format!("manifests/{digest}"))?;
        let mut ask = Ask::new(Method::HEAD, uri, Asked::Manifest(digest.to_string()));
        for media_type in ACCEPT {
            ask = ask.header(header::ACCEPT, media_type);
        }
        self.exists(ask).await
    }

    /// Whether the answer to a HEAD request means that the object exists.
    pub(crate) async fn exists(&self, ask: Ask) -> Result<bool, RegistryError> {
        let response = self.request(ask.clone()).await?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.client.refusal(response, &ask).await),
        }
    }

    /// Stores a manifest under a tag or its digest.
    pub async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let uri = self.resource(&format!("manifests/{reference}"))?;
        let mut ask = Ask::new(
            Method::PUT,
            uri,
            Asked::ManifestUpload(reference.to_owned()),
        )
        .header(header::CONTENT_TYPE, media_type);
        ask.body = Bytes::copy_from_slice(bytes);
        let response = self.request(ask.clone()).await?;
        if !response.status().is_success() {
            return Err(self.client.refusal(response, &ask).await);
        }
        let claimed = response
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        match claimed {
            Some(found) if found != digest => Err(RegistryError::Digest {
                host: self.host().to_owned(),
                what: ask.what,
                expected: digest,
                found: Box::new(found),
            }),
            _ => Ok(digest),
        }
    }

    /// All tags.
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let mut uri = self.resource("tags/list?n=1000")?;
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let ask = Ask::new(Method::GET, uri.clone(), Asked::Tags);
            let response = self.request(ask.clone()).await?;
            if !response.status().is_success() {
                return Err(self.client.refusal(response, &ask).await);
            }
            let next = response
                .headers()
                .get(header::LINK)
                .and_then(|link| next_page(link.to_str().ok()?))
                .and_then(|target| join(&uri, &target))
                .filter(|next| authority(next) == authority(&self.base));
            let bytes = self.client.read(response, MAX_DOCUMENT, &ask).await?;
            let page = parse_tags(&bytes).map_err(|_| RegistryError::Protocol {
                host: self.host().to_owned(),
                what: ask.what,
                reason: "the answer is not a list of tags".to_owned(),
            })?;
            tags.extend(page);
            if tags.len() > MAX_TAGS {
                return Err(RegistryError::Protocol {
                    host: self.host().to_owned(),
                    what: Asked::Tags,
                    reason: format!("there are more than {MAX_TAGS}"),
                });
            }
            match next {
                Some(next) => uri = next,
                None => break,
            }
        }
        Ok(tags)
    }
}

/// The target of the link with relation `next` (RFC 8288).
pub(crate) fn next_page(header: &str) -> Option<String> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim().to_ascii_lowercase();
            parameter == "rel=next" || parameter == "rel=\"next\""
        });
        next.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (header, target) in [
            (
                "</v2/a/tags/list?n=1&last=x>; rel=\"next\"",
                Some("/v2/a/tags/list?n=1&last=x"),
            ),
            ("</p>; rel=prev, </n>;x=y; REL=next", Some("/n")),
            ("</p>; rel=prev", None),
            ("/n; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_page(header).as_deref(), target, "{header}");
        }
    }

    #[test]
    fn lists_of_tags_are_read_as_registries_write_them() {
        for (text, tags) in [
            (
                r#"{"name":"a","tags":["1",null,"","2",3]}"#,
                &["1", "2"][..],
            ),
            (r#"{"Tags":["1"],"name":null}"#, &["1"]),
            (r#"{"name":"a","tags":null}"#, &[]),
            ("{}", &[]),
        ] {
            assert_eq!(parse_tags(text.as_bytes()).unwrap(), tags, "{text}");
        }
        assert!(parse_tags(b"[]").is_err());
    }

    proptest! {
        #[test]
        fn no_link_causes_a_panic(text in any::<String>()) {
            let _ = next_page(&text);
        }
    }
}
