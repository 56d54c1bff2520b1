//! Reads blobs: no more than their known size, and resumed where the connection broke.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, header};
use hyper::body::Incoming;
use keelson_oci::digest::Digest;

use crate::asked::Asked;
use crate::body::Pace;
use crate::client::{Ask, chain};
use crate::error::RegistryError;
use crate::repository::Repository;

/// After this many new bytes, the count of broken connections starts again.
const PROGRESS: u64 = 1 << 20;

/// A blob that is being read. The caller checks the digest of the bytes that it received.
#[derive(Debug)]
pub struct BlobReader<'a> {
    repository: &'a Repository,
    digest: Digest,
    size: u64,
    at: u64,
    body: Option<Incoming>,
    pace: Pace,
    /// Bytes of the present body that were read before.
    skip: u64,
    tried: u32,
    /// The position of the last failure.
    failed_at: u64,
}

impl Repository {
    /// Begins to read a blob of this size. Bytes beyond it are an error.
    pub fn blob(&self, digest: Digest, size: u64) -> BlobReader<'_> {
        BlobReader {
            repository: self,
            digest,
            size,
            at: 0,
            body: None,
            pace: Pace::new(self.client.options.deadlines.stall),
            skip: 0,
            tried: 0,
            failed_at: 0,
        }
    }

    /// Reads a small blob as a whole and checks its digest.
    pub async fn small_blob(
        &self,
        digest: Digest,
        size: u64,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = Asked::Blob(digest);
        if size > limit {
            return Err(RegistryError::Protocol {
                host: self.host().to_owned(),
                what,
                reason: format!("it has {size} bytes, where at most {limit} are accepted"),
            });
        }
        let mut reader = self.blob(digest, size);
        let mut bytes = Vec::new();
        while let Some(piece) = reader.next().await? {
            bytes.extend_from_slice(&piece);
        }
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(RegistryError::Digest {
                host: self.host().to_owned(),
                what,
                expected: digest,
                found: Box::new(found),
            });
        }
        Ok(bytes)
    }

    /// Whether the registry has a blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let uri = self.resource(&format!("blobs/{digest}"))?;
        self.exists(Ask::new(Method::HEAD, uri, Asked::Blob(*digest)))
            .await
    }
}

impl BlobReader<'_> {
    /// The next bytes; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let Some(body) = &mut self.body else {
                if self.at >= self.size {
                    return Ok(None);
                }
                self.open().await?;
                continue;
            };
            let reason = match self.pace.frame(body).await {
                Ok(Some(Ok(frame))) => {
                    let Ok(mut piece) = frame.into_data() else {
                        continue;
                    };
                    if self.skip > 0 {
                        let known = piece
                            .len()
                            .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                        let _ = piece.split_to(known);
                        self.skip -= known as u64;
                    }
                    if piece.is_empty() {
                        continue;
                    }
                    self.at += piece.len() as u64;
                    if self.at > self.size {
                        return Err(self.protocol(format!(
                            "more than the {} bytes that its manifest says",
                            self.size
                        )));
                    }
                    return Ok(Some(piece));
                }
                Ok(None) if self.at >= self.size => return Ok(None),
                Ok(None) => "the blob ended early".to_owned(),
                Ok(Some(Err(error))) => format!("the connection broke: {}", chain(&error)),
                Err(stalled) => stalled.to_string(),
            };
            self.body = None;
            self.retry(reason).await?;
        }
    }

    /// Waits for another attempt, or gives up.
    async fn retry(&mut self, reason: String) -> Result<(), RegistryError> {
        if self.at.saturating_sub(self.failed_at) >= PROGRESS {
            self.tried = 0;
        }
        self.failed_at = self.at;
        self.tried += 1;
        let client = &self.repository.client;
        if self.tried >= client.options.deadlines.attempts {
            return Err(RegistryError::Unreachable {
                host: self.repository.host().to_owned(),
                reason: format!(
                    "blob {} at byte {} of {}: {reason}",
                    self.digest, self.at, self.size
                ),
            });
        }
        tracing::debug!(blob = %self.digest, at = self.at, reason, "blob is resumed");
        client.pause(self.tried, None).await;
        Ok(())
    }

    /// Asks for the bytes that are missing.
    async fn open(&mut self) -> Result<(), RegistryError> {
        let uri = self
            .repository
            .resource(&format!("blobs/{}", self.digest))?;
        let mut ask = Ask::new(Method::GET, uri, Asked::Blob(self.digest));
        if self.at > 0 {
            ask = ask.header(header::RANGE, &format!("bytes={}-", self.at));
        }
        let response = self.repository.request(ask.clone()).await?;
        self.skip = 0;
        match response.status().as_u16() {
            200 => {
                // A server that does not support ranges sends everything again.
                self.skip = self.at;
                self.check_length(&response, self.size)?;
            }
            206 if self.at > 0 => {
                let start = range_start(response.headers());
                if start != Some(self.at) {
                    return Err(self.protocol(format!(
                        "it sends a range from {start:?} instead of one from {}",
                        self.at
                    )));
                }
                self.check_length(&response, self.size - self.at)?;
            }
            _ => return Err(self.repository.client.refusal(response, &ask).await),
        }
        self.body = Some(response.into_body());
        self.pace = Pace::new(self.repository.client.options.deadlines.stall);
        Ok(())
    }

    fn check_length(
        &self,
        response: &Response<Incoming>,
        wanted: u64,
    ) -> Result<(), RegistryError> {
        let length = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length != wanted => Err(self.protocol(format!(
                "it has {length} bytes where its manifest says {wanted}"
            ))),
            _ => Ok(()),
        }
    }

    fn protocol(&self, reason: String) -> RegistryError {
        RegistryError::Protocol {
            host: self.repository.host().to_owned(),
            what: Asked::Blob(self.digest),
            reason,
        }
    }
}

/// The first byte of `Content-Range: bytes 5-9/10`.
pub(crate) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let range = value.trim().strip_prefix("bytes ")?;
    range.trim_start().split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn start(value: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(value).ok()?);
        range_start(&headers)
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(start("bytes 5-9/10"), Some(5));
        assert_eq!(start("bytes 0-9/*"), Some(0));
        for wrong in ["", "bytes */10", "5-9/10", "bytes -5", "bytes x-9/10"] {
            assert_eq!(start(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_range_causes_a_panic(value in "[ -~]{0,40}", first in any::<u64>()) {
            let _ = start(&value);
            prop_assert_eq!(start(&format!("bytes {first}-9/10")), Some(first));
        }
    }
}
