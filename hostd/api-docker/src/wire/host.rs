//! How a container runs on its host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::parts::{
    DeviceMapping, DeviceRequest, Mount, PortBinding, ThrottleDevice, Ulimit, WeightDevice,
};
use super::words;

/// How a container runs on its host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    /// `source:target[:options]`.
    pub binds: Option<Vec<String>>,
    /// File in which the client stores the identifier. Recorded, not used.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Logging.
    pub log_config: LogConfig,
    /// `none`, `host`, `bridge`, `default`, a network's name or `container:X`.
    pub network_mode: String,
    /// Published ports.
    pub port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
    /// What happens when the command ends.
    pub restart_policy: RestartPolicy,
    /// Remove the container when its command has ended.
    pub auto_remove: bool,
    /// Driver of volumes named in `binds`.
    pub volume_driver: String,
    /// Containers whose volumes are mounted too.
    pub volumes_from: Option<Vec<String>>,
    /// Mounts in their long form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    /// Size of the client's terminal: rows, columns.
    pub console_size: [u32; 2],
    /// Annotations for the OCI runtime.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Capabilities in addition to the default ones; `ALL`.
    #[serde(deserialize_with = "words")]
    pub cap_add: Option<Vec<String>>,
    /// Default capabilities that are dropped; `ALL`.
    #[serde(deserialize_with = "words")]
    pub cap_drop: Option<Vec<String>>,
    /// `private`, `host` or empty.
    pub cgroupns_mode: String,
    /// Name servers.
    pub dns: Option<Vec<String>>,
    /// Resolver options.
    pub dns_options: Option<Vec<String>>,
    /// Search domains.
    pub dns_search: Option<Vec<String>>,
    /// `host:address` lines of /etc/hosts.
    pub extra_hosts: Option<Vec<String>>,
    /// Additional groups, by name or number.
    pub group_add: Option<Vec<String>>,
    /// `private`, `shareable`, `none`, `host`, `container:X` or empty.
    pub ipc_mode: String,
    /// Cgroup of another container.
    pub cgroup: String,
    /// Legacy links.
    pub links: Option<Vec<String>>,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
    /// `host`, `container:X` or empty.
    pub pid_mode: String,
    /// All capabilities, all devices, nothing masked, no seccomp filter.
    pub privileged: bool,
    /// Publish every exposed port.
    pub publish_all_ports: bool,
    /// Read-only root file system.
    pub readonly_rootfs: bool,
    /// `no-new-privileges[=true]`, `seccomp=…`, `label=…`, `apparmor=…`, `systempaths=…`.
    pub security_opt: Option<Vec<String>>,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// Target → mount options of temporary file systems.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// `host` or empty.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// `host` or empty.
    pub userns_mode: String,
    /// Bytes of /dev/shm; 0 is the default of 64 MiB.
    pub shm_size: i64,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// OCI runtime by name.
    pub runtime: String,
    /// Windows only.
    pub isolation: String,
    /// Paths of /proc and /sys that are hidden; `None` is the default list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths of /proc that are read-only; `None` is the default list.
    pub readonly_paths: Option<Vec<String>>,

    /// Relative weight of processor time, 2 to 262144.
    pub cpu_shares: i64,
    /// Bytes of memory; 0 is no limit.
    pub memory: i64,
    /// Billionths of a processor.
    pub nano_cpus: i64,
    /// Parent cgroup.
    pub cgroup_parent: String,
    /// Block I/O weight, 10 to 1000.
    pub blkio_weight: u16,
    /// Weight per device.
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    /// Bytes read per second and device.
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// Bytes written per second and device.
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// Reads per second and device.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// Writes per second and device.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// Microseconds of a scheduling period.
    pub cpu_period: i64,
    /// Microseconds of processor time in a period.
    pub cpu_quota: i64,
    /// Real-time period in microseconds.
    pub cpu_realtime_period: i64,
    /// Real-time budget in microseconds.
    pub cpu_realtime_runtime: i64,
    /// Processors: `0-2,4`.
    pub cpuset_cpus: String,
    /// Memory nodes: `0,1`.
    pub cpuset_mems: String,
    /// Device nodes.
    pub devices: Option<Vec<DeviceMapping>>,
    /// `c 42:* rwm`.
    pub device_cgroup_rules: Option<Vec<String>>,
    /// GPUs and other devices by driver.
    pub device_requests: Option<Vec<DeviceRequest>>,
    /// Obsolete.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memory: Zero,
    /// Obsolete.
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memory_tcp: Zero,
    /// Soft limit of memory in bytes.
    pub memory_reservation: i64,
    /// Bytes of memory and swap together; -1 is no limit of swap, 0 twice the memory.
    pub memory_swap: i64,
    /// 0 to 100 (cgroup v1 only); -1 or `None` is the host's.
    pub memory_swappiness: Option<i64>,
    /// Never kill for lack of memory (cgroup v1 only).
    pub oom_kill_disable: Option<bool>,
    /// Run a small init as the first process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Number of processes and threads; `None`, 0 and -1 are no limit.
    pub pids_limit: Option<i64>,
    /// Resource limits.
    pub ulimits: Option<Vec<Ulimit>>,
    /// Windows only.
    pub cpu_count: i64,
    /// Windows only.
    pub cpu_percent: i64,
    /// Windows only.
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    /// Windows only.
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
}

/// A number that old clients still send. Only 0 is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Zero(pub i64);

impl std::ops::Not for &Zero {
    type Output = bool;

    fn not(self) -> bool {
        self.0 == 0
    }
}

/// Logging.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    /// Driver; empty is the engine's own.
    pub r#type: String,
    /// Options of the driver: `max-size`, `max-file`, ….
    pub config: BTreeMap<String, String>,
}

/// What happens when a container's command ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Empty, `no`, `always`, `unless-stopped` or `on-failure`.
    pub name: String,
    /// Attempts of `on-failure`; 0 is no limit.
    pub maximum_retry_count: i64,
}
