//! Appends lines, within the bounds of the store.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use crate::JournalError;
use crate::chain::Chain;
use crate::entry::{BootId, JournalEntry, JournalOrigin, is_unit};
use crate::shared::{Journal, View};

/// The unit of lines whose own unit is no name, or one too many.
pub(crate) const OTHER: &str = "other";
/// How many units have a chain of their own.
const MOST_UNITS: usize = 64;
/// How many segments the store has when it is full and one unit has written everything.
const SEGMENTS: u64 = 64;
const SMALLEST_SEGMENT: u64 = 64 << 10;
const LARGEST_SEGMENT: u64 = 8 << 20;
/// How small [`JournalWriter::make_room`] makes the store.
const KEPT: u64 = 2 << 20;
/// How far the numbers jump at a boot: lines that were never written to the disk before a power cut
/// may have been forwarded under the next numbers.
const JUMP: u64 = 1 << 20;

/// The bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// Bytes of all segments.
    pub size: u64,
    /// Age at which lines are removed, within a quarter of it. `None`: never.
    pub age: Option<Duration>,
}

impl JournalLimits {
    fn segment_size(self) -> u64 {
        (self.size / SEGMENTS).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT)
    }
}

/// The single writer of a store.
pub struct JournalWriter {
    journal: Journal,
    limits: JournalLimits,
    chains: BTreeMap<String, Chain>,
    next: u64,
}

