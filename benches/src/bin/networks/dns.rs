//! How fast a container's questions for names are answered.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keelson_benches::rounds::{Series, interleave};
use keelson_benches::stats::Summary;
use keelson_benches::table::{Cell, Table};
use keelson_benches::usage::milliseconds;
use keelson_netlink::Namespace;
use serde_json::json;

use crate::place::NEIGHBOUR;
use crate::subject::{OWN, Subject, host_config};

/// How long questions are asked at a time.
const WINDOW: Duration = Duration::from_millis(500);
/// Questions that are under way at a time when the rate is measured.
const UNDER_WAY: u16 = 20;
/// How long an engine may take to answer a name at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this time an answer counts as lost.
const LOST: Duration = Duration::from_secs(1);
const DNS: u16 = 53;
/// Length of the header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// The name of the other container.
const KNOWN: &str = "target";
const UNKNOWN: &str = "upstream.example";

/// Whom a container asks for what.
struct Asked<'a> {
    namespace: &'a Namespace,
    server: Ipv4Addr,
    name: &'static str,
}

struct Answered {
    /// With many questions under way.
    per_second: f64,
    /// One by one.
    alone: Duration,
    lost: u32,
}

/// Measures names of containers, and others for which the engine asks a server of the neighbour.
pub(crate) fn measure(subjects: &[(String, Subject)], rounds: usize) -> Result<Vec<Table>> {
    let mut upstreams = Vec::new();
    let mut askers = Vec::new();
    let mut containers = Vec::new();
    for (name, subject) in subjects {
        upstreams.push(Upstream::start(&subject.machine.outside)?);
        let mut host = host_config(OWN);
        // With servers of its own a container of podman does not ask podman's.
        if subject.engine.name != "podman" {
            host["Dns"] = json!([NEIGHBOUR]);
        }
        containers.push((subject, subject.launch(Some(KNOWN), &host)?));
        let asker = subject.launch(None, &host)?;
        askers.push((name, subject.inside(&asker)?));
        containers.push((subject, asker));
    }
    let mut asked = Vec::new();
    for (name, asker) in &askers {
        let server = asker.name_server()?;
        for (what, question) in [("a container's name", KNOWN), ("another name", UNKNOWN)] {
            let one = Asked {
                namespace: &asker.namespace,
                server,
                name: question,
            };
            match one.check() {
                Ok(()) => asked.push((format!("{name}, {what}"), one)),
                Err(error) => eprintln!("{name}, {what}, is left out: {error:#}"),
            }
        }
    }
    let series = interleave(&mut asked, rounds, |asked| asked.measure())?;
    for (subject, id) in containers {
        subject.remove(&id)?;
    }
    Ok(vec![table(&series)])
}

