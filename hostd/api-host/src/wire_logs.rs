//! The JSON documents about logs.

use keelson_model::logs;
use serde::Serialize;
use utoipa::ToSchema;

/// How important a line is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogPriority {
    /// The machine is unusable.
    Emergency,
    /// Somebody must act at once.
    Alert,
    /// Critical.
    Critical,
    /// A failure.
    Error,
    /// A problem that the program can work with.
    Warning,
    /// Normal, but worth to be noticed.
    Notice,
    /// Normal.
    Info,
    /// For finding errors.
    Debug,
}

impl From<logs::LogPriority> for LogPriority {
    fn from(priority: logs::LogPriority) -> Self {
        match priority {
            logs::LogPriority::Emergency => Self::Emergency,
            logs::LogPriority::Alert => Self::Alert,
            logs::LogPriority::Critical => Self::Critical,
            logs::LogPriority::Error => Self::Error,
            logs::LogPriority::Warning => Self::Warning,
            logs::LogPriority::Notice => Self::Notice,
            logs::LogPriority::Info => Self::Info,
            logs::LogPriority::Debug => Self::Debug,
        }
    }
}

/// A line of the machine's logs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogLine {
    /// Its number: later lines have higher ones. Numbers may be missing.
    pub(crate) sequence: u64,
    /// RFC 3339 with microseconds, UTC.
    pub(crate) time: String,
    /// Seconds since the kernel started.
    pub(crate) uptime: f64,
    /// The boot: 32 hexadecimal digits.
    pub(crate) boot: String,
    /// Who wrote it: `kernel`, `init`, `netcfg`, `hostd`, `logs`, or the name of a service.
    pub(crate) unit: String,
    /// How important it is.
    pub(crate) priority: LogPriority,
    /// Whether it goes on with the unit's line before, which was too long for one. Absent: no.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) continues: bool,
    /// The text.
    pub(crate) text: String,
}

impl From<logs::LogLine> for LogLine {
    fn from(line: logs::LogLine) -> Self {
        Self {
            sequence: line.sequence,
            time: line.time,
            uptime: line.uptime,
            boot: line.boot,
            unit: line.unit,
            priority: line.priority.into(),
            continues: line.continues,
            text: line.text,
        }
    }
}

/// A boot that has lines in the store.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogBoot {
    /// 0 for the newest, -1 for the one before, and so on.
    pub(crate) number: i64,
    /// The kernel's identifier.
    pub(crate) boot: String,
    /// Time of its first line.
    pub(crate) first: String,
    /// Time of its last line.
    pub(crate) last: String,
    /// The number of its first line.
    pub(crate) first_sequence: u64,
    /// The number of its last line.
    pub(crate) last_sequence: u64,
}

impl From<logs::LogBoot> for LogBoot {
    fn from(boot: logs::LogBoot) -> Self {
        Self {
            number: boot.number,
            boot: boot.boot,
            first: boot.first,
            last: boot.last,
            first_sequence: boot.first_sequence,
            last_sequence: boot.last_sequence,
        }
    }
}

/// The state of the store and of forwarding.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogsStatus {
    /// The store's directory.
    pub(crate) directory: String,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// The bytes that it may have.
    pub(crate) max_bytes: u64,
    /// Time of the oldest line.
    pub(crate) oldest: Option<String>,
    /// Number of the newest line.
    pub(crate) last_sequence: u64,
    /// What each unit occupies.
    pub(crate) units: Vec<LogUnit>,
    /// Lines that were not stored since hostd was started, because their unit wrote too many.
    pub(crate) suppressed: u64,
    /// Lines that were lost since hostd was started, because nobody could store them in time.
    pub(crate) lost: u64,
    /// Why nothing can be stored now.
    pub(crate) error: Option<String>,
    /// Files that can't be read. They are kept.
    pub(crate) unreadable: Vec<String>,
    /// Where lines are forwarded to.
    pub(crate) forward: Vec<LogForward>,
}

/// What a unit occupies in the store.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogUnit {
    /// Its name.
    pub(crate) unit: String,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Time of its oldest line.
    pub(crate) oldest: Option<String>,
}

/// The state of one target that lines are forwarded to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogForward {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Its address.
    pub(crate) target: String,
    /// What it does now.
    pub(crate) state: LogForwardState,
    /// The last failure, and what to do. Stays until lines arrive again.
    pub(crate) error: Option<String>,
    /// When it came into this state.
    pub(crate) since: String,
    /// Number of the last line that arrived.
    pub(crate) sequence: u64,
    /// Whether everything that the store has for it arrived.
    pub(crate) caught_up: bool,
    /// Lines that arrived since hostd was started.
    pub(crate) sent: u64,
    /// Whether lines were removed from the store before they could be sent.
    pub(crate) missed: bool,
}

/// What the forwarding to a target does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogForwardState {
    /// Lines arrive.
    Connected,
    /// It connects.
    Connecting,
    /// It failed, and is tried again.
    Failed,
}

impl From<logs::LogsStatus> for LogsStatus {
    fn from(status: logs::LogsStatus) -> Self {
        let units = status.units.into_iter();
        Self {
            directory: status.directory,
            bytes: status.bytes,
            max_bytes: status.max_bytes,
            oldest: status.oldest,
            last_sequence: status.last_sequence,
            units: units
                .map(|unit| LogUnit {
                    unit: unit.unit,
                    bytes: unit.bytes,
                    oldest: unit.oldest,
                })
                .collect(),
            suppressed: status.suppressed,
            lost: status.lost,
            error: status.error,
            unreadable: status.unreadable,
            forward: status.forward.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<logs::LogForward> for LogForward {
    fn from(target: logs::LogForward) -> Self {
        Self {
            name: target.name,
            target: target.target,
            state: match target.state {
                logs::LogForwardState::Connected => LogForwardState::Connected,
                logs::LogForwardState::Connecting => LogForwardState::Connecting,
                logs::LogForwardState::Failed => LogForwardState::Failed,
            },
            error: target.error,
            since: target.since,
            sequence: target.sequence,
            caught_up: target.caught_up,
            sent: target.sent,
            missed: target.missed,
        }
    }
}
