//! The machine's clock, at `GET /host/v1/time`.

use serde::{Deserialize, Serialize};

/// How well the machine's clock is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimeStatus {
    /// The machine's time: RFC 3339.
    pub now: String,
    /// Whether the clock follows a time server.
    pub synchronized: bool,
    /// The server that it follows.
    pub server: Option<String>,
    /// How many servers are between it and a reference clock; absent without a server.
    pub stratum: Option<u32>,
    /// How many seconds the clock is estimated to be ahead.
    pub offset: f64,
    /// How many parts per million the clock would run fast without correction.
    pub frequency: f64,
    /// All servers.
    pub servers: Vec<TimeServer>,
}

/// A time server that is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimeServer {
    /// Its name or address.
    pub name: String,
    /// `followed`, `combined`, `not-combined`, `unreachable`, `wrong` or `unstable`.
    pub state: String,
    /// Its distance to a reference clock.
    pub stratum: u32,
    /// Whether its last answers arrived.
    pub reachable: bool,
    /// How many seconds the machine's clock was ahead of it at the last measurement.
    pub offset: f64,
}
