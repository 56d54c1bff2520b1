//! What a container is, in the engine's own terms.
//!
//! Every user of the engine makes one of these: the Docker API from a request; system services and
//! workloads at boot build it directly. It is complete: no member has to be looked up or filled in
//! later, and each value was checked before. The engine stores it, checks it again when it is read
//! from disk, plans a run from it and executes that plan.
//!
//! Rule for changes: a new member is optional for older readers (`#[serde(default)]`, and left out
//! of the document while it has its default), so that an engine that was rolled back can read what
//! a newer one wrote.

mod limits;
mod log;
mod mounts;
mod network;
mod order;
mod security;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::users::UserRange;

pub use limits::{
    CpuLimits, DeviceIo, IoLimits, Limits, MemoryLimits, MemorySwap, PidsLimit, Rlimit, RlimitKind,
    SHM_SIZE,
};
pub use log::{LogMarks, LogSpec, SyslogFormat, SyslogServer};
pub use mounts::{
    BindMount, ImageMount, MountKind, MountSpec, Propagation, ReadOnly, TmpfsMount, VolumeMount,
};
pub use network::{ConnectionSpec, ContainerLink, Mac, PortRange, PublishedPort};
pub use order::{Part, StartOrder};
pub use security::{
    AppArmor, CapabilitySet, Confinement, DeviceAccess, DeviceKind, DeviceRule, DeviceSpec, Hiding,
    SecuritySpec, SystemCallFilter,
};

/// Whether a member has its default, so that it can be left out.
fn is_default<T: Default + PartialEq>(member: &T) -> bool {
    *member == T::default()
}

/// A container as the engine knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The source of its root file system.
    pub root: RootSpec,
    /// The name of its runtime in the host's configuration. `None`: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Its first process.
    pub process: ProcessSpec,
    /// Labels, which only clients use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations for the OCI runtime.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its own and shared namespaces.
    pub namespaces: NamespaceSpec,
    /// Its names, and how it resolves other names.
    #[serde(default, skip_serializing_if = "is_default")]
    pub names: NameSpec,
    /// Its mounts: no two have the same target, and parents come before children.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<MountSpec>,
    /// Volumes. None of their targets is in `mounts`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub volumes: Vec<VolumeMount>,
    /// Images. None of their targets is in `mounts` or `volumes`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub images: Vec<ImageMount>,
    /// Targets of volumes that are removed with the container. Engines without a volume store made
    /// them. None of them is in `mounts`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub anonymous_volumes: Vec<PathBuf>,
    /// Device nodes of the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceSpec>,
    /// Vendors' devices (CDI), by their full names: `vendor.com/class=device`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub described_devices: Vec<String>,
    /// Ports on which it serves. They are not open to anybody outside its network by that alone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<Port>,
    /// The networks that it is connected to when [`NamespaceSpec::network`] is
    /// [`NetworkMode::Bridge`], the main one first; `None`: the default bridge network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Vec<ConnectionSpec>>,
    /// Ports that are reached from outside.
    #[serde(default, skip_serializing_if = "is_default")]
    pub published_ports: Vec<PublishedPort>,
    /// Publish every exposed port that is not in `published_ports`, at any port of the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub publish_exposed: bool,
    /// Devices that it may use in addition to those with nodes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device_rules: Vec<DeviceRule>,
    /// Its rights and restrictions.
    pub security: SecuritySpec,
    /// Its limits.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// The parent of its cgroup: relative to the root of the hierarchy if it begins with a slash,
    /// otherwise to the engine's cgroup. `None`: the engine's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<PathBuf>,
    /// Kernel parameters of its namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// The destination of its output.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: LogSpec,
    /// What happens when its process ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: RestartPolicy,
    /// The containers that its restart policy starts before it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_order: StartOrder,
    /// Remove it when its process has ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auto_remove: bool,
    /// How it is stopped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: StopSpec,
    /// How its health is checked. `None`: it is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
}

impl ContainerSpec {
    /// A container that runs a command with the fewest rights: no capabilities, no network but
    /// loopback, no new privileges, and the usual parts of /proc and /sys hidden.
    pub fn new(root: RootSpec, command: impl Into<String>) -> Self {
        Self {
            root,
            runtime: None,
            process: ProcessSpec {
                command: command.into(),
                args: Vec::new(),
                env: Vec::new(),
                user: String::new(),
                groups: Vec::new(),
                working_directory: "/".to_owned(),
                terminal: None,
                stdin: Stdin::Closed,
                init: false,
            },
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            namespaces: NamespaceSpec {
                network: NetworkMode::None,
                ipc: IpcMode::Private,
                uts: NamespaceMode::Private,
                cgroup: NamespaceMode::Private,
                pid: NamespaceMode::Private,
                users: None,
                donors: Donors::default(),
            },
            names: NameSpec::default(),
            mounts: Vec::new(),
            volumes: Vec::new(),
            images: Vec::new(),
            anonymous_volumes: Vec::new(),
            devices: Vec::new(),
            described_devices: Vec::new(),
            device_rules: Vec::new(),
            exposed_ports: BTreeSet::new(),
            connections: None,
            published_ports: Vec::new(),
            publish_exposed: false,
            security: SecuritySpec {
                confinement: Confinement::Confined,
                capabilities: CapabilitySet::Only(BTreeSet::new()),
                system_calls: SystemCallFilter::BuiltIn,
                apparmor: AppArmor::Usual,
                no_new_privileges: true,
                hiding: Hiding::usual(),
            },
            limits: Limits::default(),
            cgroup_parent: None,
            sysctls: BTreeMap::new(),
            log: LogSpec::default(),
            restart: RestartPolicy::Never,
            start_order: StartOrder::default(),
            auto_remove: false,
            stop: StopSpec::default(),
            health: None,
        }
    }
}

