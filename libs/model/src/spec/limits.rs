//! The limits of a container.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;

/// Bytes of /dev/shm by default.
pub const SHM_SIZE: u64 = 64 << 20;

/// Limits of a container. `None` always means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory.
    #[serde(skip_serializing_if = "is_default")]
    pub memory: MemoryLimits,
    /// Processors.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu: CpuLimits,
    /// Processes and threads.
    #[serde(skip_serializing_if = "is_default")]
    pub pids: PidsLimit,
    /// Block devices.
    #[serde(skip_serializing_if = "is_default")]
    pub io: IoLimits,
    /// Limits of each process (setrlimit(2)); no kind twice.
    #[serde(skip_serializing_if = "is_default")]
    pub rlimits: Vec<Rlimit>,
    /// Bytes of the container's /dev/shm, at least 1.
    pub shm_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: MemoryLimits::default(),
            cpu: CpuLimits::default(),
            pids: PidsLimit::default(),
            io: IoLimits::default(),
            rlimits: Vec::new(),
            shm_size: SHM_SIZE,
        }
    }
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryLimits {
    /// Hard limit.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: Option<u64>,
    /// Memory that is not reclaimed while other containers use more than theirs.
    #[serde(skip_serializing_if = "is_default")]
    pub reservation: Option<u64>,
    /// Swap.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: MemorySwap,
    /// -1000 to 1000: a higher number makes the kernel kill it earlier when memory runs out.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adjustment: i32,
}

/// The swap limit of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemorySwap {
    /// As much swap as the memory limit. Without a memory limit, no limit.
    #[default]
    AsMemory,
    /// Memory and swap together, in bytes; at least the memory limit.
    Together(u64),
    /// Without a limit.
    Unlimited,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuLimits {
    /// Relative weight, 2 to 262144.
    #[serde(skip_serializing_if = "is_default")]
    pub shares: Option<u64>,
    /// Microseconds of processor time in a period; -1 lifts an earlier limit.
    #[serde(skip_serializing_if = "is_default")]
    pub quota: Option<i64>,
    /// Microseconds of a period, 1000 to 1000000.
    #[serde(skip_serializing_if = "is_default")]
    pub period: Option<u64>,
    /// Processors: `0-2,4`; empty for all.
    #[serde(skip_serializing_if = "is_default")]
    pub cpus: String,
    /// Memory nodes: `0,1`; empty for all.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_nodes: String,
}

/// How many processes and threads a container may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidsLimit {
    /// Not set: no limit.
    #[default]
    NotGiven,
    /// No limit, which lifts an earlier one.
    Unlimited,
    /// This many.
    AtMost(u64),
}

/// Limits of block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoLimits {
    /// Relative weight on all devices, 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: Option<u16>,
    /// Single devices, none of them twice.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceIo>,
}

/// The limits of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceIo {
    /// Its node on the host.
    pub node: PathBuf,
    /// Relative weight, 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: Option<u16>,
    /// Bytes read per second.
    #[serde(skip_serializing_if = "is_default")]
    pub read_bytes: Option<u64>,
    /// Bytes written per second.
    #[serde(skip_serializing_if = "is_default")]
    pub written_bytes: Option<u64>,
    /// Reads per second.
    #[serde(skip_serializing_if = "is_default")]
    pub reads: Option<u64>,
    /// Writes per second.
    #[serde(skip_serializing_if = "is_default")]
    pub writes: Option<u64>,
}

/// A limit of each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The resource.
    pub kind: RlimitKind,
    /// Soft limit; `u64::MAX` is none.
    pub soft: u64,
    /// Hard limit, not below the soft one; `u64::MAX` is none.
    pub hard: u64,
}

/// The resource of a process limit (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the kernel's RLIMIT_ of the same name")]
pub enum RlimitKind {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl RlimitKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Core,
        Self::Cpu,
        Self::Data,
        Self::Fsize,
        Self::Locks,
        Self::Memlock,
        Self::Msgqueue,
        Self::Nice,
        Self::Nofile,
        Self::Nproc,
        Self::Rss,
        Self::Rtprio,
        Self::Rttime,
        Self::Sigpending,
        Self::Stack,
    ];

    /// The kernel's name without `RLIMIT_`, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }
}
