//! Turns failures of the engine and the image store into those of the API.

use http::Response;
use keelson_http::Failure;
use keelson_http::reply::Body;
use keelson_model::error::ErrorKind;

/// A failure as the client sees it.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct ApiError(#[from] Failure);

impl ApiError {
    /// A failure of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Failure::new(kind, message))
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
        self.0.kind()
    }

    /// The HTTP answer.
    pub fn into_response(self) -> Response<Body> {
        self.0.into_response()
    }
}

/// Any error as text with its causes, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        // The text of many errors already contains their source.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    text
}

/// The kernel's text for a full file system.
const FULL: &str = "No space left on device";
const REMEDY: &str = "the disk is full: remove what is not needed (docker system prune) or enlarge it, and try again";

/// Adds advice about a full disk, unless the text has it. Recognised by the text, because the
/// runtime's errors come as text.
fn with_remedy(text: String) -> String {
    match text.contains(FULL) && !text.contains("docker system prune") {
        true => format!("{text}; {REMEDY}"),
        false => text,
    }
}

impl From<hostd_containers::EngineError> for ApiError {
    fn from(error: hostd_containers::EngineError) -> Self {
        let text = chain(&error);
        let text = match error {
            // The full file system may be in the container's memory.
            hostd_containers::EngineError::Copy(_) => text,
            _ => with_remedy(text),
        };
        Self::new(error.kind(), text)
    }
}

impl From<hostd_networks::NetworkError> for ApiError {
    fn from(error: hostd_networks::NetworkError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}

impl From<hostd_volumes::VolumeError> for ApiError {
    fn from(error: hostd_volumes::VolumeError) -> Self {
        Self::new(error.kind(), with_remedy(chain(&error)))
    }
}

impl From<hostd_images::ImageError> for ApiError {
    fn from(error: hostd_images::ImageError) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}
