//! Restores the table when somebody else changes it.

use std::sync::PoisonError;
use std::time::Duration;

use keelson_nftables::{Monitor, TableChange};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

use super::filter::{Firewall, FirewallError};

/// The pause before the table is restored again, if it keeps being changed: the first one, and the
/// longest.
const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(2);
/// After this time without a change, the next one is repaired at once again.
const QUIET: Duration = Duration::from_secs(10);

impl Firewall {
    /// Restores the table, with its current elements, each time that somebody else deletes or
    /// changes it, as `nft flush ruleset` and other firewalls do. Returns only with an error; a
    /// second call has nothing to do and returns at once.
    ///
    /// # Errors
    /// The kernel's reports can't be read.
    pub(crate) async fn watch(&self) -> Result<(), FirewallError> {
        let monitor = {
            let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
            monitor.take()
        };
        let Some(monitor) = monitor else {
            return Ok(());
        };
        let mut monitor = register(monitor).map_err(FirewallError::Wait)?;
        let mut pause = SHORT;
        let mut last: Option<Instant> = None;
        loop {
            let change = changed(&mut monitor).await?;
            if last.is_some_and(|last| last.elapsed() > QUIET) {
                (pause, last) = (SHORT, None);
            }
            if last.is_some() {
                // Another program keeps changing it. Without a pause, both would change it as fast
                // as they can.
                sleep(pause).await;
                pause = (pause * 2).min(LONG);
            }
            match self.repair(change != TableChange::Unknown) {
                Ok(false) => continue,
                Ok(true) => {
                    tracing::warn!(
                        ?change,
                        "another program changed the table inet keelson: restored"
                    );
                }
                Err(error) => {
                    tracing::error!(%error, ?change, "can't restore the packet filter");
                    // This change is not reported again.
                    retry(self, &mut pause).await;
                }
            }
            last = Some(Instant::now());
        }
    }
}

/// `AsyncFd::new` is deprecated because of types whose descriptor changes or is closed early. A
/// monitor's descriptor lives exactly as long as the monitor.
#[expect(deprecated, reason = "what replaces it is unsafe to call")]
fn register(monitor: Monitor) -> std::io::Result<AsyncFd<Monitor>> {
    AsyncFd::new(monitor)
}

/// Waits for a change of somebody else's.
async fn changed(monitor: &mut AsyncFd<Monitor>) -> Result<TableChange, FirewallError> {
    loop {
        let mut guard = monitor.readable_mut().await.map_err(FirewallError::Wait)?;
        let change = guard.get_inner_mut().read()?;
        guard.clear_ready();
        if let Some(change) = change {
            return Ok(change);
        }
    }
}

/// Tries until it succeeds.
async fn retry(firewall: &Firewall, pause: &mut Duration) {
    loop {
        sleep(*pause).await;
        *pause = (*pause * 2).min(LONG);
        match firewall.repair(true) {
            Ok(_) => return,
            Err(error) => tracing::error!(%error, "can't restore the packet filter"),
        }
    }
}
