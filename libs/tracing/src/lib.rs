//! How programs that PID 1 supervises write their log.
//!
//! PID 1 reads their standard error line by line. Each line begins with its priority, `<4>`, as
//! sd-daemon(3) describes it; PID 1 adds the name of the program and the time.

use std::io::{self, Write};

use keelson_model::init::PRIORITIES_VARIABLE;
use keelson_model::logs::LogPriority;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether who reads our standard error wants priorities.
#[must_use]
pub fn has_supervisor() -> bool {
    std::env::var_os(PRIORITIES_VARIABLE).is_some()
}

/// The priority of an event.
#[must_use]
pub fn priority(level: Level) -> LogPriority {
    match level {
        Level::ERROR => LogPriority::Error,
        Level::WARN => LogPriority::Warning,
        Level::INFO => LogPriority::Info,
        Level::DEBUG | Level::TRACE => LogPriority::Debug,
    }
}

/// Writes lines with their priorities to standard error.
#[derive(Debug, Clone, Copy)]
pub struct ToSupervisor;

/// One event.
#[derive(Debug)]
pub struct PriorityLine(LogPriority);

impl Write for PriorityLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One write, so that lines of several threads do not mix.
        io::stderr().write_all(&prefixed(self.0, bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for ToSupervisor {
    type Writer = PriorityLine;

    fn make_writer(&'a self) -> Self::Writer {
        PriorityLine(LogPriority::Info)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        PriorityLine(priority(*metadata.level()))
    }
}

fn prefixed(priority: LogPriority, bytes: &[u8]) -> Vec<u8> {
    let prefix = format!("<{}>", priority.number());
    let mut lines = Vec::with_capacity(bytes.len() + 8);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        lines.extend_from_slice(prefix.as_bytes());
        lines.extend_from_slice(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_priority() {
        assert_eq!(prefixed(LogPriority::Warning, b"a\nb\n"), b"<4>a\n<4>b\n");
        assert_eq!(prefixed(priority(Level::ERROR), b"x"), b"<3>x");
    }
}
