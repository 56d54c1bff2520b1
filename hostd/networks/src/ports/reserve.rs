//! Reserves the ports of containers.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use keelson_model::spec::{Port, PortRange, Protocol, PublishedPort};
use rustix::io::Errno;

use super::ask::{self, Facts, Group};
use super::book::Book;
use super::error::{Lost, PortError, PortPlace};
use super::holder;
use super::socket::{self, Reserved};
use crate::types::Binding;

/// The kernel's default range.
const EPHEMERAL: PortRange = PortRange {
    first: 32768,
    last: 60999,
};

/// Milliseconds between attempts to reserve a port.
const PAUSES: &[u64] = &[1, 3, 10, 20];

/// A container that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder<'a> {
    /// Its identifier.
    pub(crate) id: &'a str,
    /// Its name, for messages.
    pub(crate) name: &'a str,
}

/// The published ports of all containers. A port is reserved while this value exists and its
/// container is not released. All calling threads must be in the same network namespace.
#[derive(Debug, Default)]
pub(crate) struct Ports(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    book: Book,
    held: HashMap<String, Held>,
    /// The last automatic port. The next request gets another one, so that a client that still
    /// knows this port does not reach another container at once.
    last: u16,
}

/// What a container has.
#[derive(Debug, Default)]
struct Held {
    name: String,
    sockets: HashMap<Spot, Reserved>,
    bindings: Vec<Binding>,
}

/// A port at an address of the host.
type Spot = (Protocol, IpAddr, u16);

/// Why a port could not be reserved. Its holder is searched later.
enum Refusal {
    Allocated { host: IpAddr, holder: String },
    Host { host: IpAddr, errno: Errno },
}

impl Ports {
    /// No ports.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Reserves the host's ports of a container: the requested ones, and any free one for each of
    /// `exposed` that was not requested. Reserves all or none. A container that already has ports
    /// keeps those that the request allows, and releases the others.
    ///
    /// # Errors
    /// A port is taken. The message names who has it.
    pub(crate) fn reserve(
        &self,
        container: Holder<'_>,
        asked: &[PublishedPort],
        exposed: &[Port],
        facts: &Facts,
    ) -> Result<Vec<Binding>, PortError> {
        let ports = asked
            .iter()
            .map(|asked| asked.port)
            .chain(exposed.iter().copied());
        if let Some(port) = ports.into_iter().find(|port| port.number == 0) {
            return Err(PortError::Zero(port.protocol.as_str()));
        }
        let ipv6 = facts.ipv6.is_some() && socket::host_has_ipv6();
        let (groups, direct) = ask::groups(asked, exposed, facts, ipv6);
        if groups.is_empty() && direct.is_empty() {
            self.release(container.id);
            return Ok(Vec::new());
        }
        let taken = self.state().take(container, &groups, direct);
        // The search for the program may take a while, so nobody waits for it under the lock.
        taken.map_err(|(group, port, refusal)| refusal.explain(&group, port, facts))
    }

    /// Reserves a container's ports again after a restart of the engine. A port that can't be
    /// reserved stays published, because the packet filter still maps it to the container.
    pub(crate) fn reserve_again(&self, container: Holder<'_>, bindings: &[Binding]) -> Vec<Lost> {
        let mut lost = Vec::new();
        let state = &mut *self.state();
        let mut held = Held {
            name: container.name.to_owned(),
            bindings: bindings.to_vec(),
            sockets: HashMap::new(),
        };
        for binding in bindings.iter().filter(|binding| binding.host_port != 0) {
            let spot = (binding.port.protocol, binding.host, binding.host_port);
            let reserved = match state.attempt(spot, &mut HashMap::new()) {
                Ok(reserved) => reserved,
                Err(refusal) => {
                    let range = PortRange {
                        first: binding.host_port,
                        last: binding.host_port,
                    };
                    let group = Group {
                        port: binding.port,
                        host_ports: Some(range),
                        members: Vec::new(),
                    };
                    let facts = Facts::default();
                    lost.push(Lost {
                        binding: binding.clone(),
                        reason: refusal.explain(&group, Some(binding.host_port), &facts),
                    });
                    None
                }
            };
            state.book.add(spot.0, spot.1, spot.2, container.id);
            held.sockets.insert(spot, reserved);
        }
        state.held.insert(container.id.to_owned(), held);
        lost
    }

    /// Releases all ports of a container.
    pub(crate) fn release(&self, container: &str) {
        let state = &mut *self.state();
        if let Some(held) = state.held.remove(container) {
            state.strike(container, held.sockets.keys());
        }
    }

