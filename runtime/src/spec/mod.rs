//! The OCI runtime specification's `config.json` (version 1.2), as far as it concerns Linux.
//!
//! These are our own types, because they are read on every container start: unused members are not
//! stored, and absent lists cost nothing. Documents are read by [`keelson_model::json`], in the way
//! of the tools that write them: unknown members are ignored, `null` is the same as no member,
//! names match without regard to case, and of repeated members the last one counts.
//!
//! # Annotations with a meaning here
//!
//! | annotation | value | meaning |
//! |---|---|---|
//! | `io.keelson.seccomp` | `default` | `linux.seccomp` is absent; use the built-in profile (Docker's default one, [`crate::seccomp::profile`]), with the entries that depend on capabilities chosen by `process.capabilities.bounding` |
//! | `run.oci.keep_original_groups` | `1` | the process keeps the groups of the runtime's caller,
//! instead of `process.user.additionalGids`, as with crun; not under a shim |
//!
//! Without the first annotation and without `linux.seccomp` there is no filter (`unconfined`).

mod load;
pub(crate) mod mappings;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use load::{
    LoadError, load, parse, parse_process, parse_resources, parse_seccomp, process_of,
};
pub(crate) use mappings::IdMapping;

/// Name of the annotation that selects a built-in seccomp profile.
pub(crate) const SECCOMP_ANNOTATION: &str = "io.keelson.seccomp";

/// Name of the annotation that keeps the caller's groups.
pub(crate) const GROUPS_ANNOTATION: &str = "run.oci.keep_original_groups";

/// `config.json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) oci_version: String,
    pub(crate) process: Option<Process>,
    pub(crate) root: Option<Root>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hooks: Option<Hooks>,
    pub(crate) linux: Linux,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// `process`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Process {
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<ConsoleSize>,
    pub(crate) user: User,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) selinux_label: Option<String>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub(crate) exec_cpu_affinity: Option<CpuAffinity>,
}

/// `process.scheduler`; times in nanoseconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Scheduler {
    pub(crate) policy: String,
    pub(crate) nice: i32,
    pub(crate) priority: i32,
    pub(crate) flags: Vec<String>,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// `process.ioPriority`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct IoPriority {
    pub(crate) class: String,
    #[serde(default)]
    pub(crate) priority: u32,
}

/// `process.execCPUAffinity`: lists of processors such as `0-3,7`. For additional processes only.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CpuAffinity {
    pub(crate) initial: Option<String>,
    #[serde(rename = "final")]
    pub(crate) last: Option<String>,
}

/// One of `linux.timeOffsets`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TimeOffset {
    pub(crate) secs: i64,
    pub(crate) nanosecs: u32,
}

/// `process.consoleSize`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct ConsoleSize {
    pub(crate) height: u16,
    pub(crate) width: u16,
}

/// `process.user`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) umask: Option<u32>,
    pub(crate) additional_gids: Vec<u32>,
}

/// `process.capabilities`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Capabilities {
    pub(crate) bounding: Vec<String>,
    pub(crate) effective: Vec<String>,
    pub(crate) permitted: Vec<String>,
    pub(crate) inheritable: Vec<String>,
    pub(crate) ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// `root`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
}

/// One of `mounts`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Mount {
    pub(crate) destination: String,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) options: Vec<String>,
    pub(crate) uid_mappings: Vec<IdMapping>,
    pub(crate) gid_mappings: Vec<IdMapping>,
}

/// `hooks`. Stored in the state of a container, because some run later.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hooks {
    pub(crate) prestart: Vec<Hook>,
    pub(crate) create_runtime: Vec<Hook>,
    pub(crate) create_container: Vec<Hook>,
    pub(crate) start_container: Vec<Hook>,
    pub(crate) poststart: Vec<Hook>,
    pub(crate) poststop: Vec<Hook>,
}

/// When hooks run: the name of a member of `hooks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookKind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// One of `hooks.*`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hook {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Its complete environment. `None`: the runtime's environment.
    #[serde(default)]
    pub(crate) env: Option<Vec<String>>,
    /// Seconds.
    #[serde(default)]
    pub(crate) timeout: Option<i64>,
}

/// `linux`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Linux {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) uid_mappings: Vec<IdMapping>,
    pub(crate) gid_mappings: Vec<IdMapping>,
    pub(crate) devices: Vec<Device>,
    pub(crate) cgroups_path: Option<String>,
    pub(crate) resources: Option<Resources>,
    pub(crate) rootfs_propagation: Option<String>,
    pub(crate) seccomp: Option<Seccomp>,
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) mount_label: Option<String>,
    pub(crate) intel_rdt: Option<serde_json::Value>,
    pub(crate) personality: Option<Personality>,
    pub(crate) time_offsets: BTreeMap<String, TimeOffset>,
}

/// One of `linux.namespaces`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: NamespaceKind,
    #[serde(default)]
    pub(crate) path: Option<PathBuf>,
}

/// `linux.namespaces[].type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamespaceKind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

/// One of `linux.devices`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    pub(crate) file_mode: Option<u32>,
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
}

