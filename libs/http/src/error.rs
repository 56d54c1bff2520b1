//! The one place where failures become HTTP answers.

use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use serde_json::json;

use crate::reply::{self, Body};

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

    /// The HTTP answer.
    pub fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.kind.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if self.kind == ErrorKind::Internal {
            tracing::error!(error = %self.message, "request failed");
        }
        if status == StatusCode::NOT_MODIFIED {
            return reply::empty(status);
        }
        reply::json(status, &json!({ "message": self.message }))
    }
}

/// Runs work that blocks (file system) outside the threads that serve requests.
///
/// # Errors
/// Internal when the work panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Failure::new(
            ErrorKind::Internal,
            format!("a background task failed: {error}"),
        )
    })
}
