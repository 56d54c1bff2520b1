//! The command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use hostd_containers::CgroupParent;
use hostd_images::{HostRule, Mirror};
use keelson_model::ip::IpPrefix;
use keelson_store::Era;
use tracing_subscriber::filter::Targets;

/// Docker's directories of plugins.
const PLUGINS: [&str; 3] = [
    "/run/docker/plugins",
    "/etc/docker/plugins",
    "/usr/lib/docker/plugins",
];

/// The Keelson engine daemon: containers, images and system services behind the Docker Engine
/// API and the host API.
///
/// On SIGTERM or SIGINT it stops all containers in order and ends, also on a development machine.
/// SIGKILL leaves them running, and the next start adopts them.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// Directory of everything that must survive a reboot.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/keelson")]
    pub(crate) root: PathBuf,

    /// Directory of everything that need not survive a reboot.
    #[arg(long, value_name = "DIR", default_value = "/run/keelson/hostd")]
    pub(crate) run: PathBuf,

    /// Where to listen: unix:///path or tcp://address:port; may be repeated. Default:
    /// unix:///run/docker.sock and, with TLS, the addresses in the host configuration.
    #[arg(long, value_name = "URL")]
    pub(crate) listen: Vec<Listen>,

    /// Directory of the certificate authority and the server's keys. They are made when it is empty.
    /// TCP is served only with TLS and client certificates.
    #[arg(long, value_name = "DIR")]
    pub(crate) tls: Option<PathBuf>,

    /// Directory of the layers of which the images of the machine's services are made.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/keelson/images")]
    pub(crate) service_layers: PathBuf,

    /// Root of the host configuration's layers (etc/keelson/host.toml and others below it).
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) config: PathBuf,

    /// The kernel's log, which is stored with the logs; `none`: it is not read. Default: /dev/kmsg
    /// under Keelson's PID 1, none elsewhere.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel_log: Option<PathBuf>,

    /// Directory that is searched for volume plugins: NAME.sock, NAME.spec and NAME.json; may be
    /// repeated.
    #[arg(long, value_name = "DIR", default_values = PLUGINS)]
    pub(crate) plugins: Vec<PathBuf>,

    /// Link of the default bridge network of containers, instead of `engine.networks.bridge` of the
    /// host configuration; `none`: there is no such network, and containers have no network unless
    /// they request one.
    #[arg(long, value_name = "LINK")]
    pub(crate) bridge: Option<String>,

    /// Address of the default bridge network with its prefix length, instead of
    /// `engine.networks.address`.
    #[arg(long, value_name = "CIDR")]
    pub(crate) bip: Option<IpPrefix>,

    /// Mirror of Docker Hub (https://host[:port]), asked before Docker Hub; may be repeated.
    #[arg(long, value_name = "URL")]
    pub(crate) registry_mirror: Vec<Mirror>,

    /// Registry that needs no TLS and no valid certificate: host, host:port or a prefix such as
    /// 10.0.0.0/8; may be repeated. Registries on loopback never need TLS.
    #[arg(long, value_name = "CIDR|HOST")]
    pub(crate) insecure_registry: Vec<HostRule>,

    /// Name of the cgroup that holds all containers. Each hostd on a machine needs its own.
    #[arg(long, value_name = "NAME", default_value = CgroupParent::USUAL)]
    pub(crate) cgroup_parent: CgroupParent,

    /// Write documents so that the previous release can read them. Used while an update is on trial
    /// and may be rolled back.
    #[arg(long)]
    pub(crate) trial: bool,

    /// What to log to standard error: error, warn, info, debug, trace, or a level per module.
    #[arg(
        long,
        value_name = "FILTER",
        env = "KEELSON_LOG",
        default_value = "info"
    )]
    pub(crate) log: Targets,
}

impl Options {
    /// The kernel's log. A development machine's own is not ours.
    pub(crate) fn kernel_log(&self) -> Option<PathBuf> {
        match &self.kernel_log {
            Some(path) if path.as_os_str() == "none" => None,
            Some(path) => Some(path.clone()),
            None => keelson_tracing::has_supervisor().then(|| "/dev/kmsg".into()),
        }
    }

    /// Whether the running release may still be rolled back.
    pub(crate) fn era(&self) -> Era {
        match self.trial {
            true => Era::Trial,
            false => Era::Blessed,
        }
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP with mutual TLS.
    Tcp(SocketAddr),
}

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(ListenError(format!(
                    "the path in {text:?} must be absolute"
                )));
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("tcp://") {
            return address.parse().map(Self::Tcp).map_err(|_| {
                ListenError(format!(
                    "{address:?} is not an address with port, such as 127.0.0.1:2376 or [::]:2376"
                ))
            });
        }
        Err(ListenError(format!(
            "{text:?} begins with neither unix:// nor tcp://"
        )))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn listen_addresses_are_read() {
        assert_eq!(
            "unix:///run/docker.sock".parse(),
            Ok(Listen::Unix("/run/docker.sock".into()))
        );
        assert_eq!(
            "tcp://[::]:2376".parse(),
            Ok(Listen::Tcp(SocketAddr::from(([0; 8], 2376))))
        );
        for wrong in ["unix://docker.sock", "tcp://2376", "http://a", ""] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}
