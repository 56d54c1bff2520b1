//! The DHCPv4 client as a state machine without input and output (RFC 2131 §4.4).
//!
//! ```text
//!  Down ──carrier──► Rebooting (a lease is remembered) ──ACK──► Probing ──► Bound
//!    └────carrier──► Selecting ──OFFER──► Requesting ──ACK──────►┘  │         │ T1
//!                        ▲                    │ NAK                 │conflict ▼
//!                        └──── Waiting ◄──────┴─────────────────────┘      Renewing ─T2─► Rebinding
//!                                 ▲────────────── NAK, end of lease ──────────┴──────────────┘
//! ```
//!
//! The caller passes in carrier changes, messages, ARP packets and the time, and carries out the
//! outputs. The lease that the link uses ("held") is kept beside the state: when the carrier is
//! lost, the address stays until the lease ends, and is confirmed by an INIT-REBOOT exchange when
//! the carrier returns.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::arp::{ArpPacket, Mac};
use super::lease::{Lease, LeaseError, LeftOut};
use super::message::{self, Header, Reply, ReplyKind, Request};
pub use super::output::{Notice, Output, Remembered, StateName, Time};

/// Where the random numbers of back-off and transactions come from.
pub type Random = Box<dyn FnMut() -> u32 + Send>;

const SECOND: Duration = Duration::from_secs(1);
/// How many requests are sent before an offer is dropped.
const REQUEST_TRIES: u32 = 4;
/// How many requests are sent before a remembered lease is dropped.
const REBOOT_TRIES: u32 = 3;
/// How many probes are sent before an address is used. RFC 5227 asks for three within about seven
/// seconds, for slow links without a server that records addresses. Here the probes are 80–160 ms
/// apart: a neighbour on a switched link answers within a few milliseconds, and the whole boot
/// waits for this.
const PROBES: u32 = 3;
/// How many announcements are sent after an address is used, two seconds apart (RFC 5227 §2.3).
const ANNOUNCEMENTS: u32 = 2;
/// When a missing server is first reported. The pause doubles each time.
const FIRST_WARNING: Duration = Duration::from_secs(10);
const LAST_WARNING: Duration = Duration::from_secs(3600);
/// Least time between two attempts to renew (RFC 2131 §4.4.5).
const MIN_RENEW: Duration = Duration::from_secs(60);
/// Pause after an address conflict (RFC 2131 §3.1 number 5).
const DECLINE_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Down,
    Waiting {
        until: Time,
    },
    Selecting {
        tries: u32,
        next: Time,
    },
    Requesting {
        lease: Lease,
        tries: u32,
        next: Time,
    },
    Rebooting {
        lease: Lease,
        tries: u32,
        next: Time,
    },
    Probing {
        lease: Lease,
        granted: Time,
        sent: u32,
        next: Time,
    },
    Bound,
    Renewing {
        next: Time,
    },
    Rebinding {
        next: Time,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    lease: Lease,
    granted: Time,
}

impl Held {
    fn at(&self, seconds: u32) -> Option<Time> {
        (!self.lease.is_infinite()).then(|| self.granted + Duration::from_secs(seconds.into()))
    }

