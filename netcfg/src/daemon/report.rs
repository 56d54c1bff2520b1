//! The reports of the daemon: resolv.conf, the time servers, the status, one line for the
//! supervisor.

use std::path::Path;

use keelson_linux::notify::Notification;
use tracing::warn;

use super::Daemon;
use crate::desired::{self, HeldLease};
use crate::dhcp::arp::mac_text;
use crate::files::{self, FileError};
use crate::model::Link;
use crate::status::{DhcpStatus, LeaseStatus, LinkStatus, NetworkStatus, VERSION};

impl Daemon {
    /// Writes resolv.conf, the time servers and the status, and notifies the supervisor.
    pub(super) fn publish(&mut self) {
        let config = &self.loaded.config;
        let (nameservers, search) = desired::resolvers(config, &self.held);
        let ntp_servers = desired::time_servers(config, &self.held);
        let run = &self.options.run;
        let mut problems: Vec<String> = self
            .loaded
            .problems
            .iter()
            .map(ToString::to_string)
            .chain(self.problems.iter().cloned())
            .chain(self.failures.iter().cloned())
            .collect();
        for running in self.clients.values() {
            if let Some(problem) = &running.status.problem {
                problems.push(format!("{}: {problem}", running.link.name));
            }
        }
        let status = NetworkStatus {
            version: VERSION,
            links: self.link_statuses(),
            nameservers,
            search,
            ntp_servers,
            problems,
        };
        let resolv_conf = files::resolv_conf(&status.nameservers, &status.search);
        let results = [
            files::write(&run.join("resolv.conf"), resolv_conf.as_bytes()),
            files::write_in_place(&run.join("netcfg/resolv.conf"), resolv_conf.as_bytes()),
            files::write(
                &run.join("netcfg/chrony/netcfg.sources"),
                files::chrony_sources(&status.ntp_servers).as_bytes(),
            ),
            files::write(
                &run.join("netcfg/ntp-servers"),
                files::ntp_servers(&status.ntp_servers).as_bytes(),
            ),
            write_status(&run.join("netcfg/status.json"), &status),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            warn!(%error, "cannot write");
        }
        let summary = summary(&status);
        if summary != self.summary {
            self.notifier.send(&Notification::Status(summary.clone()));
            self.summary = summary;
        }
    }

    fn link_statuses(&self) -> Vec<LinkStatus> {
        let status = |link: &Link| LinkStatus {
            name: link.name.clone(),
            index: link.index,
            mac: link.mac.as_ref().map(mac_text),
            managed: self.desired.links.iter().any(|l| l.index == link.index),
            up: link.up,
            carrier: link.carrier,
            mtu: link.mtu,
            addresses: self
                .observed
                .addresses
                .iter()
                .filter(|address| address.link == link.index)
                .map(|address| address.prefix.to_string())
                .collect(),
            gateways: self
                .observed
                .routes
                .iter()
                .filter(|route| route.link == link.index && route.destination.length == 0)
                .filter_map(|route| route.gateway)
                .collect(),
            dhcp4: self.clients.get(&link.index).map(|running| DhcpStatus {
                state: running.status.state,
                lease: self.held.get(&link.index).map(lease_status),
                problem: running.status.problem.clone(),
            }),
        };
        self.observed.links.iter().map(status).collect()
    }
}

fn lease_status(held: &HeldLease) -> LeaseStatus {
    let lease = &held.lease;
    LeaseStatus {
        address: format!("{}/{}", lease.address, lease.prefix),
        server: lease.server.into(),
        granted: held.granted.as_secs(),
        seconds: (!lease.is_infinite()).then_some(lease.seconds),
        hostname: lease.hostname.clone(),
    }
}

fn write_status(path: &Path, status: &NetworkStatus) -> Result<(), FileError> {
    match serde_json::to_vec_pretty(status) {
        Ok(mut text) => {
            text.push(b'\n');
            files::write(path, &text)
        }
        Err(error) => {
            warn!(%error, "the status cannot be written as JSON");
            Ok(())
        }
    }
}

/// One line for the supervisor.
fn summary(status: &NetworkStatus) -> String {
    let parts: Vec<String> = status
        .links
        .iter()
        .filter(|link| link.managed && link.name != "lo")
        .map(|link| match link.addresses.as_slice() {
            _ if !link.carrier => format!("{}: no carrier", link.name),
            [] => format!("{}: no address", link.name),
            addresses => format!("{}: {}", link.name, addresses.join(" ")),
        })
        .collect();
    if parts.is_empty() {
        return "no links".to_owned();
    }
    parts.join(", ")
}
