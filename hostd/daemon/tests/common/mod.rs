//! A real hostd on directories of its own, driven by the real `docker` command.
//!
//! `KEELSON_BIN_DIR` names the directory of hostd and keelson-runtime (default: where cargo put
//! them), `KEELSON_DOCKER` the docker command (default: from PATH).

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

pub mod clients;
pub mod description;
#[path = "../../../images/tests/common/disk.rs"]
pub mod disk;
pub mod front;
pub mod image;
pub mod net;
pub mod peers;
pub mod plugin;
pub mod registry;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take. Test machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub use keelson_testing::is_root;

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn programs() -> PathBuf {
    let dir = match std::env::var_os("KEELSON_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_BIN_EXE_hostd"))
            .parent()
            .unwrap()
            .to_owned(),
    };
    for name in ["hostd", "keelson-runtime", "keelson-resolver"] {
        assert!(
            dir.join(name).is_file(),
            "{name} is not in {}: build it first",
            dir.display()
        );
    }
    dir
}

/// The docker command for the hostd at an address.
pub fn docker_at(home: &Path, url: &str, args: &[&str]) -> Command {
    let program = std::env::var_os("KEELSON_DOCKER").unwrap_or_else(|| "docker".into());
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("DOCKER_HOST", url);
    command
}

/// hostctl, when it was built beside hostd.
pub fn hostctl() -> Option<PathBuf> {
    let path = programs().join("hostctl");
    if !path.is_file() {
        keelson_testing::skip("hostctl", "it is not built beside hostd");
        return None;
    }
    Some(path)
}

/// The result of a command.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts success, and returns standard output without white space around it.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout.trim().to_owned()
    }

    /// Asserts a failure whose standard error contains `text`.
    #[track_caller]
    pub fn fails_with(self, text: &str) {
        assert_ne!(self.code, 0, "stdout: {}", self.stdout);
        assert!(self.stderr.contains(text), "stderr: {}", self.stderr);
    }
}

/// Runs a command to its end, feeding it `input`.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Done {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The command may end without reading everything.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read_out = std::thread::spawn(move || read_all(&mut out));
    let read_err = std::thread::spawn(move || read_all(&mut err));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "{command:?} did not end\nstdout: {}\nstderr: {}",
                String::from_utf8_lossy(&read_out.join().unwrap()),
                String::from_utf8_lossy(&read_err.join().unwrap())
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    feeder.join().unwrap();
    Done::of(Output {
        status,
        stdout: read_out.join().unwrap(),
        stderr: read_err.join().unwrap(),
    })
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}

/// A hostd with its directories. When it is dropped the daemon is stopped in order, and nothing of it
/// may be left: no process, no mount, no cgroup.
pub struct Host {
    dir: TempDir,
    daemon: Option<Child>,
    /// The data that must survive a reboot.
    root: PathBuf,
    extra: Vec<String>,
    /// The network namespace in which it runs; `None`: the machine's, in which it creates no
    /// networks.
    net: Option<net::Net>,
}

