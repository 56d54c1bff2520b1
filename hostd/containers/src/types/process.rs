//! A process of a container.

use std::time::Duration;

use jiff::Timestamp;

/// What is known of a process of a container. Numbers of processes and users are the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its number.
    pub pid: u32,
    /// The number of its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// Its effective user.
    pub user: u32,
    /// Its effective group of users.
    pub user_group: u32,
    /// What it does, as proc(5) abbreviates it: `R`, `S`, `D`, `Z`, …
    pub state: char,
    /// Whether its group is in the foreground of its terminal.
    pub in_foreground: bool,
    /// The terminal: `pts/0`.
    pub terminal: Option<String>,
    /// The kernel's priority.
    pub priority: i64,
    /// Niceness, -20 to 19.
    pub nice: i64,
    /// Threads.
    pub threads: u64,
    /// The processor that it ran on last.
    pub processor: u64,
    /// Processor time, its own.
    pub cpu_time: Duration,
    /// When it was made.
    pub started: Timestamp,
    /// Bytes of address space.
    pub address_space: u64,
    /// Bytes in memory.
    pub resident: u64,
    /// Its short name.
    pub name: String,
    /// Its command line; empty for one that has none any more.
    pub arguments: Vec<String>,
}
