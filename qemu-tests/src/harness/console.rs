//! The serial console as lines with the time at which each arrived.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One line of the console, without escape sequences and trailing white space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Since QEMU was started.
    pub at: Duration,
    /// The text.
    pub text: String,
}

/// The output of a console until now. Clones share it.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    closed: bool,
}

/// Why waiting for a line ended without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLine {
    /// The deadline passed.
    Deadline,
    /// The console was closed: QEMU ended.
    Closed,
}

impl Console {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the end of `source`; times are relative to `start`.
    pub(crate) fn follow(&self, mut source: impl Read, start: Instant) {
        let mut splitter = Splitter::default();
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            let at = start.elapsed();
            let lines = splitter.push(buffer.get(..count).unwrap_or_default());
            self.add(lines, at);
        }
        self.add(splitter.finish(), start.elapsed());
        self.state().closed = true;
        self.shared.changed.notify_all();
    }

    fn add(&self, lines: impl IntoIterator<Item = String>, at: Duration) {
        let mut state = self.state();
        state
            .lines
            .extend(lines.into_iter().map(|text| Line { at, text }));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.state().lines.clone()
    }

    /// The first line that contains `text`, if it has been shown already.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<Line> {
        self.state()
            .lines
            .iter()
            .find(|line| line.text.contains(text))
            .cloned()
    }

    /// The last `count` lines with their times, for messages.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let state = self.state();
        let from = state.lines.len().saturating_sub(count);
        let mut text = format!("last lines of the console ({}):", state.lines.len());
        for line in state.lines.iter().skip(from) {
            text.push_str(&format!(
                "\n  [{:7.2}] {}",
                line.at.as_secs_f64(),
                line.text
            ));
        }
        text
    }

    /// Waits for a line that `matches`. Earlier lines count.
    pub(crate) fn wait(
        &self,
        matches: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> Result<Line, NoLine> {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.iter().skip(seen).find(|l| matches(&l.text)) {
                return Ok(line.clone());
            }
            seen = state.lines.len();
            if state.closed {
                return Err(NoLine::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoLine::Deadline);
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Turns the bytes of a terminal into lines. Escape sequences (ECMA-48 CSI, OSC and two-byte ones)
/// are dropped, even when they are split between reads.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
    mode: Mode,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mode {
    #[default]
    Text,
    Escape,
    Csi,
    Osc,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            self.mode = match (self.mode, byte) {
                (Mode::Text, 0x1b) => Mode::Escape,
                (Mode::Text, b'\n') => {
                    lines.extend(self.finish());
                    Mode::Text
                }
                (Mode::Text, b'\r' | 0) => Mode::Text,
                (Mode::Text, _) => {
                    self.line.push(byte);
                    Mode::Text
                }
                (Mode::Escape, b'[') => Mode::Csi,
                (Mode::Escape, b']') => Mode::Osc,
                (Mode::Escape, _) => Mode::Text,
                (Mode::Csi, 0x40..=0x7e) => Mode::Text,
                (Mode::Csi, _) => Mode::Csi,
                (Mode::Osc, 0x07) => Mode::Text,
                (Mode::Osc, 0x1b) => Mode::Escape,
                (Mode::Osc, _) => Mode::Osc,
            };
        }
        lines
    }

    /// Returns the unfinished line, unless it is empty.
    fn finish(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_lines_and_drops_escapes_cut_anywhere() {
        let bytes = b"\x1b[2J\x1b[01;01Hone\r\n\r\n\x1b]0;title\x07t\x1b[31mwo\x1b[0m\r\nthree";
        for cut in 0..bytes.len() {
            let mut splitter = Splitter::default();
            let mut lines = splitter.push(&bytes[..cut]);
            lines.extend(splitter.push(&bytes[cut..]));
            lines.extend(splitter.finish());
            assert_eq!(lines, ["one", "two", "three"], "cut at {cut}");
        }
    }

    #[test]
    fn keeps_broken_utf8_as_replacement_characters() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"a\xffb\n"), ["a\u{fffd}b"]);
    }

    #[test]
    fn waits_for_lines_past_and_future_and_sees_the_end() {
        let console = Console::new();
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
        let follower = {
            let console = console.clone();
            std::thread::spawn(move || console.follow(reader, Instant::now()))
        };
        let second = Duration::from_secs(5);
        std::io::Write::write_all(&mut writer, b"first\n").unwrap();
        assert_eq!(
            console.wait(|l| l == "first", second).unwrap().text,
            "first"
        );
        std::io::Write::write_all(&mut writer, b"second\n").unwrap();
        assert_eq!(
            console.wait(|l| l == "second", second).unwrap().text,
            "second"
        );
        assert!(console.wait(|l| l == "first", second).is_ok());
        let none = console.wait(|l| l == "x", Duration::from_millis(20));
        assert_eq!(none.unwrap_err(), NoLine::Deadline);
        drop(writer);
        assert_eq!(
            console.wait(|l| l == "x", second).unwrap_err(),
            NoLine::Closed
        );
        follower.join().unwrap();
        assert!(console.tail(1).ends_with("second"));
        assert!(console.find("first").is_some());
    }
}
