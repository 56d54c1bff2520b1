//! Sends blobs: mounted from another repository, in one piece, or in chunks. A broken upload
//! continues at the position that the registry reports (OCI distribution specification 1.1,
//! "Pushing blobs").

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use keelson_oci::digest::Digest;

use crate::asked::Asked;
use crate::client::{Ask, retry_after, retryable, unreachable};
use crate::error::RegistryError;
use crate::repository::{Repository, location};
use crate::source::{BlobSource, Part};
use crate::uri::{authority, encode, with_query};

/// Bytes of a chunk. Smaller blobs are sent in one piece.
const CHUNK: u64 = 16 << 20;
/// Largest chunk that a registry may ask for.
const MAX_CHUNK: u64 = 1 << 30;
/// After this many new bytes, the count of failures starts again.
const PROGRESS: u64 = 1 << 20;
/// Longest time between two reports of progress, and between two checks for a stall.
const TICK: Duration = Duration::from_millis(100);

/// An open upload at the registry.
struct Upload {
    /// The address for the next part.
    target: Uri,
    /// Bytes that the registry has.
    at: u64,
    /// Bytes of a chunk.
    chunk: u64,
}

/// Why an upload stopped.
enum Halt {
    /// Permanently.
    Final(RegistryError),
    /// It may be continued after this time.
    Broken(RegistryError, Option<Duration>),
    /// The token that was sent is no longer valid.
    Unauthorized(RegistryError),
}

impl From<RegistryError> for Halt {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unreachable { .. } => Self::Broken(error, None),
            other => Self::Final(other),
        }
    }
}

/// The data, and the progress.
struct Job<'a> {
    digest: Digest,
    size: u64,
    source: &'a BlobSource,
    progress: &'a (dyn Fn(u64) + Send + Sync),
    /// The name for messages.
    what: Asked,
    /// The highest offset that was ever passed to a connection: a registry can't have more.
    sent: u64,
}

impl Repository {
    /// Mounts a blob from another repository of the same registry. False if the registry does not
    /// do that.
    pub async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool, RegistryError> {
        let query = format!(
            "blobs/uploads/?mount={}&from={}",
            encode(&digest.to_string()),
            encode(from)
        );
        let ask = Ask::new(
            Method::POST,
            self.resource(&query)?,
            Asked::BlobMount(*digest),
        );
        let response = self.request(ask.clone()).await?;
        match response.status().as_u16() {
            201 => Ok(true),
            202 => {
                // An upload was begun instead. It is cancelled, so that the registry can forget it.
                if let Some(uri) = location(&ask.uri, &response) {
                    let _ = self
                        .request(Ask::new(Method::DELETE, uri, Asked::Cancelling))
                        .await;
                }
                Ok(false)
            }
            // Some registries refuse it with another error.
            400..=499 => Ok(false),
            _ => Err(self.client.refusal(response, &ask).await),
        }
    }

    /// Sends a blob. `progress` is called with the bytes sent so far.
    pub async fn put_blob(
        &self,
        digest: &Digest,
        size: u64,
        source: &BlobSource,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let mut job = Job {
            digest: *digest,
            size,
            source,
            progress,
            what: Asked::BlobUpload(*digest),
            sent: 0,
        };
        let attempts = self.client.options.deadlines.attempts;
        let mut upload = None;
        let (mut tried, mut renewed, mut failed_at) = (0, false, 0);
        loop {
            let outcome = match upload.take() {
                None => self.begin(&job).await,
                Some(known) => self.resume(&job, known).await,
            };
            let halt = match outcome {
                Ok(mut begun) => match self.send_all(&mut job, &mut begun).await {
                    Ok(()) => return Ok(()),
                    Err(halt) => {
                        if begun.at.saturating_sub(failed_at) >= PROGRESS {
                            (tried, renewed) = (0, false);
                        }
                        failed_at = begun.at;
                        upload = Some(begun);
                        halt
                    }
                },
                Err(halt) => halt,
            };
            let (error, wait) = match halt {
                Halt::Final(error) => return Err(error),
                Halt::Unauthorized(error) if renewed => return Err(error),
                // This does not count as a failure: the registry may have refused the old token,
                // and closed the connection so early that its answer was lost.
                Halt::Unauthorized(error) => {
                    renewed = true;
                    (error, Some(Duration::ZERO))
                }
                Halt::Broken(error, wait) => {
                    tried += 1;
                    if tried >= attempts {
                        return Err(error);
                    }
                    (error, wait)
                }
            };
            tracing::debug!(blob = %digest, at = failed_at, %error, "upload is continued");
            self.client.pause(tried, wait).await;
            // Perhaps only the last answer was lost.
            if job.sent >= size && self.has_blob(digest).await? {
                progress(size);
                return Ok(());
            }
        }
    }

