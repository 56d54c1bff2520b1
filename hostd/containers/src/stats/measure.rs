//! Makes one measurement. Blocks, because it reads about ten files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use keelson_cgroup::Figures;
use keelson_cgroup::figures::ProcessorFigures;
use keelson_linux::net_dev::{self, Interface};

use super::{ContainerStats, Measured};
use crate::container::Container;
use crate::host::host_memory;
use crate::types::Snapshot;

/// Largest list of interfaces that is read, in bytes: a container may create any number of them.
const LARGEST_LIST: u64 = 32 << 10;

/// Figures that do not depend on the container.
#[derive(Debug, Clone, Copy)]
pub(super) struct MachineFigures {
    processors: ProcessorFigures,
    memory: u64,
    /// The inode number of this program's network namespace.
    network: Option<u64>,
}

impl MachineFigures {
    pub(super) fn now() -> Self {
        Self {
            processors: ProcessorFigures::read().unwrap_or_else(|error| {
                tracing::warn!(%error, "processor time not known");
                ProcessorFigures::default()
            }),
            memory: host_memory(),
            network: network_namespace("self"),
        }
    }
}

/// Measures a container. If it does not run, or has just ended, all figures are zero.
pub(super) fn measure(
    container: &Container,
    mount: Option<&Path>,
    machine: &MachineFigures,
) -> ContainerStats {
    let snapshot = container.snapshot();
    let runs = snapshot.state.status.has_process();
    ContainerStats {
        id: snapshot.id.clone(),
        name: snapshot.name.clone(),
        measured: mount
            .filter(|_| runs)
            .and_then(|mount| running(&snapshot, mount, machine)),
        taken: Instant::now(),
    }
}

fn running(snapshot: &Snapshot, mount: &Path, machine: &MachineFigures) -> Option<Measured> {
    let group = mount.join(snapshot.cgroup.trim_start_matches('/'));
    match Figures::read(&group) {
        Ok(figures) => Some(Measured {
            at: Timestamp::now(),
            figures,
            interfaces: interfaces(snapshot.state.pid, machine),
            processors: machine.processors,
            machine_memory: machine.memory,
        }),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(id = snapshot.id, %error, "container not measured");
            }
            None
        }
    }
}

/// The interfaces of a process whose network is not the host's. `None`: there are none.
fn interfaces(pid: i32, machine: &MachineFigures) -> Option<Vec<Interface>> {
    let namespace = network_namespace(&pid.to_string())?;
    if Some(namespace) == machine.network {
        return None;
    }
    let mut list = Vec::with_capacity(1024);
    let file = File::open(format!("/proc/{pid}/net/dev")).ok()?;
    file.take(LARGEST_LIST).read_to_end(&mut list).ok()?;
    let mut found = net_dev::parse(&list);
    found.retain(|interface| interface.name != "lo");
    Some(found).filter(|found| !found.is_empty())
}

/// The inode number of a process's network namespace.
fn network_namespace(process: &str) -> Option<u64> {
    let found = fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
    Some(found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_the_hosts_network_has_no_interfaces_of_its_own() {
        let machine = MachineFigures::now();
        assert!(machine.network.is_some());
        assert!(machine.memory > 1 << 20 && machine.processors.online > 0);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(interfaces(own, &machine), None);
        assert_eq!(interfaces(-1, &machine), None);
        // With another network namespace these interfaces would be shown, except loopback.
        let elsewhere = MachineFigures {
            network: Some(0),
            ..machine
        };
        let shown = interfaces(own, &elsewhere).unwrap_or_default();
        assert!(shown.iter().all(|interface| interface.name != "lo"));
    }
}
