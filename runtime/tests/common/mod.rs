//! Drives the real shim binary with a root file system made of busybox.
#![allow(dead_code, missing_docs, unreachable_pub)] // Not every test file uses everything.

pub mod bundle;
pub mod consumer;
pub mod host_objects;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use keelson_shim_protocol::{
    Decoder, Exit, Hello, LogFiles, Request, Response, Rootfs, ShimSpec, encode, stream,
};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use serde_json::{Value, json};

/// The binary under test: `KEELSON_RUNTIME`, or what cargo built for the tests.
pub static RUNTIME: LazyLock<String> = LazyLock::new(|| {
    let built = env!("CARGO_BIN_EXE_keelson-runtime").to_owned();
    std::env::var("KEELSON_RUNTIME").unwrap_or(built)
});
/// Longest time that a step may take here.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Whether the test can run. Reports the skip if not.
pub fn can_run() -> bool {
    host_objects::note();
    keelson_testing::is_root()
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not within time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where cgroup2 is mounted.
pub fn cgroup_root() -> PathBuf {
    let unified = PathBuf::from("/sys/fs/cgroup/unified");
    if unified.join("cgroup.procs").exists() {
        unified
    } else {
        PathBuf::from("/sys/fs/cgroup")
    }
}

/// The `cgroupsPath` of a container: directly below the root, so that no parent is left behind.
pub fn cgroup_path(id: &str) -> String {
    format!("/keelson-test-{}", id.trim_start_matches("keelson-test-"))
}

/// The directory of a container's cgroup.
pub fn cgroup_of(id: &str) -> PathBuf {
    cgroup_root().join(cgroup_path(id).trim_start_matches('/'))
}

/// A socket whose queue is full: a program that connects waits for an accept that never comes.
pub fn full_socket(path: &Path) -> (OwnedFd, UnixStream) {
    let (kind, flags) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let listener = nix::sys::socket::socket(AddressFamily::Unix, kind, flags, None).unwrap();
    let address = UnixAddr::new(path).unwrap();
    nix::sys::socket::bind(listener.as_raw_fd(), &address).unwrap();
    nix::sys::socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    (listener, UnixStream::connect(path).unwrap())
}

/// Makes a root file system with busybox and some links to it.
pub fn make_root(directory: &Path) {
    let bin = directory.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    keelson_testing::busybox::install(&bin.join("busybox")).unwrap();
    for name in [
        "sh", "cat", "true", "false", "ls", "sleep", "id", "mount", "hostname", "stty", "kill",
        "grep", "wc", "head", "dd", "seq", "echo", "env", "ps", "mknod", "unshare", "readlink",
        "tty", "touch", "test", "stat", "ip", "setsid", "tr", "sync",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    for name in ["proc", "sys", "dev", "tmp", "etc"] {
        std::fs::create_dir(directory.join(name)).unwrap();
    }
    std::fs::write(
        directory.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .unwrap();
}

/// Makes a user, and the group of the same number, the owner of everything in a directory.
pub fn give(directory: &Path, owner: u32) {
    std::os::unix::fs::lchown(directory, Some(owner), Some(owner)).unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            give(&entry.path(), owner);
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(owner), Some(owner)).unwrap();
        }
    }
}

pub use keelson_testing::CAPABILITIES;

/// A specification like those that Docker makes.
pub fn config(args: &[&str], cgroup: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES
            },
            "oomScoreAdj": 0
        },
        "root": {"path": "rootfs"},
        "hostname": "testhost",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]}
        ],
        "annotations": {"io.keelson.seccomp": "default"},
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                {"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"}, {"type": "cgroup"}
            ],
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "access": "m"},
                {"allow": true, "type": "b", "access": "m"}
            ]},
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
                "/sys/firmware", "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// A shim with its container.
pub struct Shim {
    /// Removed at the end.
    pub directory: tempfile::TempDir,
    pub id: String,
    pub shim_pid: i32,
    pub pid: i32,
}

/// The settings of a shim.
pub struct Setup {
    pub directory: tempfile::TempDir,
    pub id: String,
    pub config: Value,
    pub spec: ShimSpec,
    /// Whether the container gets objects of the host on purpose.
    pub shows_host: bool,
    /// Where the shim keeps its files, if not in `directory`.
    pub shim_directory: Option<PathBuf>,
}

