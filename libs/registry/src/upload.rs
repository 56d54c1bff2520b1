//! Sending blobs: mounted from another repository, in one piece, or in chunks.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, Uri, header};
use http_body_util::{BodyExt, Full};
use keelson_oci::digest::Digest;

use crate::client::{Ask, unreachable};
use crate::error::RegistryError;
use crate::repository::{Repository, location};
use crate::uri::{authority, encode, with_query};

/// Bytes of a chunk; smaller blobs go in one piece. Held in memory.
const CHUNK: u64 = 8 << 20;
/// A chunk may take as many times the usual time for an answer.
const CHUNK_PATIENCE: u32 = 10;

/// What is to be sent.
#[derive(Debug, Clone)]
pub enum BlobSource {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, which must not change meanwhile.
    File(PathBuf),
}

impl BlobSource {
    /// A part of the blob.
    async fn part(&self, at: u64, length: u64) -> Result<Bytes, RegistryError> {
        let failed = |error: &dyn std::fmt::Display| RegistryError::Source(error.to_string());
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let end = usize::try_from(at.saturating_add(length))
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                Ok(bytes.slice(start..end))
            }
            Self::File(path) => {
                let path = path.clone();
                let read = move || -> std::io::Result<Bytes> {
                    let mut file = std::fs::File::open(path)?;
                    file.seek(SeekFrom::Start(at))?;
                    let mut part = Vec::new();
                    file.take(length).read_to_end(&mut part)?;
                    Ok(part.into())
                };
                tokio::task::spawn_blocking(read)
                    .await
                    .map_err(|error| failed(&error))?
                    .map_err(|error| failed(&error))
            }
        }
    }
}

impl Repository {
    /// Takes a blob over from another repository of the same registry; false when the registry
    /// does not do that.
    pub async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool, RegistryError> {
        let query = format!(
            "blobs/uploads/?mount={}&from={}",
            encode(&digest.to_string()),
            encode(from)
        );
        let ask = Ask::new(
            Method::POST,
            self.resource(&query)?,
            format!("mount of blob {digest}"),
        );
        let response = self.request(ask.clone()).await?;
        match response.status().as_u16() {
            201 => Ok(true),
            202 => {
                // An upload was begun instead; it is given up, so that the registry can forget it.
                if let Some(uri) = location(&ask.uri, &response) {
                    let _ = self
                        .request(Ask::new(Method::DELETE, uri, "cancelling"))
                        .await;
                }
                Ok(false)
            }
            // Some registries refuse it with an error of their own.
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
        let mut tried = 0;
        loop {
            tried += 1;
            match self.upload(digest, size, source, progress).await {
                Err(RegistryError::Unreachable { .. })
                    if tried < self.client.options.patience.attempts =>
                {
                    tracing::debug!(blob = %digest, tried, "upload begins again");
                    self.client.pause(tried, None).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// One attempt (OCI distribution specification, "Pushing blobs").
    async fn upload(
        &self,
        digest: &Digest,
        size: u64,
        source: &BlobSource,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let what = format!("upload of blob {digest}");
        let begin = Ask::new(Method::POST, self.resource("blobs/uploads/")?, &what);
        let response = self.request(begin.clone()).await?;
        if response.status().as_u16() != 202 {
            return Err(self.client.refusal(response, &begin).await);
        }
        let mut target = self.upload_target(&begin.uri, &response, &what)?;
        let mut at = 0;
        progress(0);
        while size - at > CHUNK {
            let part = source.part(at, CHUNK).await?;
            let end = at + part.len() as u64;
            if part.is_empty() {
                return Err(RegistryError::Source("it became shorter".to_owned()));
            }
            let mut ask = Ask::new(Method::PATCH, target.clone(), &what)
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_RANGE, &format!("{at}-{}", end - 1));
            ask.body = part;
            let response = self.send_part(&mut ask).await?;
            if !matches!(response.status().as_u16(), 202 | 204) {
                return Err(self.client.refusal(response, &ask).await);
            }
            target = self.upload_target(&target, &response, &what)?;
            at = end;
            progress(at);
        }
        let last = source.part(at, size - at).await?;
        let uri = with_query(&target, &[("digest", &digest.to_string())])
            .ok_or_else(|| RegistryError::Setup(format!("{what}: its address is too long")))?;
        let mut ask = Ask::new(Method::PUT, uri, &what)
            .header(header::CONTENT_TYPE, "application/octet-stream");
        if at > 0 {
            let end = at + (last.len() as u64).saturating_sub(1);
            ask = ask.header(header::CONTENT_RANGE, &format!("{at}-{end}"));
        }
        ask.body = last;
        let response = self.send_part(&mut ask).await?;
        if !matches!(response.status().as_u16(), 201 | 204) {
            return Err(self.client.refusal(response, &ask).await);
        }
        progress(size);
        Ok(())
    }

    /// Where the next part goes.
    fn upload_target(
        &self,
        base: &Uri,
        response: &http::Response<hyper::body::Incoming>,
        what: &str,
    ) -> Result<Uri, RegistryError> {
        let wrong = |reason: &str| RegistryError::Protocol {
            host: self.host().to_owned(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        let target =
            location(base, response).ok_or_else(|| wrong("it names no address for the upload"))?;
        let plain = target.scheme_str() == Some("http");
        if plain
            && (base.scheme_str() == Some("https")
                || !self.client.options.may_be_plain(authority(&target)))
        {
            return Err(wrong("it wants the upload by plain HTTP"));
        }
        Ok(target)
    }

    /// Sends a part once: after a failure the registry's state is not known.
    async fn send_part(
        &self,
        ask: &mut Ask,
    ) -> Result<http::Response<hyper::body::Incoming>, RegistryError> {
        self.authorize(ask).await?;
        let limit = self.client.options.patience.answer * CHUNK_PATIENCE;
        let body = Full::new(ask.body.clone())
            .map_err(|never| match never {})
            .boxed_unsync();
        let response = self
            .client
            .send_once(&ask.method, &ask.uri, &ask.headers, body, limit)
            .await
            .map_err(|error| unreachable(&ask.uri, error))?;
        match response.status().as_u16() {
            429 | 500 | 502 | 503 | 504 => Err(RegistryError::Unreachable {
                host: self.host().to_owned(),
                reason: format!("{}: it answers {}", ask.what, response.status()),
            }),
            _ => Ok(response),
        }
    }
}