impl Asked<'_> {
    /// Waits until the question is answered: some engines tell their name servers late.
    fn check(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tried = self.namespace.run(|| Client::new(self)?.exchange(0))?;
            match tried {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn measure(&self) -> Result<Answered> {
        self.namespace.run(|| {
            let mut client = Client::new(self)?;
            let (mut alone, mut number) = (Vec::new(), 0u16);
            let begin = Instant::now();
            while begin.elapsed() < WINDOW {
                let asked = Instant::now();
                client.exchange(number)?;
                alone.push(asked.elapsed().as_secs_f64());
                number = number.wrapping_add(1);
            }
            let alone = Summary::of(alone).context("no answer")?.median;
            let (per_second, lost) = client.rate()?;
            Ok(Answered {
                per_second,
                alone: Duration::from_secs_f64(alone),
                lost,
            })
        })?
    }
}

/// Asks one question again and again, by one socket.
struct Client {
    socket: UdpSocket,
    question: Vec<u8>,
}

impl Client {
    fn new(asked: &Asked<'_>) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(SocketAddrV4::new(asked.server, DNS))?;
        socket.set_read_timeout(Some(LOST))?;
        Ok(Self {
            socket,
            question: question(asked.name),
        })
    }

    fn ask(&mut self, number: u16) -> Result<()> {
        self.question.splice(..2, number.to_be_bytes());
        Ok(self.socket.send(&self.question).map(drop)?)
    }

    /// The number of the next answer, which must have an address.
    fn answer(&self) -> Result<u16> {
        let mut answer = [0; 512];
        let length = self.socket.recv(&mut answer)?;
        let [a, b, _, code, _, _, more, answers, ..] = answer;
        ensure!(length > HEADER && code & 0xf == 0, "code {}", code & 0xf);
        ensure!([more, answers] != [0, 0], "no address");
        Ok(u16::from_be_bytes([a, b]))
    }

    fn exchange(&mut self, number: u16) -> Result<()> {
        self.ask(number)?;
        while self.answer()? != number {}
        Ok(())
    }

    /// Answers per second with many questions under way, and how many were lost.
    fn rate(&mut self) -> Result<(f64, u32)> {
        let (begin, mut answered, mut lost) = (Instant::now(), 0u32, 0);
        for number in 0..UNDER_WAY {
            self.ask(number)?;
        }
        while begin.elapsed() < WINDOW {
            match self.answer() {
                Ok(number) => {
                    answered += 1;
                    self.ask(number)?;
                }
                Err(error) => match error.downcast_ref().map(std::io::Error::kind) {
                    // None of them was answered.
                    Some(ErrorKind::WouldBlock) => {
                        lost += u32::from(UNDER_WAY);
                        for number in 0..UNDER_WAY {
                            self.ask(number)?;
                        }
                    }
                    Some(_) => return Err(error),
                    None => {
                        lost += 1;
                        self.ask(0)?;
                    }
                },
            }
        }
        Ok((f64::from(answered) / begin.elapsed().as_secs_f64(), lost))
    }
}

/// A question for the IPv4 address of a name (RFC 1035, 4.1).
fn question(name: &str) -> Vec<u8> {
    // Its number, recursion desired, one question.
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    // The root, type A, class IN.
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// A name server that gives every name the same address.
struct Upstream {
    socket: UdpSocket,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    fn start(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind((NEIGHBOUR, DNS)))??;
        let over = Arc::new(AtomicBool::new(false));
        let (serving, ended) = (socket.try_clone()?, Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = serving.recv_from(&mut buffer) {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let answer = buffer.get(..length).and_then(reply);
                // Who asked may be gone.
                let _ = answer.map(|answer| serving.send_to(&answer, from));
            }
        });
        Ok(Self {
            socket,
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread with nothing.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The question with an address behind it; without what else the message had (RFC 6891 leaves that
/// to the server).
fn reply(message: &[u8]) -> Option<Vec<u8>> {
    let labels = message.get(HEADER..)?;
    let end = HEADER + labels.iter().position(|byte| *byte == 0)? + 5;
    let mut answer = message.get(..end)?.to_vec();
    // An answer, recursion available; one question, one answer, nothing else.
    answer.splice(2..HEADER, [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    // The name of the question, type A, class IN, an hour, four bytes.
    answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4]);
    answer.extend([203, 0, 113, 7]);
    Some(answer)
}

fn table(series: &[Series<Answered>]) -> Table {
    let columns = [
        "answers/s, 20 under way",
        "one by one, ms",
        "lost or refused",
    ];
    let mut table = Table::new("Names, asked by one container", &columns);
    for one in series {
        let values = || one.values.iter();
        let lost: u32 = values().map(|answered| answered.lost).sum();
        let cells = vec![
            Cell::series(values().map(|answered| answered.per_second), 0),
            Cell::series(values().map(|answered| milliseconds(answered.alone)), 3),
            Cell::Number(f64::from(lost), 0),
        ];
        table.row(&one.name, cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_the_question_with_an_address() {
        let mut asked = question("a.example");
        asked.splice(..2, [7, 9]);
        let end = asked.len();
        // Further records are left out.
        asked.extend([0; 11]);
        let reply = reply(&asked).unwrap();
        assert_eq!(reply[..4], [7, 9, 0x81, 0x80]);
        assert_eq!(reply[4..12], [0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(reply[12..end], asked[12..end]);
        assert_eq!(reply[reply.len() - 4..], [203, 0, 113, 7]);
        assert_eq!(super::reply(&asked[..15]), None);
    }
}
