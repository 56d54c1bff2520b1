//! Announces interfaces in the background.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keelson_netlink::{LinkId, Worker};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tracing::debug;

use super::announce::{Announcement, INTERVAL, TIMES};

/// Most interfaces that are announced at the same time. Each needs one descriptor for two seconds.
const AT_ONCE: usize = 512;

/// Pauses between checks of a port that does not forward yet: 1, 2, 4 … ms, two seconds in all. A
/// port that stays down is not announced.
const LOOKS: u32 = 11;

/// The running announcements.
#[derive(Debug, Clone)]
pub(super) struct Announcer {
    tasks: Arc<Mutex<HashMap<String, AbortHandle>>>,
    places: Arc<Semaphore>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self {
            tasks: Arc::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Starts to announce an interface. `worker` is in the host's namespace.
    pub(super) fn begin(&self, announcement: Announcement, worker: &Arc<Worker>) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            debug!(
                endpoint = announcement.endpoint,
                "not announced: too many are"
            );
            close(announcement);
            return;
        };
        let endpoint = announcement.endpoint.clone();
        let worker = Arc::clone(worker);
        let tasks = Arc::clone(&self.tasks);
        let held = Closing(Some(announcement));
        let id = endpoint.clone();
        // The map stays locked until the task is in it, so that the task finds its entry when it
        // ends.
        let mut running = lock(&self.tasks);
        let task = tokio::spawn(async move {
            if let Some(announcement) = held.0.as_ref() {
                announce(announcement, &worker).await;
            }
            drop((held, place));
            lock(&tasks).remove(&id);
        });
        if let Some(earlier) = running.insert(endpoint, task.abort_handle()) {
            earlier.abort();
        }
    }

    /// Ends the announcement of an interface that will be removed.
    pub(super) fn end(&self, endpoint: &str) {
        if let Some(task) = lock(&self.tasks).remove(endpoint) {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn announce(announcement: &Announcement, worker: &Worker) {
    if !forwards(announcement.port.as_deref(), worker).await {
        let endpoint = &announcement.endpoint;
        debug!(endpoint, "not announced: its port does not forward");
        return;
    }
    for time in 0..TIMES {
        if time > 0 {
            tokio::time::sleep(INTERVAL).await;
        }
        if let Err(error) = announcement.send() {
            let endpoint = &announcement.endpoint;
            debug!(endpoint, %error, "not announced");
            return;
        }
    }
}

/// Waits until a port forwards; returns `false` if it does not in time, or is gone.
async fn forwards(port: Option<&str>, worker: &Worker) -> bool {
    let Some(port) = port else {
        return true;
    };
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(Duration::from_millis(1 << look)).await;
        }
        let id = LinkId::Name(port.to_owned());
        let found = worker.run(move |site| site.batches.find_links(&[id])).await;
        match found {
            Ok(Ok(links)) => match links.into_iter().flatten().next() {
                Some(link) if link.forwards == Some(true) => return true,
                Some(_) => {}
                None => return false,
            },
            _ => return false,
        }
    }
    false
}

/// Closes an announcement's socket on a thread that may block, however its task ends.
struct Closing(Option<Announcement>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(announcement) = self.0.take() {
            close(announcement);
        }
    }
}

/// Closing a packet socket waits for an RCU grace period.
fn close(announcement: Announcement) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(move || drop(announcement));
        }
        Err(_) => drop(announcement),
    }
}
