//! The output of supervised processes: read from a pipe, line by line, into the log. A line may begin
//! with its priority, `<4>`, as sd-daemon(3) describes it.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use keelson_model::logs::LogPriority;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Longer lines are split.
const LONGEST_LINE: usize = 800;
/// How many reads are done in one turn: a process that prints without end must not block PID 1.
const READS: usize = 16;

/// Collects bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
    /// The priority of the line whose beginning was too long already.
    split: Option<LogPriority>,
}

impl Lines {
    /// Adds bytes, and returns the lines that are complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<(LogPriority, String)> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.extend(self.finish());
                self.split = None;
            } else {
                self.rest.push(*byte);
                if self.rest.len() >= LONGEST_LINE {
                    lines.extend(self.finish());
                }
            }
        }
        lines
    }

    /// The rest when the output has ended.
    pub(crate) fn finish(&mut self) -> Option<(LogPriority, String)> {
        let bytes = std::mem::take(&mut self.rest);
        let (priority, bytes) = match (self.split, bytes.as_slice()) {
            (Some(priority), all) => (priority, all),
            (None, [b'<', digit @ b'0'..=b'7', b'>', rest @ ..]) => {
                (LogPriority::from_number(digit - b'0'), rest)
            }
            (None, all) => (LogPriority::Info, all),
        };
        self.split = Some(priority);
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end();
        (!text.is_empty()).then(|| (priority, text.to_owned()))
    }
}

/// The reading end of a process's standard output and error.
pub(crate) struct Output {
    /// The process's name.
    pub(crate) process: &'static str,
    pipe: io::PipeReader,
    lines: Lines,
}

impl Output {
    /// Makes it from the reading end of a pipe.
    pub(crate) fn new(process: &'static str, pipe: io::PipeReader) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            process,
            pipe,
            lines: Lines::default(),
        })
    }

    /// Reads the available output into the log. Returns false if the output has ended.
    pub(crate) fn relay(&mut self) -> bool {
        let mut buffer = [0u8; 4096];
        for _ in 0..READS {
            let lines = match self.pipe.read(&mut buffer) {
                Ok(0) => {
                    let rest = self.lines.finish();
                    self.log(rest.into_iter().collect());
                    return false;
                }
                Ok(length) => self.lines.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            self.log(lines);
        }
        true
    }

    fn log(&self, lines: Vec<(LogPriority, String)>) {
        for (priority, line) in lines {
            crate::console::relay(self.process, priority, &line);
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_complete_whatever_the_reads_were() {
        let mut lines = Lines::default();
        assert!(lines.push(b"one").is_empty());
        let info = |text: &str| (LogPriority::Info, text.to_owned());
        let both = lines.push(b" line\r\n\nsecond\nth");
        assert_eq!(both, [info("one line"), info("second")]);
        assert_eq!(lines.finish(), Some(info("th")));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_line_may_say_its_priority_once() {
        let mut lines = Lines::default();
        let long = format!("<3>{}\n<8>x\n<4>\n<4>y\n", "z".repeat(LONGEST_LINE));
        let found = lines.push(long.as_bytes());
        let found: Vec<_> = found
            .iter()
            .map(|(p, text)| (p.number(), text.len()))
            .collect();
        assert_eq!(found, [(3, LONGEST_LINE - 3), (3, 3), (6, 4), (4, 1)]);
    }

    #[test]
    fn a_line_without_end_does_not_grow() {
        let mut lines = Lines::default();
        let cut = lines.push(&[b'x'; 3 * LONGEST_LINE + 1]);
        assert_eq!(cut.len(), 3);
        assert_eq!(lines.finish(), Some((LogPriority::Info, "x".to_owned())));
    }
}
