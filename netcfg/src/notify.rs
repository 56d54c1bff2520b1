//! Reports to the supervisor: sd_notify(3).

use std::env;
use std::time::Duration;

use keelson_linux::notify::{self, Notification};
use keelson_model::init::SIGN_OF_LIFE_VARIABLE;

/// How often the supervisor expects a sign of life.
pub(crate) fn sign_of_life_interval() -> Option<Duration> {
    keelson_model::init::sign_of_life_interval(env::var(SIGN_OF_LIFE_VARIABLE).ok().as_deref())
}

/// The supervisor, if there is one.
#[derive(Debug)]
pub(crate) struct Notifier(notify::Notifier);

impl Notifier {
    /// The supervisor that the environment names.
    pub(crate) fn from_environment() -> Self {
        Self(notify::Notifier::from_environment())
    }

    /// Sends a notification. If the supervisor does not listen, that is only logged.
    pub(crate) fn send(&self, notification: &Notification) {
        if let Err(error) = self.0.send(notification) {
            tracing::warn!(%error, socket = ?self.0.address(), "cannot notify the supervisor");
        }
    }
}
