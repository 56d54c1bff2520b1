//! Forgets connections that started under other rules. NAT decides on the first packet of a
//! connection, and the kernel remembers the result. Datagrams that a client keeps sending from one
//! UDP port are one connection: they would never reach a port that is published later, and would
//! still be sent to a container that is gone.
//!
//! The kernel searches its whole table for them. So a separate thread does this, once for all ports
//! that have changed meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use keelson_nftables::{Datum, Flow, Netfilter, NftError, Value};

use super::part::Part;

/// The protocol's number.
pub(super) const UDP: u8 = 17;

/// How long changes are collected.
const GATHER: Duration = Duration::from_millis(20);
/// How often the kernel is asked if there are more connections than it lists at once.
const PASSES: u32 = 32;

/// A UDP port in a map that has a new target.
type Key = (Part, Vec<Value>);

/// The target: the container's address and port. `None`: there is none.
type Place = Option<(IpAddr, u16)>;

/// Forgets UDP connections to ports whose target has changed.
#[derive(Debug)]
pub(super) struct Sweeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    netfilter: Mutex<Netfilter>,
    work: Mutex<Work>,
}

#[derive(Debug, Default)]
struct Work {
    changed: BTreeMap<Key, Place>,
    /// Whether a thread is working on it.
    running: bool,
}

impl Sweeper {
    pub(super) fn new(netfilter: Netfilter) -> Self {
        Self(Arc::new(Shared {
            netfilter: Mutex::new(netfilter),
            work: Mutex::default(),
        }))
    }

    /// Notes elements that were added (with their data) or removed. Elements other than UDP ports
    /// are ignored, and connections to the right target are kept. Failures are logged: such
    /// connections end by themselves once they are silent for some time.
    pub(super) fn add<'a>(
        &self,
        changed: impl IntoIterator<Item = (Part, &'a [Value], Option<&'a Datum>)>,
    ) {
        let changed = changed
            .into_iter()
            .filter(|(part, key, _)| port(*part, key).is_some());
        let mut work = lock(&self.0.work);
        for (part, key, datum) in changed {
            work.changed
                .insert((part, key.to_vec()), datum.and_then(place));
        }
        if work.changed.is_empty() || work.running {
            return;
        }
        work.running = true;
        drop(work);
        // The thread is in the network namespace of this one, and ends when there is nothing left
        // to do.
        let shared = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("flows".to_owned());
        if let Err(error) = thread.spawn(move || shared.run()) {
            tracing::warn!(%error, "can't start a thread that looks for old connections of UDP");
            lock(&self.0.work).running = false;
        }
    }

    /// Whether everything is done.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        !lock(&self.0.work).running
    }
}

impl Shared {
    fn run(&self) {
        loop {
            thread::sleep(GATHER);
            let changed = {
                let mut work = lock(&self.work);
                if work.changed.is_empty() {
                    work.running = false;
                    return;
                }
                std::mem::take(&mut work.changed)
            };
            if let Err(error) = self.sweep(&changed) {
                tracing::warn!(%error, "can't forget connections of UDP to published ports");
            }
        }
    }

    fn sweep(&self, changed: &BTreeMap<Key, Place>) -> Result<(), NftError> {
        for ipv6 in [false, true] {
            let ports: Vec<_> = changed
                .iter()
                .filter(|((part, _), _)| matches!(part, Part::Ports6 | Part::Any6) == ipv6)
                .filter_map(|((part, key), place)| {
                    let (host, number) = port(*part, key)?;
                    Some(Changed {
                        host,
                        number,
                        place: *place,
                    })
                })
                .collect();
            if !ports.is_empty() {
                self.sweep_family(ipv6, &ports)?;
            }
        }
        Ok(())
    }

    fn sweep_family(&self, ipv6: bool, ports: &[Changed]) -> Result<(), NftError> {
        let netfilter = &mut *lock(&self.netfilter);
        let only = match ports {
            [first, others @ ..] if others.iter().all(|other| other.number == first.number) => {
                Some(first.number)
            }
            _ => None,
        };
        for _ in 0..PASSES {
            let mut stale = netfilter.flows(ipv6, UDP, only)?;
            stale.retain(|flow| ports.iter().any(|changed| changed.makes_stale(flow)));
            if stale.is_empty() {
                break;
            }
            for flow in &stale {
                netfilter.forget(flow)?;
            }
        }
        Ok(())
    }
}

/// A port of the host whose target changed.
#[derive(Debug, Clone, Copy)]
struct Changed {
    /// The host's address; `None`: any.
    host: Option<IpAddr>,
    number: u16,
    place: Place,
}

impl Changed {
    fn makes_stale(&self, flow: &Flow) -> bool {
        if flow.port != self.number {
            return false;
        }
        let addressed = match self.host {
            Some(host) => host == flow.destination,
            None => is_local(flow.destination),
        };
        addressed
            && match self.place {
                Some(place) => (flow.answers, flow.answers_port) != place,
                // Nobody publishes the port: only connections to a container are wrong.
                None => flow.answers != flow.destination,
            }
    }
}

fn place(datum: &Datum) -> Place {
    let Datum::Values(values) = datum else {
        return None;
    };
    match values.as_slice() {
        [Value::Ipv4(address), Value::Port(port)] => Some((IpAddr::V4(*address), *port)),
        [Value::Ipv6(address), Value::Port(port)] => Some((IpAddr::V6(*address), *port)),
        _ => None,
    }
}

/// Parses the key of a published UDP port: the host's address, if the key has one, and the port.
fn port(part: Part, key: &[Value]) -> Option<(Option<IpAddr>, u16)> {
    match (part, key) {
        (Part::Ports4, [Value::Ipv4(host), Value::Protocol(UDP), Value::Port(port)]) => {
            Some((Some(IpAddr::V4(*host)), *port))
        }
        (Part::Ports6, [Value::Ipv6(host), Value::Protocol(UDP), Value::Port(port)]) => {
            Some((Some(IpAddr::V6(*host)), *port))
        }
        (Part::Any4 | Part::Any6, [Value::Protocol(UDP), Value::Port(port)]) => Some((None, *port)),
        _ => None,
    }
}

/// Whether this machine has the address. Forwarded connections to the same port number of another
/// machine must be kept.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
