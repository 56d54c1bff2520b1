//! How many long answers and uploads may run at once.
//!
//! An archive, a log or a pull lasts as long as its client likes, and holds memory, descriptors and
//! threads meanwhile. So a request takes a place before it takes any of these. The part of the work
//! that ends last frees the place. Readers share a smaller number of places, so that they can't keep
//! operators and administrators from working.
//!
//! A connection is closed when its client stands still: it reads nothing, or sends nothing that is
//! expected. While places are short that happens soon. Otherwise it happens late, because somebody
//! may page through a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keelson_model::error::ErrorKind;
use keelson_model::host_api::Role;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Failure;

/// How long a request waits for a place.
const WAIT: Duration = Duration::from_secs(20);
/// How long a client may stand still while places are short. Shorter than [`WAIT`], so that a waiting
/// request gets the place of a client that does not read.
const SHORT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may stand still otherwise.
const LONG_PATIENCE: Duration = Duration::from_secs(1800);
/// Places count as short for this long after a request found none.
const SHORTAGE: Duration = Duration::from_secs(60);

/// What places are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Archives for a client. Each holds a thread and some MiB.
    Export,
    /// Archives from a client. Each holds threads, and space on the disk.
    Upload,
    /// Pulls, pushes and other requests to registries.
    Transfer,
    /// Logs, events, attached streams.
    Follow,
    /// Streams of containers' resource usage: each is small, and a client has one for each
    /// container.
    Watch,
    /// Walks through file systems: sizes, changes, checks of images.
    Survey,
    /// Large documents in requests. Each is in memory as a whole, more than once.
    Document,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Export,
        Self::Upload,
        Self::Transfer,
        Self::Follow,
        Self::Watch,
        Self::Survey,
        Self::Document,
    ];

    /// How many places there are, and how many of them readers may hold.
    const fn places(self) -> (usize, usize) {
        match self {
            Self::Export => (24, 8),
            Self::Upload => (16, 0),
            Self::Transfer => (32, 0),
            Self::Follow => (512, 128),
            Self::Watch => (1024, 256),
            Self::Survey => (8, 2),
            Self::Document => (8, 2),
        }
    }

    /// Whether a client that reads or writes slowly holds such a place longer.
    const fn is_held_by_clients(self) -> bool {
        match self {
            Self::Export | Self::Upload | Self::Transfer | Self::Follow | Self::Watch => true,
            Self::Survey | Self::Document => false,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Export => "archives being made",
            Self::Upload => "archives being received",
            Self::Transfer => "transfers with registries",
            Self::Follow => "streams",
            Self::Watch => "streams of figures",
            Self::Survey => "file systems being looked through",
            Self::Document => "large requests",
        }
    }
}

/// When a request last found no place. Clones share it.
#[derive(Debug, Clone)]
pub struct Shortage(Arc<Noted>);

#[derive(Debug)]
struct Noted {
    start: Instant,
    /// Milliseconds after the start, plus one. 0: never.
    last: AtomicU64,
}

impl Default for Shortage {
    fn default() -> Self {
        Self(Arc::new(Noted {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }))
    }
}

impl Shortage {
    /// Records that a place is lacking now.
    pub fn note(&self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.0.last.store(now + 1, Ordering::Relaxed);
    }

    /// How long a client may stand still now.
    pub fn patience(&self) -> Duration {
        match self.0.last.load(Ordering::Relaxed) {
            0 => LONG_PATIENCE,
            last => {
                let since = self.0.start.elapsed();
                match since.saturating_sub(Duration::from_millis(last - 1)) < SHORTAGE {
                    true => SHORT_PATIENCE,
                    false => LONG_PATIENCE,
                }
            }
        }
    }
}

/// The places of all kinds.
#[derive(Debug)]
pub struct Places {
    pools: [Pool; Kind::ALL.len()],
    shortage: Shortage,
    wait: Duration,
}

