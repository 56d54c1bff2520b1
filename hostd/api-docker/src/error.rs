//! The one place where failures become HTTP answers.

use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use serde_json::json;

use crate::reply::{self, Body};

/// A failure as the client sees it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    kind: ErrorKind,
    message: String,
}

impl ApiError {
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

    /// Keelson does not have it yet.
    pub fn not_built(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
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

/// Any error as text with its causes, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        // Errors made with thiserror often show their source already.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    text
}

impl From<hostd_containers::EngineError> for ApiError {
    fn from(error: hostd_containers::EngineError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}

impl From<hostd_images::ImageError> for ApiError {
    fn from(error: hostd_images::ImageError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}
