//! The task that runs one link's state machine: sockets, timers, messages to the operator.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use keelson_sys::packet::{
    BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, FilterInstruction, PacketSocket, Received,
};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::arp::{ArpPacket, Mac, mac_text};
use super::lease::Lease;
use super::machine::{Machine, Notice, Output, Remembered, StateName, Time};
use super::udp;

/// Longest sleep: the runtime's timer stops while the machine is suspended, but the clock of the
/// leases does not.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// CLOCK_BOOTTIME, the clock of all leases.
pub(crate) fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// An event that a client sends to the daemon.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClientEvent {
    /// Use this lease.
    Bound { lease: Lease, granted: Time },
    /// Stop using the lease.
    Unbound,
    /// The client's state or problem changed.
    Status(ClientStatus),
}

/// The part of the status file about a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClientStatus {
    pub(crate) state: StateName,
    /// Why the client has no lease, or not all of it, as text for an operator.
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Carrier(bool),
    Release,
}

/// A running client. Dropping it ends its task and keeps the lease at the server.
#[derive(Debug)]
pub(crate) struct Client {
    commands: mpsc::UnboundedSender<Command>,
    task: JoinHandle<()>,
}

/// The link of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientLink {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Mac,
}

impl Client {
    /// Starts a client. It does nothing until [`Client::carrier`] reports a carrier.
    pub(crate) fn start(
        link: ClientLink,
        hostname: Option<String>,
        remembered: Option<Remembered>,
        events: mpsc::UnboundedSender<(u32, ClientEvent)>,
    ) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let machine = Machine::new(link.mac, hostname, Box::new(random), now(), remembered);
        let task = Task {
            status: ClientStatus {
                state: machine.state(),
                problem: None,
            },
            machine,
            link,
            events,
            dhcp: None,
            arp: None,
            unicast: None,
        };
        Self {
            commands,
            task: tokio::spawn(task.run(receiver)),
        }
    }

    /// Reports the link's carrier to the client.
    pub(crate) fn carrier(&self, up: bool) {
        // `is_finished` finds a client whose task has ended.
        let _ = self.commands.send(Command::Carrier(up));
    }

    /// Releases the lease and ends.
    pub(crate) async fn release(mut self) {
        if self.commands.send(Command::Release).is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.task).await;
        }
    }

    /// Whether the task ended by itself. Only a defect can cause that.
    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    link: ClientLink,
    machine: Machine,
    events: mpsc::UnboundedSender<(u32, ClientEvent)>,
    status: ClientStatus,
    /// Open while the client waits for an answer of a server.
    dhcp: Option<AsyncFd<PacketSocket>>,
    /// Open while an address is probed.
    arp: Option<AsyncFd<PacketSocket>>,
    /// Sends to the lease's server, and prevents the kernel from answering the server's unicasts
    /// with "port unreachable".
    unicast: Option<UdpSocket>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut datagram = vec![0; 2048];
        let mut arp = [0; 128];
        loop {
            let sleep = self.machine.deadline().map_or(MAX_SLEEP, |deadline| {
                deadline.saturating_sub(now()).min(MAX_SLEEP)
            });
            let outputs = tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Carrier(true)) => self.machine.carrier_up(now()),
                    Some(Command::Carrier(false)) => self.machine.carrier_down(),
                    Some(Command::Release) => {
                        let outputs = self.machine.release();
                        self.perform(outputs).await;
                        return;
                    }
                    None => return,
                },
                received = receive(self.dhcp.as_ref(), &mut datagram) => match received {
                    Ok(received) => self.datagram(&datagram, received),
                    Err(error) => {
                        debug!(link = %self.link.name, %error, "packet socket");
                        self.dhcp = None;
                        Vec::new()
                    }
                },
                received = receive(self.arp.as_ref(), &mut arp) => match received {
                    Ok(received) => {
                        let bytes = arp.get(..received.length).unwrap_or_default();
                        match ArpPacket::parse(bytes) {
                            Some(packet) if !received.outgoing => {
                                self.machine.arp(now(), &packet)
                            }
                            _ => Vec::new(),
                        }
                    }
                    Err(error) => {
                        debug!(link = %self.link.name, %error, "ARP socket");
                        self.arp = None;
                        Vec::new()
                    }
                },
                () = tokio::time::sleep(sleep) => self.machine.timer(now()),
            };
            self.perform(outputs).await;
        }
    }

    fn datagram(&mut self, buffer: &[u8], received: Received) -> Vec<Output> {
        if received.outgoing || received.truncated {
            return Vec::new();
        }
        let packet = buffer.get(..received.length).unwrap_or_default();
        match udp::parse(packet, received.checksum_pending) {
            Ok(datagram) => self.machine.message(now(), datagram.payload),
            Err(error) => {
                debug!(link = %self.link.name, %error, "packet ignored");
                Vec::new()
            }
        }
    }

    async fn perform(&mut self, outputs: Vec<Output>) {
        let mut problem = self.status.problem.clone();
        for output in outputs {
            match output {
                Output::Broadcast { source, payload } => self.broadcast(source, &payload),
                Output::Unicast {
                    source,
                    server,
                    payload,
                } => {
                    if let Err(error) = self.send_unicast(source, server, &payload).await {
                        // The state machine asks again, and asks all servers in the end.
                        debug!(link = %self.link.name, %server, %error, "cannot send to the server");
                    }
                }
                Output::Arp(packet) => self.send_arp(packet),
                Output::Bound { lease, granted } => {
                    problem = None;
                    self.report(ClientEvent::Bound { lease, granted });
                }
                Output::Unbound => self.report(ClientEvent::Unbound),
                Output::Notice(notice) => problem = Some(self.notice(&notice)),
            }
        }
        let state = self.machine.state();
        if state == StateName::Down {
            problem = None;
        }
        let awaits_answer = matches!(
            state,
            StateName::Selecting
                | StateName::Requesting
                | StateName::Rebooting
                | StateName::Renewing
                | StateName::Rebinding
        );
        if !awaits_answer {
            self.dhcp = None;
            self.unicast = None;
        }
        if self.machine.probing().is_none() {
            self.arp = None;
        }
        let status = ClientStatus { state, problem };
        if status != self.status {
            self.status = status.clone();
            self.report(ClientEvent::Status(status));
        }
    }

    /// Logs a notice and returns its words for the status file.
    fn notice(&self, notice: &Notice) -> String {
        let link = &self.link.name;
        match notice {
            Notice::NoServer { seconds } => {
                warn!(%link, seconds, "no DHCP server answers");
                format!("no DHCP server has answered for {seconds} s")
            }
            Notice::Rejected(error) => {
                warn!(%link, %error, "DHCP offer rejected");
                format!("a DHCP server's offer was rejected: {error}")
            }
            Notice::LeftOut(reasons) => {
                let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                let words = words.join("; ");
                let problem = format!("parts of the DHCP lease are not used: {words}");
                // Each renewal reports them again.
                if self.status.problem.as_ref() != Some(&problem) {
                    warn!(%link, reasons = words, "parts of the DHCP lease are not used");
                }
                problem
            }
            Notice::Refused { message } => {
                let words = message.as_deref().unwrap_or("");
                warn!(%link, message = words, "DHCP server refused the address");
                "the DHCP server refused the address".to_owned()
            }
            Notice::Conflict { address, mac } => {
                let mac = mac_text(mac);
                warn!(%link, %address, %mac, "another machine uses the address");
                format!("{mac} uses the address {address} that the DHCP server gave")
            }
            Notice::NotRenewed { seconds_left } => {
                warn!(%link, seconds_left, "DHCP server does not renew the lease");
                "the DHCP server does not renew the lease".to_owned()
            }
            Notice::Expired => {
                warn!(%link, "the DHCP lease ended");
                "the DHCP lease ended without being renewed".to_owned()
            }
        }
    }

    fn report(&self, event: ClientEvent) {
        if let ClientEvent::Bound { lease, .. } = &event {
            info!(
                link = %self.link.name,
                address = %lease.address,
                prefix = lease.prefix,
                server = %lease.server,
                seconds = lease.seconds,
                "DHCP lease"
            );
        }
        // The daemon only ends together with its clients.
        let _ = self.events.send((self.link.index, event));
    }

    fn broadcast(&mut self, source: Ipv4Addr, payload: &[u8]) {
        let result = self.open_dhcp().and_then(|()| {
            let packet = udp::build(source, payload).map_err(io::Error::other)?;
            match &self.dhcp {
                Some(socket) => socket.get_ref().send(BROADCAST, &packet),
                None => Ok(()),
            }
        });
        if let Err(error) = result {
            debug!(link = %self.link.name, %error, "cannot send a DHCP message");
            self.dhcp = None;
        }
    }

    async fn send_unicast(
        &mut self,
        source: Ipv4Addr,
        server: Ipv4Addr,
        payload: &[u8],
    ) -> io::Result<()> {
        // The answer is read from the packet socket, as in all states.
        self.open_dhcp()?;
        let socket = UdpSocket::bind((source, udp::CLIENT_PORT)).await?;
        socket.bind_device(Some(self.link.name.as_bytes()))?;
        socket.send_to(payload, (server, udp::SERVER_PORT)).await?;
        self.unicast = Some(socket);
        Ok(())
    }

    fn send_arp(&mut self, packet: ArpPacket) {
        let result = (|| {
            if self.arp.is_none() {
                let socket = PacketSocket::open(self.link.index, ETHERTYPE_ARP, &[])?;
                self.arp = Some(asynchronous(socket)?);
            }
            match &self.arp {
                Some(socket) => socket.get_ref().send(BROADCAST, &packet.to_bytes()),
                None => Ok(()),
            }
        })();
        if let Err(error) = result {
            debug!(link = %self.link.name, %error, "cannot send an ARP packet");
            self.arp = None;
        }
    }

    fn open_dhcp(&mut self) -> io::Result<()> {
        if self.dhcp.is_none() {
            let socket = PacketSocket::open(self.link.index, ETHERTYPE_IPV4, &CLIENT_FILTER)?;
            self.dhcp = Some(asynchronous(socket)?);
        }
        Ok(())
    }
}

