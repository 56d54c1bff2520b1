//! What a container is, in the engine's own terms.
//!
//! Every guest of the engine brings one of these: the Docker API makes it from a request, system
//! services and workloads at boot build it directly. It is complete: no member has to be looked up
//! or defaulted later, and each value was judged before it got here. The engine stores it, checks
//! it again when it is read from disk, plans a run from it and executes that plan.
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

/// Whether a member says nothing that its absence would not say.
fn is_default<T: Default + PartialEq>(member: &T) -> bool {
    *member == T::default()
}

/// A container as the engine knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// From what its root file system is made.
    pub root: RootSpec,
    /// Which runtime makes it, by its name in the host's configuration; `None`: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// What runs in it first.
    pub process: ProcessSpec,
    /// Labels, which mean something to clients only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations for the OCI runtime.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Which namespaces it has of its own.
    pub namespaces: NamespaceSpec,
    /// Its names, and how it resolves others.
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
    /// Targets of volumes that live and end with the container, as engines without a volume store
    /// made them. None of them is in `mounts`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub anonymous_volumes: Vec<PathBuf>,
    /// Device nodes of the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceSpec>,
    /// Devices that documents of the host describe, by their names in full:
    /// `vendor.com/class=device`.
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
    /// Devices that it may use besides those that it has nodes of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device_rules: Vec<DeviceRule>,
    /// What it may do.
    pub security: SecuritySpec,
    /// How much it may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// The cgroup that its own is made in: from the root of the hierarchy when it begins with a
    /// slash, otherwise from the engine's. `None`: where the engine puts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<PathBuf>,
    /// Kernel parameters of its namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Where its output goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: LogSpec,
    /// What happens when its process ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: RestartPolicy,
    /// After which others its policy starts it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_order: StartOrder,
    /// Remove it when its process has ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auto_remove: bool,
    /// How it is asked to end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: StopSpec,
    /// How its health is found out; `None`: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
}

impl ContainerSpec {
    /// A container that runs a command and may do nothing else: no capabilities, no network but
    /// loopback, no further privileges, everything of /proc and /sys hidden that usually is.
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

/// From what a root file system is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RootSpec {
    /// An image of the store, and a writable layer of the container's own.
    Image {
        /// `sha256:…`.
        id: String,
        /// The image as it was named.
        name: String,
        /// Nothing may be written to it.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
    },
    /// A ready EROFS file of the OS.
    System {
        /// The file.
        path: PathBuf,
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
    /// `NAME=value`; `NAME` alone takes away a variable that the engine sets itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, …, resolved when it starts, by the files that the container
    /// sees. Empty: root.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: String,
    /// Additional groups, by name or number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub groups: Vec<String>,
    /// Absolute path; made when it does not exist.
    pub working_directory: String,
    /// A terminal instead of three pipes; `Some` with its first size, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSpec>,
    /// Standard input.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: Stdin,
    /// A small init of the engine's runs first, with the command as its child: it hands on signals
    /// and collects orphans. Only where the container has processes of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: bool,
}

/// A terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSpec {
    /// Rows and columns of characters at the start, when the client said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<(u16, u16)>,
}

/// Where standard input leads.
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

/// Which namespaces a container has of its own. A mount namespace it always has.
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
    /// Users: who those of the container are on the host; `None`: those of the host. With a donor of
    /// another namespace, that one's user namespace is joined, which must have the same users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UserRange>,
    /// Other containers whose namespaces it joins.
    #[serde(default, skip_serializing_if = "is_default")]
    pub donors: Donors,
}

/// Containers, by identifier or name, whose namespaces another one joins. They must run when it
/// starts. For a namespace with a donor, the mode beside it is not used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Donors {
    /// Of the network, and of host name, /etc/hosts and /etc/resolv.conf.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<String>,
    /// Of processes.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: Option<String>,
    /// Of System V IPC and POSIX message queues, and of /dev/shm.
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: Option<String>,
}

/// Whose namespace a container is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// To what a container is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// A namespace of its own, connected to what [`ContainerSpec::connections`] says.
    #[default]
    Bridge,
    /// A namespace of its own with the loopback interface only.
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

/// The names of a container and of others.
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
    /// Further lines of /etc/hosts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hosts: Vec<HostsEntry>,
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
    /// This one.
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

/// What happens when a container's process ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    Never,
    /// It starts again.
    Always,
    /// It starts again, unless a caller had stopped it before the engine was opened.
    UnlessStopped,
    /// It starts again when its exit code is not 0.
    OnFailure {
        /// Attempts; `None` means no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempts: Option<u32>,
    },
}

/// How a container is asked to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// Number of the signal that asks for the end, and of the only one besides SIGKILL that does.
    /// `None`: SIGTERM, and every other signal of a caller asks for it, too.
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
    /// As long as the host's configuration says.
    #[default]
    OfHost,
    /// So long.
    For(Duration),
    /// It is never killed.
    Forever,
}

/// How a container's health is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is executed in the container; exit code 0 is healthy.
    pub command: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Failures in a row that mean unhealthy; at least 1.
    pub retries: u32,
    /// Time after the start in which failures don't count.
    pub start_period: Duration,
    /// Between two checks in that time.
    pub start_interval: Duration,
}

#[cfg(test)]
mod tests;