    async fn begin(&self, job: &Job<'_>) -> Result<Upload, Halt> {
        let ask = Ask::new(
            Method::POST,
            self.resource("blobs/uploads/")?,
            job.what.clone(),
        );
        let response = self.request(ask.clone()).await?;
        if response.status().as_u16() != 202 {
            return Err(self.client.refusal(response, &ask).await.into());
        }
        let least = number(response.headers(), "oci-chunk-min-length").unwrap_or(0);
        Ok(Upload {
            target: self.upload_target(&ask.uri, &response, job.what.clone())?,
            at: 0,
            chunk: CHUNK.max(least.min(MAX_CHUNK)),
        })
    }

    /// Asks for the progress of an upload. Begins a new one if the registry has forgotten it.
    async fn resume(&self, job: &Job<'_>, known: Upload) -> Result<Upload, Halt> {
        let ask = Ask::new(Method::GET, known.target.clone(), job.what.clone());
        let response = self.request(ask.clone()).await?;
        if !matches!(response.status().as_u16(), 200 | 202 | 204) {
            return self.begin(job).await;
        }
        let Some(at) = received(response.headers()) else {
            return self.begin(job).await;
        };
        if at > job.sent {
            return Err(Halt::Final(self.wrong(
                job,
                format!(
                    "it says that it has {at} bytes, where {} were sent at most",
                    job.sent
                ),
            )));
        }
        let target = match response.headers().contains_key(header::LOCATION) {
            true => self.upload_target(&ask.uri, &response, job.what.clone())?,
            false => known.target,
        };
        Ok(Upload {
            target,
            at,
            chunk: known.chunk,
        })
    }

