//! The part of HTTP/1.1 (RFC 9112) that tests need: one request and one complete answer.

use std::io;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection failed; with TLS also when one side refuses the other's certificate.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The TLS library refuses the credentials.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The credentials can't be read.
    #[error("credentials: {0}")]
    Credentials(String),
    /// The answer is not HTTP, or incomplete.
    #[error("answer is not valid HTTP: {0}")]
    Malformed(&'static str),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Header fields with lower-case names.
    pub headers: Vec<(String, String)>,
    /// Content, with transfer codings removed.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The value of a header field (name in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The content as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON; null when it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Reads an answer that ended with the end of the connection.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HttpError> {
        let malformed = HttpError::Malformed;
        let split = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .ok_or(malformed("no end of the header"))?;
        let (head, rest) = bytes.split_at(split);
        let rest = rest.get(4..).unwrap_or_default();
        let head = std::str::from_utf8(head).map_err(|_| malformed("header is not text"))?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1."))
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .ok_or(malformed("status line"))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Self {
            status,
            headers,
            body: Vec::new(),
        };
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        response.body = if chunked {
            unchunk(rest)?
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length
                .parse()
                .map_err(|_| malformed("content length is no number"))?;
            rest.get(..length)
                .ok_or(malformed("content is shorter than its length"))?
                .to_vec()
        } else {
            rest.to_vec()
        };
        Ok(response)
    }
}

fn unchunk(mut bytes: &[u8]) -> Result<Vec<u8>, HttpError> {
    let malformed = HttpError::Malformed("chunked content");
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|w| w == b"\r\n");
        let chunk = end.and_then(|end| {
            let size = std::str::from_utf8(bytes.get(..end)?).ok()?;
            let size = size.split(';').next()?.trim();
            let size = usize::from_str_radix(size, 16).ok()?;
            let start = end.checked_add(2)?;
            let stop = start.checked_add(size)?;
            Some((bytes.get(start..stop)?, bytes.get(stop.checked_add(2)?..)))
        });
        match chunk {
            Some(([], _)) => return Ok(body),
            Some((data, Some(rest))) => {
                body.extend_from_slice(data);
                bytes = rest;
            }
            _ => return Err(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_content_by_length_by_chunks_and_by_end() {
        let length = b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 2\r\n\r\nOKjunk";
        let response = HttpResponse::parse(length).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "OK"));
        assert_eq!(response.header("api-version"), Some("1.51"));
        let chunked = b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n\
            3\r\n{\"a\r\n3;x=y\r\n\":1\r\n1\r\n}\r\n0\r\n\r\n";
        let response = HttpResponse::parse(chunked).unwrap();
        assert_eq!(response.json()["a"], 1);
        let ended = HttpResponse::parse(b"HTTP/1.0 204 No Content\r\n\r\n").unwrap();
        assert_eq!((ended.status, ended.body.len()), (204, 0));
    }

    #[test]
    fn refuses_what_is_cut_short() {
        for bad in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(HttpResponse::parse(bad).is_err(), "{bad:?}");
        }
    }
}
