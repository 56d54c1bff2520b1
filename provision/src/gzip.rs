//! Unpacks gzip within a limit: a small archive may hold gigabytes.

use std::io::Read;

use flate2::read::MultiGzDecoder;

/// Why bytes can't be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    /// It is no gzip, or cut short.
    #[error("it is no valid gzip: {0}")]
    Broken(String),
    /// More than the limit.
    #[error("it unpacks to more than {0} bytes")]
    TooLarge(usize),
}

/// Whether bytes begin as gzip does.
#[must_use]
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Unpacks at most `limit` bytes.
///
/// # Errors
/// [`GzipError`].
pub fn unpack(bytes: &[u8], limit: usize) -> Result<Vec<u8>, GzipError> {
    let mut out = Vec::new();
    MultiGzDecoder::new(bytes)
        .take(limit as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|error| GzipError::Broken(error.to_string()))?;
    if out.len() > limit {
        return Err(GzipError::TooLarge(limit));
    }
    Ok(out)
}
