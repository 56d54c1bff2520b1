//! A host, containers, and name servers, each in a network namespace of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hostd_networks::names::{ContainerNames, Names, NamesOptions, NetworkNames, Reopen, ports};
use keelson_netlink::{Address, LinkKind, Namespace, Netlink, NewLink};
use keelson_resolver_protocol::{Ports, Sockets};
use rustix::process::Pid;

/// What every unknown name is answered with.
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// The program.
pub(crate) fn program() -> PathBuf {
    keelson_testing::program("keelson-resolver")
}

/// A container's network namespace.
pub(crate) struct Place {
    pub(crate) namespace: Namespace,
}

impl Place {
    /// With a loopback link only.
    pub(crate) fn new() -> Arc<Self> {
        let namespace = Namespace::create().unwrap();
        let up = namespace.run(|| keelson_sys::sandbox::loopback_up().map(drop));
        up.unwrap().unwrap();
        Arc::new(Self { namespace })
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).unwrap()
    }

    /// Sockets for the resolver.
    pub(crate) fn sockets(&self, before: Option<Ports>) -> Sockets {
        let opened = self.run(|| hostd_networks::names::serve_here(before));
        opened.unwrap()
    }

    /// A client in it.
    pub(crate) fn client(&self) -> Client {
        Client(self.run(|| UdpSocket::bind("127.0.0.1:0").unwrap()))
    }

    /// A connection from it to its resolver.
    pub(crate) fn connection(&self) -> Connection {
        let stream = self.run(|| TcpStream::connect("127.0.0.11:53").unwrap());
        stream
            .set_read_timeout(Some(Duration::from_secs(8)))
            .unwrap();
        Connection(stream)
    }
}

/// Connects two namespaces: the first has address 10.99.`net`.1, the second 10.99.`net`.2.
pub(crate) async fn link(one: &Namespace, other: &Namespace, net: u8) {
    let names = [format!("a{net}"), format!("b{net}")];
    let netlink = Netlink::connect_in(one.as_fd()).unwrap();
    let kind = LinkKind::Veth {
        peer: &names[1],
        namespace: Some(other.as_fd()),
    };
    let name = &names[0];
    netlink.create_link(NewLink { name, kind }).await.unwrap();
    for (number, namespace) in [one, other].into_iter().enumerate() {
        let netlink = Netlink::connect_in(namespace.as_fd()).unwrap();
        let link = netlink.link(&names[number]).await.unwrap().index;
        let address = Address {
            link,
            prefix: format!("10.99.{net}.{}/24", number + 1).parse().unwrap(),
            protocol: 99,
            lifetime: None,
        };
        netlink.set_address(&address).await.unwrap();
        netlink.set_up(link).await.unwrap();
    }
}

/// A question as bytes.
pub(crate) fn question(id: u16, name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// Addresses, or the code when there are none.
pub(crate) fn outcome(answer: &Message) -> Result<Vec<String>, ResponseCode> {
    let mut data: Vec<String> = answer
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    data.sort();
    match data.is_empty() && answer.metadata.response_code != ResponseCode::NoError {
        true => Err(answer.metadata.response_code),
        false => Ok(data),
    }
}

/// Asks by UDP.
pub(crate) struct Client(UdpSocket);

impl Client {
    /// Sends a packet, without waiting.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.0.send_to(bytes, "127.0.0.11:53").unwrap();
    }

    /// The next answer; `None`: none comes for so long.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = vec![0; 65_535];
        let (length, from) = self.0.recv_from(&mut buffer).ok()?;
        assert_eq!(from, "127.0.0.11:53".parse().unwrap());
        buffer.truncate(length);
        Some(buffer)
    }

    /// One question and its answer.
    pub(crate) fn exchange(&self, message: &Message) -> Option<Message> {
        self.send(&message.to_vec().unwrap());
        loop {
            let bytes = self.receive(Duration::from_secs(8))?;
            let answer = Message::from_vec(&bytes).unwrap();
            if answer.metadata.id == message.metadata.id {
                return Some(answer);
            }
        }
    }

    /// Whether the name is answered within a moment: nobody may listen.
    pub(crate) fn try_ask(&self, name: &str) -> bool {
        let message = question(0xfffe, name, RecordType::A).to_vec().unwrap();
        // An earlier packet may have found nobody.
        let _ = self.0.send_to(&message, "127.0.0.11:53");
        self.receive(Duration::from_millis(100)).is_some()
    }

    /// The addresses of a name.
    pub(crate) fn ask(&self, name: &str) -> Result<Vec<String>, ResponseCode> {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed) as u16;
        let answer = self.exchange(&question(id, name, RecordType::A));
        outcome(&answer.expect("an answer in time"))
    }
}