/// `linux.resources`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Resources {
    pub(crate) devices: Vec<DeviceRule>,
    pub(crate) memory: Option<Memory>,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) pids: Option<Pids>,
    #[serde(rename = "blockIO")]
    pub(crate) block_io: Option<BlockIo>,
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    pub(crate) network: Option<serde_json::Value>,
    pub(crate) rdma: BTreeMap<String, RdmaLimit>,
    pub(crate) unified: BTreeMap<String, String>,
}

/// One of `linux.resources.devices`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DeviceRule {
    pub(crate) allow: bool,
    #[serde(rename = "type", default)]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) major: Option<i64>,
    #[serde(default)]
    pub(crate) minor: Option<i64>,
    #[serde(default)]
    pub(crate) access: Option<String>,
}

/// `linux.resources.memory`; bytes, -1 is no limit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Memory {
    pub(crate) limit: Option<i64>,
    pub(crate) reservation: Option<i64>,
    pub(crate) swap: Option<i64>,
    pub(crate) kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub(crate) kernel_tcp: Option<i64>,
    pub(crate) swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub(crate) disable_oom_killer: Option<bool>,
    pub(crate) check_before_update: bool,
}

/// `linux.resources.cpu`; times in microseconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cpu {
    pub(crate) shares: Option<u64>,
    pub(crate) quota: Option<i64>,
    pub(crate) burst: Option<u64>,
    pub(crate) period: Option<u64>,
    pub(crate) realtime_runtime: Option<i64>,
    pub(crate) realtime_period: Option<u64>,
    pub(crate) cpus: Option<String>,
    pub(crate) mems: Option<String>,
    pub(crate) idle: Option<i64>,
}

/// `linux.resources.pids`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Pids {
    #[serde(default)]
    pub(crate) limit: Option<i64>,
}

/// `linux.resources.blockIO`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BlockIo {
    pub(crate) weight: Option<u16>,
    pub(crate) leaf_weight: Option<u16>,
    pub(crate) weight_device: Vec<WeightDevice>,
    pub(crate) throttle_read_bps_device: Vec<ThrottleDevice>,
    pub(crate) throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice")]
    pub(crate) throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub(crate) throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// One of `blockIO.weightDevice`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct WeightDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    #[serde(default)]
    pub(crate) weight: Option<u16>,
    #[serde(default, rename = "leafWeight")]
    pub(crate) leaf_weight: Option<u16>,
}

/// One of `blockIO.throttle…Device`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ThrottleDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) rate: u64,
}

/// One of `linux.resources.hugepageLimits`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HugepageLimit {
    pub(crate) page_size: String,
    pub(crate) limit: u64,
}

/// One of `linux.resources.rdma`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RdmaLimit {
    pub(crate) hca_handles: Option<u32>,
    pub(crate) hca_objects: Option<u32>,
}

/// `linux.seccomp`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seccomp {
    pub(crate) default_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_errno_ret: Option<u32>,
    #[serde(default)]
    pub(crate) architectures: Vec<String>,
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listener_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listener_metadata: Option<String>,
    #[serde(default)]
    pub(crate) syscalls: Vec<SeccompRule>,
}

/// One of `linux.seccomp.syscalls`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeccompRule {
    pub(crate) names: Vec<String>,
    pub(crate) action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) errno_ret: Option<u32>,
    #[serde(default)]
    pub(crate) args: Vec<SeccompArgument>,
}

/// One of `linux.seccomp.syscalls[].args`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeccompArgument {
    pub(crate) index: u32,
    pub(crate) value: u64,
    #[serde(default)]
    pub(crate) value_two: u64,
    pub(crate) op: String,
}

/// `linux.personality`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Personality {
    pub(crate) domain: String,
    #[serde(default)]
    pub(crate) flags: Vec<String>,
}

impl NamespaceKind {
    /// Every kind by its name.
    pub(crate) const NAMES: [(&'static str, Self); 8] = [
        ("cgroup", Self::Cgroup),
        ("ipc", Self::Ipc),
        ("mount", Self::Mount),
        ("network", Self::Network),
        ("pid", Self::Pid),
        ("time", Self::Time),
        ("user", Self::User),
        ("uts", Self::Uts),
    ];

    /// Its name in config.json.
    pub(crate) fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, kind)| *kind == self);
        found.map_or("", |(name, _)| *name)
    }
}

impl Spec {
    /// The namespace entry of a kind. `None`: the container shares the caller's namespace.
    pub(crate) fn namespace(&self, kind: NamespaceKind) -> Option<&Namespace> {
        self.linux
            .namespaces
            .iter()
            .find(|namespace| namespace.kind == kind)
    }

    /// Whether a new namespace of a kind is made, instead of joining or sharing one.
    pub(crate) fn makes(&self, kind: NamespaceKind) -> bool {
        self.namespace(kind)
            .is_some_and(|namespace| namespace.path.is_none())
    }
}

impl HookKind {
    /// Every kind, in the order in which they run.
    pub(crate) const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The specification's name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

impl std::fmt::Display for HookKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Hooks {
    /// The hooks of a kind.
    pub(crate) fn of(&self, kind: HookKind) -> &[Hook] {
        match kind {
            HookKind::Prestart => &self.prestart,
            HookKind::CreateRuntime => &self.create_runtime,
            HookKind::CreateContainer => &self.create_container,
            HookKind::StartContainer => &self.start_container,
            HookKind::Poststart => &self.poststart,
            HookKind::Poststop => &self.poststop,
        }
    }
}
