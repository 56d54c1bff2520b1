//! Bytes and connections through a published port, beside the paths without one.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keelson_benches::rounds::{Series, interleave};
use keelson_benches::stats::Summary;
use keelson_benches::table::{Cell, Table};
use keelson_netlink::Namespace;
use serde_json::json;

use crate::floor::{self, Floor};
use crate::place::MACHINE;
use crate::subject::{Inside, Subject, host_config};

/// How long each path is used at a time.
const WINDOW: Duration = Duration::from_millis(700);
/// Bytes that are written at once.
const WRITE: usize = 128 << 10;
/// How long a path may take to work.
const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;
const SERVED: u16 = 80;
/// The first byte of a connection: what the client wants.
const ANSWER: u8 = b'a';
const SWALLOW: u8 = b's';

/// A way to a server.
struct Path<'a> {
    from: &'a Namespace,
    to: SocketAddrV4,
    /// The row that it is compared with, if it is not one that others are compared with.
    direct: Option<String>,
}

struct Carried {
    gigabits: f64,
    /// Connections per second.
    connections: f64,
}

/// Measures all paths of all engines.
pub(crate) fn measure(
    subjects: &[(String, Subject)],
    floor: &Floor,
    rounds: usize,
) -> Result<Vec<Table>> {
    let mut servers = vec![Server::start(&floor.container)?];
    let mut paths = Vec::new();
    let at = |address, port| SocketAddrV4::new(address, port);
    let container = at(floor::CONTAINER, SERVED);
    let path = |from, to, direct| Path { from, to, direct };
    let (outside, host) = ("without an engine, outside", "without an engine, the host");
    paths.push((
        outside.to_owned(),
        path(&floor.machine.outside, container, None),
    ));
    paths.push((
        host.to_owned(),
        path(&floor.machine.namespace, container, None),
    ));
    let mut containers = Vec::new();
    for (name, subject) in subjects {
        let id = published(subject)?;
        let inside = subject.inside(&id)?;
        servers.push(Server::start(&inside.namespace)?);
        containers.push((subject, id));
        let (outside, host) = (&subject.machine.outside, &subject.machine.namespace);
        let mut unfiltered = "without an engine, outside".to_owned();
        if let Some((id, routed)) = routed(subject)? {
            servers.push(Server::start(&routed.namespace)?);
            containers.push((subject, id));
            unfiltered = format!("{name}, outside, direct");
            let to = at(routed.address, SERVED);
            paths.push((unfiltered.clone(), path(outside, to, None)));
        }
        let direct = format!("{name}, the host, direct");
        let to = at(inside.address, SERVED);
        paths.push((direct.clone(), path(host, to, None)));
        for (what, from, address, direct) in [
            ("outside", outside, MACHINE, &unfiltered),
            ("the host, its address", host, MACHINE, &direct),
            ("the host, 127.0.0.1", host, Ipv4Addr::LOCALHOST, &direct),
        ] {
            let path = path(from, at(address, PORT), Some(direct.clone()));
            path.works().with_context(|| format!("{name}, {what}"))?;
            paths.push((format!("{name}, {what}"), path));
        }
    }
    let series = interleave(&mut paths, rounds, |path| path.measure())?;
    let directs: Vec<_> = paths.iter().map(|(_, path)| path.direct.clone()).collect();
    drop(servers);
    for (subject, id) in containers {
        subject.remove(&id)?;
    }
    Ok(vec![table(&series, &directs)])
}

/// A container with a published port.
fn published(subject: &Subject) -> Result<String> {
    let mut host = host_config("bridge");
    host["PortBindings"] = json!({format!("{SERVED}/tcp"): [{"HostPort": PORT.to_string()}]});
    subject.launch(None, &host)
}

/// A container that is reached from outside by its own address, through the same packet filter. Not
/// every engine has such networks.
fn routed(subject: &Subject) -> Result<Option<(String, Inside)>> {
    let options = json!({"com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected"});
    if !subject.engine.name.starts_with("hostd") {
        return Ok(None);
    }
    subject.network("open", &options)?;
    let id = subject.launch(None, &host_config("open"))?;
    let inside = subject.inside(&id)?;
    Ok(Some((id, inside)))
}