impl JournalWriter {
    /// Opens a store, and makes it if it does not exist. `boot` is the boot of now.
    ///
    /// # Errors
    /// The directory can't be made or read. A wrong file in it is no error.
    pub fn open(
        directory: &Path,
        limits: JournalLimits,
        boot: BootId,
    ) -> Result<Self, JournalError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(JournalError::new("make directory", directory))?;
        let mut view = View::default();
        let mut chains = BTreeMap::new();
        let mut newest = (0, None);
        let error = || JournalError::new("list", directory);
        for entry in fs::read_dir(directory).map_err(error())? {
            let entry = entry.map_err(error())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_unit(&name) || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let (chain, opened) = Chain::open(entry.path())?;
            view.unreadable.extend(opened.unreadable);
            view.chains.insert(name.clone(), chain.segments.clone());
            if opened.last >= newest.0 {
                newest = (opened.last, opened.boot);
            }
            chains.insert(name, chain);
        }
        view.last = newest.0;
        let same_boot = newest.0 == 0 || newest.1 == Some(boot);
        let next = newest.0 + if same_boot { 1 } else { JUMP };
        Ok(Self {
            journal: Journal::new(directory, view),
            limits,
            chains,
            next,
        })
    }

    /// The store, for readers.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How far a source of a unit is stored, and in which boot.
    #[must_use]
    pub fn origin(&self, unit: &str, source: u64) -> Option<(BootId, JournalOrigin)> {
        self.chains.get(unit)?.origins.get(&source).copied()
    }

    /// How far all sources are stored, by unit, with the boot of each last line.
    pub fn origins(&self) -> impl Iterator<Item = (&str, BootId, JournalOrigin)> {
        self.chains.iter().flat_map(|(unit, chain)| {
            let origins = chain.origins.values();
            origins.map(move |(boot, origin)| (unit.as_str(), *boot, *origin))
        })
    }

    /// Appends lines, which readers then see. What could not be stored stays in `lines`.
    ///
    /// # Errors
    /// A file can't be written. The lines of other units may have been stored.
    pub fn append(&mut self, lines: &mut Vec<JournalEntry>) -> Result<(), JournalError> {
        let mut by_unit: BTreeMap<String, Vec<(u64, JournalEntry)>> = BTreeMap::new();
        for entry in lines.drain(..) {
            let unit = self.unit_for(&entry.unit, &by_unit);
            by_unit.entry(unit).or_default().push((self.next, entry));
            self.next += 1;
        }
        let segment_size = self.limits.segment_size();
        let mut failed = None;
        let mut left = Vec::new();
        for (unit, group) in by_unit {
            let written = match failed {
                None => self.write(&unit, &group, segment_size),
                Some(_) => {
                    left.extend(group);
                    continue;
                }
            };
            if let Err(error) = written {
                failed = Some(error);
                left.extend(group);
            }
        }
        left.sort_by_key(|(number, _)| *number);
        lines.extend(left.into_iter().map(|(_, entry)| entry));
        self.publish();
        failed.map_or(Ok(()), Err)
    }

    /// The chain that a line belongs to. The number of chains is bounded.
    fn unit_for<T>(&self, unit: &str, new: &BTreeMap<String, T>) -> String {
        let known = self.chains.contains_key(unit) || new.contains_key(unit);
        let room = self.chains.len() + new.len() < MOST_UNITS;
        let name = if known || room && is_unit(unit) {
            unit
        } else {
            OTHER
        };
        name.to_owned()
    }

    fn write(
        &mut self,
        unit: &str,
        group: &[(u64, JournalEntry)],
        segment_size: u64,
    ) -> Result<(), JournalError> {
        if !self.chains.contains_key(unit) {
            let chain = Chain::create(self.journal.directory().join(unit))?;
            self.chains.insert(unit.to_owned(), chain);
        }
        let Some(chain) = self.chains.get_mut(unit) else {
            return Ok(());
        };
        chain.write(group, segment_size)
    }

    fn publish(&self) {
        let mut view = self.journal.change();
        view.last = self.next - 1;
        for (name, chain) in &self.chains {
            match view.chains.get_mut(name) {
                Some(known) => known.clone_from(&chain.segments),
                None => drop(view.chains.insert(name.clone(), chain.segments.clone())),
            }
        }
    }

    /// Removes what is too much or too old, and returns how many segments that were. `now` is in
    /// nanoseconds since 1970.
    ///
    /// # Errors
    /// A file can't be removed.
    pub fn trim(&mut self, now: u64) -> Result<usize, JournalError> {
        let mut removed = 0;
        let mut highest = 0;
        if let Some(age) = self.limits.age {
            let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            for chain in self.chains.values_mut() {
                chain.finish_older(now, age / 4);
                while chain
                    .oldest_finished()
                    .is_some_and(|latest| now.saturating_sub(latest) > nanos)
                {
                    highest = highest.max(chain.remove_oldest()?);
                    removed += 1;
                }
            }
        }
        let mut total: u64 = self.chains.values().map(Chain::bytes).sum();
        while total > self.limits.size {
            let largest = self
                .chains
                .values_mut()
                .filter(|chain| chain.has_finished());
            let Some(chain) = largest.max_by_key(|chain| chain.bytes()) else {
                break;
            };
            let before = chain.bytes();
            highest = highest.max(chain.remove_oldest()?);
            total = total.saturating_sub(before - chain.bytes());
            removed += 1;
        }
        if removed > 0 {
            self.publish();
            let mut view = self.journal.change();
            view.removed = view.removed.max(highest);
        }
        Ok(removed)
    }

    /// Removes the oldest segment of the unit that occupies most, for a disk without room. Returns
    /// false when the store is small already.
    ///
    /// # Errors
    /// A file can't be removed.
    pub fn make_room(&mut self) -> Result<bool, JournalError> {
        let total: u64 = self.chains.values().map(Chain::bytes).sum();
        let largest = self
            .chains
            .values_mut()
            .filter(|chain| chain.has_finished());
        let Some(chain) = largest.max_by_key(|chain| chain.bytes()) else {
            return Ok(false);
        };
        if total <= KEPT {
            return Ok(false);
        }
        let highest = chain.remove_oldest()?;
        self.publish();
        let mut view = self.journal.change();
        view.removed = view.removed.max(highest);
        Ok(true)
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// A file can't be synchronised.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.chains.values_mut().try_for_each(Chain::sync)
    }
}
