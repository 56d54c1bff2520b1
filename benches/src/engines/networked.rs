//! Engines with container networks. Each is to be started in a network namespace of its own
//! ([`Namespace::run`](keelson_netlink::Namespace::run)), so that it never changes the machine's
//! network.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Dialect, Engine, directories, url};
use crate::tools;

impl Engine {
    /// Ours, as released, with its default bridge network.
    ///
    /// # Errors
    /// It does not start.
    pub fn hostd_networked(name: &str, program: &Path, disk: &Path, run: &Path) -> Result<Self> {
        Self::start_hostd(name, Command::new(program), disk, run)
    }

    /// Docker with its default bridge network, its packet filter and a proxy for each port.
    ///
    /// # Errors
    /// It does not start.
    pub fn dockerd_networked(disk: &Path, run: &Path) -> Result<Option<Self>> {
        Self::start_dockerd(disk, run, &[])
    }

    /// Podman's service of the Docker API, with netavark when it is found, otherwise with CNI.
    /// In its mount namespace are no cgroup2 beside version 1 controllers, with which its runtime
    /// refuses to work, and no name server but `upstream`.
    ///
    /// # Errors
    /// It does not start.
    pub fn podman_networked(disk: &Path, run: &Path, upstream: IpAddr) -> Result<Option<Self>> {
        let name = "podman";
        let Some(podman) = tools::optional("podman", "podman") else {
            return Ok(None);
        };
        let (directory, run) = directories(name, disk, run)?;
        let cache = directory.join("cache");
        fs::create_dir(&cache)?;
        fs::create_dir_all("/var/lib/containers/cache")?;
        let servers = run.join("resolv.conf");
        fs::write(&servers, format!("nameserver {upstream}\n"))?;
        let settings = run.join("containers.conf");
        fs::write(&settings, settings_of(&directory, helpers().as_deref()))?;
        let socket = run.join("podman.sock");
        let script = "mount --bind \"$1\" /var/lib/containers/cache && \
                      mount --bind \"$2\" /etc/resolv.conf && \
                      mount -t tmpfs tmpfs /run/netns && \
                      { umount /sys/fs/cgroup/unified 2>/dev/null || :; } && \
                      shift 2 && exec \"$@\"";
        fs::create_dir_all("/run/netns")?;
        let mut daemon = Command::new(tools::require("unshare", "util-linux")?);
        daemon
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(cache)
            .arg(servers)
            .arg(podman)
            .arg("--root")
            .arg(directory.join("storage"))
            .arg("--runroot")
            .arg(run.join("storage"))
            .arg("--tmpdir")
            .arg(run.join("tmp"))
            .args(["--storage-driver=overlay", "--cgroup-manager=cgroupfs"])
            .args(["system", "service", "--time=0"])
            .arg(url(&socket))
            .env("CONTAINERS_CONF", settings);
        let client = Vec::new();
        Self::start(name, Dialect::Docker, client, daemon, directory, &socket).map(Some)
    }
}

/// Where netavark and aardvark-dns are.
fn helpers() -> Option<PathBuf> {
    let places = ["/usr/lib/podman", "/usr/libexec/podman"].map(PathBuf::from);
    let found = tools::find("netavark").and_then(|file| Some(file.parent()?.to_owned()));
    let found = found.or_else(|| {
        let mut places = places.into_iter();
        places.find(|place| place.join("netavark").is_file())
    });
    if found.is_none() {
        eprintln!(
            "podman uses CNI and answers no names: netavark is not installed: \
             apt-get install netavark aardvark-dns"
        );
    }
    found
}

fn settings_of(directory: &Path, helpers: Option<&Path>) -> String {
    // It asks for more open files than a limited root may have.
    let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n";
    let networks = directory.join("networks");
    match helpers {
        Some(helpers) => format!(
            "{limits}[engine]\nhelper_binaries_dir = [{helpers:?}]\nevents_logger = \"none\"\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = {networks:?}\n"
        ),
        None => format!(
            "{limits}[engine]\nevents_logger = \"none\"\n\
             [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = {networks:?}\n"
        ),
    }
}
