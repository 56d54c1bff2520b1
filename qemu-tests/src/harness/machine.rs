//! A running virtual machine.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use super::arguments::{self, Plan};
use super::child::Process;
use super::console::{Console, Line, NoLine};
use super::error::HarnessError;
use super::http::{HttpError, HttpResponse};
use super::prepare::{
    SOCKET_LIMIT, cannot_start, choose_ports, command, connect_now, establish, firmware,
    hold_silence, prepare_disks, qemu_messages, write_items,
};
use super::process::{CommandOutput, docker_command, run, wait_readable};
use super::provision::{ClientKey, Credentials, MAX_LINE, Provisioned};
use super::qmp::Qmp;
use super::spec::{API_PORT, Accel, Forward, MachineSpec, Network};
use super::state::{self, MachineState, start_time};
use super::tls::{Identity, request};

/// How many lines of the console a message shows.
const TAIL: usize = 40;
/// How often other ports are tried if another process has taken the chosen ones.
const PORT_ATTEMPTS: u32 = 5;

/// A virtual machine that was started. Dropping it ends QEMU.
#[derive(Debug)]
pub struct Machine {
    name: String,
    dir: PathBuf,
    /// Kept for its `Drop`.
    _temporary: Option<TempDir>,
    /// Receives the frames of a silent network; kept so that sending never fails.
    _silence: Option<UdpSocket>,
    process: Arc<Process>,
    console: Console,
    /// A second handle of the console's connection, to end the reader with.
    console_stream: UnixStream,
    provision_stream: Option<UnixStream>,
    key: Option<ClientKey>,
    credentials: Mutex<Option<Credentials>>,
    forwards: Vec<Forward>,
    start: Instant,
    started_at: SystemTime,
    kvm: bool,
    detached: bool,
    report: bool,
}

impl MachineSpec {
    /// Starts QEMU.
    ///
    /// # Errors
    /// A requirement is missing, or QEMU ends at once; its messages are in the error.
    pub fn launch(self) -> Result<Machine, HarnessError> {
        Machine::launch(self)
    }
}