impl Path<'_> {
    /// Waits until it does: some engines answer before their packet filter is complete.
    fn works(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tried = self.from.run(|| self.connect(ANSWER))?;
            match tried {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn measure(&self) -> Result<Carried> {
        self.from.run(|| {
            Ok(Carried {
                gigabits: self.throughput()?,
                connections: self.connections()?,
            })
        })?
    }

    /// Opens a connection. One that is to be answered was, and goes without waiting, so that the
    /// numbers of ports are not used up.
    fn connect(&self, want: u8) -> Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(self.to), PATIENCE)
            .with_context(|| format!("connect to {}", self.to))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&[want])?;
        if want == ANSWER {
            stream.read_exact(&mut [0])?;
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        }
        Ok(stream)
    }

    fn throughput(&self) -> Result<f64> {
        let mut stream = self.connect(SWALLOW)?;
        let bytes = vec![0; WRITE];
        let begin = Instant::now();
        while begin.elapsed() < WINDOW {
            stream.write_all(&bytes)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut count = [0; 8];
        stream.read_exact(&mut count)?;
        Ok(u64::from_be_bytes(count) as f64 * 8e-9 / begin.elapsed().as_secs_f64())
    }

    fn connections(&self) -> Result<f64> {
        let (begin, mut count) = (Instant::now(), 0);
        while begin.elapsed() < WINDOW {
            self.connect(ANSWER)?;
            count += 1;
        }
        Ok(f64::from(count) / begin.elapsed().as_secs_f64())
    }
}

/// A server, which serves one connection after the other until it is dropped.
struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(namespace: &Namespace) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVED)))??;
        let accepting = listener.try_clone()?;
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while let Ok((stream, _)) = accepting.accept() {
                // A proxy may hang up.
                let _ = serve(stream, &mut buffer);
            }
        });
        Ok(Self {
            listener,
            thread: Some(thread),
        })
    }
}

fn serve(mut stream: TcpStream, buffer: &mut [u8]) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut want = [0];
    stream.read_exact(&mut want)?;
    if want == [ANSWER] {
        stream.write_all(&want)?;
        return Ok(());
    }
    ensure!(want == [SWALLOW], "an unknown request");
    let mut count = 0u64;
    loop {
        match stream.read(buffer) {
            Ok(0) => break,
            Ok(read) => count += read as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(stream.write_all(&count.to_be_bytes())?)
}

impl Drop for Server {
    fn drop(&mut self) {
        // The thread's `accept` fails then.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn table(series: &[Series<Carried>], directs: &[Option<String>]) -> Table {
    let columns = ["Gbit/s", "/ direct", "connections/s", "/ direct"];
    let mut table = Table::new("Published ports", &columns);
    for (one, direct) in series.iter().zip(directs) {
        let direct = series
            .iter()
            .find(|other| Some(&other.name) == direct.as_ref());
        let cells = |figure: fn(&Carried) -> f64, digits| {
            let of =
                |series: &Series<Carried>| series.values.iter().map(figure).collect::<Vec<_>>();
            // Within each round, so that a round that was disturbed does not count for one side only.
            let ratios = direct.map(|direct| {
                let pairs = of(one).into_iter().zip(of(direct));
                pairs.map(|(published, direct)| published / direct)
            });
            let ratio = ratios.and_then(Summary::of).map(|all| all.median);
            [
                Cell::series(of(one), digits),
                ratio.map_or(Cell::Nothing, |ratio| Cell::Number(ratio, 2)),
            ]
        };
        let [bytes, of_bytes] = cells(|carried| carried.gigabits, 1);
        let [opened, of_opened] = cells(|carried| carried.connections, 0);
        table.row(&one.name, vec![bytes, of_bytes, opened, of_opened]);
    }
    table
}