    fn end(&self) -> Option<Time> {
        self.at(self.lease.seconds)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Search {
    since: Time,
    warn_at: Time,
    interval: Duration,
}

/// The client of one link.
pub struct Machine {
    mac: Mac,
    hostname: Option<String>,
    random: Random,
    state: State,
    held: Option<Held>,
    /// An earlier lease that was not confirmed yet.
    candidate: Option<Lease>,
    /// Address to ask for in the next search.
    wish: Option<Ipv4Addr>,
    search: Option<Search>,
    xid: u32,
    /// When the current request was sent: a lease begins then (RFC 2131 §4.4.1).
    sent_at: Time,
    /// Refusals and conflicts since the last lease.
    failures: u32,
    announce: Option<(Time, u32)>,
    /// Whether this transaction already reported an unusable offer.
    reported: bool,
    /// The ignored values of the last lease.
    left_out: Vec<LeftOut>,
    out: Vec<Output>,
}

impl Machine {
    /// A client for the link with the hardware address `mac`, without carrier.
    #[must_use]
    pub fn new(
        mac: Mac,
        hostname: Option<String>,
        random: Random,
        now: Time,
        remembered: Option<Remembered>,
    ) -> Self {
        let mut machine = Self {
            mac,
            hostname,
            random,
            state: State::Down,
            held: None,
            candidate: None,
            wish: None,
            search: None,
            xid: 0,
            sent_at: now,
            failures: 0,
            announce: None,
            reported: false,
            left_out: Vec::new(),
            out: Vec::new(),
        };
        if let Some(Remembered {
            lease,
            granted,
            in_use,
        }) = remembered
            && lease.check().is_ok()
        {
            machine.wish = Some(lease.address);
            match granted {
                Some(granted) => {
                    let held = Held { lease, granted };
                    if held.end().is_none_or(|end| end > now) {
                        machine.candidate = Some(held.lease.clone());
                        machine.held = in_use.then_some(held);
                    }
                }
                None => machine.candidate = Some(lease),
            }
        }
        machine
    }

    /// The lease that the link uses, with the time at which it began.
    #[must_use]
    pub fn lease(&self) -> Option<(&Lease, Time)> {
        self.held.as_ref().map(|held| (&held.lease, held.granted))
    }

    /// The state's name.
    #[must_use]
    pub fn state(&self) -> StateName {
        match self.state {
            State::Down => StateName::Down,
            State::Waiting { .. } => StateName::Waiting,
            State::Selecting { .. } => StateName::Selecting,
            State::Requesting { .. } => StateName::Requesting,
            State::Rebooting { .. } => StateName::Rebooting,
            State::Probing { .. } => StateName::Probing,
            State::Bound => StateName::Bound,
            State::Renewing { .. } => StateName::Renewing,
            State::Rebinding { .. } => StateName::Rebinding,
        }
    }

    /// The address that is being probed. While there is one, ARP packets are needed.
    #[must_use]
    pub fn probing(&self) -> Option<Ipv4Addr> {
        match &self.state {
            State::Probing { lease, .. } => Some(lease.address),
            _ => None,
        }
    }

    /// When [`Machine::timer`] must be called. `None` while only the carrier matters.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let state = match &self.state {
            State::Down => None,
            State::Waiting { until } => Some(*until),
            State::Selecting { next, .. }
            | State::Requesting { next, .. }
            | State::Rebooting { next, .. }
            | State::Probing { next, .. } => Some(*next),
            State::Bound => self
                .held
                .as_ref()
                .and_then(|held| held.at(held.lease.renew)),
            State::Renewing { next } => {
                let rebind = self
                    .held
                    .as_ref()
                    .and_then(|held| held.at(held.lease.rebind));
                Some(rebind.map_or(*next, |rebind| rebind.min(*next)))
            }
            State::Rebinding { next } => Some(*next),
        };
        let end = self.held.as_ref().and_then(Held::end);
        let warning = self.search.as_ref().map(|search| search.warn_at);
        let announce = self.announce.map(|(at, _)| at);
        [state, end, warning, announce].into_iter().flatten().min()
    }

    /// The link got a carrier.
    pub fn carrier_up(&mut self, now: Time) -> Vec<Output> {
        if self.state == State::Down {
            let known = self.held.as_ref().map(|held| held.lease.clone());
            match known.or_else(|| self.candidate.take()) {
                Some(lease) => self.begin_reboot(now, lease),
                None => self.begin_search(now),
            }
        }
        self.take()
    }

    /// The link lost its carrier. The lease stays in use until it ends.
    pub fn carrier_down(&mut self) -> Vec<Output> {
        self.state = State::Down;
        self.search = None;
        self.announce = None;
        self.take()
    }

    /// Releases the lease and stops.
    pub fn release(&mut self) -> Vec<Output> {
        self.xid = (self.random)();
        if let Some(Held { lease, .. }) = self.held.take() {
            let (address, server) = (lease.address, lease.server);
            if let Some(payload) = self.encode(self.sent_at, Request::Release { address, server }) {
                self.out.push(Output::Unicast {
                    source: address,
                    server,
                    payload,
                });
            }
            self.out.push(Output::Unbound);
        }
        self.carrier_down()
    }

