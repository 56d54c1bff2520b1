//! A registry that stores what is pushed to it, and is strict about the order of chunks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use hostd_images::Digest;

use super::server::{Reply, Seen, unknown};

/// The contents of the registry.
#[derive(Debug, Default)]
pub(crate) struct Storage {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By repository and digest.
    blobs: HashMap<(String, Digest), Vec<u8>>,
    /// By repository and tag or digest: media type and bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// By number.
    uploads: HashMap<usize, Vec<u8>>,
    begun: usize,
}

impl Storage {
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> (String, Vec<u8>) {
        let inner = self.inner.lock().unwrap();
        let key = (repository.to_owned(), reference.to_owned());
        inner.manifests.get(&key).cloned().unwrap()
    }

    /// Digests of the blobs of a repository.
    pub(crate) fn blobs(&self, repository: &str) -> Vec<Digest> {
        let inner = self.inner.lock().unwrap();
        let own = inner.blobs.keys().filter(|(name, _)| name == repository);
        let mut digests: Vec<_> = own.map(|(_, digest)| *digest).collect();
        digests.sort();
        digests
    }

    /// How many bytes the upload with this number has.
    pub(crate) fn received(&self, upload: usize) -> usize {
        let inner = self.inner.lock().unwrap();
        inner.uploads.get(&upload).map_or(0, Vec::len)
    }

    /// How an honest registry answers.
    pub(crate) fn answer(&self, seen: &Seen) -> Reply {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        if path == "/v2/" {
            return Reply::new(200, "{}");
        }
        let Some(path) = path.strip_prefix("/v2/") else {
            return unknown();
        };
        if let Some((name, number)) = path.split_once("/blobs/uploads/") {
            return self.upload(seen, name, number, query);
        }
        if let Some((name, digest)) = path.split_once("/blobs/") {
            let key = (name.to_owned(), digest.parse().unwrap());
            return match self.inner.lock().unwrap().blobs.get(&key) {
                Some(blob) => Reply::new(200, blob.clone()),
                None => unknown(),
            };
        }
        let Some((name, reference)) = path.split_once("/manifests/") else {
            return unknown();
        };
        let key = (name.to_owned(), reference.to_owned());
        let mut inner = self.inner.lock().unwrap();
        if seen.method == "PUT" {
            let media_type = seen.header("content-type").unwrap().to_owned();
            let digest = Digest::of(&seen.body);
            let stored = (media_type, seen.body.clone());
            let by_digest = (name.to_owned(), digest.to_string());
            inner.manifests.insert(key, stored.clone());
            inner.manifests.insert(by_digest, stored);
            return Reply::new(201, "").header("Docker-Content-Digest", digest.to_string());
        }
        match inner.manifests.get(&key) {
            Some((media_type, bytes)) => {
                Reply::new(200, bytes.clone()).header("Content-Type", media_type.clone())
            }
            None => unknown(),
        }
    }

    fn upload(&self, seen: &Seen, name: &str, number: &str, query: &str) -> Reply {
        let mut inner = self.inner.lock().unwrap();
        let place = |number: usize, length: usize| {
            Reply::new(202, "")
                .header("Location", format!("/v2/{name}/blobs/uploads/{number}"))
                .header("Range", format!("0-{}", length.saturating_sub(1)))
        };
        let of = |name: &str| {
            let value = query.split('&').find_map(|pair| pair.strip_prefix(name))?;
            Some(value.replace("%3A", ":").replace("%2F", "/"))
        };
        if seen.method == "POST" {
            if let (Some(digest), Some(from)) = (of("mount="), of("from=")) {
                let digest: Digest = digest.parse().unwrap();
                if let Some(blob) = inner.blobs.get(&(from, digest)).cloned() {
                    inner.blobs.insert((name.to_owned(), digest), blob);
                    return Reply::new(201, "");
                }
            }
            inner.begun += 1;
            let number = inner.begun;
            inner.uploads.insert(number, Vec::new());
            return place(number, 0);
        }
        let number: usize = number.parse().unwrap();
        let Some(upload) = inner.uploads.get_mut(&number) else {
            return unknown();
        };
        match seen.method.as_str() {
            "GET" => {
                let mut reply = place(number, upload.len());
                reply.status = 204;
                reply
            }
            "PATCH" | "PUT" => {
                let start = seen
                    .header("content-range")
                    .map_or(0, |range| range.split('-').next().unwrap().parse().unwrap());
                let without = seen.body.is_empty() && seen.method == "PUT";
                if start != upload.len() && !without {
                    return Reply::new(416, "");
                }
                upload.extend_from_slice(&seen.body);
                let length = upload.len();
                let whole = seen.header("content-length") == Some(&seen.body.len().to_string());
                if seen.method == "PATCH" || !whole {
                    return place(number, length);
                }
                let digest: Digest = of("digest=").unwrap().parse().unwrap();
                let bytes = inner.uploads.remove(&number).unwrap();
                if Digest::of(&bytes) != digest {
                    return Reply::new(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                inner.blobs.insert((name.to_owned(), digest), bytes);
                Reply::new(201, "").header("Docker-Content-Digest", digest.to_string())
            }
            "DELETE" => {
                inner.uploads.remove(&number);
                Reply::new(204, "")
            }
            _ => unknown(),
        }
    }
}