impl Setup {
    /// A container that runs a command.
    pub fn new(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy();
        let id = format!("keelson-test-{}", name.trim_start_matches('.'));
        let path = directory.path();
        for name in ["bundle", "lower", "lower2", "upper", "work"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        make_root(&path.join("lower"));
        let spec = ShimSpec {
            version: 1,
            id: id.clone(),
            bundle: path.join("bundle"),
            rootfs: Rootfs::Overlay {
                lower: vec![path.join("lower2"), path.join("lower")],
                upper: Some(path.join("upper")),
                work: Some(path.join("work")),
            },
            open_stdin: false,
            stdin_once: false,
            log: LogFiles {
                path: path.join("log"),
                max_size: 1 << 30,
                max_files: 1,
            },
            shim_cgroup: None,
            runtime: None,
        };
        let config = config(args, &cgroup_path(&id));
        Self {
            directory,
            id,
            config,
            spec,
            shows_host: false,
            shim_directory: None,
        }
    }

    /// Executes the shim and reads its first line.
    pub fn hello(&self) -> Hello {
        let (read, write) = std::io::pipe().unwrap();
        self.execute(write);
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Executes the shim with a pipe to report on.
    pub fn execute(&self, write: std::io::PipeWriter) {
        let path = self.directory.path();
        std::fs::write(
            path.join("bundle/config.json"),
            serde_json::to_vec(&self.config).unwrap(),
        )
        .unwrap();
        let own = self.shim_directory.as_deref().unwrap_or(path);
        std::fs::write(
            own.join("shim.json"),
            serde_json::to_vec(&self.spec).unwrap(),
        )
        .unwrap();
        nix::fcntl::fcntl(
            &write,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .unwrap();
        let status = Command::new(&*RUNTIME)
            .args(["shim", "--dir"])
            .arg(own)
            .args(["--ready-fd", &write.as_raw_fd().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Makes the container.
    pub fn create(self) -> Shim {
        match self.hello() {
            Hello::Created { shim_pid, pid } => {
                let shim = Shim {
                    directory: self.directory,
                    id: self.id,
                    shim_pid,
                    pid,
                };
                if !self.shows_host {
                    let found = host_objects::writable(pid, shim.directory.path());
                    assert_eq!(found, [""; 0], "the container can change");
                }
                shim
            }
            Hello::Failed { message, .. } => panic!("not created: {message}"),
        }
    }

    /// Expects that the container can't be made.
    pub fn fails(&self) -> String {
        match self.hello() {
            Hello::Created { .. } => panic!("was created"),
            Hello::Failed { message, .. } => {
                let cgroup = cgroup_of(&self.id);
                assert!(!cgroup.exists(), "a cgroup is left");
                message
            }
        }
    }

    /// Runs the container to its end, and returns its output and how it ended.
    pub fn run(self) -> (String, Exit) {
        let shim = self.create();
        shim.start();
        let exit = shim.wait();
        (shim.output(), exit)
    }
}

/// Runs a shell script in a container of the usual kind.
pub fn run_script(script: &str) -> (String, Exit) {
    Setup::new(&["sh", "-c", script]).run()
}

/// A connection to a shim.
pub struct Connection(pub UnixStream);

impl Connection {
    pub fn send(&mut self, request: &Request) {
        let mut frame = Vec::new();
        encode(request, &mut frame).unwrap();
        self.0.write_all(&frame).unwrap();
    }

    pub fn receive(&mut self) -> Response {
        let mut decoder = Decoder::new();
        while decoder.missing() > 0 {
            let mut bytes = vec![0; decoder.missing()];
            self.0.read_exact(&mut bytes).unwrap();
            decoder.feed(&bytes);
        }
        decoder.take().unwrap().unwrap()
    }

    pub fn call(&mut self, request: &Request) -> Response {
        self.send(request);
        self.receive()
    }

    /// Reads one frame of an attached stream; `None` at the end.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 8];
        match self.0.read_exact(&mut header) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            other => other.unwrap(),
        }
        let header = stream::StreamHeader::from_bytes(header).unwrap();
        let mut data = vec![0; header.length as usize];
        self.0.read_exact(&mut data).unwrap();
        Some((header.stream.number(), data))
    }

    /// Reads an attached stream to its end: standard output (or terminal) and standard error.
    pub fn read_all(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut error) = (Vec::new(), Vec::new());
        while let Some((stream, data)) = self.frame() {
            match stream {
                1 => out.extend(data),
                2 => error.extend(data),
                other => panic!("stream {other}"),
            }
        }
        (out, error)
    }
}

impl Shim {
    pub fn connect(&self) -> Connection {
        let socket = UnixStream::connect(self.directory.path().join("shim.sock")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        Connection(socket)
    }

    pub fn call(&self, request: &Request) -> Response {
        self.connect().call(request)
    }

    /// Makes an exec session and attaches to its output.
    pub fn session(&self, exec: &str, process: Value) -> Connection {
        let made = self.call(&Request::Exec {
            exec: exec.to_owned(),
            process,
            open_stdin: false,
        });
        assert_eq!(made, Response::Done);
        let mut stream = self.connect();
        let attached = stream.call(&Request::Attach {
            exec: Some(exec.to_owned()),
            stdin: false,
            stdout: true,
            stderr: true,
        });
        assert_eq!(attached, Response::Done);
        stream
    }

    /// Starts an exec session, and returns the process or the reason why there is none.
    pub fn start_session(&self, exec: &str) -> Result<i32, String> {
        let exec = exec.to_owned();
        match self.call(&Request::ExecStart { exec }) {
            Response::Started { pid } => Ok(pid),
            Response::Failed { message, .. } => Err(message),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for an exec session's process, and returns its exit code.
    pub fn session_code(&self, exec: &str) -> i32 {
        let exec = Some(exec.to_owned());
        match self.call(&Request::Wait { exec }) {
            Response::Exited(exit) => exit.code,
            other => panic!("{other:?}"),
        }
    }

    /// Runs an additional process. Returns its output and exit code, or why it was not started.
    pub fn exec(&self, exec: &str, process: Value) -> Result<(String, i32), String> {
        let mut stream = self.session(exec, process);
        self.start_session(exec)?;
        let (mut out, error) = stream.read_all();
        out.extend(error);
        let text = String::from_utf8_lossy(&out).into_owned();
        Ok((text, self.session_code(exec)))
    }

    pub fn start(&self) {
        let response = self.call(&Request::Start);
        assert_eq!(response, Response::Started { pid: self.pid });
    }

    pub fn attach(&self, stdin: bool) -> Connection {
        let mut connection = self.connect();
        let request = Request::Attach {
            exec: None,
            stdin,
            stdout: true,
            stderr: true,
        };
        assert_eq!(connection.call(&request), Response::Done);
        connection
    }

    /// Waits for the exit record, and returns it.
    pub fn wait(&self) -> Exit {
        let path = self.directory.path().join("exit.json");
        eventually("exit.json", || path.exists());
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The output in the log, standard output and standard error together.
    pub fn output(&self) -> String {
        let mut reader = keelson_log::Reader::open(&self.directory.path().join("log")).unwrap();
        let mut output = Vec::new();
        while let keelson_log::Next::Record(record) = reader.next().unwrap() {
            output.extend_from_slice(record.payload);
        }
        String::from_utf8_lossy(&output).into_owned()
    }

    /// The container's cgroup.
    pub fn cgroup(&self) -> PathBuf {
        cgroup_of(&self.id)
    }

    /// Waits until nothing of the shim is left.
    pub fn gone(&self) {
        eventually("end of the shim", || {
            !Path::new(&format!("/proc/{}", self.shim_pid)).exists() || is_zombie(self.shim_pid)
        });
        assert!(!self.cgroup().exists(), "the cgroup is left");
        assert!(!self.directory.path().join("shim.sock").exists());
    }
}

/// Whether a process has ended and waits to be reaped: the init of the test machine may be slow.
pub fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| {
        text.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

impl Drop for Shim {
    fn drop(&mut self) {
        if !is_zombie(self.shim_pid) {
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", self.shim_pid));
            // The number may have been reused by another process meanwhile.
            if comm.is_ok_and(|comm| comm.trim() == "keelson-shim") {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(self.shim_pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        let cgroup = self.cgroup();
        let start = Instant::now();
        while cgroup.exists() && start.elapsed() < Duration::from_secs(2) {
            let _ = std::fs::remove_dir(&cgroup);
            std::thread::sleep(Duration::from_millis(5));
        }
        if !std::thread::panicking() {
            host_objects::assert_unchanged();
        }
    }
}