    /// Time has passed.
    pub fn timer(&mut self, now: Time) -> Vec<Output> {
        // Each step moves its deadline, so this ends. The limit is for clocks that jump.
        for _ in 0..16 {
            if self.deadline().is_none_or(|deadline| deadline > now) {
                break;
            }
            self.step(now);
        }
        self.take()
    }

    /// A UDP payload from port 67 to port 68 arrived.
    pub fn message(&mut self, now: Time, bytes: &[u8]) -> Vec<Output> {
        if let Ok(reply) = message::decode(bytes, self.mac, self.xid) {
            match reply.kind {
                ReplyKind::Offer => self.offer(now, &reply),
                ReplyKind::Ack => self.acknowledgement(now, &reply),
                ReplyKind::Nak => self.refusal(now, &reply),
            }
        }
        self.take()
    }

    /// An ARP packet arrived.
    pub fn arp(&mut self, now: Time, packet: &ArpPacket) -> Vec<Output> {
        if let State::Probing { lease, .. } = &self.state
            && packet.conflicts(self.mac, lease.address)
        {
            let (address, server) = (lease.address, lease.server);
            self.out.push(Output::Notice(Notice::Conflict {
                address,
                mac: packet.sender_mac,
            }));
            self.xid = (self.random)();
            self.broadcast(now, Request::Decline { address, server });
            self.wish = None;
            self.drop_lease();
            self.pause(now, DECLINE_PAUSE);
        }
        self.take()
    }

    fn step(&mut self, now: Time) {
        if let Some(search) = &mut self.search
            && search.warn_at <= now
        {
            let seconds = now.saturating_sub(search.since).as_secs();
            search.interval = (search.interval * 2).min(LAST_WARNING);
            search.warn_at = now + search.interval;
            self.out.push(Output::Notice(Notice::NoServer { seconds }));
        }
        if let Some((at, left)) = self.announce
            && at <= now
        {
            self.announce = (left > 1).then(|| (now + 2 * SECOND, left - 1));
            if let Some(held) = &self.held {
                let packet = ArpPacket::announcement(self.mac, held.lease.address);
                self.out.push(Output::Arp(packet));
            }
        }
        if self
            .held
            .as_ref()
            .and_then(Held::end)
            .is_some_and(|end| end <= now)
        {
            self.out.push(Output::Notice(Notice::Expired));
            self.drop_lease();
            match self.state {
                State::Bound | State::Renewing { .. } | State::Rebinding { .. } => {
                    self.begin_search(now);
                }
                _ => {}
            }
        }
        match self.state.clone() {
            State::Down => {}
            State::Waiting { until } if until <= now => self.begin_search(now),
            State::Selecting { tries, next } if next <= now => self.discover(now, tries + 1),
            State::Requesting { lease, tries, next } if next <= now => {
                if tries < REQUEST_TRIES {
                    self.request(now, lease, tries + 1);
                } else {
                    self.begin_search(now);
                }
            }
            State::Rebooting { lease, tries, next } if next <= now => {
                if tries < REBOOT_TRIES {
                    self.reboot(now, lease, tries + 1);
                } else if self.held.is_some() {
                    // RFC 2131 §3.2: without an answer a client may use the rest of its lease.
                    self.search = None;
                    self.state = State::Bound;
                } else {
                    self.begin_search(now);
                }
            }
            State::Probing {
                lease,
                granted,
                sent,
                next,
            } if next <= now => {
                if sent < PROBES {
                    self.probe(now, lease, granted, sent + 1);
                } else {
                    self.bind(now, lease, granted);
                }
            }
            State::Bound => {
                let due = self
                    .held
                    .as_ref()
                    .and_then(|held| held.at(held.lease.renew));
                if due.is_some_and(|due| due <= now) {
                    self.xid = (self.random)();
                    self.reported = false;
                    self.renew(now);
                }
            }
            State::Renewing { next } => self.renewing(now, next),
            State::Rebinding { next } if next <= now => self.rebind(now),
            _ => {}
        }
    }