impl Machine {
    fn launch(spec: MachineSpec) -> Result<Self, HarnessError> {
        let (dir, temporary) = match &spec.dir {
            Some(dir) => {
                fs::create_dir_all(dir).map_err(HarnessError::io("create", dir))?;
                (dir.clone(), None)
            }
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("keelson-vm-")
                    .tempdir()
                    .map_err(HarnessError::io(
                        "create directory in",
                        &std::env::temp_dir(),
                    ))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let dir = fs::canonicalize(&dir).map_err(HarnessError::io("resolve", &dir))?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700))
            .map_err(HarnessError::io("restrict", &dir))?;
        for stale in [
            arguments::QMP_SOCKET,
            arguments::CONSOLE_SOCKET,
            arguments::PROVISION_SOCKET,
            arguments::CONSOLE_LOG,
        ] {
            fs::remove_file(dir.join(stale)).ok();
        }
        let key = match spec.provision {
            true => Some(ClientKey::generate("keelson test client")?),
            false => None,
        };
        let kvm = match spec.accel {
            Accel::Auto => keelson_sys::kvm::usable(),
            Accel::Kvm => true,
            Accel::Tcg => false,
        };
        let (silence, silent_port) = match spec.network {
            Network::Silent => hold_silence()?,
            Network::User | Network::None => (None, 0),
        };
        let mut plan = Plan {
            silence: silent_port,
            kvm,
            cpus: spec.cpus.unwrap_or(if kvm { 2 } else { 1 }),
            firmware: firmware(&spec.boot, &dir)?,
            disks: prepare_disks(&spec, &dir)?,
            forwards: Vec::new(),
            fw_cfg: write_items(&spec, key.as_ref(), &dir)?,
        };
        let mut attempt = 1;
        let (process, forwards, start, started_at, console_stream) = loop {
            let forwards = choose_ports(&spec)?;
            plan.forwards.clone_from(&forwards);
            let command = command(&spec, &plan, &dir)?;
            let start = Instant::now();
            let started_at = SystemTime::now();
            let process = Process::spawn(command).map_err(cannot_start)?;
            match establish(&dir, &process) {
                Ok(stream) => break (process, forwards, start, started_at, stream),
                Err(problem) => {
                    process.kill();
                    process.wait(SOCKET_LIMIT);
                    let messages = qemu_messages(&dir);
                    let taken = messages.contains("host forwarding rule");
                    let chosen = spec.forwards.iter().all(|f| f.host == 0);
                    if taken && chosen && attempt < PORT_ATTEMPTS {
                        attempt += 1;
                        continue;
                    }
                    return Err(HarnessError::Ended {
                        machine: spec.name,
                        status: problem,
                        awaited: "its start".to_owned(),
                        details: messages,
                    });
                }
            }
        };
        let provision_stream = match spec.provision {
            true => Some(connect_now(&dir, arguments::PROVISION_SOCKET)?),
            false => None,
        };
        let console = Console::new();
        let reader = console_stream
            .try_clone()
            .map_err(HarnessError::io("clone console of", &dir))?;
        let follower = console.clone();
        std::thread::spawn(move || follower.follow(reader, start));
        Ok(Self {
            name: spec.name,
            dir,
            _temporary: temporary,
            _silence: silence,
            process,
            console,
            console_stream,
            provision_stream,
            key,
            credentials: Mutex::new(None),
            forwards,
            start,
            started_at,
            kvm,
            detached: false,
            report: spec.report,
        })
    }

    /// The machine's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory with sockets, logs and credentials.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// QEMU's process identifier.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Whether hardware virtualisation is used.
    #[must_use]
    pub fn uses_kvm(&self) -> bool {
        self.kvm
    }

    /// Time since QEMU was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What the console has shown.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The console's log file; QEMU writes it even while no client is connected.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.dir.join(arguments::CONSOLE_LOG)
    }

    /// All forwards, with the ports that were chosen.
    #[must_use]
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// The port on 127.0.0.1 that leads to the machine's port `guest`.
    ///
    /// # Errors
    /// No forward leads there.
    pub fn port(&self, guest: u16) -> Result<u16, HarnessError> {
        self.forwards
            .iter()
            .find(|forward| forward.guest == guest)
            .map(|forward| forward.host)
            .ok_or_else(|| HarnessError::Missing {
                object: format!("machine {}: forward to port {guest}", self.name),
                remedy: "add it to the machine's specification".to_owned(),
            })
    }

    /// The port on 127.0.0.1 that leads to the APIs.
    ///
    /// # Errors
    /// The machine has no user network.
    pub fn api_port(&self) -> Result<u16, HarnessError> {
        self.port(API_PORT)
    }

    /// QEMU's messages and the end of the console.
    #[must_use]
    pub fn details(&self) -> String {
        format!("{}{}", qemu_messages(&self.dir), self.console.tail(TAIL))
    }

    fn timeout(&self, awaited: &str, limit: Duration) -> HarnessError {
        HarnessError::Timeout {
            machine: self.name.clone(),
            awaited: awaited.to_owned(),
            limit,
            details: self.details(),
        }
    }

    fn ended(&self, awaited: &str) -> HarnessError {
        let status = self.process.wait(Duration::from_secs(5));
        HarnessError::Ended {
            machine: self.name.clone(),
            status: status.map_or_else(
                || "console closed".to_owned(),
                |(status, _)| status.to_string(),
            ),
            awaited: awaited.to_owned(),
            details: self.details(),
        }
    }

    /// Waits for a console line that contains `text`; lines shown earlier count.
    ///
    /// # Errors
    /// The deadline passes, or QEMU ends first.
    pub fn wait_for_console(&self, text: &str, limit: Duration) -> Result<Line, HarnessError> {
        let awaited = format!("console line with {text:?}");
        self.wait_for_line(&awaited, |line| line.contains(text), limit)
    }

    /// Waits for a console line that `matches`. `awaited` names it in messages.
    ///
    /// # Errors
    /// The deadline passes, or QEMU ends first.
    pub fn wait_for_line(
        &self,
        awaited: &str,
        matches: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> Result<Line, HarnessError> {
        self.console
            .wait(matches, limit)
            .map_err(|reason| match reason {
                NoLine::Deadline => self.timeout(awaited, limit),
                NoLine::Closed => self.ended(awaited),
            })
    }

    /// Waits until QEMU has ended. Returns its exit status, and the time since it was started.
    ///
    /// # Errors
    /// The deadline passes.
    pub fn wait_for_exit(&self, limit: Duration) -> Result<(ExitStatus, Duration), HarnessError> {
        self.process
            .wait(limit)
            .map(|(status, at)| (status, at.saturating_duration_since(self.start)))
            .ok_or_else(|| self.timeout("end of QEMU", limit))
    }

    /// Whether QEMU still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.status().is_none()
    }

    /// Ends QEMU at once, as if the power failed, and waits until it is gone.
    pub fn kill(&self) {
        self.process.kill();
        self.process.wait(Duration::from_secs(30));
    }

    /// A connection to QEMU's monitor. QEMU serves one at a time.
    ///
    /// # Errors
    /// QEMU has ended or does not answer.
    pub fn qmp(&self) -> Result<Qmp, HarnessError> {
        let stream = connect_now(&self.dir, arguments::QMP_SOCKET)?;
        Qmp::new(stream).map_err(|source| HarnessError::Qmp {
            machine: self.name.clone(),
            source,
        })
    }

    /// Waits for the machine's certificates and writes `ca.pem`, `cert.pem` and `key.pem` to
    /// `certs` in the machine's directory. Later calls return the same.
    ///
    /// # Errors
    /// The deadline passes, QEMU ends, or the machine hands out something else.
    pub fn provision(&self, limit: Duration) -> Result<Credentials, HarnessError> {
        let awaited = "line on the provisioning port";
        let mut known = self
            .credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(credentials) = known.as_ref() {
            return Ok(credentials.clone());
        }
        let (Some(stream), Some(key)) = (&self.provision_stream, &self.key) else {
            return Err(HarnessError::Provision(format!(
                "machine {} was started without a provisioning port",
                self.name
            )));
        };
        let deadline = Instant::now() + limit;
        let mut line = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !wait_readable(stream, left) {
                return Err(self.timeout(awaited, limit));
            }
            let mut buffer = [0; 4096];
            let mut stream: &UnixStream = stream;
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => line.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                _ => return Err(self.ended(awaited)),
            }
            if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let provisioned = Provisioned::parse(line.get(..end).unwrap_or_default())?;
                let credentials = key.save(&self.dir.join("certs"), &provisioned)?;
                return Ok(known.insert(credentials).clone());
            }
            if line.len() > MAX_LINE {
                return Err(HarnessError::Provision(format!(
                    "machine {} sent more than {MAX_LINE} bytes without an end of line",
                    self.name
                )));
            }
        }
    }

    /// Waits until `GET /_ping` answers 200 over mutual TLS. Returns the time since QEMU was
    /// started.
    ///
    /// # Errors
    /// The deadline passes or QEMU ends.
    pub fn wait_api(&self, limit: Duration) -> Result<Duration, HarnessError> {
        let deadline = Instant::now() + limit;
        let credentials = self.provision(limit)?;
        // A connection made before the machine has its address hangs until QEMU's network repeats
        // its first packet, seconds later. A new connection succeeds earlier.
        let mut patience = Duration::from_millis(500);
        loop {
            let identity = Identity::Certificate(&credentials);
            let answer = self.request(identity, "GET", "/_ping", None, patience);
            patience = (patience * 3 / 2).min(Duration::from_secs(20));
            let problem = match answer {
                Ok(response) if response.status == 200 => return Ok(self.elapsed()),
                Ok(response) => format!("status {}", response.status),
                Err(error) => error.to_string(),
            };
            if !self.is_running() {
                return Err(self.ended("answer of the API"));
            }
            if Instant::now() >= deadline {
                return Err(self.timeout(&format!("answer of the API ({problem})"), limit));
            }
            // No event reports that a server has begun to listen.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One API call with the client certificate.
    ///
    /// # Errors
    /// No provisioning yet, or no answer.
    pub fn api(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<HttpResponse, HarnessError> {
        let credentials = self.provision(Duration::ZERO)?;
        let limit = Duration::from_secs(60);
        self.request(
            Identity::Certificate(&credentials),
            method,
            path,
            body,
            limit,
        )
    }

    /// One API call with other credentials, or with another limit.
    ///
    /// # Errors
    /// No answer.
    pub fn request(
        &self,
        identity: Identity<'_>,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
        limit: Duration,
    ) -> Result<HttpResponse, HarnessError> {
        let port = self.api_port()?;
        request(identity, port, method, path, body, limit).map_err(|source: HttpError| {
            HarnessError::Http {
                method: method.to_owned(),
                path: path.to_owned(),
                source,
            }
        })
    }

    /// Runs the docker command against the machine, for at most three minutes.
    ///
    /// # Errors
    /// It can't be started or takes longer; a bad exit code is in the output.
    pub fn docker(&self, arguments: &[&str]) -> Result<CommandOutput, HarnessError> {
        self.docker_with(arguments, None, Duration::from_secs(180))
    }

    /// Runs the docker command with `input` as its standard input.
    ///
    /// # Errors
    /// It can't be started or takes longer than `limit`.
    pub fn docker_with(
        &self,
        arguments: &[&str],
        input: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<CommandOutput, HarnessError> {
        let mut command = self.docker_command()?;
        run(command.args(arguments), input, limit)
    }

    /// The docker command, set up for this machine.
    ///
    /// # Errors
    /// The machine gave no certificate yet.
    pub fn docker_command(&self) -> Result<Command, HarnessError> {
        let credentials = self.provision(Duration::ZERO)?;
        Ok(docker_command(&credentials, self.api_port()?))
    }

    /// Leaves QEMU running, and writes to `state_file` what another process needs to find it. The
    /// machine must have been made with [`MachineSpec::outlives`] and a directory of its own.
    ///
    /// # Errors
    /// QEMU has ended, or the file can't be written; the machine is ended then.
    pub fn detach(mut self, state_file: &Path) -> Result<MachineState, HarnessError> {
        let Some(start_time) = start_time(self.process.pid).filter(|_| self.is_running()) else {
            return Err(self.ended("leaving the machine alone"));
        };
        let state = MachineState {
            version: state::VERSION,
            name: self.name.clone(),
            pid: self.process.pid,
            start_time,
            dir: self.dir.clone(),
            qmp_socket: self.dir.join(arguments::QMP_SOCKET),
            console_socket: self.dir.join(arguments::CONSOLE_SOCKET),
            console_log: self.console_log(),
            credentials: self
                .credentials
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map(|credentials| credentials.dir.clone()),
            forwards: self.forwards.clone(),
            started_at: self
                .started_at
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        state.write(state_file)?;
        self.detached = true;
        Ok(state)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.detached {
            // Lets another client connect to the console.
            self.console_stream.shutdown(std::net::Shutdown::Both).ok();
            return;
        }
        if self.report || std::thread::panicking() {
            // Not eprintln!: it panics when nobody reads, which during a panic would abort the
            // process and leave QEMU behind.
            let _ = writeln!(
                std::io::stderr(),
                "machine {}: {}",
                self.name,
                self.details()
            );
        }
        self.kill();
    }
}
