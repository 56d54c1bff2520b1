//! Failures, as clients see them. They become HTTP answers in `reply`.

use keelson_model::error::ErrorKind;

/// A failure as the client sees it: `{"message": "…"}` under the status of its kind.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    kind: ErrorKind,
    message: String,
}

impl Failure {
    /// A failure of a kind.
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

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Runs work that blocks (file system) outside the threads that serve requests.
///
/// # Errors
/// Internal when the work panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = keelson_blocking::blocking(work).await;
    done.map_err(|died| Failure::new(ErrorKind::Internal, died.to_string()))
}
