//! The resources that containers use: processor, memory, devices, network.
//!
//! One clock measures all watched containers, once a second, together and outside the threads that
//! serve requests. It runs only while there are watchers. A watcher gets the latest measurement
//! when it asks; a slow watcher delays nothing, and nothing is stored for it.
//!
//! * [`measure`]: one measurement of one container.
//! * [`clock`]: the watchers, and the clock that measures for them.

pub(crate) mod clock;
mod measure;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keelson_blocking::blocking;
use keelson_cgroup::Figures;
use keelson_cgroup::figures::ProcessorFigures;
use keelson_linux::net_dev::Interface;
use tokio::sync::{Semaphore, watch};

use self::clock::Latest;
use self::measure::{MachineFigures, measure};
use crate::container::Container;
use crate::types::Scope;
use crate::{Engine, EngineError};

/// How many measurements outside of the clock run at once, for example when hundreds of watchers
/// start together.
static MEASURES: Semaphore = Semaphore::const_new(4);
/// The shortest time between two measurements: processor time is counted in hundredths of a second.
const CLOSEST: Duration = Duration::from_millis(500);

/// The resource usage of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStats {
    /// Its identifier.
    pub id: String,
    /// Its name at that time.
    pub name: String,
    /// `None`: it did not run.
    pub measured: Option<Measured>,
    taken: Instant,
}

/// The resource usage of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// When it was measured.
    pub at: Timestamp,
    /// What its processes have used.
    pub figures: Figures,
    /// The traffic of its interfaces, except loopback. `None`: it has the host's network, or none.
    pub interfaces: Option<Vec<Interface>>,
    /// The machine's processors.
    pub processors: ProcessorFigures,
    /// The machine's memory in bytes.
    pub machine_memory: u64,
}

/// Measurements of a container, about one a second, until it is removed.
pub struct StatsWatch {
    first: Option<Arc<ContainerStats>>,
    latest: watch::Receiver<Latest>,
    last: Instant,
}

impl StatsWatch {
    /// Waits for the next measurement; the first one is ready at once. `None`: the container was
    /// removed.
    pub async fn next(&mut self) -> Option<Arc<ContainerStats>> {
        if let Some(first) = self.first.take() {
            self.last = first.taken;
            return Some(first);
        }
        loop {
            self.latest.changed().await.ok()?;
            let latest = self.latest.borrow_and_update().clone();
            if let Some(stats) = latest
                && stats.taken.saturating_duration_since(self.last) >= CLOSEST
            {
                self.last = stats.taken;
                return Some(stats);
            }
        }
    }
}

impl Engine {
    /// A container's present resource usage.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn stats(&self, scope: Scope, name: &str) -> Result<ContainerStats, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        self.stats_of(container).await
    }

    /// A container's resource usage, repeatedly.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn watch_stats(&self, scope: Scope, name: &str) -> Result<StatsWatch, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        let mount = self.inner.facts.cgroup_mount.as_deref();
        let latest = self.inner.stats_clock.watch(&container, mount);
        let first = Arc::new(self.stats_of(container).await?);
        Ok(StatsWatch {
            last: first.taken,
            first: Some(first),
            latest,
        })
    }

    async fn stats_of(&self, container: Arc<Container>) -> Result<ContainerStats, EngineError> {
        let mount = self.inner.facts.cgroup_mount.clone();
        // The semaphore is never closed.
        let _place = MEASURES.acquire().await;
        let work = move || measure(&container, mount.as_deref(), &MachineFigures::now());
        Ok(blocking(work).await?)
    }
}