#[derive(Debug)]
struct Pool {
    all: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

/// A place. Dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    _all: OwnedSemaphorePermit,
    _readers: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// All places, free.
    pub fn new(shortage: Shortage) -> Self {
        Self {
            pools: Kind::ALL.map(|kind| {
                let (all, readers) = kind.places();
                Pool {
                    all: Arc::new(Semaphore::new(all)),
                    readers: Arc::new(Semaphore::new(readers)),
                }
            }),
            shortage,
            wait: WAIT,
        }
    }

    /// The record of when places were short.
    pub fn shortage(&self) -> &Shortage {
        &self.shortage
    }

    /// Takes a place, and waits a while for one.
    ///
    /// # Errors
    /// Unavailable: none became free in time. Forbidden: there is none for this role.
    pub async fn take(&self, kind: Kind, role: Role) -> Result<Place, Failure> {
        let (most, for_readers) = kind.places();
        let Some(pool) = self.pools.get(kind as usize) else {
            return Err(Failure::new(ErrorKind::Internal, "a kind without places"));
        };
        let most = match role {
            Role::Reader if for_readers == 0 => {
                return Err(Failure::new(
                    ErrorKind::Forbidden,
                    format!("role {} may not do that", role.as_str()),
                ));
            }
            Role::Reader => for_readers,
            Role::Admin | Role::Operator => most,
        };
        if let Some(place) = pool.try_take(role) {
            return Ok(place);
        }
        if kind.is_held_by_clients() {
            self.shortage.note();
        }
        tokio::time::timeout(self.wait, pool.take(role))
            .await
            .ok()
            .flatten()
            .ok_or_else(|| {
                Failure::new(
                    ErrorKind::Unavailable,
                    format!(
                        "too many {} at once ({most}): try again when one of them has ended",
                        kind.as_str()
                    ),
                )
            })
    }
}

impl Pool {
    fn try_take(&self, role: Role) -> Option<Place> {
        let readers = match role {
            Role::Reader => Some(Arc::clone(&self.readers).try_acquire_owned().ok()?),
            _ => None,
        };
        Some(Place {
            _all: Arc::clone(&self.all).try_acquire_owned().ok()?,
            _readers: readers,
        })
    }

    /// Never `None`: nobody closes the semaphores.
    async fn take(&self, role: Role) -> Option<Place> {
        let readers = match role {
            Role::Reader => Some(Arc::clone(&self.readers).acquire_owned().await.ok()?),
            _ => None,
        };
        Some(Place {
            _all: Arc::clone(&self.all).acquire_owned().await.ok()?,
            _readers: readers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_order_of_their_numbers() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }

    #[tokio::test]
    async fn readers_leave_places_to_others() {
        let shortage = Shortage::default();
        let mut places = Places::new(shortage.clone());
        places.wait = Duration::from_millis(20);
        let (all, readers) = Kind::Export.places();
        let mut taken = Vec::new();
        for _ in 0..readers {
            taken.push(places.take(Kind::Export, Role::Reader).await.unwrap());
        }
        assert_eq!(shortage.patience(), LONG_PATIENCE);
        let error = places.take(Kind::Export, Role::Reader).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error
                .to_string()
                .contains("archives being made at once (8)")
        );
        assert_eq!(shortage.patience(), SHORT_PATIENCE);
        for _ in readers..all {
            taken.push(places.take(Kind::Export, Role::Operator).await.unwrap());
        }
        assert!(places.take(Kind::Export, Role::Admin).await.is_err());
        let waiting = places.take(Kind::Export, Role::Admin);
        taken.pop();
        assert!(waiting.await.is_ok());
        let shortage = Shortage::default();
        let mut places = Places::new(shortage.clone());
        places.wait = Duration::from_millis(20);
        let (_, readers) = Kind::Survey.places();
        for _ in 0..=readers {
            taken.extend(places.take(Kind::Survey, Role::Reader).await.ok());
        }
        assert_eq!(
            shortage.patience(),
            LONG_PATIENCE,
            "nobody reads slowly there"
        );
        let error = places.take(Kind::Transfer, Role::Reader).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden);
    }
}