    #[cfg(test)]
    pub(super) fn bindings(&self, container: &str) -> Vec<Binding> {
        let state = self.state();
        let held = state.held.get(container);
        held.map(|held| held.bindings.clone()).unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.held.is_empty() && state.book.is_empty()
    }
}

/// A group that could not be reserved, the only port that it allows, and the reason.
type Failure = (Group, Option<u16>, Refusal);

impl State {
    fn take(
        &mut self,
        container: Holder<'_>,
        groups: &[Group],
        direct: Vec<Binding>,
    ) -> Result<Vec<Binding>, Failure> {
        let mut before = self.held.remove(container.id).unwrap_or_default();
        self.strike(container.id, before.sockets.keys());
        let mut held = Held {
            name: container.name.to_owned(),
            bindings: direct,
            sockets: HashMap::new(),
        };
        for group in groups {
            let former = before.bindings.iter().find(|binding| {
                binding.port == group.port
                    && binding.asked.host_ports == group.host_ports
                    && binding.host_port != 0
            });
            let former = former.map(|binding| binding.host_port);
            match self.take_group(container, group, former, &mut before.sockets, &mut held) {
                Ok(port) => held.bindings.extend(group.bindings(port)),
                Err((port, refusal)) => {
                    self.put_back(container, held, before);
                    return Err((group.clone(), port, refusal));
                }
            }
        }
        held.bindings.sort();
        let bindings = held.bindings.clone();
        self.held.insert(container.id.to_owned(), held);
        Ok(bindings)
    }

    /// Undoes an attempt, and restores what the container had before.
    fn put_back(&mut self, container: Holder<'_>, held: Held, mut before: Held) {
        self.strike(container.id, held.sockets.keys());
        if before.bindings.is_empty() {
            return;
        }
        let had: Vec<Spot> = before
            .bindings
            .iter()
            .filter(|binding| binding.host_port != 0)
            .map(|binding| (binding.port.protocol, binding.host, binding.host_port))
            .collect();
        before.sockets.extend(held.sockets);
        before.sockets.retain(|spot, _| had.contains(spot));
        for (protocol, host, port) in before.sockets.keys() {
            self.book.add(*protocol, *host, *port, container.id);
        }
        self.held.insert(container.id.to_owned(), before);
    }

    /// Takes the first port that is free at all addresses of a group.
    fn take_group(
        &mut self,
        container: Holder<'_>,
        group: &Group,
        former: Option<u16>,
        own: &mut HashMap<Spot, Reserved>,
        held: &mut Held,
    ) -> Result<u16, (Option<u16>, Refusal)> {
        let any = group.host_ports.is_none();
        let range = group.host_ports.unwrap_or_else(ephemeral);
        let only = (range.first == range.last).then_some(range.first);
        let avoided = if any { reserved_ports() } else { Vec::new() };
        let start = match any {
            true => self.last.saturating_add(1).clamp(range.first, range.last),
            false => range.first,
        };
        let candidates = (start..=range.last).chain(range.first..start);
        let mut last = None;
        for port in former.into_iter().chain(candidates) {
            if avoided.iter().any(|avoided| avoided.contains(&port)) {
                continue;
            }
            match self.take_patiently(group, port, own, only.is_some()) {
                Ok(taken) => {
                    for (spot, reserved) in taken {
                        self.book.add(spot.0, spot.1, spot.2, container.id);
                        held.sockets.insert(spot, reserved);
                    }
                    if any {
                        self.last = port;
                    }
                    return Ok(port);
                }
                // Another port would be refused in the same way.
                Err(refusal @ Refusal::Host { errno, .. }) if errno != Errno::ADDRINUSE => {
                    return Err((Some(port), refusal));
                }
                Err(refusal) => last = Some(refusal),
            }
        }
        let host = group.members.first().map(|(host, _)| *host);
        let refusal = last.unwrap_or(Refusal::Host {
            host: host.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
            errno: Errno::ADDRINUSE,
        });
        Err((only, refusal))
    }

    /// Reserves one port. If no other port is allowed, retries for a moment: a process that is
    /// being started has copies of all our descriptors until it executes its program, including the
    /// socket of a port that was just released.
    fn take_patiently(
        &self,
        group: &Group,
        port: u16,
        own: &mut HashMap<Spot, Reserved>,
        only: bool,
    ) -> Result<Vec<(Spot, Reserved)>, Refusal> {
        let mut pauses = if only { PAUSES } else { &[] }.iter();
        loop {
            let refusal = match self.take_port(group, port, own) {
                Err(refusal @ Refusal::Host { errno, .. }) if errno == Errno::ADDRINUSE => refusal,
                other => return other,
            };
            match pauses.next() {
                Some(pause) => thread::sleep(Duration::from_millis(*pause)),
                None => return Err(refusal),
            }
        }
    }

