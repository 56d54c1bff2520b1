//! Parsers of bytes from registries that are private otherwise, for the fuzz targets.

use http::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};

use crate::{auth_file, authorize, blob, client, manifest, search, upload, uri};

/// A file of credentials.
pub fn auth_file(bytes: &[u8]) {
    auth_file::try_find(bytes, "docker.io", "library/box");
    auth_file::try_find(bytes, "host:5000", "a/b/c");
}

/// The answers of a registry and of its token service.
pub fn answers(bytes: &[u8]) {
    let _ = client::parse_error(bytes);
    let _ = manifest::parse_tags(bytes);
    let _ = search::parse_answer(bytes);
    if let Ok((token, _)) = authorize::parse_token(bytes) {
        assert!(!token.is_empty() && HeaderValue::from_str(&token).is_ok());
    }
}

/// A header's value, as each of the headers that are read, and an error document.
pub fn headers(text: &str) {
    let _ = manifest::next_page(text);
    let _ = client::parse_error(text.as_bytes());
    if let Some(joined) = uri::join(&http::Uri::from_static("https://a/b/c?d"), text) {
        assert!(!uri::authority(&joined).is_empty());
        let _ = uri::with_query(&joined, &[("digest", text)]);
    }
    let Ok(value) = HeaderValue::from_str(text) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for name in [CONTENT_RANGE, RANGE, RETRY_AFTER] {
        headers.insert(name, value.clone());
    }
    let _ = blob::range_start(&headers);
    let _ = upload::received(&headers);
    let _ = client::retry_after(&headers);
}
