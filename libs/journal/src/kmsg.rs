//! The records of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg` of the kernel). Does no I/O.
//!
//! Each line is one record: `priority,sequence,microseconds,flags[,…];text`. Lines that begin with a
//! blank belong to the record before, and describe its device. Bytes that are no printable ASCII are
//! escaped as `\x0a`.
//!
//! PID 1 writes its own lines, and those of the processes that it supervises, as records of the
//! facility *daemon*: `keelson: …`, `hostd: …`. At the severity *error* the kernel would print them
//! on the console a second time, so `error: ` stands in the text instead.

use keelson_model::logs::LogPriority;

use crate::entry::is_unit;
use crate::writer::OTHER;

/// The longest record that is accepted; the kernel's are at most 8 KiB.
const LONGEST: usize = 16 << 10;
/// syslog's facilities.
const KERNEL: u32 = 0;
const DAEMON: u32 = 3;
/// How long the name of a process of PID 1 may be.
const LONGEST_NAME: usize = 24;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsgRecord {
    /// Facility and severity of syslog.
    pub facility: u32,
    /// Severity.
    pub priority: LogPriority,
    /// Its number, from the start of the kernel on.
    pub sequence: u64,
    /// Microseconds since the kernel started.
    pub micros: u64,
    /// The text, which may have several lines.
    pub text: String,
}

impl KmsgRecord {
    /// Reads a line without its newline. `None`: it is no record.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let semicolon = line.iter().position(|byte| *byte == b';')?;
        let (head, text) = line.split_at(semicolon);
        let head = std::str::from_utf8(head).ok()?;
        let mut fields = head.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let sequence = fields.next()?.parse().ok()?;
        let micros = fields.next()?.parse().ok()?;
        fields.next()?;
        let text = unescape(text.get(1..)?);
        Some(Self {
            facility: priority >> 3,
            priority: LogPriority::from_number((priority & 7) as u8),
            sequence,
            micros,
            text: String::from_utf8_lossy(&text).trim_end().to_owned(),
        })
    }

    /// Who wrote it, how important it is, and what it says.
    #[must_use]
    pub fn meaning(&self) -> (String, LogPriority, String) {
        if self.facility == KERNEL {
            return ("kernel".to_owned(), self.priority, self.text.clone());
        }
        let named = self.text.split_once(": ").filter(|(name, _)| {
            let small =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            self.facility == DAEMON
                && is_unit(name)
                && name.len() <= LONGEST_NAME
                && name.bytes().all(small)
        });
        let Some((name, rest)) = named else {
            return (OTHER.to_owned(), self.priority, self.text.clone());
        };
        let unit = match name {
            "keelson" => "init",
            // That name is the kernel's own.
            "kernel" => OTHER,
            name => name,
        };
        let (priority, text) = [
            ("error: ", LogPriority::Error),
            ("warning: ", LogPriority::Warning),
        ]
        .into_iter()
        .find_map(|(word, priority)| Some((priority, rest.strip_prefix(word)?)))
        .unwrap_or((self.priority, rest));
        (unit.to_owned(), priority, text.to_owned())
    }
}

fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        let code = after.strip_prefix(b"x").and_then(|hex| {
            let digits = std::str::from_utf8(hex.get(..2)?).ok()?;
            let both = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            both.then(|| u8::from_str_radix(digits, 16).ok())?
        });
        match (byte, code) {
            (b'\\', Some(code)) => {
                plain.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    plain
}

/// Collects bytes into records.
#[derive(Debug, Default)]
pub struct KmsgRecords {
    rest: Vec<u8>,
}

impl KmsgRecords {
    /// Adds bytes, and returns the records that are complete. What is no record is left out.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<KmsgRecord> {
        let mut records = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                if self.rest.len() < LONGEST {
                    self.rest.push(*byte);
                }
                continue;
            }
            let described = self.rest.first() == Some(&b' ');
            records.extend(KmsgRecord::parse(&self.rest).filter(|_| !described));
            self.rest.clear();
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(line: &str) -> (String, LogPriority, String) {
        KmsgRecord::parse(line.as_bytes()).unwrap().meaning()
    }

    fn wanted(unit: &str, priority: LogPriority, text: &str) -> (String, LogPriority, String) {
        (unit.to_owned(), priority, text.to_owned())
    }

    #[test]
    fn records_are_read_whatever_the_reads_were() {
        let bytes = b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n DEVICE=+a:b;c\n\
            30,340,5690716,-,caller=T1;hostd: \\xc3\\xa4\\x0ab\\\nnonsense\n4,341,1,c;x\n";
        let mut parser = KmsgRecords::default();
        let mut records = Vec::new();
        for piece in bytes.chunks(7) {
            records.extend(parser.push(piece));
        }
        assert_eq!(records.len(), 3, "{records:?}");
        assert_eq!(records[0].sequence, 339);
        assert_eq!(records[0].micros, 5_140_900);
        assert_eq!(records[1].text, "hostd: ä\nb\\");
        assert_eq!(records[2].priority, LogPriority::Warning);
    }

    #[test]
    fn the_writer_and_the_priority_are_found() {
        use LogPriority::{Debug, Error, Info, Warning};
        assert_eq!(meaning("6,1,1,-;a: b"), wanted("kernel", Info, "a: b"));
        assert_eq!(meaning("30,1,1,-;keelson: x"), wanted("init", Info, "x"));
        let line = "28,1,1,-;keelson: warning: x: y";
        assert_eq!(meaning(line), wanted("init", Warning, "x: y"));
        let line = "28,1,1,-;hostd: error: x";
        assert_eq!(meaning(line), wanted("hostd", Error, "x"));
        assert_eq!(meaning("31,1,1,-;netcfg: x"), wanted("netcfg", Debug, "x"));
        // Others may write there, too.
        for text in ["kernel: x", "../x: y", "no name", "A: b"] {
            let (unit, _, found) = meaning(&format!("30,1,1,-;{text}"));
            assert_eq!(unit, "other", "{text}");
            assert!(text.ends_with(&found));
        }
        assert_eq!(meaning("14,1,1,-;hostd: x").0, "other");
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        for wrong in ["", ";", "6,1;x", "6,1,1;x", "x,1,1,-;y", "6,1,1,-"] {
            assert_eq!(KmsgRecord::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(unescape(br"\xq1\x4\x+1\x41\"), br"\xq1\x4\x+1A\");
        let mut parser = KmsgRecords::default();
        assert!(parser.push(&vec![b'x'; 3 * LONGEST]).is_empty());
        assert!(parser.rest.len() <= LONGEST);
        assert_eq!(parser.push(b"\n6,1,1,-;x\n").len(), 1);
    }
}