/// Registers a socket with the runtime.
///
/// `AsyncFd::new` is deprecated because a type whose descriptor changes or is closed early would
/// break it. `PacketSocket` owns one descriptor for its whole life, and the replacement is an
/// `unsafe` function, which this crate must not use.
#[allow(deprecated)]
fn asynchronous(socket: PacketSocket) -> io::Result<AsyncFd<PacketSocket>> {
    AsyncFd::new(socket)
}

/// Waits for a packet. Without a socket, waits forever.
async fn receive(
    socket: Option<&AsyncFd<PacketSocket>>,
    buffer: &mut [u8],
) -> io::Result<Received> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(result) = ready.try_io(|socket| socket.get_ref().receive(buffer)) {
            return result;
        }
    }
}

/// Accepts only UDP to port 68 and no fragments, so that the link's other traffic does not wake
/// this process. The packet begins with the IP header.
const CLIENT_FILTER: [FilterInstruction; 9] = [
    // Protocol: UDP?
    instruction(0x30, 0, 0, 9),
    instruction(0x15, 0, 5, 17),
    // Fragment offset: zero?
    instruction(0x28, 0, 0, 6),
    instruction(0x45, 3, 0, 0x1fff),
    // Destination port after a header of variable length: 68?
    instruction(0xb1, 0, 0, 0),
    instruction(0x48, 0, 0, 2),
    instruction(0x15, 1, 0, udp::CLIENT_PORT as u32),
    instruction(0x06, 0, 0, 0),
    instruction(0x06, 0, 0, 0xffff),
];

const fn instruction(code: u16, jump_true: u8, jump_false: u8, operand: u32) -> FilterInstruction {
    FilterInstruction {
        code,
        jump_true,
        jump_false,
        operand,
    }
}

/// Random numbers that need not be secret for long but must differ between machines that boot
/// at the same time. Never blocks, even before the kernel's pool is seeded.
fn random() -> u32 {
    let mut bytes = [0; 4];
    if getrandom(&mut bytes, GetRandomFlags::INSECURE).is_err() {
        return now().subsec_nanos().wrapping_mul(2_654_435_761);
    }
    u32::from_ne_bytes(bytes)
}