    fn renewing(&mut self, now: Time, next: Time) {
        let Some(held) = &self.held else { return };
        if held.at(held.lease.rebind).is_some_and(|at| at <= now) {
            let left = held
                .end()
                .map_or(Duration::ZERO, |end| end.saturating_sub(now));
            self.out.push(Output::Notice(Notice::NotRenewed {
                seconds_left: left.as_secs(),
            }));
            self.xid = (self.random)();
            self.rebind(now);
        } else if next <= now {
            self.renew(now);
        }
    }

    // ---- Exchanges and their repetitions.

    fn begin_search(&mut self, now: Time) {
        self.xid = (self.random)();
        self.reported = false;
        self.start_clock(now);
        self.discover(now, 1);
    }

    fn begin_reboot(&mut self, now: Time, lease: Lease) {
        self.xid = (self.random)();
        self.reported = false;
        // While the lease is in use, nothing is missing, so nothing is reported.
        if self.held.is_none() {
            self.start_clock(now);
        }
        self.reboot(now, lease, 1);
    }

    fn start_clock(&mut self, now: Time) {
        if self.search.is_none() {
            self.search = Some(Search {
                since: now,
                warn_at: now + FIRST_WARNING,
                interval: FIRST_WARNING,
            });
        }
    }

    fn discover(&mut self, now: Time, tries: u32) {
        self.broadcast(now, Request::Discover { wish: self.wish });
        let next = now + self.backoff(tries);
        self.state = State::Selecting { tries, next };
    }

    fn request(&mut self, now: Time, lease: Lease, tries: u32) {
        let (address, server) = (lease.address, lease.server);
        self.broadcast(now, Request::Select { address, server });
        let next = now + self.backoff(tries);
        self.state = State::Requesting { lease, tries, next };
    }

    fn reboot(&mut self, now: Time, lease: Lease, tries: u32) {
        let address = lease.address;
        self.broadcast(now, Request::Reboot { address });
        let next = now + self.backoff(tries);
        self.state = State::Rebooting { lease, tries, next };
    }

    fn probe(&mut self, now: Time, lease: Lease, granted: Time, sent: u32) {
        let packet = ArpPacket::probe(self.mac, lease.address);
        self.out.push(Output::Arp(packet));
        let next = now + Duration::from_millis(80 + u64::from((self.random)() % 80));
        self.state = State::Probing {
            lease,
            granted,
            sent,
            next,
        };
    }

    fn renew(&mut self, now: Time) {
        let Some(held) = &self.held else { return };
        let (address, server) = (held.lease.address, held.lease.server);
        let until = held.at(held.lease.rebind);
        self.sent_at = now;
        if let Some(payload) = self.encode(now, Request::Renew { address }) {
            self.out.push(Output::Unicast {
                source: address,
                server,
                payload,
            });
        }
        self.state = State::Renewing {
            next: half_way(now, until),
        };
    }

    fn rebind(&mut self, now: Time) {
        let Some(held) = &self.held else { return };
        let address = held.lease.address;
        let until = held.end();
        self.sent_at = now;
        if let Some(payload) = self.encode(now, Request::Renew { address }) {
            self.out.push(Output::Broadcast {
                source: address,
                payload,
            });
        }
        self.state = State::Rebinding {
            next: half_way(now, until),
        };
    }

    // ---- Answers.

    fn offer(&mut self, now: Time, reply: &Reply) {
        if !matches!(self.state, State::Selecting { .. }) {
            return;
        }
        match Lease::from_reply(reply) {
            Ok((lease, _)) => self.request(now, lease, 1),
            Err(error) => self.reject(error),
        }
    }

    fn acknowledgement(&mut self, now: Time, reply: &Reply) {
        // Checks that the answer names an address and, if one server was asked, that server.
        let (address, server) = match (&self.state, &self.held) {
            (State::Requesting { lease, .. }, _) => (lease.address, Some(lease.server)),
            (State::Rebooting { lease, .. }, _) => (lease.address, None),
            (State::Renewing { .. }, Some(held)) => (held.lease.address, Some(held.lease.server)),
            (State::Rebinding { .. }, Some(held)) => (held.lease.address, None),
            _ => return,
        };
        if reply.address != address || server.is_some_and(|s| reply.options.server != Some(s)) {
            return;
        }
        let (lease, left_out) = match Lease::from_reply(reply) {
            Ok(taken) => taken,
            Err(error) => return self.reject(error),
        };
        self.left_out = left_out;
        let granted = self.sent_at;
        let in_use = self
            .held
            .as_ref()
            .is_some_and(|held| held.lease.address == address);
        if in_use {
            self.bind(now, lease, granted);
        } else {
            self.probe(now, lease, granted, 1);
        }
    }

