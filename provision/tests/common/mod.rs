//! An imitated machine in a directory, and servers in a network namespace.

// Each test file uses a part.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use keelson_netlink::Namespace;

/// Whether tests with network namespaces can run.
pub fn may_run() -> bool {
    keelson_testing::is_root()
}

/// A machine: its /proc, /sys and /var are in a directory.
pub struct Imitation {
    root: tempfile::TempDir,
}

/// What the program said.
pub struct Run {
    pub code: i32,
    pub log: String,
}

impl Imitation {
    pub fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// A file of the provisioning.
    fn own(&self, name: &str) -> PathBuf {
        self.path("var/lib/keelson/host/platform").join(name)
    }

    pub fn exists(&self, name: &str) -> bool {
        self.own(name).exists()
    }

    pub fn layer(&self) -> toml::Table {
        fs::read_to_string(self.own("host.toml"))
            .unwrap()
            .parse()
            .unwrap()
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.own("status.json")).unwrap()).unwrap()
    }

    pub fn files_are_private(&self) {
        let mut count = 0;
        for entry in fs::read_dir(self.own("")).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
            count += 1;
        }
        assert_eq!(count, 3);
    }

    /// Runs the program, in a namespace if there is one.
    pub fn run(&self, cloud: Option<&Cloud>, arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson-provision"));
        command.args(arguments).arg("--root").arg(self.root.path());
        let output = match cloud {
            Some(cloud) => cloud.namespace.run(move || command.output()).unwrap(),
            None => command.output(),
        };
        let output = output.unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A network with nothing but servers of the test.
pub struct Cloud {
    namespace: Namespace,
}

/// What was asked.
pub struct Request {
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
            bytes.extend_from_slice(&part[..count]);
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let line = lines.next()?.to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        let mut body = bytes[end..].to_vec();
        let have = body.len();
        body.resize(length.max(have), 0);
        stream.read_exact(&mut body[have..]).ok()?;
        Some(Self {
            line,
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

/// What a server answers.
pub enum Answers {
    /// These bytes, and the end.
    Raw(Vec<u8>),
    /// A good head, and a body without end.
    Endless,
    /// A byte now and then.
    Trickle,
    /// Nothing, for ever.
    Silent,
}

impl Answers {
    pub fn ok(body: &str) -> Self {
        Self::with(200, "", body)
    }

    pub fn status(status: u16) -> Self {
        Self::with(status, "", "no")
    }

    pub fn redirect(to: &str) -> Self {
        Self::with(302, &format!("Location: {to}\r\n"), "")
    }

    fn with(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        Self::Raw(text.into_bytes())
    }

    fn send(self, stream: &mut TcpStream, ended: &AtomicBool) {
        match self {
            Self::Raw(bytes) => drop(stream.write_all(&bytes)),
            Self::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while !ended.load(Ordering::SeqCst) && stream.write_all(&[b' '; 65536]).is_ok() {}
            }
            Self::Trickle => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
                while !ended.load(Ordering::SeqCst) && stream.write_all(b"{").is_ok() {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            // The client goes away, or the test ends.
            Self::Silent => {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                while !ended.load(Ordering::SeqCst) {
                    match stream.read(&mut [0; 16]) {
                        Ok(0) => break,
                        _ => continue,
                    }
                }
            }
        }
    }
}

/// A server, until it is dropped.
pub struct Server {
    requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let result = self.thread.take().map(JoinHandle::join);
        if let (Some(result), false) = (result, std::thread::panicking()) {
            result.expect("a server of the test found fault with a request");
        }
    }
}

impl Cloud {
    /// The loopback link has these addresses.
    pub fn new(addresses: &[&str]) -> Self {
        let namespace = Namespace::create().unwrap();
        let mut commands = vec!["link set lo up".to_owned()];
        commands.extend(
            addresses
                .iter()
                .map(|address| format!("address add {address}/32 dev lo")),
        );
        for words in commands {
            let run = || Command::new("ip").args(words.split(' ')).output();
            let output = namespace.run(run).unwrap().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "ip {words}: {error}");
        }
        Self { namespace }
    }

    pub fn serve(
        &self,
        address: &'static str,
        answer: impl Fn(&Request) -> Answers + Send + 'static,
    ) -> Server {
        let listener = self
            .namespace
            .run(|| TcpListener::bind(address))
            .unwrap()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, end) = (Arc::clone(&requests), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                if let Some(request) = Request::read(&mut stream) {
                    seen.lock().unwrap().push(request.line.clone());
                    answer(&request).send(&mut stream, &end);
                }
            }
        });
        Server {
            requests,
            ended,
            thread: Some(thread),
        }
    }
}
