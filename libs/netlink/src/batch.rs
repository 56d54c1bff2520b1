//! Requests in batches. The kernel processes all messages of one `send` in order before the call
//! returns, and the answers are then ready. A batch of any length costs two system calls and no
//! switch between threads; [`crate::Netlink`] needs several of both for each request.
//!
//! - [`request`]: requests as plain values.
//! - [`encode`]: encodes requests as messages.
//! - [`answer`]: parses the kernel's answers; [`link`]: parses the links in them.

use std::io;
use std::os::fd::BorrowedFd;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use rtnetlink::packet_core::{Emitable, Parseable};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::{RecvFlags, recv};

use crate::{Address, Link, NetlinkError, Route, convert};
use answer::{Message, messages};
pub use request::{
    BridgePort, Ipvlan, IpvlanIsolation, LinkChange, LinkId, Macvlan, NewAddress, Request,
    VirtualKind, VirtualLink,
};

mod answer;
mod encode;
mod link;
pub(crate) mod request;

/// Longest answer: the kernel splits lists into pieces of at most this size.
const ANSWER: usize = 32 * 1024;

/// Longest batch in bytes. The kernel copies it whole, within `net.core.wmem_max` (208 KiB).
const BATCH: usize = 64 * 1024;

/// How often a list is requested again because it changed while it was being read.
const TRIES: usize = 10;

/// A connection to the kernel that sends batches and does not wait. It belongs to the network
/// namespace in which it was opened.
pub struct Batches {
    socket: Socket,
    sequence: u32,
    out: Vec<u8>,
    answer: Box<[u8]>,
    /// Whether the last answer was read completely.
    settled: bool,
    /// Whether the kernel limits lists to what was asked for.
    strict: bool,
}

