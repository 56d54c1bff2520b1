//! Bounds the clients on TCP that have not proved yet who they are.
//!
//! They have places of their own, apart from those of the API. They never keep a newer client out:
//! when places are short, the client that has taken longest is disconnected. An honest client
//! completes its handshake within milliseconds.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Most handshakes of one peer at once.
const PER_PEER: usize = 32;
/// Most handshakes of all peers at once.
const ALL: usize = 256;

/// The handshakes that run now. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handshakes(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    count: usize,
    /// Oldest first.
    peers: HashMap<IpAddr, VecDeque<(u64, oneshot::Sender<()>)>>,
}

/// One handshake. Dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Handshake {
    all: Handshakes,
    peer: IpAddr,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

impl Handshakes {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place. When none is free it takes the place of the oldest handshake.
    pub(crate) fn enter(&self, address: IpAddr) -> Handshake {
        let peer = peer(address);
        let (sender, displaced) = oneshot::channel();
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        if waiting
            .peers
            .get(&peer)
            .is_some_and(|own| own.len() >= PER_PEER)
        {
            waiting.displace(peer);
        } else if waiting.count >= ALL
            && let Some(most) = waiting.largest()
        {
            waiting.displace(most);
        }
        waiting.count += 1;
        waiting
            .peers
            .entry(peer)
            .or_default()
            .push_back((number, sender));
        Handshake {
            all: self.clone(),
            peer,
            number,
            displaced,
        }
    }
}

impl Waiting {
    /// The peer with the most places.
    fn largest(&self) -> Option<IpAddr> {
        let most = self.peers.iter().max_by_key(|(_, own)| own.len());
        most.map(|(peer, _)| *peer)
    }

    /// Ends the peer's oldest handshake.
    fn displace(&mut self, peer: IpAddr) {
        if let Some(own) = self.peers.get_mut(&peer)
            && let Some((_, sender)) = own.pop_front()
        {
            self.count -= 1;
            // Fails only when the handshake has just ended by itself.
            let _ = sender.send(());
        }
    }
}

impl Handshake {
    /// Returns when another handshake has taken this place.
    pub(crate) async fn displaced(&mut self) {
        let _ = (&mut self.displaced).await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut waiting = self.all.lock();
        let Some(own) = waiting.peers.get_mut(&self.peer) else {
            return;
        };
        let before = own.len();
        own.retain(|(number, _)| *number != self.number);
        let gone = before - own.len();
        if own.is_empty() {
            waiting.peers.remove(&self.peer);
        }
        waiting.count -= gone;
    }
}

/// The peer that an address belongs to. In IPv6 every peer has at least a /64.
pub(crate) fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(number: usize) -> IpAddr {
        IpAddr::from([10, 0, (number >> 8) as u8, number as u8])
    }

    #[test]
    fn the_oldest_of_the_same_peer_goes() {
        let all = Handshakes::default();
        let mut own: Vec<_> = (0..=PER_PEER).map(|_| all.enter(address(1))).collect();
        let mut other = all.enter(address(2));
        assert!(own[0].displaced().now_or_never().is_some());
        assert!(own[1].displaced().now_or_never().is_none());
        assert!(other.displaced().now_or_never().is_none());
        assert_eq!(all.lock().count, PER_PEER + 1);
        drop((own, other));
        assert_eq!(all.lock().count, 0);
        assert!(all.lock().peers.is_empty());
    }

    #[test]
    fn the_largest_peer_gives_way_when_all_places_are_taken() {
        let all = Handshakes::default();
        let mut many: Vec<_> = (0..PER_PEER).map(|_| all.enter(address(0))).collect();
        let _others: Vec<_> = (PER_PEER..ALL).map(|n| all.enter(address(n))).collect();
        let mut new = all.enter(address(ALL + 1));
        assert!(many[0].displaced().now_or_never().is_some());
        assert!(new.displaced().now_or_never().is_none());
        assert_eq!(all.lock().count, ALL);
    }

    #[test]
    fn one_network_is_one_peer() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::2:3:4:5".parse().unwrap();
        assert_eq!(peer(a), peer(b));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(peer(mapped), IpAddr::from([10, 0, 0, 1]));
    }
}