/// Asks by TCP.
pub(crate) struct Connection(pub(crate) TcpStream);

impl Connection {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).unwrap();
        let frame = [&length.to_be_bytes()[..], bytes].concat();
        self.0.write_all(&frame).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Message {
        let mut length = [0; 2];
        self.0.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        self.0.read_exact(&mut bytes).unwrap();
        Message::from_vec(&bytes).unwrap()
    }
}

/// A name server. What it answers depends on the first label: `nx`, `servfail`, `refused`, `silent`,
/// `big` (more than a datagram holds), `slow` (half a second).
pub(crate) struct NameServer {
    /// From which ports it was asked.
    pub(crate) asked: Arc<Mutex<Vec<(String, u16)>>>,
    /// Everything is answered with SERVFAIL.
    pub(crate) broken: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// At port 53 of all addresses of a namespace.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_at(place, "0.0.0.0:53".parse().unwrap())
    }

    pub(crate) fn start_at(place: &Place, address: SocketAddr) -> Self {
        let (udp, tcp) = place.run(|| {
            (
                UdpSocket::bind(address).unwrap(),
                TcpListener::bind(address).unwrap(),
            )
        });
        udp.set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        tcp.set_nonblocking(true).unwrap();
        let mut server = Self {
            asked: Arc::default(),
            broken: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (asked, stop, broken) = (
            server.asked.clone(),
            server.stop.clone(),
            server.broken.clone(),
        );
        server.threads.push(std::thread::spawn(move || {
            let udp = Arc::new(udp);
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = udp.recv_from(&mut buffer) else {
                    continue;
                };
                let request = Message::from_vec(&buffer[..length]).unwrap();
                let name = request.queries[0].name().to_ascii();
                asked.lock().unwrap().push((name.clone(), from.port()));
                let Some(mut answer) = reply(&request, broken.load(Ordering::Relaxed)) else {
                    continue;
                };
                if answer.to_vec().unwrap().len() > usize::from(request.max_payload()) {
                    answer = answer.truncate();
                }
                let udp = udp.clone();
                let bytes = answer.to_vec().unwrap();
                if name.starts_with("slow") {
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(500));
                        let _ = udp.send_to(&bytes, from);
                    });
                } else {
                    let _ = udp.send_to(&bytes, from);
                }
            }
        }));
        let (stop, broken) = (server.stop.clone(), server.broken.clone());
        server.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, _)) = tcp.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let broken = broken.clone();
                std::thread::spawn(move || serve_connection(stream, &broken));
            }
        }));
        server
    }

    /// How often it was asked for names that begin so.
    pub(crate) fn count(&self, start: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(name, _)| name.starts_with(start))
            .count()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn serve_connection(mut stream: TcpStream, broken: &AtomicBool) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut bytes).is_err() {
            return;
        }
        let request = Message::from_vec(&bytes).unwrap();
        let Some(answer) = reply(&request, broken.load(Ordering::Relaxed)) else {
            continue;
        };
        let bytes = answer.to_vec().unwrap();
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        if stream.write_all(&[&length[..], &bytes].concat()).is_err() {
            return;
        }
    }
}

