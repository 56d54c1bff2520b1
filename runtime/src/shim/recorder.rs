//! The container's log, and how much output is missing from it.

use keelson_log::{LogError, Stream, Writer};

/// Writes the log. A full disk must not stop the container. Output that can't be recorded is lost,
/// but it is counted, and the log shows the gap as soon as it can be written again.
pub(crate) struct Recorder {
    log: Writer,
    /// Bytes that are missing since the last note in the log.
    missing: u64,
    /// All bytes that are missing.
    lost: u64,
}

impl Recorder {
    pub(crate) fn new(log: Writer) -> Self {
        let (missing, lost) = (0, 0);
        Self { log, missing, lost }
    }

    /// Records output.
    pub(crate) fn append(&mut self, stream: Stream, output: &[u8], time: u64) {
        let recorded = self
            .mark(time)
            .and_then(|()| self.log.append(stream, output, time));
        if recorded.is_err() {
            self.missing += output.len() as u64;
            self.lost += output.len() as u64;
        }
    }

    /// Records the end of the output.
    pub(crate) fn finish(&mut self, time: u64) {
        // Readers see the exit record as well, which says how much is missing.
        let _ = self.mark(time).and_then(|()| self.log.finish(time));
    }

    /// How many bytes of output could not be recorded.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    fn mark(&mut self, time: u64) -> Result<(), LogError> {
        if self.missing == 0 {
            return Ok(());
        }
        let missing = self.missing;
        let text =
            format!("[{missing} bytes of output are missing here: the log was not writable]\n");
        self.log.append(Stream::Stderr, text.as_bytes(), time)?;
        self.missing = 0;
        Ok(())
    }
}
