//! The rights and restrictions of a container.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_default;

/// What a container may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecuritySpec {
    /// Its general confinement.
    #[serde(default, skip_serializing_if = "is_default")]
    pub confinement: Confinement,
    /// Capabilities of its processes.
    pub capabilities: CapabilitySet,
    /// Its filter of system calls.
    #[serde(default, skip_serializing_if = "is_default")]
    pub system_calls: SystemCallFilter,
    /// Its AppArmor profile.
    #[serde(default, skip_serializing_if = "is_default")]
    pub apparmor: AppArmor,
    /// No program gains privileges by being executed (`set-user-ID`, file capabilities).
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// The parts of /proc and /sys that are hidden or read-only.
    pub hiding: Hiding,
}

/// The general confinement of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// Confined by everything in [`SecuritySpec`].
    #[default]
    Confined,
    /// Privileged: all devices, writable /sys and cgroups, and no filter unless one is set.
    Privileged,
}

/// Capabilities by name without `CAP_`, in upper case: `NET_ADMIN`. Names are used on disk because
/// numbers say nothing to a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapabilitySet {
    /// All that the host has at the time of the start.
    All,
    /// These, if the host has them.
    Only(BTreeSet<String>),
}

/// A filter of system calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemCallFilter {
    /// The runtime's built-in profile.
    #[default]
    BuiltIn,
    /// None.
    Unconfined,
    /// `linux.seccomp` of the OCI runtime specification.
    Profile(Value),
}

/// An AppArmor profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppArmor {
    /// The engine's own profile, if the host has AppArmor; none for a privileged container.
    #[default]
    Usual,
    /// None.
    Unconfined,
    /// The profile of this name, which must be loaded when the container starts.
    Named(String),
}

/// What of /proc and /sys is not there or can't be written: absolute paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hiding {
    /// Hidden.
    pub masked: Vec<PathBuf>,
    /// Read-only.
    pub read_only: Vec<PathBuf>,
}

/// Paths that are hidden by default.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that are read-only by default.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

impl Hiding {
    /// The default of hidden and read-only paths.
    pub fn usual() -> Self {
        Self {
            masked: MASKED.iter().map(PathBuf::from).collect(),
            read_only: READ_ONLY.iter().map(PathBuf::from).collect(),
        }
    }
}

/// A device node of the host in a container, or all nodes of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// The allowed access.
    pub access: DeviceAccess,
}

/// Devices that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// The kind.
    pub kind: DeviceKind,
    /// `None`: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<u32>,
    /// `None`: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
    /// The allowed access.
    pub access: DeviceAccess,
}

/// A kind of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Character and block devices.
    All,
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

/// Access to a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceAccess {
    /// Read it.
    pub read: bool,
    /// Write it.
    pub write: bool,
    /// Make nodes of it.
    pub make_node: bool,
}
