//! Which container has which port of the host.

use std::collections::HashMap;
use std::net::IpAddr;

use keelson_model::spec::Protocol;

/// Which container has which port of the host.
#[derive(Debug, Default)]
pub(super) struct Book(HashMap<(Protocol, u16), Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    host: IpAddr,
    /// The container's identifier.
    container: String,
}

impl Book {
    /// The container that has a port at this address, or at an address that overlaps with it.
    pub(super) fn holder(&self, protocol: Protocol, host: IpAddr, port: u16) -> Option<&str> {
        let entries = self.0.get(&(protocol, port))?;
        let found = entries.iter().find(|entry| overlap(entry.host, host))?;
        Some(&found.container)
    }

    pub(super) fn add(&mut self, protocol: Protocol, host: IpAddr, port: u16, container: &str) {
        let entries = self.0.entry((protocol, port)).or_default();
        entries.push(Entry {
            host,
            container: container.to_owned(),
        });
    }

    pub(super) fn remove(&mut self, protocol: Protocol, host: IpAddr, port: u16, container: &str) {
        let key = (protocol, port);
        if let Some(entries) = self.0.get_mut(&key) {
            entries.retain(|entry| entry.host != host || entry.container != container);
            if entries.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether two addresses overlap: one may be the unspecified address that includes the other.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
        && (one == other || one.is_unspecified() || other.is_unspecified())
}
