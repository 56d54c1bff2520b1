//! A line of the machine's logs, with everything that is known about it.

use std::fmt;

use keelson_model::logs::LogPriority;

/// The longest name of a unit, in bytes.
pub const LONGEST_UNIT: usize = 64;
/// The longest text of a line, in bytes.
pub const LONGEST_TEXT: usize = 16 << 10;

/// The kernel's identifier of a boot (`/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// Reads it, with or without hyphens.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
        let text = std::str::from_utf8(&digits).ok()?;
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16)
            .ok()
            .map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Where a line was before it came here. Sources continue after the last one that is stored, so that
/// nothing is lost or doubled when their reader is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalOrigin {
    /// Which source.
    pub source: u64,
    /// The part of the source.
    pub generation: u64,
    /// The position after the line, in this part.
    pub offset: u64,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Nanoseconds since 1970 (CLOCK_REALTIME).
    pub time: u64,
    /// Nanoseconds since the kernel started (CLOCK_BOOTTIME).
    pub uptime: u64,
    /// The boot.
    pub boot: BootId,
    /// Who wrote it. See [`is_unit`].
    pub unit: String,
    /// How important it is.
    pub priority: LogPriority,
    /// It goes on with the unit's line before.
    pub continues: bool,
    /// Where it was before.
    pub origin: Option<JournalOrigin>,
    /// The text, without a newline. What is longer than [`LONGEST_TEXT`] is cut off.
    pub text: String,
}

/// A line of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its number. Later lines have higher ones.
    pub sequence: u64,
    /// The line.
    pub entry: JournalEntry,
}

/// Whether a text can be the name of a unit: it is the name of a directory, too.
#[must_use]
pub fn is_unit(name: &str) -> bool {
    let valid =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    (1..=LONGEST_UNIT).contains(&name.len())
        && name.bytes().all(valid)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_have_the_kernels_form() {
        let id = BootId::parse("0a1b2c3d-0000-4000-8000-00000000000f\n").unwrap();
        assert_eq!(id.to_string(), "0a1b2c3d00004000800000000000000f");
        assert_eq!(BootId::parse(&id.to_string()), Some(id));
        for wrong in [
            "",
            "0a1b",
            "+a1b2c3d00004000800000000000000f",
            "x".repeat(32).as_str(),
        ] {
            assert_eq!(BootId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn units_are_names_of_directories() {
        for name in ["kernel", "time", "a.b-c_d@1"] {
            assert!(is_unit(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "-x", &"x".repeat(65)] {
            assert!(!is_unit(name), "{name}");
        }
    }
}
