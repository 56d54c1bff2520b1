//! The machine's logs: lines, boots and the state of the store, as the host API shows them.

use serde::{Deserialize, Serialize};

/// How important a line is: the severities of RFC 5424. Less is more urgent.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum LogPriority {
    /// The machine is unusable.
    Emergency = 0,
    /// Somebody must act at once.
    Alert = 1,
    /// Critical.
    Critical = 2,
    /// A failure.
    Error = 3,
    /// A problem that the program can work with.
    Warning = 4,
    /// Normal, but worth to be noticed.
    Notice = 5,
    /// Normal.
    #[default]
    Info = 6,
    /// For finding errors.
    Debug = 7,
}

impl LogPriority {
    /// All of them by number.
    pub const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
    ];

    /// By its number; numbers above 7 are [`LogPriority::Debug`].
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        let found = Self::ALL.get(usize::from(number));
        found.copied().unwrap_or(Self::Debug)
    }

    /// The number of RFC 5424.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Alert => "alert",
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// By its word, a usual short form of it, or its number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = match text {
            "emerg" | "panic" => 0,
            "crit" => 2,
            "err" => 3,
            "warn" => 4,
            "information" | "informational" => 6,
            _ => {
                let by_word = Self::ALL.into_iter().find(|known| known.as_str() == text);
                return by_word.or_else(|| {
                    let number = text.parse().ok().filter(|number| *number < 8);
                    number.map(Self::from_number)
                });
            }
        };
        Some(Self::from_number(number))
    }
}

/// A line of the machine's logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number: later lines have higher ones. Numbers may be missing.
    pub sequence: u64,
    /// RFC 3339 with microseconds, UTC.
    pub time: String,
    /// Seconds since the kernel started.
    pub uptime: f64,
    /// The boot, as the kernel names it: 32 hexadecimal digits.
    pub boot: String,
    /// Who wrote it: `kernel`, `init`, `netcfg`, `hostd`, `logs`, or the name of a service.
    pub unit: String,
    /// How important it is.
    pub priority: LogPriority,
    /// Whether it goes on with the unit's line before, which was too long for one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
    /// The text.
    pub text: String,
}

/// A boot that has lines in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBoot {
    /// 0 for the newest, -1 for the one before, and so on.
    pub number: i64,
    /// The kernel's identifier.
    pub boot: String,
    /// Time of its first line.
    pub first: String,
    /// Time of its last line.
    pub last: String,
    /// The number of its first line.
    pub first_sequence: u64,
    /// The number of its last line.
    pub last_sequence: u64,
}

/// The state of the store and of forwarding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsStatus {
    /// Its directory.
    pub directory: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// The bytes that it may have.
    pub max_bytes: u64,
    /// Time of the oldest line.
    pub oldest: Option<String>,
    /// Number of the newest line.
    pub last_sequence: u64,
    /// What each unit occupies.
    pub units: Vec<LogUnit>,
    /// Lines that were not stored since hostd was started, because their unit wrote too many.
    pub suppressed: u64,
    /// Lines that were lost since hostd was started, because nobody could store them in time.
    pub lost: u64,
    /// Why nothing can be stored now.
    pub error: Option<String>,
    /// Files that can't be read. They are kept.
    pub unreadable: Vec<String>,
    /// Where lines are forwarded to.
    pub forward: Vec<LogForward>,
}

/// What a unit occupies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogUnit {
    /// Its name.
    pub unit: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Time of its oldest line.
    pub oldest: Option<String>,
}

/// The state of one target that lines are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogForward {
    /// Its name in the configuration.
    pub name: String,
    /// Its address.
    pub target: String,
    /// What it does now.
    pub state: LogForwardState,
    /// The last failure, and what to do. Stays until lines arrive again.
    pub error: Option<String>,
    /// When it came into this state.
    pub since: String,
    /// Number of the last line that arrived.
    pub sequence: u64,
    /// Whether everything that the store has for it arrived.
    pub caught_up: bool,
    /// Lines that arrived since hostd was started.
    pub sent: u64,
    /// Whether lines were removed from the store before they could be sent.
    pub missed: bool,
}

/// What the forwarding to a target does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogForwardState {
    /// Lines arrive.
    Connected,
    /// It connects.
    Connecting,
    /// It failed, and is tried again.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_have_words_and_numbers() {
        for priority in LogPriority::ALL {
            assert_eq!(LogPriority::parse(priority.as_str()), Some(priority));
            let number = priority.number();
            assert_eq!(LogPriority::parse(&number.to_string()), Some(priority));
            assert_eq!(LogPriority::from_number(number), priority);
        }
        assert_eq!(LogPriority::parse("err"), Some(LogPriority::Error));
        assert_eq!(LogPriority::parse("8"), None);
        assert_eq!(LogPriority::parse(""), None);
        assert!(LogPriority::Error < LogPriority::Info);
    }
}