    fn refusal(&mut self, now: Time, reply: &Reply) {
        let server = match (&self.state, &self.held) {
            (State::Requesting { lease, .. }, _) => Some(lease.server),
            (State::Renewing { .. }, Some(held)) => Some(held.lease.server),
            (State::Rebooting { .. }, _) | (State::Rebinding { .. }, Some(_)) => None,
            _ => return,
        };
        if server.is_some_and(|server| reply.options.server != Some(server)) {
            return;
        }
        self.out.push(Output::Notice(Notice::Refused {
            message: reply.options.message.clone(),
        }));
        self.drop_lease();
        self.wish = None;
        self.candidate = None;
        self.pause(now, Duration::from_millis(500));
    }

    fn bind(&mut self, now: Time, lease: Lease, granted: Time) {
        let fresh = self
            .held
            .as_ref()
            .is_none_or(|held| held.lease.address != lease.address);
        if fresh {
            self.announce = Some((now, ANNOUNCEMENTS));
        }
        self.failures = 0;
        self.search = None;
        self.candidate = None;
        self.wish = Some(lease.address);
        self.state = State::Bound;
        self.out.push(Output::Bound {
            lease: lease.clone(),
            granted,
        });
        if !self.left_out.is_empty() {
            let notice = Notice::LeftOut(self.left_out.clone());
            self.out.push(Output::Notice(notice));
        }
        self.held = Some(Held { lease, granted });
    }

    fn reject(&mut self, error: LeaseError) {
        if !self.reported {
            self.reported = true;
            self.out.push(Output::Notice(Notice::Rejected(error)));
        }
    }

    /// Waits before the next search, longer each time: a server that keeps refusing, or that
    /// assigns addresses in use, must not make the link busy.
    fn pause(&mut self, now: Time, shortest: Duration) {
        let factor = 1u32 << self.failures.min(7);
        self.failures = self.failures.saturating_add(1);
        self.start_clock(now);
        let jitter = Duration::from_millis(u64::from((self.random)() % 250));
        self.state = State::Waiting {
            until: now + (shortest * factor).min(Duration::from_secs(320)) + jitter,
        };
    }

    fn drop_lease(&mut self) {
        self.announce = None;
        if self.held.take().is_some() {
            self.out.push(Output::Unbound);
        }
    }

    fn broadcast(&mut self, now: Time, request: Request) {
        self.sent_at = now;
        if let Some(payload) = self.encode(now, request) {
            self.out.push(Output::Broadcast {
                source: Ipv4Addr::UNSPECIFIED,
                payload,
            });
        }
    }

    fn encode(&self, now: Time, request: Request) -> Option<Vec<u8>> {
        let seconds = self
            .search
            .as_ref()
            .map_or(0, |search| now.saturating_sub(search.since).as_secs());
        let header = Header {
            xid: self.xid,
            mac: self.mac,
            seconds: u16::try_from(seconds).unwrap_or(u16::MAX),
            hostname: self.hostname.as_deref(),
        };
        match message::encode(&header, request) {
            Ok(payload) => Some(payload),
            Err(error) => {
                tracing::error!(%error, ?request, "cannot encode a DHCP message");
                None
            }
        }
    }

    /// 2, 4, 8 … 64 seconds, plus or minus one. (RFC 2131 §4.1 begins with 4. Here it is 2, because
    /// the first packet after the carrier comes up is often lost in a switch.)
    fn backoff(&mut self, tries: u32) -> Duration {
        let seconds = 1u64 << tries.clamp(1, 6);
        Duration::from_millis(seconds * 1000 - 1000 + u64::from((self.random)() % 2000))
    }

    fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }
}

/// Half of the remaining time, but at least [`MIN_RENEW`].
fn half_way(now: Time, until: Option<Time>) -> Time {
    let left = until.map_or(MIN_RENEW, |until| until.saturating_sub(now));
    now + (left / 2).max(MIN_RENEW)
}
