//! Streams of containers: the content types of hijacked connections, and `attach/ws`, with a
//! handwritten client.

mod common;
#[path = "streams/stats.rs"]
mod stats;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::{Host, PATIENCE};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

struct Socket(UnixStream);

impl Socket {
    fn open(host: &Host, path: &str) -> Self {
        let mut stream = UnixStream::connect(host.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        Self(stream)
    }

    fn send(&mut self, kind: u8, data: &[u8]) {
        let mut frame = vec![0x80 | kind, 0x80 | data.len() as u8, 1, 2, 3, 4];
        let masked = data.iter().zip([1, 2, 3, 4].iter().cycle());
        frame.extend(masked.map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                u16::from_be_bytes(length).into()
            }
            127 => panic!("too long"),
            short => usize::from(short),
        };
        let mut data = vec![0; length];
        self.0.read_exact(&mut data).unwrap();
        (head[0] & 15, data)
    }

    /// Output until it has `text`, all in messages of one kind.
    fn until(&mut self, kind: u8, text: &str) {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(text) {
            let (found, data) = self.receive();
            assert_eq!(found, kind, "{all:?}");
            all.extend(data);
        }
    }
}

fn create(host: &Host, name: &str, arguments: &[&str], command: &str) {
    let start = ["create", "-i", "--network=none", "--name", name];
    let end = ["busybox", "sh", "-c", command];
    host.docker(&[&start, arguments, &end].concat()).ok();
}

#[test]
fn streams_go_over_websockets() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    create(
        &host,
        "echo",
        &[],
        "echo begin; read a; echo got $a >&2; read b",
    );
    let mut socket = Socket::open(
        &host,
        "/v1.51/containers/echo/attach/ws?stream=1&stdin=1&stdout=1&stderr=1",
    );
    host.docker(&["start", "echo"]).ok();
    socket.until(BINARY, "begin");
    socket.send(PING, b"hm");
    assert_eq!(socket.receive(), (PONG, b"hm".to_vec()));
    socket.send(BINARY, b"it\n");
    socket.until(BINARY, "got it");
    socket.send(TEXT, b"end\n");
    assert_eq!(socket.receive().0, CLOSE);
    // Text for old clients, which get all streams without asking.
    create(&host, "old", &[], "read a; echo got $a; read b");
    let mut socket = Socket::open(&host, "/v1.27/containers/old/attach/ws?stream=1");
    host.docker(&["start", "old"]).ok();
    socket.send(BINARY, b"it\n");
    socket.until(TEXT, "got it");
    socket.send(CLOSE, b"");
    assert_eq!(socket.receive().0, CLOSE);
    host.docker(&["wait", "old"]).ok();
    // New ones get the requested streams, and leave by the keys.
    create(&host, "keys", &["-t"], "read a; echo got $a; read b");
    let mut socket = Socket::open(
        &host,
        "/v1.51/containers/keys/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x",
    );
    host.docker(&["start", "keys"]).ok();
    socket.send(BINARY, b"it\n");
    socket.until(BINARY, "got it");
    socket.send(BINARY, b"\x18");
    assert_eq!(socket.receive().0, CLOSE);
    assert_eq!(
        host.docker(&["inspect", "-f={{.State.Status}}", "keys"])
            .ok(),
        "running"
    );
    // A frame that is too long ends the connection.
    let mut socket = Socket::open(&host, "/v1.51/containers/keys/attach/ws?stream=1&stdin=1");
    socket
        .0
        .write_all(&[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4])
        .unwrap();
    let mut rest = Vec::new();
    let _ = socket.0.read_to_end(&mut rest);
    let (status, body) = host.get("/containers/keys/attach/ws?stream=1");
    assert_eq!(status, 400, "{body}");
    let missing = "GET /containers/nobody/attach/ws HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n";
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream.write_all(missing.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 404");
    host.docker(&["rm", "-f", "echo", "old", "keys"]).ok();
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

/// Opens a stream that is no WebSocket; the head of the answer, and the rest.
fn hijack(host: &Host, path: &str, headers: &str, body: &str) -> (String, UnixStream) {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: d\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (String::from_utf8(head).unwrap(), stream)
}

#[test]
fn hijacked_streams_say_what_they_carry_and_close_by_halves() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    create(&host, "plain", &[], "exec cat");
    create(&host, "tty", &["-t"], "exec cat");
    let raw = "Content-Type: application/vnd.docker.raw-stream\r\n";
    let multiplexed = "Content-Type: application/vnd.docker.multiplexed-stream\r\n";
    host.docker(&["start", "plain", "tty"]).ok();
    for (name, version, headers, status, kind) in [
        ("plain", "1.51", UPGRADE, "101 UPGRADED", multiplexed),
        ("plain", "1.41", UPGRADE, "101 UPGRADED", raw),
        ("plain", "1.51", "", "200 OK", raw),
        ("tty", "1.51", UPGRADE, "101 UPGRADED", raw),
        ("tty", "1.51", "", "200 OK", raw),
    ] {
        let path = format!("/v{version}/containers/{name}/attach?stream=1&stdout=1");
        let (head, _) = hijack(&host, &path, headers, "");
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head}"
        );
        assert!(head.contains(kind), "{name} {version} {headers}: {head}");
        let create = format!("/v{version}/containers/{name}/exec");
        let body = r#"{"Cmd":["true"],"AttachStdout":true}"#;
        let (_, made) = host.send("POST", &create, body);
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        let path = format!("/v{version}/exec/{}/start", made["Id"].as_str().unwrap());
        let (head, _) = hijack(&host, &path, headers, "{}");
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head}"
        );
        let kind = if name == "tty" && !headers.is_empty() {
            multiplexed
        } else {
            kind
        };
        assert!(
            head.contains(kind),
            "exec {name} {version} {headers}: {head}"
        );
    }
    // The end of the input is the end of the command, whose output still comes.
    let path = "/v1.51/containers/plain/attach?stream=1&stdin=1&stdout=1";
    let (_, mut stream) = hijack(&host, path, UPGRADE, "");
    stream.write_all(b"half").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x01\0\0\0\0\0\0\x04half");
    assert_eq!(host.docker(&["wait", "plain"]).ok(), "0");
    host.docker(&["rm", "-f", "plain", "tty"]).ok();
}

/// Clients that stop reading when they learn of the end (dockerode's `run`) miss nothing.
#[test]
fn the_end_is_reported_after_the_output() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    for round in 0..20 {
        let name = format!("short{round}");
        create(&host, &name, &[], "echo words");
        let path = format!("/v1.51/containers/{name}/attach?stream=1&stdout=1");
        let (_, mut stream) = hijack(&host, &path, UPGRADE, "");
        assert_eq!(
            host.send("POST", &format!("/containers/{name}/start"), "")
                .0,
            204
        );
        let (status, _) = host.send("POST", &format!("/containers/{name}/wait"), "");
        assert_eq!(status, 200);
        stream.set_nonblocking(true).unwrap();
        let mut output = [0; 64];
        let length = stream.read(&mut output).unwrap_or_default();
        assert!(
            output[..length].ends_with(b"words\n"),
            "round {round}: {length} bytes"
        );
    }
    // A client that does not read delays it only for a moment.
    create(&host, "long", &[], "yes | head -c 10000000");
    let path = "/v1.51/containers/long/attach?stream=1&stdout=1";
    let (_, stalled) = hijack(&host, path, UPGRADE, "");
    assert_eq!(host.send("POST", "/containers/long/start", "").0, 204);
    assert_eq!(host.send("POST", "/containers/long/wait", "").0, 200);
    drop(stalled);
}
