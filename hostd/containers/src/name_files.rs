//! Writes /etc/hosts and /etc/resolv.conf of a container for each run, and changes them in place
//! while it runs.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hostd_networks::names::hosts::Hosts;
use hostd_networks::names::resolv_conf::{self, ResolvConf, Wishes};
use hostd_networks::{Endpoint, Run};
use keelson_files::Durability;
use keelson_model::spec::{NameSpec, NetworkMode};

use crate::connected::{DEFAULT, connections, has_ipv6, is_connected};
use crate::engine::Inner;
use crate::links::Linked;
use crate::types::Snapshot;
use crate::{EngineError, files};

/// The content of the two files.
pub(crate) struct Texts {
    pub(crate) hosts: String,
    pub(crate) resolv_conf: String,
}

/// The resolv.conf of a container's run, as the engine has written it. It shows whether somebody
/// has edited the file since.
pub(crate) fn made_resolv_conf(snapshot: &Snapshot) -> PathBuf {
    snapshot.run_directory.join("resolv.conf")
}

/// Largest file of the host or of a container that is read, in bytes.
const LONGEST: u64 = 1 << 20;

impl Inner {
    /// A container's own values for its resolv.conf, or those of the host's configuration.
    pub(crate) fn wishes(&self, names: &NameSpec) -> Wishes {
        let defaults = &self.defaults.networks;
        Wishes {
            servers: match names.dns_servers.is_empty() {
                true => defaults.nameservers.clone(),
                false => names.dns_servers.clone(),
            },
            search: match names.dns_search.is_empty() {
                true => defaults.search.clone(),
                false => names.dns_search.clone(),
            },
            options: match names.dns_options.is_empty() {
                true => defaults.resolver_options.clone(),
                false => names.dns_options.clone(),
            },
        }
    }

    /// Prepares the files of a new run, whose addresses are reserved.
    pub(crate) fn name_texts(&self, snapshot: &Snapshot, linked: &[Linked]) -> Texts {
        let names = &snapshot.spec.names;
        let wishes = self.wishes(names);
        let mut extra: Vec<(String, IpAddr)> = names
            .hosts
            .iter()
            .map(|entry| (entry.name.clone(), entry.address))
            .collect();
        let of_host = self.addresses_of_host(snapshot);
        for name in &names.names_of_host {
            extra.extend(of_host.iter().map(|address| (name.clone(), *address)));
        }
        if !is_connected(snapshot) {
            let network = &snapshot.spec.namespaces.network;
            // A missing file of the host counts as empty.
            let of_host = |path: &str| read_of_host(Path::new(path)).unwrap_or_default();
            let hosts = match network {
                NetworkMode::Host => of_host("/etc/hosts"),
                NetworkMode::Bridge | NetworkMode::None => String::new(),
            };
            return Texts {
                hosts: files::hosts(&extra, network, &hosts),
                resolv_conf: files::resolv_conf(&wishes, &of_host("/etc/resolv.conf")),
            };
        }
        let run = self.networks.run_of(&snapshot.id);
        let links = linked.iter().map(Linked::hosts);
        let hosts = Hosts {
            hostname: snapshot.host_name(),
            domain: names.domain.clone(),
            addresses: run.addresses().collect(),
            ipv6: has_ipv6(snapshot),
            links: links.collect(),
            extra,
        };
        Texts {
            hosts: hosts.render(),
            resolv_conf: self.resolv_conf_in(&run, &wishes),
        }
    }

    /// The resolv.conf of a container with these connections.
    fn resolv_conf_in(&self, run: &Run, wishes: &Wishes) -> String {
        let host = self.networks.host_resolv_conf();
        let named = run.endpoints.iter().any(|endpoint| {
            let network = self.networks.find(&endpoint.network);
            network.is_ok_and(|network| !network.predefined)
        });
        match named {
            true => host.with(wishes).for_resolver(),
            false => {
                let ipv6 = run.endpoints.iter().any(|endpoint| endpoint.ipv6.is_some());
                reachable(host).for_default_bridge(wishes, ipv6)
            }
        }
    }

    /// Updates the resolv.conf of a running container whose networks have changed, so that it names
    /// the servers that the container can now reach. An edited file is not changed.
    pub(crate) fn renew_resolv_conf(&self, snapshot: &Snapshot) {
        let path = snapshot.files().join("resolv.conf");
        let made = made_resolv_conf(snapshot);
        let run = self.networks.run_of(&snapshot.id);
        let text = self.resolv_conf_in(&run, &self.wishes(&snapshot.spec.names));
        let renewed = read(&path).and_then(|found| {
            // An engine that was killed has left the new text in one file only.
            if found != text && found != read(&made)? {
                return Ok(());
            }
            if found != text {
                overwrite(&path, &text)?;
            }
            let (mode, durability) = (0o644, Durability::Relaxed);
            let noted = keelson_files::write_changed(&made, text.as_bytes(), mode, durability);
            noted.map(|_| ()).map_err(|error| error.source)
        });
        if let Err(error) = renewed {
            let error = EngineError::io("change", &path)(error);
            tracing::warn!(id = snapshot.id, %error, "name servers of a container not changed");
        }
    }

