//! The watchers, and the clock that measures for all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keelson_blocking::blocking;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::ContainerStats;
use super::measure::{MachineFigures, measure};
use crate::container::Container;

/// The time between measurements.
const PERIOD: Duration = Duration::from_secs(1);

/// The latest measurement of a container; `None` before the first.
pub(super) type Latest = Option<Arc<ContainerStats>>;

/// The clock. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    containers: BTreeMap<String, Entry>,
    runs: bool,
}

#[derive(Clone)]
struct Entry {
    container: Arc<Container>,
    latest: watch::Sender<Latest>,
}

impl Clock {
    /// Measures a container as long as the receiver exists. The channel closes when the container
    /// is removed.
    pub(super) fn watch(
        &self,
        container: &Arc<Container>,
        mount: Option<&Path>,
    ) -> watch::Receiver<Latest> {
        let mut watched = self.watched();
        let entry = watched.containers.entry(container.id.clone());
        let entry = entry.or_insert_with(|| Entry {
            container: Arc::clone(container),
            latest: watch::Sender::new(None),
        });
        let receiver = entry.latest.subscribe();
        if !std::mem::replace(&mut watched.runs, true) {
            let (clock, mount) = (self.clone(), mount.map(Path::to_owned));
            tokio::spawn(async move { clock.run(mount).await });
        }
        receiver
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures until there are no watchers.
    async fn run(&self, mount: Option<PathBuf>) {
        // Every watcher already has a first measurement.
        let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
        // Skip missed ticks, to spare a busy machine.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(entries) = self.entries() else {
                return;
            };
            let mount = mount.clone();
            let work = move || {
                let machine = MachineFigures::now();
                for Entry { container, latest } in entries {
                    let stats = measure(&container, mount.as_deref(), &machine);
                    latest.send_replace(Some(Arc::new(stats)));
                }
            };
            if let Err(error) = blocking(work).await {
                tracing::error!(%error, "containers not measured");
            }
        }
    }

    /// The containers to measure; `None` if there are no watchers, and the clock must stop.
    fn entries(&self) -> Option<Vec<Entry>> {
        let mut watched = self.watched();
        watched
            .containers
            .retain(|_, entry| entry.latest.receiver_count() > 0 && !entry.container.is_gone());
        watched.runs = !watched.containers.is_empty();
        let entries = watched.containers.values().cloned().collect();
        watched.runs.then_some(entries)
    }
}
