//! Containers as clients ask for them and as they are kept on disk, in the vocabulary of the
//! Docker Engine API (version 1.51, definitions `ContainerConfig`, `HostConfig`, `Mount`, …).
//!
//! The types accept what Docker's own decoder accepts: an absent member and `null` both mean the
//! zero value. Members that no definition names are collected in `unknown`, so that the engine
//! can refuse them instead of passing over them in silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The body of `POST /containers/create`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateBody {
    /// What runs in the container.
    #[serde(flatten)]
    pub config: Config,
    /// How it runs on this host.
    #[serde(deserialize_with = "or_default")]
    pub host_config: HostConfig,
    /// To which networks it is connected.
    #[serde(deserialize_with = "or_default")]
    pub networking_config: NetworkingConfig,
}

/// What runs in the container, independent of the host. Images carry the same type as defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// Host name inside the container; the engine takes the first 12 digits of the identifier
    /// when it is empty.
    #[serde(deserialize_with = "or_default")]
    pub hostname: String,
    /// NIS domain name.
    #[serde(deserialize_with = "or_default")]
    pub domainname: String,
    /// `user`, `uid`, `user:group`, … resolved in the container's root file system.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Whether the client that creates the container will attach to standard input.
    #[serde(deserialize_with = "or_default")]
    pub attach_stdin: bool,
    /// Whether it will attach to standard output.
    #[serde(deserialize_with = "or_default")]
    pub attach_stdout: bool,
    /// Whether it will attach to standard error.
    #[serde(deserialize_with = "or_default")]
    pub attach_stderr: bool,
    /// `port/protocol` → `{}`; documentation of the image, publishes nothing.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Value>,
    /// A terminal instead of three pipes.
    #[serde(deserialize_with = "or_default")]
    pub tty: bool,
    /// Keep standard input open while no client is attached.
    #[serde(deserialize_with = "or_default")]
    pub open_stdin: bool,
    /// Close standard input after the first attached client is gone.
    #[serde(deserialize_with = "or_default")]
    pub stdin_once: bool,
    /// `NAME=value`; `NAME` alone removes a variable of the image.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Command, or arguments of the entry point. A single string stands for a list of one.
    #[serde(deserialize_with = "words")]
    pub cmd: Option<Vec<String>>,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Windows only.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub args_escaped: bool,
    /// Image as the client named it.
    #[serde(deserialize_with = "or_default")]
    pub image: String,
    /// Paths that are volumes even when nothing is mounted there.
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, Value>,
    /// Folder in which the command starts; made when it does not exist.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// Entry point. `None`: the image's; `[""]`: none.
    #[serde(deserialize_with = "words")]
    pub entrypoint: Option<Vec<String>>,
    /// Loopback only.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub network_disabled: bool,
    /// Hardware address (before API 1.44).
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub mac_address: String,
    /// Instructions for builds on top of the image.
    #[serde(deserialize_with = "or_default")]
    pub on_build: Option<Vec<String>>,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the command to end, by name or number; SIGTERM when empty.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Seconds between the stop signal and SIGKILL; -1 waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of the image's shell-form instructions.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub shell: Option<Vec<String>>,
    /// Members that API 1.51 does not define.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// How a container runs on its host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    /// `source:target[:options]`.
    #[serde(deserialize_with = "or_default")]
    pub binds: Option<Vec<String>>,
    /// Where the client wrote the identifier; recorded, not used.
    #[serde(rename = "ContainerIDFile", deserialize_with = "or_default")]
    pub container_id_file: String,
    /// Logging.
    #[serde(deserialize_with = "or_default")]
    pub log_config: LogConfig,
    /// `none`, `host`, `bridge`, `default`, a network's name or `container:X`.
    #[serde(deserialize_with = "or_default")]
    pub network_mode: String,
    /// Published ports.
    #[serde(deserialize_with = "or_default")]
    pub port_bindings: BTreeMap<String, Value>,
    /// What happens when the command ends.
    #[serde(deserialize_with = "or_default")]
    pub restart_policy: RestartPolicy,
    /// Remove the container when its command has ended.
    #[serde(deserialize_with = "or_default")]
    pub auto_remove: bool,
    /// Driver of volumes named in `binds`.
    #[serde(deserialize_with = "or_default")]
    pub volume_driver: String,
    /// Containers whose volumes are mounted too.
    #[serde(deserialize_with = "or_default")]
    pub volumes_from: Option<Vec<String>>,
    /// Mounts in their long form.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub mounts: Option<Vec<Mount>>,
    /// Size of the client's terminal: rows, columns.
    #[serde(deserialize_with = "or_default")]
    pub console_size: [u32; 2],
    /// Annotations for the OCI runtime.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Capabilities in addition to the default ones; `ALL`.
    #[serde(deserialize_with = "or_default")]
    pub cap_add: Option<Vec<String>>,
    /// Capabilities that are taken away; `ALL`.
    #[serde(deserialize_with = "or_default")]
    pub cap_drop: Option<Vec<String>>,
    /// `private`, `host` or empty.
    #[serde(deserialize_with = "or_default")]
    pub cgroupns_mode: String,
    /// Name servers.
    #[serde(deserialize_with = "or_default")]
    pub dns: Option<Vec<String>>,
    /// Resolver options.
    #[serde(deserialize_with = "or_default")]
    pub dns_options: Option<Vec<String>>,
    /// Search domains.
    #[serde(deserialize_with = "or_default")]
    pub dns_search: Option<Vec<String>>,
    /// `host:address` lines of /etc/hosts.
    #[serde(deserialize_with = "or_default")]
    pub extra_hosts: Option<Vec<String>>,
    /// Additional groups, by name or number.
    #[serde(deserialize_with = "or_default")]
    pub group_add: Option<Vec<String>>,
    /// `private`, `shareable`, `none`, `host`, `container:X` or empty.
    #[serde(deserialize_with = "or_default")]
    pub ipc_mode: String,
    /// Cgroup of another container.
    #[serde(deserialize_with = "or_default")]
    pub cgroup: String,
    /// Legacy links.
    #[serde(deserialize_with = "or_default")]
    pub links: Option<Vec<String>>,
    /// -1000 to 1000.
    #[serde(deserialize_with = "or_default")]
    pub oom_score_adj: i32,
    /// `host`, `container:X` or empty.
    #[serde(deserialize_with = "or_default")]
    pub pid_mode: String,
    /// All capabilities, all devices, nothing masked, no seccomp filter.
    #[serde(deserialize_with = "or_default")]
    pub privileged: bool,
    /// Publish every exposed port.
    #[serde(deserialize_with = "or_default")]
    pub publish_all_ports: bool,
    /// Read-only root file system.
    #[serde(deserialize_with = "or_default")]
    pub readonly_rootfs: bool,
    /// `no-new-privileges[=true]`, `seccomp=…`, `label=…`, `apparmor=…`, `systempaths=…`.
    #[serde(deserialize_with = "or_default")]
    pub security_opt: Option<Vec<String>>,
    /// Options of the storage driver.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub storage_opt: BTreeMap<String, String>,
    /// Target → mount options of temporary file systems.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub tmpfs: BTreeMap<String, String>,
    /// `host` or empty.
    #[serde(rename = "UTSMode", deserialize_with = "or_default")]
    pub uts_mode: String,
    /// `host` or empty.
    #[serde(deserialize_with = "or_default")]
    pub userns_mode: String,
    /// Bytes of /dev/shm; 0 is the default of 64 MiB.
    #[serde(deserialize_with = "or_default")]
    pub shm_size: i64,
    /// Kernel parameters of the container's namespaces.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub sysctls: BTreeMap<String, String>,
    /// OCI runtime by name.
    #[serde(deserialize_with = "or_default")]
    pub runtime: String,
    /// Windows only.
    #[serde(deserialize_with = "or_default")]
    pub isolation: String,
    /// Paths of /proc and /sys that are hidden; `None` is the default list.
    #[serde(deserialize_with = "or_default")]
    pub masked_paths: Option<Vec<String>>,
    /// Paths of /proc that are read-only; `None` is the default list.
    #[serde(deserialize_with = "or_default")]
    pub readonly_paths: Option<Vec<String>>,

    /// Relative weight of processor time, 2 to 262144.
    #[serde(deserialize_with = "or_default")]
    pub cpu_shares: i64,
    /// Bytes of memory; 0 is no limit.
    #[serde(deserialize_with = "or_default")]
    pub memory: i64,
    /// Billionths of a processor.
    #[serde(deserialize_with = "or_default")]
    pub nano_cpus: i64,
    /// Parent cgroup.
    #[serde(deserialize_with = "or_default")]
    pub cgroup_parent: String,
    /// Block I/O weight, 10 to 1000.
    #[serde(deserialize_with = "or_default")]
    pub blkio_weight: u16,
    /// Weight per device.
    #[serde(deserialize_with = "or_default")]
    pub blkio_weight_device: Option<Vec<Value>>,
    /// Bytes read per second and device.
    #[serde(deserialize_with = "or_default")]
    pub blkio_device_read_bps: Option<Vec<Value>>,
    /// Bytes written per second and device.
    #[serde(deserialize_with = "or_default")]
    pub blkio_device_write_bps: Option<Vec<Value>>,
    /// Reads per second and device.
    #[serde(rename = "BlkioDeviceReadIOps", deserialize_with = "or_default")]
    pub blkio_device_read_iops: Option<Vec<Value>>,
    /// Writes per second and device.
    #[serde(rename = "BlkioDeviceWriteIOps", deserialize_with = "or_default")]
    pub blkio_device_write_iops: Option<Vec<Value>>,
    /// Microseconds of a scheduling period.
    #[serde(deserialize_with = "or_default")]
    pub cpu_period: i64,
    /// Microseconds of processor time in a period.
    #[serde(deserialize_with = "or_default")]
    pub cpu_quota: i64,
    /// Real-time period in microseconds.
    #[serde(deserialize_with = "or_default")]
    pub cpu_realtime_period: i64,
    /// Real-time budget in microseconds.
    #[serde(deserialize_with = "or_default")]
    pub cpu_realtime_runtime: i64,
    /// Processors: `0-2,4`.
    #[serde(deserialize_with = "or_default")]
    pub cpuset_cpus: String,
    /// Memory nodes: `0,1`.
    #[serde(deserialize_with = "or_default")]
    pub cpuset_mems: String,
    /// Device nodes.
    #[serde(deserialize_with = "or_default")]
    pub devices: Option<Vec<DeviceMapping>>,
    /// `c 42:* rwm`.
    #[serde(deserialize_with = "or_default")]
    pub device_cgroup_rules: Option<Vec<String>>,
    /// GPUs and other devices by driver.
    #[serde(deserialize_with = "or_default")]
    pub device_requests: Option<Vec<Value>>,
    /// Obsolete.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub kernel_memory: Zero,
    /// Obsolete.
    #[serde(
        rename = "KernelMemoryTCP",
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub kernel_memory_tcp: Zero,
    /// Soft limit of memory in bytes.
    #[serde(deserialize_with = "or_default")]
    pub memory_reservation: i64,
    /// Bytes of memory and swap together; -1 is no limit of swap, 0 twice the memory.
    #[serde(deserialize_with = "or_default")]
    pub memory_swap: i64,
    /// 0 to 100 (cgroup v1 only); -1 or `None` is the host's.
    #[serde(deserialize_with = "or_default")]
    pub memory_swappiness: Option<i64>,
    /// Never kill for lack of memory (cgroup v1 only).
    #[serde(deserialize_with = "or_default")]
    pub oom_kill_disable: Option<bool>,
    /// Run a small init as the first process.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub init: Option<bool>,
    /// Number of processes and threads; `None`, 0 and -1 are no limit.
    #[serde(deserialize_with = "or_default")]
    pub pids_limit: Option<i64>,
    /// Resource limits.
    #[serde(deserialize_with = "or_default")]
    pub ulimits: Option<Vec<Ulimit>>,
    /// Windows only.
    #[serde(deserialize_with = "or_default")]
    pub cpu_count: i64,
    /// Windows only.
    #[serde(deserialize_with = "or_default")]
    pub cpu_percent: i64,
    /// Windows only.
    #[serde(rename = "IOMaximumIOps", deserialize_with = "or_default")]
    pub io_maximum_iops: u64,
    /// Windows only.
    #[serde(deserialize_with = "or_default")]
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
    /// Members that API 1.51 does not define.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A number that old clients still send and that has no meaning any more unless it is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Zero(pub i64);

