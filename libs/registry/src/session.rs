//! The known facts about a registry's access control.

use std::sync::Mutex;
use std::time::Instant;

use crate::auth::Challenge;

/// The challenge and token of a registry.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) state: Mutex<AuthState>,
    /// Held while a token is fetched, so that parallel requests share one.
    pub(crate) fetching: tokio::sync::Mutex<()>,
}

/// A challenge, and the token that answers it.
#[derive(Default)]
pub(crate) struct AuthState {
    pub(crate) challenge: Option<Challenge>,
    /// The value of the header, and the time until which it is used.
    pub(crate) token: Option<(String, Instant)>,
}

/// Secrets never get into logs.
impl std::fmt::Debug for AuthState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthState")
            .field("challenge", &self.challenge)
            .finish_non_exhaustive()
    }
}
