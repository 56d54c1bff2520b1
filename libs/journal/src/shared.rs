//! What the writer and the readers know together: the segments of each unit with their indexes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::entry::BootId;
use crate::index::{SegmentIndex, Span};

/// A segment as readers see it.
#[derive(Debug, Clone)]
pub(crate) struct SegmentView {
    pub(crate) path: PathBuf,
    /// The number in its name.
    pub(crate) first: u64,
    pub(crate) index: Arc<SegmentIndex>,
    /// Length of the file.
    pub(crate) size: u64,
}

/// The store at one moment.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) chains: BTreeMap<String, Vec<SegmentView>>,
    /// The number of the newest line.
    pub(crate) last: u64,
    /// The highest number that was removed since the store was opened.
    pub(crate) removed: u64,
    pub(crate) unreadable: Vec<PathBuf>,
}

/// The store, for readers. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: Arc<Path>,
    view: Arc<RwLock<View>>,
}

/// A boot that has lines in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalBoot {
    /// The boot.
    pub boot: BootId,
    /// Number of its first line.
    pub first: u64,
    /// Number of its last line.
    pub last: u64,
    /// Its earliest time, in nanoseconds since 1970.
    pub earliest: u64,
    /// Its latest time.
    pub latest: u64,
}

/// What a unit occupies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalUnit {
    /// Its name.
    pub unit: String,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Its earliest time, in nanoseconds since 1970.
    pub earliest: Option<u64>,
}

impl Journal {
    pub(crate) fn new(directory: &Path, view: View) -> Self {
        Self {
            directory: directory.into(),
            view: Arc::new(RwLock::new(view)),
        }
    }

    pub(crate) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The number of the newest line; 0 when there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.view().last
    }

    /// The highest number that was removed since the store was opened.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.view().removed
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.units().iter().map(|unit| unit.bytes).sum()
    }

    /// The files that could not be read, and are kept.
    #[must_use]
    pub fn unreadable(&self) -> Vec<PathBuf> {
        self.view().unreadable.clone()
    }

    /// All units by name.
    #[must_use]
    pub fn units(&self) -> Vec<JournalUnit> {
        let view = self.view();
        let unit = |(name, chain): (&String, &Vec<SegmentView>)| JournalUnit {
            unit: name.clone(),
            bytes: chain.iter().map(|segment| segment.size).sum(),
            earliest: chain
                .iter()
                .map(|segment| segment.index.span.earliest)
                .min()
                .filter(|time| *time != u64::MAX),
        };
        view.chains.iter().map(unit).collect()
    }

    /// All boots, oldest first.
    #[must_use]
    pub fn boots(&self) -> Vec<JournalBoot> {
        let mut spans: BTreeMap<BootId, Span> = BTreeMap::new();
        let view = self.view();
        for (boot, span) in view
            .chains
            .values()
            .flatten()
            .flat_map(|segment| &segment.index.boots)
        {
            match spans.get_mut(boot) {
                Some(known) => known.add(*span),
                None => drop(spans.insert(*boot, *span)),
            }
        }
        let mut boots: Vec<JournalBoot> = spans
            .into_iter()
            .map(|(boot, span)| JournalBoot {
                boot,
                first: span.first,
                last: span.last,
                earliest: span.earliest,
                latest: span.latest,
            })
            .collect();
        boots.sort_by_key(|boot| boot.first);
        boots
    }
}
