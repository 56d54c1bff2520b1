//! Messages of syslog (RFC 5424), and how they are framed (RFC 5426, 6587, 5425).

use keelson_journal::{JournalEntry, StoredEntry};

use crate::line;

/// Facilities.
const KERNEL: u8 = 0;
const DAEMON: u8 = 3;
/// The longest datagram: receivers should accept 2048 bytes (RFC 5426, 3.2).
const LONGEST_DATAGRAM: usize = 2048;
/// `sequenceId` counts from 1 to this (RFC 5424, 7.3.1).
const SEQUENCES: u64 = 2_147_483_647;

/// The bytes of a message.
pub(super) fn message(stored: &StoredEntry, host: &str) -> Vec<u8> {
    let StoredEntry { sequence, entry } = stored;
    let facility = if entry.unit == "kernel" {
        KERNEL
    } else {
        DAEMON
    };
    let priority = facility * 8 + entry.priority.number();
    let time = line::time(entry.time);
    let host = word(host, 255);
    let name = word(&entry.unit, 48);
    let number = (sequence - 1) % SEQUENCES + 1;
    let uptime = entry.uptime / 10_000_000;
    let mut bytes = format!(
        "<{priority}>1 {time} {host} {name} - - [meta sequenceId=\"{number}\" sysUpTime=\"{uptime}\"] "
    )
    .into_bytes();
    bytes.extend_from_slice(text(entry).as_bytes());
    bytes
}

/// Servers that count lines must not take one message for several.
fn text(entry: &JournalEntry) -> String {
    let control = |c: char| if c.is_control() && c != '\t' { ' ' } else { c };
    entry.text.chars().map(control).collect()
}

/// A name as the header has it: printable ASCII without blanks; `-` for none.
fn word(text: &str, most: usize) -> String {
    let word: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(most)
        .collect();
    match word.is_empty() {
        true => "-".to_owned(),
        false => word,
    }
}

/// With its length before it.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{} ", message.len()).into_bytes();
    bytes.extend_from_slice(message);
    bytes
}

/// Cut to the length of a datagram, at a character.
pub(super) fn datagram(mut message: Vec<u8>) -> Vec<u8> {
    if message.len() > LONGEST_DATAGRAM {
        let mut length = LONGEST_DATAGRAM;
        while message.get(length).is_some_and(|byte| byte & 0xc0 == 0x80) {
            length -= 1;
        }
        message.truncate(length);
    }
    message
}

#[cfg(test)]
mod tests {
    use keelson_journal::BootId;
    use keelson_model::logs::LogPriority;

    use super::*;

    fn stored(unit: &str, text: &str) -> StoredEntry {
        StoredEntry {
            sequence: SEQUENCES + 5,
            entry: JournalEntry {
                time: 1_700_000_000_123_456_789,
                uptime: 12_340_000_000,
                boot: BootId::default(),
                unit: unit.to_owned(),
                priority: LogPriority::Warning,
                continues: false,
                origin: None,
                text: text.to_owned(),
            },
        }
    }

    #[test]
    fn messages_have_the_form_of_the_standard() {
        let text = String::from_utf8(message(&stored("time", "a\nb ä"), "ship 1")).unwrap();
        assert_eq!(
            text,
            "<28>1 2023-11-14T22:13:20.123456Z ship1 time - - [meta sequenceId=\"5\" sysUpTime=\"1234\"] a b ä"
        );
        assert!(
            message(&stored("kernel", "x"), "")
                .starts_with(b"<4>1 2023-11-14T22:13:20.123456Z - kernel")
        );
    }

    #[test]
    fn frames_count_bytes_and_datagrams_are_cut_at_a_character() {
        assert_eq!(framed("xä".as_bytes()), "3 xä".as_bytes());
        let long = datagram(message(
            &stored("time", &format!("x{}", "ä".repeat(2000))),
            "h",
        ));
        assert!((LONGEST_DATAGRAM - 1..=LONGEST_DATAGRAM).contains(&long.len()));
        assert!(std::str::from_utf8(&long).is_ok());
    }
}