/// The source of a root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RootSpec {
    /// An image of the store, with a writable layer for the container.
    Image {
        /// `sha256:…`.
        id: String,
        /// The image's name in the request.
        name: String,
        /// Nothing may be written to it.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
    },
    /// EROFS files of the OS.
    System {
        /// The topmost file.
        path: PathBuf,
        /// Those below it, topmost first.
        #[serde(default, skip_serializing_if = "is_default")]
        lower: Vec<PathBuf>,
        /// Nothing may be written to it.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
    },
}

impl RootSpec {
    /// Whether nothing may be written to it.
    pub const fn read_only(&self) -> bool {
        match self {
            Self::Image { read_only, .. } | Self::System { read_only, .. } => *read_only,
        }
    }
}

/// A process: the first of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The command: never empty.
    pub command: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// `NAME=value`. `NAME` alone removes a variable that the engine sets.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, …. Resolved at the start, from the container's own files.
    /// Empty: root.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: String,
    /// Additional groups, by name or number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub groups: Vec<String>,
    /// Absolute path. Made if it does not exist.
    pub working_directory: String,
    /// A terminal instead of three pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSpec>,
    /// Standard input.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: Stdin,
    /// The engine's small init runs first, with the command as its child. It passes on signals and
    /// reaps orphans. Only if the container has its own pid namespace.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: bool,
}

/// A terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSpec {
    /// Rows and columns of characters at the start, if the client set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<(u16, u16)>,
}

/// The source of standard input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// Nowhere: the process reads end of file.
    #[default]
    Closed,
    /// To attached clients; it stays open without any.
    Open,
    /// To attached clients; it is closed when the first of them has gone.
    OpenOnce,
}

/// The namespaces of a container, its own or shared. It always has its own mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSpec {
    /// Network.
    pub network: NetworkMode,
    /// System V IPC, POSIX message queues and /dev/shm.
    pub ipc: IpcMode,
    /// Host name.
    pub uts: NamespaceMode,
    /// View of the cgroup tree.
    pub cgroup: NamespaceMode,
    /// Processes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: NamespaceMode,
    /// The user range of the container; `None`: the host's users. With a donor of another
    /// namespace, the donor's user namespace is joined, which must have the same users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UserRange>,
    /// Other containers whose namespaces it joins.
    #[serde(default, skip_serializing_if = "is_default")]
    pub donors: Donors,
}

/// Containers, by identifier or name, whose namespaces another container joins. They must run when
/// it starts. If a namespace has a donor, its mode is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Donors {
    /// The donor of the network namespace, host name, /etc/hosts and /etc/resolv.conf.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<String>,
    /// The donor of the pid namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: Option<String>,
    /// The donor of the IPC namespace (System V IPC and POSIX message queues) and /dev/shm.
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: Option<String>,
}

/// Whether a namespace is the container's own or the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// The kind of a container's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Its own namespace, connected to the networks of [`ContainerSpec::connections`].
    #[default]
    Bridge,
    /// Its own namespace with only the loopback interface.
    None,
    /// The host's network.
    Host,
}

/// System V IPC, POSIX message queues and /dev/shm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpcMode {
    /// Its own, for nobody else.
    #[default]
    Private,
    /// Its own, which other containers may join.
    Shareable,
    /// Its own, without /dev/shm.
    None,
    /// The host's.
    Host,
}

/// The names of a container, and the settings for resolving other names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSpec {
    /// Host name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hostname: HostName,
    /// NIS domain name; empty for none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub domain: String,
    /// Name servers; the host's when empty.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns_servers: Vec<IpAddr>,
    /// Search domains; the host's when empty.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    /// Resolver options; the host's when empty.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns_options: Vec<String>,
    /// Additional lines of /etc/hosts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hosts: Vec<HostsEntry>,
    /// Names in /etc/hosts for the host itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub names_of_host: Vec<String>,
}

/// A container's host name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostName {
    /// The first twelve digits of its identifier.
    #[default]
    OfContainer,
    /// The machine's.
    OfMachine,
    /// This name.
    Given(String),
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsEntry {
    /// The name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// A port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// Its transport.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the protocol of the same name")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// What the engine does when a container's process ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    Never,
    /// It starts again.
    Always,
    /// It starts again, unless a caller stopped it before the engine was opened.
    UnlessStopped,
    /// It starts again when its exit code is not 0.
    OnFailure {
        /// Attempts; `None` means no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempts: Option<u32>,
    },
}

/// How a container is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// The number of the signal that asks the container to end. Besides it, only SIGKILL counts as
    /// a request to end. `None`: SIGTERM, and every other signal of a caller counts as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How long it has until SIGKILL.
    #[serde(default, skip_serializing_if = "is_default")]
    pub patience: Patience,
}

/// How long a container has between the stop signal and SIGKILL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Patience {
    /// The time in the host's configuration.
    #[default]
    OfHost,
    /// This time.
    For(Duration),
    /// It is never killed.
    Forever,
}

/// How a container's health is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The command to execute in the container. Exit code 0 means healthy.
    pub command: Vec<String>,
    /// The time between two checks.
    pub interval: Duration,
    /// The time limit of one check.
    pub timeout: Duration,
    /// How many failures in a row mean unhealthy; at least 1.
    pub retries: u32,
    /// The time after the start in which failures don't count.
    pub start_period: Duration,
    /// The time between two checks in that period.
    pub start_interval: Duration,
}

#[cfg(test)]
mod tests;