    /// Where containers reach the host: where its operator says, at the default bridge, or at their own gateways.
    fn addresses_of_host(&self, snapshot: &Snapshot) -> Vec<IpAddr> {
        let configured = &self.defaults.networks.host_addresses;
        if !configured.is_empty() {
            return configured.clone();
        }
        if let Ok(network) = self.networks.find(DEFAULT)
            && network.bridge().is_some()
        {
            let gateways = network.subnets.iter();
            return gateways.filter_map(|subnet| subnet.gateway).collect();
        }
        let run = self.networks.run_of(&snapshot.id);
        let ipv4 = run.endpoints.iter().find(|endpoint| endpoint.default_ipv4);
        let ipv6 = run.endpoints.iter().find(|endpoint| endpoint.default_ipv6);
        let ipv4 = ipv4.and_then(|endpoint| endpoint.gateway_ipv4);
        let ipv6 = ipv6.and_then(|endpoint| endpoint.gateway_ipv6);
        let ipv4 = ipv4.map(IpAddr::V4).into_iter();
        ipv4.chain(ipv6.map(IpAddr::V6)).collect()
    }

    /// Adds a running container's names in a further network to its /etc/hosts.
    pub(crate) fn name_in_hosts(&self, snapshot: &Snapshot, endpoint: &Endpoint) {
        let hosts = Hosts {
            hostname: snapshot.host_name(),
            domain: snapshot.spec.names.domain.clone(),
            addresses: addresses(endpoint).collect(),
            ..Hosts::default()
        };
        change_hosts(snapshot, |text| text.push_str(&hosts.own_lines()));
    }

    /// Removes a running container's names in a network from its /etc/hosts.
    pub(crate) fn remove_from_hosts(&self, snapshot: &Snapshot, endpoint: &Endpoint) {
        let addresses: Vec<_> = addresses(endpoint).map(|one| one.to_string()).collect();
        change_hosts(snapshot, |text| {
            keep_lines(text, |line| {
                let address = line.split_whitespace().next();
                !address.is_some_and(|address| addresses.iter().any(|one| one == address))
            });
        });
    }

    /// Takes a container that another one is not linked to any more out of that one's /etc/hosts.
    pub(crate) fn forget_link(&self, snapshot: &Snapshot, alias: &str) {
        change_hosts(snapshot, |text| without_alias(text, alias));
    }

    /// Writes the address that a container has now into /etc/hosts of those that are linked to it.
    pub(crate) fn tell_linked(&self, snapshot: &Snapshot) {
        let member = connections(snapshot);
        if !member.iter().any(|known| known.network == DEFAULT) {
            return;
        }
        for id in self.linkers.all() {
            let Ok(other) = self.resolve(snapshot.scope, &id) else {
                continue;
            };
            let other = other.snapshot();
            if !other.state.status.has_process() {
                continue;
            }
            for linked in self.links_to(&other, snapshot) {
                let (address, names) = linked.hosts();
                change_hosts(&other, |text| {
                    without_alias(text, names.first().map_or("", String::as_str));
                    text.push_str(&format!("{address}\t{}\n", names.join(" ")));
                });
            }
        }
    }
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    let prefixes = [endpoint.ipv4, endpoint.ipv6].into_iter().flatten();
    prefixes.map(|prefix| prefix.address)
}

/// The upstream servers of the host's stub resolver, because containers on the default bridge can't
/// reach the stub.
fn reachable(host: ResolvConf) -> ResolvConf {
    match resolv_conf::is_stub(&host) {
        true => {
            let asked = read_of_host(Path::new(resolv_conf::RESOLVED));
            asked.map_or(host, |text| ResolvConf::parse(&text))
        }
        false => host,
    }
}

/// Removes the line of a link, which begins with its alias.
fn without_alias(text: &mut String, alias: &str) {
    keep_lines(text, |line| line.split_whitespace().nth(1) != Some(alias));
}

fn keep_lines(text: &mut String, keep: impl Fn(&str) -> bool) {
    let lines = text.lines().filter(|line| keep(line));
    *text = lines.flat_map(|line| [line, "\n"]).collect();
}

/// Changes the hosts file of a running container. It stays the same file, because it is mounted: a
/// new one would not be visible in the container.
fn change_hosts(snapshot: &Snapshot, change: impl FnOnce(&mut String)) {
    let path = snapshot.files().join("hosts");
    let changed = read(&path).and_then(|mut text| {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        change(&mut text);
        overwrite(&path, &text)
    });
    if let Err(error) = changed {
        let error = EngineError::io("change", &path)(error);
        tracing::warn!(id = snapshot.id, %error, "names of a container not changed");
    }
}

/// Like [`keelson_files::overwrite`].
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    keelson_files::overwrite(path, text.as_bytes()).map_err(|error| error.source)
}

/// Reads a file that the container may have written: follows no link, and never blocks.
fn read(path: &Path) -> io::Result<String> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    read_with(path, flags)
}

/// Reads a file of the host. It is often a link: on many hosts /etc/resolv.conf leads into /run.
fn read_of_host(path: &Path) -> io::Result<String> {
    read_with(path, rustix::fs::OFlags::NONBLOCK)
}

/// Refuses a file that is too long: writing back a part of it would lose the rest.
fn read_with(path: &Path, flags: rustix::fs::OFlags) -> io::Result<String> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let mut text = String::new();
    let length = file.take(LONGEST + 1).read_to_string(&mut text)?;
    if length as u64 > LONGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_on_the_host_only() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_of_host(&link).unwrap(), "nameserver 192.0.2.1\n");
        assert!(read(&link).is_err());
        assert!(read(&file).is_ok());
    }

    #[test]
    fn overlong_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let longest = usize::try_from(LONGEST).unwrap();
        fs::write(&path, "#".repeat(longest)).unwrap();
        assert_eq!(read(&path).unwrap().len(), longest);
        fs::write(&path, "#".repeat(longest + 1)).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
