//! The JSON documents of the machine's clock.

use serde::Serialize;
use utoipa::ToSchema;

/// How well the machine's clock is known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Time {
    /// The machine's time (RFC 3339).
    pub(crate) now: String,
    /// Whether the clock follows a time server.
    pub(crate) synchronized: bool,
    /// The server that it follows.
    pub(crate) server: Option<String>,
    /// How many servers are between it and a reference clock; absent without a server.
    pub(crate) stratum: Option<u32>,
    /// How many seconds the clock is estimated to be ahead.
    pub(crate) offset: f64,
    /// How many parts per million the clock would run fast without correction.
    pub(crate) frequency: f64,
    /// All servers.
    pub(crate) servers: Vec<TimeServer>,
}

/// A time server that is asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TimeServer {
    /// Its name or address.
    pub(crate) name: String,
    /// What the time service thinks of it.
    pub(crate) state: TimeServerState,
    /// Its distance to a reference clock.
    pub(crate) stratum: u32,
    /// Whether one of its last answers arrived.
    pub(crate) reachable: bool,
    /// How many seconds the machine's clock was ahead of it at the last measurement.
    pub(crate) offset: f64,
}

/// What the time service thinks of a server.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TimeServerState {
    /// The clock follows it.
    Followed,
    /// The clock follows it together with others.
    Combined,
    /// Good, but not needed.
    NotCombined,
    /// It does not answer, or was not heard often enough yet.
    Unreachable,
    /// Most others disagree with it.
    Wrong,
    /// It varies too much.
    Unstable,
}