impl std::ops::Not for &Zero {
    type Output = bool;

    fn not(self) -> bool {
        self.0 == 0
    }
}

/// To which networks a new container is connected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkingConfig {
    /// Network name → settings of the end point.
    #[serde(deserialize_with = "or_default")]
    pub endpoints_config: BTreeMap<String, Value>,
}

/// Logging.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    /// Driver; empty is the engine's own.
    #[serde(deserialize_with = "or_default")]
    pub r#type: String,
    /// Options of the driver: `max-size`, `max-file`, ….
    #[serde(deserialize_with = "or_default")]
    pub config: BTreeMap<String, String>,
}

/// What happens when a container's command ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Empty, `no`, `always`, `unless-stopped` or `on-failure`.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Attempts of `on-failure`; 0 is no limit.
    #[serde(deserialize_with = "or_default")]
    pub maximum_retry_count: i64,
}

/// A health check. Times are nanoseconds; 0 inherits the image's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    /// `[]` inherits, `["NONE"]` disables, `["CMD", …]`, `["CMD-SHELL", command]`.
    #[serde(deserialize_with = "or_default")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(deserialize_with = "or_default")]
    pub interval: i64,
    /// For one check.
    #[serde(deserialize_with = "or_default")]
    pub timeout: i64,
    /// Failures in a row that mean unhealthy.
    #[serde(deserialize_with = "or_default")]
    pub retries: i64,
    /// Time in which failures don't count.
    #[serde(deserialize_with = "or_default")]
    pub start_period: i64,
    /// Between two checks during the start period.
    #[serde(deserialize_with = "or_default")]
    pub start_interval: i64,
}