impl Batches {
    /// Connects in the network namespace of the calling thread.
    ///
    /// # Errors
    /// No socket could be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let socket = Socket::new(NETLINK_ROUTE)?;
            // Connect to the kernel, so that nobody else's messages are received.
            socket.connect(&SocketAddr::new(0, 0))?;
            // Ask for errors with the kernel's text and without a copy of the request.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(NetlinkError::Socket)?,
            sequence: 0,
            out: Vec::new(),
            answer: vec![0; ANSWER].into_boxed_slice(),
            settled: true,
            strict: false,
        })
    }

    /// Sends all requests at once. Each is tried, even after a failed one. Links marked for another
    /// namespace are created in `elsewhere`.
    ///
    /// # Errors
    /// The socket fails, which happens only when the kernel has no memory, or there are
    /// too many requests. Each request has its own result in the list.
    pub fn try_all(
        &mut self,
        requests: &[Request],
        elsewhere: Option<BorrowedFd<'_>>,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        self.out.clear();
        let mut results = Vec::with_capacity(requests.len());
        let last = requests.len().saturating_sub(1);
        for (index, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let end = index == last;
            let encoded = encode::request(&mut self.out, self.sequence, request, end, elsewhere);
            results.push(match encoded {
                true => Ok(()),
                false => Err(NetlinkError::MixedFamilies {
                    operation: request.to_string(),
                }),
            });
        }
        if results.last().is_none_or(Result::is_err) {
            // The last request must be acknowledged, to mark the end of the answer.
            return match results.pop() {
                None => Ok(results),
                Some(error) => {
                    let mut before = requests.to_vec();
                    before.pop();
                    results = self.try_all(&before, elsewhere)?;
                    results.push(error);
                    Ok(results)
                }
            };
        }
        self.send("change the network")?;
        // The kernel answers in the order of the requests: it reports errors, and acknowledges the
        // last request.
        let mut ended = false;
        while !ended {
            let length = self.receive("change the network")?;
            let answer = self.answer.get(..length).unwrap_or_default();
            for message in messages(answer) {
                let Message::End {
                    sequence,
                    errno,
                    detail,
                    ..
                } = message
                else {
                    continue;
                };
                let index = sequence.wrapping_sub(first) as usize;
                if let (Some(request), Some(result)) = (requests.get(index), results.get_mut(index))
                {
                    *result = judge(request, errno, detail);
                    ended |= index == last;
                }
            }
        }
        self.settled = true;
        Ok(results)
    }

    /// Sends all requests at once, see [`Batches::try_all`].
    ///
    /// # Errors
    /// The error of the first failed request. The requests after it were tried, too.
    pub fn run(
        &mut self,
        requests: &[Request],
        elsewhere: Option<BorrowedFd<'_>>,
    ) -> Result<(), NetlinkError> {
        self.try_all(requests, elsewhere)?.into_iter().collect()
    }

    /// Returns the links of these names or indices, in the given order; `None` for a link that does
    /// not exist.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn find_links(&mut self, ids: &[LinkId]) -> Result<Vec<Option<Link>>, NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        self.out.clear();
        for id in ids {
            self.sequence = self.sequence.wrapping_add(1);
            let body = encode::get_link(id);
            encode::message(&mut self.out, encode::GET_LINK, 0, self.sequence, &body);
        }
        let mut found: Vec<Option<Option<Link>>> = vec![None; ids.len()];
        self.send("find links")?;
        while found.iter().any(Option::is_none) {
            let length = self.receive("find links")?;
            let answer = self.answer.get(..length).unwrap_or_default();
            for message in messages(answer) {
                let index = message.sequence().wrapping_sub(first) as usize;
                let (Some(id), Some(place)) = (ids.get(index), found.get_mut(index)) else {
                    continue;
                };
                match message {
                    Message::Data { kind, body, .. } if kind == encode::NEW_LINK => {
                        *place = Some(link::link(body));
                    }
                    Message::End { errno, detail, .. } if errno != 0 => {
                        let error = refused(format!("find link {id}"), errno, detail);
                        match error.is_not_found() {
                            true => *place = Some(None),
                            false => return Err(error),
                        }
                    }
                    _ => {}
                }
            }
        }
        self.settled = true;
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    /// The link of a name; `None` when there is none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn find_link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let found = self.find_links(&[LinkId::Name(name.to_owned())])?;
        Ok(found.into_iter().next().flatten())
    }

    /// All links, by index.
    ///
    /// # Errors
    /// The kernel refuses, or the list changes all the time.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut query = LinkMessage::default();
        let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        query.attributes.push(mask);
        let mut links = self.dump("list links", encode::GET_LINK, &query, |kind, body| {
            (kind == encode::NEW_LINK)
                .then(|| link::link(body))
                .flatten()
        })?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The addresses of all links.
    ///
    /// # Errors
    /// The kernel refuses, or the list changes all the time.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let query = AddressMessage::default();
        self.dump(
            "list addresses",
            encode::GET_ADDRESS,
            &query,
            |kind, body| {
                let message = (kind == encode::NEW_ADDRESS).then(|| AddressMessage::parse(body));
                convert::address(&message?.ok()?)
            },
        )
    }

    /// The unicast routes with one next hop, of all tables.
    ///
    /// # Errors
    /// The kernel refuses, or the list changes all the time.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let found = self.dump("list routes", encode::GET_ROUTE, &query, |kind, body| {
                let message = (kind == encode::NEW_ROUTE).then(|| RouteMessage::parse(body));
                convert::route(&message?.ok()?)
            });
            match found {
                Ok(found) => routes.extend(found),
                // A kernel without IPv6 has no such routes.
                Err(NetlinkError::Refused { .. }) if family == AddressFamily::Inet6 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

    /// Requests a list until it was read without a change. A list that changes meanwhile may lack
    /// entries that existed all the time; the kernel reports this by a flag or by EINTR.
    fn dump<T>(
        &mut self,
        operation: &'static str,
        kind: u16,
        query: &impl Emitable,
        mut parse: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        const EINTR: i32 = 4;
        if !self.strict {
            let strict = self.socket.set_netlink_get_strict_chk(true);
            strict.map_err(NetlinkError::Socket)?;
            self.strict = true;
        }
        for _ in 0..TRIES {
            let mut found = Vec::new();
            let mut changed = false;
            self.sequence = self.sequence.wrapping_add(1);
            self.out.clear();
            encode::message(&mut self.out, kind, encode::DUMP, self.sequence, query);
            self.send(operation)?;
            let mut ended = false;
            while !ended {
                let length = self.receive(operation)?;
                let answer = self.answer.get(..length).unwrap_or_default();
                for message in messages(answer) {
                    if message.sequence() != self.sequence {
                        continue;
                    }
                    match message {
                        Message::Data {
                            kind,
                            body,
                            interrupted,
                            ..
                        } => {
                            changed |= interrupted;
                            found.extend(parse(kind, body));
                        }
                        Message::End {
                            errno,
                            detail,
                            interrupted,
                            ..
                        } => {
                            ended = true;
                            changed |= interrupted || errno == EINTR;
                            if errno != 0 && errno != EINTR {
                                return Err(refused(operation.to_owned(), errno, detail));
                            }
                        }
                    }
                }
            }
            self.settled = true;
            if !changed {
                return Ok(found);
            }
        }
        let source = io::ErrorKind::Interrupted.into();
        Err(NetlinkError::Refused {
            operation: operation.to_owned(),
            source,
            detail: "it changed each time it was read".to_owned(),
        })
    }

    fn send(&mut self, operation: &str) -> Result<(), NetlinkError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let failed = |source| NetlinkError::Refused {
            operation: operation.to_owned(),
            source,
            detail: String::new(),
        };
        if self.out.len() > BATCH {
            let text = "too many requests for one batch";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        // Read the remaining answers of an abandoned batch.
        while !self.settled && recv(&self.socket, &mut *self.answer, RecvFlags::DONTWAIT).is_ok() {}
        self.settled = false;
        self.socket.send(&self.out, 0).map(drop).map_err(failed)
    }

    /// Receives one piece of the answer, which is ready.
    fn receive(&mut self, operation: &str) -> Result<usize, NetlinkError> {
        let received = recv(&self.socket, &mut *self.answer, RecvFlags::DONTWAIT);
        let (length, _) = received.map_err(|source| NetlinkError::Refused {
            operation: operation.to_owned(),
            source: source.into(),
            detail: "the answer is missing".to_owned(),
        })?;
        Ok(length)
    }
}

/// Returns the indices of the links that a report calls removed.
pub(crate) fn removed_links(report: &[u8]) -> impl Iterator<Item = u32> {
    messages(report).filter_map(|message| match message {
        Message::Data { kind, body, .. } if kind == encode::DELETE_LINK => {
            let link = LinkMessage::parse(body).ok()?;
            // A report in a bridge's own family only says that a link is no longer a port.
            let is_link = link.header.interface_family == AddressFamily::Unspec;
            is_link.then_some(link.header.index)
        }
        _ => None,
    })
}

/// The result of a request.
fn judge(request: &Request, errno: i32, detail: String) -> Result<(), NetlinkError> {
    if errno == 0 {
        return Ok(());
    }
    let error = refused(request.to_string(), errno, detail);
    let removal = matches!(
        request,
        Request::RemoveLink(_) | Request::RemoveAddress { .. } | Request::RemoveRoute(_)
    );
    // The object of a removal may be gone already, with its link or its address.
    match removal && error.is_not_found() {
        true => Ok(()),
        false => Err(error),
    }
}

fn refused(operation: String, errno: i32, detail: String) -> NetlinkError {
    NetlinkError::Refused {
        operation,
        source: io::Error::from_raw_os_error(errno),
        detail,
    }
}