impl Host {
    /// Starts hostd.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts hostd, with the image busybox. `None`, and the test is skipped, without root.
    #[track_caller]
    pub fn with_busybox() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let host = Self::start();
        host.load_busybox();
        Some(host)
    }

    /// Starts hostd with further arguments.
    pub fn start_with(extra: &[&str]) -> Self {
        Self::start_in(None, extra, None)
    }

    /// Starts hostd in a network namespace of its own, with container networks.
    pub fn start_networked(extra: &[&str]) -> Self {
        Self::start_in(None, extra, Some(net::Net::new()))
    }

    /// The network namespace in which hostd runs.
    pub fn net(&self) -> &net::Net {
        self.own_net().unwrap()
    }

    /// The network namespace, if it has one of its own.
    pub fn own_net(&self) -> Option<&net::Net> {
        self.net.as_ref()
    }

    /// Starts hostd with its root directory on another file system.
    pub fn start_on(root: &Path) -> Self {
        Self::start_in(Some(root), &[], None)
    }

    fn start_in(root: Option<&Path>, extra: &[&str], net: Option<net::Net>) -> Self {
        // Not /tmp: overlayfs and file-backed mounts want a real file system.
        let dir = tempfile::Builder::new()
            .prefix("keelson-test-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let mut host = Self {
            root: root.map_or_else(|| dir.path().join("root"), Path::to_owned),
            dir,
            daemon: None,
            extra: extra.iter().map(|&s| s.to_owned()).collect(),
            net,
        };
        host.start_daemon();
        host
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory in which this hostd searches for plugins.
    pub fn plugins(&self) -> PathBuf {
        self.path().join("plugins")
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("docker.sock")
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// What hostd has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("hostd.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> i32 {
        self.daemon.as_ref().unwrap().id().try_into().unwrap()
    }

    /// The cgroup of this hostd's containers.
    pub fn cgroup_parent(&self) -> String {
        let name = self.path().file_name().unwrap().to_string_lossy();
        format!("keelson-test-{}", name.trim_start_matches('.'))
    }

    /// The command that starts this hostd.
    pub fn command(&self) -> Command {
        let program = programs().join("hostd");
        let mut command = match &self.net {
            Some(net) => net.command(program),
            None => {
                let mut command = Command::new(program);
                // The test must not use the machine's network.
                command.args(["--bridge", "none"]);
                command
            }
        };
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--run")
            .arg(self.path().join("run"))
            .arg("--service-layers")
            .arg(self.path().join("no-layers"))
            .arg("--config")
            .arg(self.path().join("config"))
            .arg("--plugins")
            .arg(self.plugins())
            .args(["--listen", &self.url()])
            .args(["--cgroup-parent", &self.cgroup_parent()])
            .args(&self.extra)
            .env("KEELSON_LOG", "debug")
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon (again) and waits until its API answers.
    pub fn start_daemon(&mut self) {
        self.start_daemon_with(&[]);
    }

    /// Like [`Host::start_daemon`], with further variables in its environment.
    pub fn start_daemon_with(&mut self, variables: &[(&str, &str)]) {
        self.spawn_daemon(variables);
        self.await_daemon();
    }

    /// Starts the daemon (again) and waits for nothing.
    pub fn spawn_daemon(&mut self, variables: &[(&str, &str)]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path().join("hostd.log"))
            .unwrap();
        let child = self
            .command()
            .envs(variables.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
    }

    /// Waits until the API answers.
    pub fn await_daemon(&mut self) {
        let socket = self.socket();
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&socket).is_err() {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "hostd ended: {ended:?}\n{}", self.log());
            assert!(
                Instant::now() < deadline,
                "hostd is not ready\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill_daemon(&mut self) {
        let mut child = self.daemon.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The events until now, as `GET /events` returns them.
    #[track_caller]
    pub fn events(&self) -> String {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
        let (status, events) = self.get(&format!("/events?since=0&until={until}"));
        assert_eq!(status, 200, "{events}");
        events
    }

    /// The events until now of one type (`image`, `container`), one JSON value each.
    #[track_caller]
    pub fn events_of(&self, kind: &str) -> Vec<serde_json::Value> {
        self.events()
            .lines()
            // Between them stand the lengths of chunks.
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|event| event["Type"] == kind)
            .collect()
    }

    /// Stops the daemon in order.
    pub fn stop_daemon(&mut self) {
        let Some(mut child) = self.daemon.take() else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("hostd did not stop\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The docker command, set up for this hostd.
    pub fn docker_command(&self, args: &[&str]) -> Command {
        docker_at(self.path(), &self.url(), args)
    }

    /// Runs `docker …`.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Done {
        self.docker_with(args, b"")
    }

    /// Runs `docker …` with standard input.
    #[track_caller]
    pub fn docker_with(&self, args: &[&str], input: &[u8]) -> Done {
        run(&mut self.docker_command(args), input)
    }

    /// Loads the busybox image.
    #[track_caller]
    pub fn load_busybox(&self) {
        let done = self.docker_with(&["load"], &image::busybox("busybox:latest"));
        assert_eq!(done.ok(), "Loaded image: busybox:latest");
    }

    /// A request with a JSON document, or without a body. Returns the status and the body.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.http(&format!(
            "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// A raw HTTP request; returns the head and the body.
    #[track_caller]
    pub fn exchange(&self, request: &str) -> (String, String) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let text = String::from_utf8_lossy(&read_all(&mut stream)).into_owned();
        let parts = text.split_once("\r\n\r\n");
        let (head, body) = parts.unwrap_or_else(|| panic!("no answer: {text:?}"));
        (head.to_owned(), body.to_owned())
    }

    /// A raw HTTP request; returns the status and the body.
    #[track_caller]
    pub fn http(&self, request: &str) -> (u16, String) {
        let (head, body) = self.exchange(request);
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer: {head:?}"));
        (status, body)
    }

    /// `GET` of a path.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        self.http(&format!(
            "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        ))
    }

    /// The traces of this host that are left although it was stopped.
    fn leftovers(&self) -> Vec<String> {
        let own = self.path().to_string_lossy().into_owned();
        let mut left: Vec<String> = fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(&own))
            .map(|line| format!("mount: {line}"))
            .collect();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(command) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let pid = entry.file_name().to_string_lossy().into_owned();
            if command.contains(&own) && pid.parse() != Ok(std::process::id()) {
                left.push(format!("process {pid}: {command}"));
            }
        }
        for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
            let path = Path::new(root).join(self.cgroup_parent());
            if path.exists() {
                left.push(format!("cgroup: {}", path.display()));
            }
        }
        left
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("--- log of hostd ---\n{}", self.log());
        }
        if self.daemon.is_none() {
            // A killed daemon's containers are still there; only a daemon can stop them.
            self.start_daemon();
        }
        self.stop_daemon();
        let left = self.leftovers();
        if failed {
            eprintln!("left behind: {left:#?}");
        } else {
            assert!(left.is_empty(), "left behind: {left:#?}\n{}", self.log());
        }
    }
}
