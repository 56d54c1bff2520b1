//! The little that is needed of URIs beside crate `http`.

use http::Uri;

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`, without brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

/// `host[:port]` of a URI; empty when it has none.
pub(crate) fn authority(uri: &Uri) -> &str {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    // Credentials do not belong into messages, and hyper does not send them.
    authority.rsplit('@').next().unwrap_or(authority)
}

/// Where a `Location` leads to (RFC 3986, section 5, without `..` segments).
pub(crate) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let own = authority(base);
    let begins = |scheme: &str| {
        let head = location.get(..scheme.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    };
    let text = if begins("http://") || begins("https://") {
        location.to_owned()
    } else if has_scheme(location) {
        return None;
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{own}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{own}{}{location}", base.path())
    } else {
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{own}{folder}/{location}")
    };
    let text = text.split('#').next().unwrap_or_default();
    let uri: Uri = text.parse().ok()?;
    (!authority(&uri).is_empty()).then_some(uri)
}

/// Whether a scheme comes first (RFC 3986, section 3.1).
fn has_scheme(text: &str) -> bool {
    let end = text.find([':', '/', '?', '#']);
    end.is_some_and(|end| end > 0 && text[end..].starts_with(':'))
}

/// Adds query parameters, whose names and values are encoded.
pub(crate) fn with_query(uri: &Uri, parameters: &[(&str, &str)]) -> Option<Uri> {
    let mut text = uri.to_string();
    for (name, value) in parameters {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(&encode(name));
        text.push('=');
        text.push_str(&encode(value));
    }
    text.parse().ok()
}

/// Percent encoding of everything that is not unreserved.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn locations_are_joined() {
        let base: Uri = "https://a.example:5000/v2/x/blobs/1?y=2".parse().unwrap();
        for (location, target) in [
            ("/v2/z", "https://a.example:5000/v2/z"),
            ("http://b/c?d", "http://b/c?d"),
            ("HTTPS://b/c", "https://b/c"),
            ("//b/c", "https://b/c"),
            ("2", "https://a.example:5000/v2/x/blobs/2"),
            ("?q=1", "https://a.example:5000/v2/x/blobs/1?q=1"),
            ("/a#fragment", "https://a.example:5000/a"),
        ] {
            assert_eq!(join(&base, location).unwrap(), target);
        }
        for wrong in ["https://", "http:///a", "/\u{7f}", "ftp://a/b", "file:/a"] {
            assert_eq!(join(&base, wrong), None, "{wrong}");
        }
        let uri = with_query(&base, &[("digest", "sha256:00")]).unwrap();
        assert!(uri.to_string().ends_with("?y=2&digest=sha256%3A00"));
    }

    #[test]
    fn hosts_are_found() {
        for (authority, host) in [
            ("a", "a"),
            ("a:1", "a"),
            ("[::1]", "::1"),
            ("[::1]:1", "::1"),
            ("", ""),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }

    proptest! {
        #[test]
        fn any_location_is_survived(location in any::<String>()) {
            let _ = join(&Uri::from_static("http://a/b/c"), &location);
        }
    }
}
