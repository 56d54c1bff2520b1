//! Reports to the supervisor: sd_notify(3).

use std::time::Duration;

use keelson_linux::notify::{Notification, Notifier};
use keelson_model::init::SIGN_OF_LIFE_VARIABLE;

/// How often the supervisor wants a sign of life.
pub(crate) fn sign_of_life_interval() -> Option<Duration> {
    let value = std::env::var(SIGN_OF_LIFE_VARIABLE).ok();
    keelson_model::init::sign_of_life_interval(value.as_deref())
}

/// Whether a supervisor started this process, and starts it again when it ends.
pub(crate) fn is_supervised() -> bool {
    std::env::var_os(SIGN_OF_LIFE_VARIABLE).is_some()
}

/// Sends a notification. Without a supervisor it does nothing.
pub(crate) fn notify(notification: &Notification) {
    let notifier = Notifier::from_environment();
    if let Err(error) = notifier.send(notification) {
        tracing::warn!(socket = ?notifier.address(), %error, "the supervisor can't be notified");
    }
}
