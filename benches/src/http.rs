//! The part of HTTP that measurements need, without the overhead of a client library.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Sends a request; [`answer`] waits for the response.
///
/// # Errors
/// The socket does not take it.
pub fn send(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    let kind = match body.first() {
        None | Some(b'{') => "application/json",
        _ => "application/x-tar",
    };
    let head = format!(
        "{method} /v1.41{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    Ok(stream)
}

/// The body of a response, which must report success.
///
/// # Errors
/// It reports a failure, or is cut off.
pub fn answer(mut stream: UnixStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer has no end of its head")?;
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let code = head.split(' ').nth(1).unwrap_or_default();
    if !matches!(code, "200" | "201" | "204" | "101") {
        bail!("{code}: {}", String::from_utf8_lossy(&body).trim());
    }
    match head.contains("transfer-encoding: chunked") {
        true => joined(&body),
        false => Ok(body),
    }
}

/// Decodes a chunked body.
fn joined(mut body: &[u8]) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let end = body
            .windows(2)
            .position(|window| window == b"\r\n")
            .context("a chunk has no length")?;
        let (length, rest) = body.split_at(end);
        let length = usize::from_str_radix(std::str::from_utf8(length)?.trim(), 16)?;
        let rest = rest.get(2..).unwrap_or_default();
        if length == 0 {
            return Ok(content);
        }
        content.extend_from_slice(rest.get(..length).context("a chunk is cut off")?);
        body = rest.get(length + 2..).unwrap_or_default();
    }
}

/// A request and its answer.
///
/// # Errors
/// As for [`send`] and [`answer`].
pub fn call(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
    send(socket, method, path, body)
        .and_then(answer)
        .with_context(|| format!("{method} {path}"))
}

/// A request with an object, and the object that comes back.
///
/// # Errors
/// As for [`call`], and when no object comes back.
pub fn post(socket: &Path, path: &str, body: &Value) -> Result<Value> {
    let answer = call(socket, "POST", path, body.to_string().as_bytes())?;
    if answer.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&answer).with_context(|| format!("POST {path}: the answer"))
}

/// Reads a response, which must report success, and drops it; returns how many bytes it had.
///
/// # Errors
/// It reports a failure, or can't be read.
pub fn drain(mut stream: UnixStream) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut read = stream.read(&mut buffer)?;
    let start = buffer.get(..read).unwrap_or_default();
    if !start.starts_with(b"HTTP/1.1 200 ") {
        bail!("{}", String::from_utf8_lossy(start));
    }
    let mut bytes = 0;
    while read > 0 {
        bytes += read as u64;
        read = stream.read(&mut buffer)?;
    }
    Ok(bytes)
}