    /// Reserves one port at all addresses of a group.
    fn take_port(
        &self,
        group: &Group,
        port: u16,
        own: &mut HashMap<Spot, Reserved>,
    ) -> Result<Vec<(Spot, Reserved)>, Refusal> {
        let mut taken: Vec<(Spot, Reserved)> = Vec::with_capacity(group.members.len());
        for (host, _) in &group.members {
            let spot = (group.port.protocol, *host, port);
            match self.attempt(spot, own) {
                Ok(reserved) => taken.push((spot, reserved)),
                Err(refusal) => {
                    // The container's own port is not lost by that.
                    own.extend(taken);
                    return Err(refusal);
                }
            }
        }
        Ok(taken)
    }

    /// Reserves one port. Uses the container's existing socket if there is one.
    fn attempt(&self, spot: Spot, own: &mut HashMap<Spot, Reserved>) -> Result<Reserved, Refusal> {
        let (protocol, host, port) = spot;
        if let Some(container) = self.book.holder(protocol, host, port) {
            let name = self.held.get(container).map(|held| held.name.as_str());
            let id = container.get(..12).unwrap_or(container);
            let holder = match name {
                Some(name) => format!("{name}, {id},"),
                None => id.to_owned(),
            };
            return Err(Refusal::Allocated { host, holder });
        }
        if let Some(reserved) = own.remove(&spot) {
            return Ok(reserved);
        }
        socket::reserve(protocol, host, port).map_err(|errno| Refusal::Host { host, errno })
    }

    /// Removes ports of a container from the book.
    fn strike<'a>(&mut self, container: &str, spots: impl Iterator<Item = &'a Spot>) {
        for (protocol, host, port) in spots {
            self.book.remove(*protocol, *host, *port, container);
        }
    }
}

impl Refusal {
    fn explain(self, group: &Group, only: Option<u16>, facts: &Facts) -> PortError {
        let place = |host, ports| PortPlace {
            host,
            ports,
            container: facts.container(host),
            port: group.port,
        };
        match (self, only) {
            (Self::Allocated { host, holder }, Some(port)) => {
                PortError::Allocated { host, port, holder }
            }
            (Self::Host { host, errno }, Some(port)) => PortError::Host {
                place: place(
                    host,
                    PortRange {
                        first: port,
                        last: port,
                    },
                ),
                reason: reason(errno),
                program: match errno {
                    Errno::ADDRINUSE => holder::program(group.port.protocol, host, port),
                    _ => None,
                },
            },
            (Self::Allocated { host, .. } | Self::Host { host, .. }, None) => {
                let ports = group.host_ports.unwrap_or_else(ephemeral);
                PortError::Exhausted {
                    place: place(host, ports),
                }
            }
        }
    }
}

/// The words that clients look for.
fn reason(errno: Errno) -> String {
    match errno {
        Errno::ADDRINUSE => "address already in use".to_owned(),
        Errno::ADDRNOTAVAIL => "cannot assign requested address".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        other => std::io::Error::from(other).to_string(),
    }
}

/// The kernel's range of automatic ports.
fn ephemeral() -> PortRange {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    parse_range(&text).unwrap_or(EPHEMERAL)
}

fn parse_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    let first: u16 = first.parse().ok()?;
    let last: u16 = last.trim().parse().ok()?;
    (first != 0 && first <= last).then_some(PortRange { first, last })
}

/// Ports that the kernel never assigns automatically.
fn reserved_ports() -> Vec<RangeInclusive<u16>> {
    let path = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    parse_reserved(&fs::read_to_string(path).unwrap_or_default())
}

/// Parses `8080,9148-9150`.
fn parse_reserved(text: &str) -> Vec<RangeInclusive<u16>> {
    let parts = text.trim().split(',');
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    parts.filter_map(range).collect()
}

#[cfg(test)]
mod parse_tests {
    use super::*;

    #[test]
    fn the_kernels_ranges_are_read() {
        let range = parse_range("32768\t60999\n").unwrap();
        assert_eq!((range.first, range.last), (32768, 60999));
        assert_eq!(parse_range("x"), None);
        assert_eq!(
            parse_reserved("8080,9148-9150\n"),
            [8080..=8080, 9148..=9150]
        );
        assert_eq!(parse_reserved("\n"), []);
    }
}