    /// Sends the missing bytes, and closes the upload.
    async fn send_all(&self, job: &mut Job<'_>, upload: &mut Upload) -> Result<(), Halt> {
        (job.progress)(upload.at);
        while job.size - upload.at > upload.chunk || (upload.at > 0 && upload.at < job.size) {
            let length = (job.size - upload.at).min(upload.chunk);
            let mut ask = Ask::new(Method::PATCH, upload.target.clone(), job.what.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream");
            let end = upload.at + length;
            ask = ask.header(
                header::CONTENT_RANGE,
                &format!("{}-{}", upload.at, end.saturating_sub(1)),
            );
            let response = self.send_part(job, ask, upload.at, length).await?;
            if response.headers().contains_key(header::LOCATION) {
                upload.target = self.upload_target(&upload.target, &response, job.what.clone())?;
            }
            upload.at = end;
        }
        let uri = with_query(&upload.target, &[("digest", &job.digest.to_string())])
            .ok_or_else(|| self.wrong(job, "its address is too long".to_owned()))?;
        let ask = Ask::new(Method::PUT, uri, job.what.clone())
            .header(header::CONTENT_TYPE, "application/octet-stream");
        self.send_part(job, ask, upload.at, job.size - upload.at)
            .await?;
        (job.progress)(job.size);
        Ok(())
    }

    /// Sends a part once. After a failure only the registry knows how much of it has arrived.
    async fn send_part(
        &self,
        job: &mut Job<'_>,
        mut ask: Ask,
        at: u64,
        length: u64,
    ) -> Result<Response<Incoming>, Halt> {
        self.authorize(&mut ask).await?;
        let deadlines = self.client.options.deadlines;
        let sent = Arc::new(AtomicU64::new(0));
        let body = Part::new(job.source, at, length, Arc::clone(&sent));
        // The deadlines are ours: they depend on the progress of the transfer.
        let request = self.client.send_once(
            &ask.method,
            &ask.uri,
            &ask.headers,
            body.boxed_unsync(),
            Duration::MAX,
        );
        let mut request = std::pin::pin!(request);
        let (mut seen, mut since) = (0, Instant::now());
        let tick = TICK.min(deadlines.stall / 4);
        let response = loop {
            tokio::select! {
                response = &mut request => break response,
                () = tokio::time::sleep(tick) => {}
            }
            let now = sent.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
                job.sent = job.sent.max(at + now);
                (job.progress)(at + now);
            }
            // Before the first byte a connection may have to be made; after the last one the
            // registry may need time to process the data.
            let limit = match now == 0 || now == length {
                true => deadlines.answer.max(deadlines.connect),
                false => deadlines.stall,
            };
            if since.elapsed() >= limit {
                return Err(Halt::Broken(
                    RegistryError::Unreachable {
                        host: authority(&ask.uri).to_owned(),
                        reason: format!(
                            "{} at byte {} of {}: nothing moved for {} s",
                            job.what,
                            at + now,
                            job.size,
                            limit.as_secs_f32()
                        ),
                    },
                    None,
                ));
            }
        };
        job.sent = job.sent.max(at + sent.load(Ordering::Relaxed));
        let response = response.map_err(|error| unreachable(&ask.uri, error))?;
        let status = response.status();
        match status.as_u16() {
            200..=204 => Ok(response),
            401 => {
                self.learn(&response, ask.headers.get(header::AUTHORIZATION));
                let error = self.client.refusal(response, &ask).await;
                Err(Halt::Unauthorized(error))
            }
            // The registry is at another position, or has forgotten the upload: ask it.
            404 | 416 => Err(Halt::Broken(
                self.client.refusal(response, &ask).await,
                None,
            )),
            _ if retryable(status) => {
                let wait = retry_after(response.headers());
                Err(Halt::Broken(
                    self.client.refusal(response, &ask).await,
                    wait,
                ))
            }
            _ => Err(Halt::Final(self.client.refusal(response, &ask).await)),
        }
    }

    fn wrong(&self, job: &Job<'_>, reason: String) -> RegistryError {
        RegistryError::Protocol {
            host: self.host().to_owned(),
            what: job.what.clone(),
            reason,
        }
    }

    /// Where the next part goes.
    fn upload_target(
        &self,
        base: &Uri,
        response: &http::Response<hyper::body::Incoming>,
        what: Asked,
    ) -> Result<Uri, RegistryError> {
        let wrong = |reason: &str| RegistryError::Protocol {
            host: self.host().to_owned(),
            what: what.clone(),
            reason: reason.to_owned(),
        };
        let target =
            location(base, response).ok_or_else(|| wrong("it names no address for the upload"))?;
        if !self
            .client
            .options
            .may_lead(self.host(), authority(&target))
        {
            return Err(wrong("it redirects the upload to this machine itself"));
        }
        let plain = target.scheme_str() == Some("http");
        if plain
            && (base.scheme_str() == Some("https")
                || !self.client.options.may_be_plain(authority(&target)))
        {
            return Err(wrong("it redirects the upload to plain HTTP"));
        }
        Ok(target)
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// How many bytes a registry has, from `Range: 0-9` or `Range: bytes=0-9`. `0-0` is also sent for
/// an upload without bytes, and is read as none, which is safe.
pub(crate) fn received(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::RANGE)?.to_str().ok()?.trim();
    let value = value.strip_prefix("bytes=").unwrap_or(value);
    let (start, end) = value.split_once('-')?;
    if start.trim() != "0" {
        return None;
    }
    match end.trim().parse().ok()? {
        0 => Some(0),
        end => u64::checked_add(end, 1),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn says(value: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(value).ok()?);
        received(&headers)
    }

    #[test]
    fn offsets_are_read() {
        assert_eq!(says("0-9"), Some(10));
        assert_eq!(says("bytes=0-1048575"), Some(1 << 20));
        assert_eq!(says("0-0"), Some(0));
        for wrong in ["", "-", "5-9", "0-", "0-x", "0-18446744073709551615"] {
            assert_eq!(says(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_offset_causes_a_panic(value in "[ -~]{0,40}") {
            let _ = says(&value);
        }
    }
}
