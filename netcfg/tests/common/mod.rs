//! Two network namespaces joined by a veth pair, a real DHCP server in one and the daemon in the
//! other. The kernel removes everything when the values are dropped, also by a panic.

// Each test file uses a part.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use keelson_netlink::{Address, LinkKind, Namespace, Netlink, NewLink};
use netcfg::status::{LinkStatus, NetworkStatus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

/// Name of the client's link.
pub const LINK: &str = "uplink";
/// Generous: test machines are slow and share two processors.
pub const LONG: Duration = Duration::from_secs(60);

/// Whether the tests can run. Reports the skip if not.
pub fn may_run() -> bool {
    if !keelson_testing::is_root() {
        return false;
    }
    let dnsmasq = Command::new("dnsmasq").arg("--version").output();
    assert!(dnsmasq.is_ok(), "install the package dnsmasq-base");
    true
}

/// Waits until `condition` returns a value. Panics with `what` if it takes too long.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs iproute2 in a namespace. It shows the daemon's work through code that is not the daemon's.
fn ip(namespace: &Namespace, words: &str) -> String {
    let run = || Command::new("ip").args(words.split(' ')).output();
    let output = namespace.run(run).unwrap().unwrap();
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A program whose output is collected line by line. It is killed at the end.
pub struct Program {
    child: Child,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Program {
    fn start(namespace: &Namespace, program: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = namespace.run(move || command.spawn()).unwrap().unwrap();
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let errors = BufReader::new(child.stderr.take().unwrap());
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                sink.0.lock().unwrap().push(line);
                sink.1.notify_all();
            }
        });
        Self { child, lines }
    }

    /// Waits for a line with all the words, from line number `from` on. Returns the next line
    /// number.
    pub fn wait_for_line(&self, from: usize, words: &[&str]) -> usize {
        let deadline = Instant::now() + LONG;
        let mut lines = self.lines.0.lock().unwrap();
        loop {
            let found = lines
                .iter()
                .skip(from)
                .position(|line| words.iter().all(|word| line.contains(word)));
            if let Some(position) = found {
                return from + position + 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The lock must not be poisoned, because the lines are printed while unwinding.
                drop(lines);
                panic!("no line with {words:?}");
            }
            lines = self.lines.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub fn line_count(&self) -> usize {
        self.lines.0.lock().unwrap().len()
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.0.lock().unwrap().clone()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Sends a signal and waits for the end.
    pub fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        wait_for("the program ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("output: {:#?}", self.lines());
        }
    }
}

/// The namespaces and the daemon's directories.
pub struct Net {
    pub server: Arc<Namespace>,
    pub client: Namespace,
    dir: tempfile::TempDir,
}

impl Net {
    /// Two namespaces without links between them.
    pub fn unconnected() -> Self {
        Self {
            server: Arc::new(Namespace::create().unwrap()),
            client: Namespace::create().unwrap(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Two namespaces with a veth pair; the server's end is up and has 192.0.2.1/24.
    pub fn new() -> Self {
        let net = Self::unconnected();
        net.connect();
        net
    }

    pub fn connect(&self) {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let netlink = Netlink::connect_in(self.server.as_fd()).unwrap();
            let kind = LinkKind::Veth {
                peer: LINK,
                namespace: Some(self.client.as_fd()),
            };
            let name = "srv0";
            netlink.create_link(NewLink { name, kind }).await.unwrap();
            let link = netlink.link(name).await.unwrap().index;
            let address = Address {
                link,
                prefix: "192.0.2.1/24".parse().unwrap(),
                protocol: 0,
                lifetime: None,
            };
            netlink.set_address(&address).await.unwrap();
            netlink.set_up(link).await.unwrap();
        });
    }

    pub fn on_server(&self, words: &str) -> String {
        ip(&self.server, words)
    }

    pub fn on_client(&self, words: &str) -> String {
        ip(&self.client, words)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the operator's configuration.
    pub fn configure(&self, text: &str) {
        let file = self.path("root/etc/keelson/host.toml");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    pub fn use_dhcp(&self) {
        self.configure(&format!(
            "[[network.link]]\nname = '{LINK}'\ndhcp4 = true\n"
        ));
    }

    /// Starts the daemon; the socket receives its notifications.
    pub fn start(&self) -> (Program, UnixDatagram) {
        self.start_with(|_| {})
    }

    /// Starts the daemon so that it sends a sign of life every half second. The test must read the
    /// socket, because its queue is short.
    pub fn start_watched(&self) -> (Program, UnixDatagram) {
        self.start_with(|command| {
            command.env("WATCHDOG_USEC", "1500000");
        })
    }

    fn start_with(&self, change: impl FnOnce(&mut Command)) -> (Program, UnixDatagram) {
        let notify = self.path("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let daemon = Path::new(env!("CARGO_BIN_EXE_netcfg"));
        let program = Program::start(&self.client, daemon, |command| {
            command.arg("--config-root").arg(self.path("root"));
            command.arg("--run").arg(self.path("run"));
            command.arg("--state").arg(self.path("state"));
            command.arg("--debug").env("NOTIFY_SOCKET", &notify);
            change(command);
        });
        (program, socket)
    }

    /// Starts the DHCP server with additional options.
    pub fn serve(&self, options: &[&str]) -> Program {
        let leases = format!("--dhcp-leasefile={}", self.path("dnsmasq.leases").display());
        let program = Program::start(&self.server, Path::new("dnsmasq"), |command| {
            command
                .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0"])
                .args(["--no-resolv", "--no-hosts", "--user=root", "--pid-file="])
                .args(["--log-facility=-", "--no-ping", "--interface=srv0"])
                .args(["--bind-interfaces", "--dhcp-authoritative"])
                .arg(leases)
                .args(options);
        });
        program.wait_for_line(0, &["DHCP, IP range"]);
        program
    }

    pub fn status(&self) -> Option<NetworkStatus> {
        let bytes = fs::read(self.path("run/netcfg/status.json")).ok()?;
        // It is replaced by a rename, so it is always complete.
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    pub fn link(&self) -> Option<LinkStatus> {
        let links = self.status()?.links;
        links.into_iter().find(|link| link.name == LINK)
    }

    /// The IPv4 addresses that the kernel has on the client's link.
    pub fn addresses(&self) -> Vec<String> {
        let text = self.on_client(&format!("-4 -o addr show dev {LINK}"));
        let address = |line: &str| {
            let mut words = line.split_whitespace();
            words.find(|word| *word == "inet")?;
            words.next().map(str::to_owned)
        };
        text.lines().filter_map(address).collect()
    }

    /// Waits until the link has an IPv4 address that begins with `prefix`.
    pub fn wait_for_address(&self, prefix: &str) -> String {
        wait_for(&format!("an address {prefix}*"), || {
            let addresses = self.addresses();
            addresses.into_iter().find(|a| a.starts_with(prefix))
        })
    }

    /// The kernel's number of the server's link.
    pub fn server_index(&self) -> u32 {
        let text = self.on_server("-o link show dev srv0");
        text.split(':').next().unwrap().trim().parse().unwrap()
    }

    /// Runs a function in a thread of the server's namespace.
    pub fn in_server<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = Arc::clone(&self.server);
        std::thread::spawn(move || namespace.run(function).unwrap())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for file in [
                "run/netcfg/status.json".to_owned(),
                format!("state/leases/{LINK}.json"),
            ] {
                let text = fs::read_to_string(self.path(&file)).unwrap_or_default();
                eprintln!("{file}: {text}");
            }
        }
    }
}

/// Waits for a notification of the daemon to its supervisor.
pub fn wait_for_notification(socket: &UnixDatagram, wanted: &str) {
    let mut buffer = [0; 1024];
    loop {
        let length = socket.recv(&mut buffer).expect(wanted);
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(|line| line.starts_with(wanted)) {
            return;
        }
    }
}
