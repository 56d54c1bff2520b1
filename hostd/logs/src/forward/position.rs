//! Up to where lines were sent, in a file.

use std::path::PathBuf;

use keelson_store::{Document, Durability, Era, Rest, document};
use serde::{Deserialize, Serialize};

/// `forward-NAME.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    /// The number of the last line that was sent.
    sequence: u64,
    #[serde(flatten)]
    rest: Rest,
}

impl Document for Sent {
    const VERSION: u32 = 1;
}

/// The file.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    path: PathBuf,
    era: Era,
    sent: Option<Sent>,
    written: Option<u64>,
}

impl Kept {
    /// Reads it. Without it a target counts as new: lines that come twice are better than none.
    pub(super) fn open(path: PathBuf, era: Era) -> Self {
        let sent = document::read::<Sent>(&path).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was forwarded is not known");
            None
        });
        let written = sent.as_ref().map(|sent| sent.sequence);
        Self {
            path,
            era,
            sent,
            written,
        }
    }

    pub(super) fn sequence(&self) -> Option<u64> {
        self.sent.as_ref().map(|sent| sent.sequence)
    }

    pub(super) fn set(&mut self, sequence: u64) {
        match &mut self.sent {
            Some(sent) => sent.sequence = sequence,
            None => {
                self.sent = Some(Sent {
                    sequence,
                    rest: Rest::default(),
                });
            }
        }
    }

    /// Writes it if it has changed.
    pub(super) fn save(mut self) {
        self.write();
    }

    /// The same, and returns it.
    pub(super) fn saved(mut self) -> Self {
        self.write();
        self
    }

    fn write(&mut self) {
        let Some(sent) = &self.sent else {
            return;
        };
        if self.written == Some(sent.sequence) {
            return;
        }
        match document::write(&self.path, sent, self.era, Durability::Relaxed) {
            Ok(()) => self.written = Some(sent.sequence),
            // On a full disk. Lines come twice then.
            Err(error) => tracing::debug!(%error, "what was forwarded is not kept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use keelson_store::document::assert_goes_back;

    use super::*;

    #[test]
    fn forward_json_goes_back() {
        let golden = include_str!("../../tests/golden/forward.1.json");
        assert_goes_back::<Sent>(&[(1, golden)]);
    }

    #[test]
    fn positions_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("forward-a.json");
        let mut kept = Kept::open(path.clone(), Era::Blessed);
        assert_eq!(kept.sequence(), None);
        kept.set(7);
        kept.save();
        assert_eq!(Kept::open(path.clone(), Era::Blessed).sequence(), Some(7));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Kept::open(path, Era::Blessed).sequence(), None);
    }
}
