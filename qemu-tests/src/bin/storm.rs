//! Runs inside a machine, in a container that sees it, and sends PID 1 what nobody should:
//! `storm ROUNDS CONTROL NOTIFY`. What it sends is the same in every run.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keelson_model::init::{Request, Response};

/// How many silent clients stay connected; more than PID 1 serves at a time.
const SILENT: usize = 40;
/// How long an answer or room in a socket is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions whether PID 1 has room again, which no event reports.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of the longest request.
const LONGEST: usize = 100_000;

/// Numbers that look random (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// One client's request. None of them is valid.
fn request(round: u64, numbers: &mut Numbers) -> Vec<u8> {
    match round % 8 {
        0 => numbers.bytes(300),
        1 => [numbers.bytes(50).as_slice(), b"\n"].concat(),
        2 => vec![b'{'; LONGEST],
        3 => [vec![b'['; 4000].as_slice(), b"\n"].concat(),
        4 => b"{\"op\":\"power\",\"action\":\"explode\"}\n".to_vec(),
        5 => b"{\"op\":\"status\",\"more\":1}\n".to_vec(),
        6 => b"{\"op\":\"sta".to_vec(),
        _ => vec![0; LONGEST],
    }
}

/// A datagram that claims something for a process that PID 1 does not supervise.
fn datagram(round: u64, numbers: &mut Numbers) -> Vec<u8> {
    match round % 5 {
        0 => numbers.bytes(700),
        1 => b"READY=1\nSTATUS=\xff\xfe\nWATCHDOG=1".to_vec(),
        2 => b"STOPPING=1\nMAINPID=1\n".to_vec(),
        3 => vec![b'='; 9000],
        _ => Vec::new(),
    }
}

fn connect(path: &str) -> Result<UnixStream> {
    let stream = UnixStream::connect(path).with_context(|| format!("connect to {path}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// PID 1 still answers who asks as agreed.
fn status(path: &str) -> Result<()> {
    let mut stream = connect(path)?;
    let mut line = serde_json::to_vec(&Request::Status)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer: Response = serde_json::from_slice(&answer).context("answer of PID 1")?;
    ensure!(matches!(answer, Response::Status(_)), "{answer:?}");
    Ok(())
}

fn storm(rounds: u64, control: &str, notify: &str) -> Result<()> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    for round in 0..rounds {
        let mut stream = connect(control)?;
        // Refused clients are disconnected while they still send.
        let _ = stream.write_all(&request(round, &mut numbers));
        if round % 3 == 0 {
            let mut answer = Vec::new();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut answer);
        }
        // Too long ones and those without room are the sender's problem.
        let _ = socket.send_to(&datagram(round, &mut numbers), notify);
    }
    let silent: Vec<_> = (0..SILENT)
        .map(|_| connect(control))
        .collect::<Result<_>>()?;
    drop(silent);
    // PID 1 drops those that are too many until it has noticed that the silent ones are gone.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match status(control) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, control, notify] = arguments.as_slice() else {
        eprintln!("usage: storm ROUNDS CONTROL NOTIFY");
        return ExitCode::FAILURE;
    };
    let result = rounds
        .parse()
        .context("ROUNDS is no number")
        .and_then(|rounds| storm(rounds, control, notify));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storm: {error:#}");
            ExitCode::FAILURE
        }
    }
}
