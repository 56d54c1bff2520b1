//! Functions for URIs that crate `http` does not have.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

/// The target of a `Location` (RFC 3986, section 5, without `..` segments).
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
        let directory = base
            .path()
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        format!("{scheme}://{own}{directory}/{location}")
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

/// The value of an `Authorization` header for user name and password in a URI; `None` when there
/// are none. In the URI they are percent-encoded (RFC 3986, section 3.2.1); RFC 7617 needs them
/// plain.
///
/// # Errors
/// When they are not well encoded. The error does not quote them.
pub(crate) fn basic(uri: &Uri) -> Result<Option<String>, &'static str> {
    let Some((user, _)) = uri
        .authority()
        .and_then(|authority| authority.as_str().rsplit_once('@'))
    else {
        return Ok(None);
    };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let wrong = "user name or password in the address is not well percent-encoded";
    let mut plain = decode(name).ok_or(wrong)?;
    plain.push(b':');
    plain.extend(decode(password).ok_or(wrong)?);
    Ok(Some(format!("Basic {}", STANDARD.encode(plain))))
}

/// The text of a URL without user name and password, even when the URL is invalid.
pub(crate) fn without_user(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}{host}{path}")
}

/// Percent decoding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high << 4 | low).ok()?);
    }
    Some(out)
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
    fn users_in_addresses_are_decoded() {
        let of = |text: &str| basic(&text.parse().unwrap());
        let encoded = |text: &str| Ok(Some(format!("Basic {}", STANDARD.encode(text))));
        assert_eq!(of("http://host/"), Ok(None));
        assert_eq!(of("http://user@host/"), encoded("user:"));
        assert_eq!(of("http://user:p%40ss%3A%2f@host/"), encoded("user:p@ss:/"));
        assert_eq!(of("http://a%20b:%C3%A4@host/"), encoded("a b:\u{e4}"));
        assert!(of("http://user:p%4@host/").is_err());
        assert!(of("http://user:p%zz@host/").is_err());
        for (text, shown) in [
            ("http://u:secret@host/a@b", "http://host/a@b"),
            ("u:secret@host", "host"),
            ("ftp://u:se cret@", "ftp://"),
            ("http://host", "http://host"),
        ] {
            assert_eq!(without_user(text), shown);
        }
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
        fn no_location_causes_a_panic(location in any::<String>()) {
            let _ = join(&Uri::from_static("http://a/b/c"), &location);
            let _ = without_user(&location);
            prop_assert_eq!(decode(&encode(&location)), Some(location.into_bytes()));
        }
    }
}
