//! Failures of requests. `reply` turns them into HTTP answers.

use keelson_model::error::ErrorKind;

/// A failure as the client sees it: `{"message": "…"}`, with the HTTP status of its kind.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: ErrorKind,
    message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The caller's input is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Its kind, from which the status follows.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Runs blocking work (file system) outside the threads that serve requests.
///
/// # Errors
/// Internal: the work panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = keelson_blocking::blocking(work).await;
    done.map_err(|died| Failure::new(ErrorKind::Internal, died.to_string()))
}