fn reply(request: &Message, broken: bool) -> Option<Message> {
    let mut answer = request.clone().into_response();
    answer.metadata.recursion_available = true;
    let owner = request.queries[0].name().clone();
    let name = owner.to_ascii();
    let code = match name.split('.').next().unwrap_or_default() {
        _ if broken => ResponseCode::ServFail,
        "silent" => return None,
        "nx" => ResponseCode::NXDomain,
        "servfail" => ResponseCode::ServFail,
        "refused" => ResponseCode::Refused,
        "big" => {
            for number in 0..200 {
                let text = TXT::new(vec![format!("{number:050}")]);
                answer.add_answer(Record::from_rdata(owner.clone(), 60, RData::TXT(text)));
            }
            return Some(answer);
        }
        _ => {
            if request.queries[0].query_type() == RecordType::A {
                let data = RData::A(A(ELSEWHERE));
                answer.add_answer(Record::from_rdata(owner, 60, data));
            }
            return Some(answer);
        }
    };
    answer.metadata.response_code = code;
    Some(answer)
}

/// hostd's directories.
pub(crate) struct Run(tempfile::TempDir);

impl Run {
    pub(crate) fn new(resolv_conf: &str) -> Self {
        let run = Self(tempfile::tempdir().unwrap());
        run.write(resolv_conf);
        run
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces the host's resolv.conf.
    pub(crate) fn write(&self, resolv_conf: &str) {
        let path = self.path().join("resolv.conf");
        std::fs::write(path.with_extension("new"), resolv_conf).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// Names as hostd keeps them, with a way to open sockets again.
    pub(crate) fn names(&self, reopen: Reopen) -> Names {
        self.names_by(program(), reopen)
    }

    pub(crate) fn names_by(&self, program: PathBuf, reopen: Reopen) -> Names {
        Names::open(NamesOptions {
            program,
            run: self.path().to_owned(),
            cgroup: None,
            resolv_conf: self.path().join("resolv.conf"),
            reopen,
        })
    }

    /// The resolver's process, which its log names.
    pub(crate) fn process(&self) -> Pid {
        self.process_now().unwrap()
    }

    /// `None`: it has only just begun.
    pub(crate) fn process_now(&self) -> Option<Pid> {
        let log = std::fs::read_to_string(self.path().join("resolver.log")).unwrap();
        let number = log.split("process ").nth(1)?;
        let (digits, _) = number.split_once(',')?;
        Pid::from_raw(digits.parse().unwrap())
    }
}

/// Whether a process runs: one that ended may wait to be collected.
pub(crate) fn is_alive(process: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    status.is_ok_and(|status| !status.contains(") Z "))
}

/// Where no socket is ever opened again.
pub(crate) fn never() -> Reopen {
    Arc::new(|container, _| panic!("sockets of {container} are asked for"))
}

/// A container in networks, each with its name and the container's addresses there.
pub(crate) fn container(id: &str, networks: &[(&str, &[&str], &[&str])]) -> ContainerNames {
    let networks = networks
        .iter()
        .map(|(network, names, addresses)| NetworkNames {
            network: format!("id-of-{network}"),
            name: (*network).to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            addresses: addresses
                .iter()
                .map(|text| text.parse::<IpAddr>().unwrap())
                .collect(),
            links: Vec::new(),
        });
    ContainerNames {
        id: id.to_owned(),
        networks: networks.collect(),
        may_ask_host: true,
        ..ContainerNames::default()
    }
}

/// Runs a test as hostd would: in a namespace that is the host's. Skipped without root.
pub(crate) fn on_host<F: Future<Output = ()>>(test: impl FnOnce(Arc<Place>) -> F + Send) {
    if !keelson_testing::is_root() {
        return;
    }
    let host = Place::new();
    let inside = host.clone();
    host.run(move || block_on(test(inside)));
}

/// One life of hostd: its tasks end with it.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Does work that waits, beside the tasks.
pub(crate) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// The ports of sockets.
pub(crate) fn ports_of(sockets: &Sockets) -> Ports {
    ports(sockets).unwrap()
}