/// A mount in its long form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, `image`, `npipe` or `cluster`.
    #[serde(deserialize_with = "or_default")]
    pub r#type: String,
    /// Path on the host, or name of a volume.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub source: String,
    /// Path in the container.
    #[serde(deserialize_with = "or_default")]
    pub target: String,
    /// Read-only.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub read_only: bool,
    /// Meaningless on Linux.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub consistency: String,
    /// For `bind`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub bind_options: Option<BindOptions>,
    /// For `volume`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub volume_options: Option<Value>,
    /// For `image`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub image_options: Option<Value>,
    /// For `tmpfs`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// Options of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BindOptions {
    /// `rprivate` (default), `private`, `rshared`, `shared`, `rslave` or `slave`.
    #[serde(deserialize_with = "or_default")]
    pub propagation: String,
    /// Bind the folder only, not what is mounted below it.
    #[serde(deserialize_with = "or_default")]
    pub non_recursive: bool,
    /// Make the source when it does not exist.
    #[serde(deserialize_with = "or_default")]
    pub create_mountpoint: bool,
    /// Only the top mount is read-only.
    #[serde(deserialize_with = "or_default")]
    pub read_only_non_recursive: bool,
    /// Fail when what is below cannot be made read-only.
    #[serde(deserialize_with = "or_default")]
    pub read_only_force_recursive: bool,
}

