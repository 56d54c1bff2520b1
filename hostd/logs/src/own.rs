//! hostd's own lines, where nobody supervises it: a development machine. Keelson's PID 1 writes what
//! hostd says to the kernel's log, from where it comes here like everything else.

use std::io::{self, Write};

use keelson_model::logs::LogPriority;
use tokio::sync::mpsc;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait. Further ones are lost.
const MOST: usize = 1024;

/// Takes lines from `tracing`.
#[derive(Debug, Clone)]
pub struct OwnWriter(mpsc::Sender<(LogPriority, String)>);

/// The lines, for the store.
#[derive(Debug)]
pub struct OwnLines(pub(crate) mpsc::Receiver<(LogPriority, String)>);

/// A writer and the lines that it takes.
#[must_use]
pub fn own_lines() -> (OwnWriter, OwnLines) {
    let (sender, receiver) = mpsc::channel(MOST);
    (OwnWriter(sender), OwnLines(receiver))
}

/// One line.
#[derive(Debug)]
pub struct OwnLine<'a> {
    writer: &'a OwnWriter,
    priority: LogPriority,
}

impl Write for OwnLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        // Nothing may wait for the store. It would tell about its own troubles, too.
        let _ = self.writer.0.try_send((self.priority, text));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for OwnWriter {
    type Writer = OwnLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        OwnLine {
            writer: self,
            priority: LogPriority::Info,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        OwnLine {
            writer: self,
            priority: keelson_tracing::priority(*metadata.level()),
        }
    }
}