/// Options of a temporary file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TmpfsOptions {
    /// Bytes; 0 is no limit.
    #[serde(deserialize_with = "or_default")]
    pub size_bytes: i64,
    /// Mode of the root folder, in decimal; 0 is 1777 (octal).
    #[serde(deserialize_with = "or_default")]
    pub mode: u32,
    /// Further options: `[["noexec"]]`.
    #[serde(deserialize_with = "or_default")]
    pub options: Vec<Vec<String>>,
}

/// A device node of the host in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceMapping {
    /// Node, or folder of nodes, on the host.
    #[serde(deserialize_with = "or_default")]
    pub path_on_host: String,
    /// Node in the container; the same path when empty.
    #[serde(deserialize_with = "or_default")]
    pub path_in_container: String,
    /// Letters of `rwm`.
    #[serde(deserialize_with = "or_default")]
    pub cgroup_permissions: String,
}

/// A resource limit (setrlimit(2)); -1 is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    /// `nofile`, `nproc`, ….
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Soft limit.
    #[serde(deserialize_with = "or_default")]
    pub soft: i64,
    /// Hard limit.
    #[serde(deserialize_with = "or_default")]
    pub hard: i64,
}

/// `null` and absence both give the zero value, as in Docker's decoder.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A list of words, or one string that stands for a list of one.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    Ok(
        Option::<Words>::deserialize(deserializer)?.map(|words| match words {
            Words::One(word) => vec![word],
            Words::Many(words) => words,
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_members_are_zero_values() {
        let text = r#"{"Image":"a","Env":null,"Cmd":"sh","Entrypoint":null,"Labels":null,
            "HostConfig":{"Binds":null,"RestartPolicy":{"Name":"no","MaximumRetryCount":0},
            "PidsLimit":null,"LogConfig":{"Type":"","Config":null},"Memory":7},
            "NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null}}}}"#;
        let body: CreateBody = serde_json::from_str(text).unwrap();
        assert_eq!(body.config.image, "a");
        assert_eq!(body.config.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(body.config.entrypoint, None);
        assert!(body.config.unknown.is_empty(), "{:?}", body.config.unknown);
        assert_eq!(body.host_config.memory, 7);
        assert!(body.host_config.unknown.is_empty());
        assert!(
            body.networking_config
                .endpoints_config
                .contains_key("default")
        );
    }

    #[test]
    fn undefined_members_are_kept_for_the_engine_to_judge() {
        let text = r#"{"Image":"a","Surprise":1,"HostConfig":{"Other":true}}"#;
        let body: CreateBody = serde_json::from_str(text).unwrap();
        assert_eq!(body.config.unknown.get("Surprise"), Some(&Value::from(1)));
        assert_eq!(
            body.host_config.unknown.get("Other"),
            Some(&Value::from(true))
        );
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let text = r#"{"Image":"a","Entrypoint":[""],"StopTimeout":3,"HostConfig":{
            "Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],"KernelMemory":9,
            "Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":5}}]}}"#;
        let body: CreateBody = serde_json::from_str(text).unwrap();
        assert_eq!(body.host_config.kernel_memory, Zero(9));
        let again: CreateBody =
            serde_json::from_str(&serde_json::to_string(&body).unwrap()).unwrap();
        assert_eq!(again, body);
    }
}
