//! The engines that are measured, each with directories, sockets and a daemon of its own.
//! README.md says which of them take part in which benchmark.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::group::{Group, ProcessorTime};
use crate::{tools, usage};

mod networked;
mod requests;

pub use requests::Request;

/// How long a daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line that an engine's client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Docker,
    Podman,
    Containerd,
}

/// An engine.
#[derive(Debug)]
pub struct Engine {
    /// Its name in the tables.
    pub name: String,
    dialect: Dialect,
    /// The client with its leading arguments.
    client: Vec<OsString>,
    daemon: Option<Child>,
    /// What started the daemon.
    start: Command,
    group: Group,
    /// Its data directory.
    directory: PathBuf,
    /// Where it listens.
    socket: PathBuf,
}

impl Engine {
    /// Ours, as released, without networks.
    ///
    /// # Errors
    /// It does not start.
    pub fn hostd(name: &str, program: &Path, disk: &Path, run: &Path) -> Result<Self> {
        let mut daemon = Command::new(program);
        // Versions without networks, which this one may be compared with, don't know the option.
        let help = Command::new(program).arg("--help").output()?.stdout;
        if String::from_utf8_lossy(&help).contains("--bridge ") {
            daemon.args(["--bridge", "none"]);
        }
        Self::start_hostd(name, daemon, disk, run)
    }

    fn start_hostd(name: &str, mut daemon: Command, disk: &Path, run: &Path) -> Result<Self> {
        let (directory, run) = directories(name, disk, run)?;
        let socket = run.join("docker.sock");
        daemon
            .arg("--root")
            .arg(&directory)
            .arg("--run")
            .arg(run.join("run"))
            .arg("--listen")
            .arg(url(&socket))
            .arg("--service-layers")
            .arg(run.join("services"))
            .arg("--config")
            .arg(run.join("config"))
            .args(["--cgroup-parent", &group_path(name)]);
        Self::docker(name, daemon, directory, &socket)
    }

    /// Starts Docker, without networks.
    ///
    /// # Errors
    /// It does not start.
    pub fn dockerd(disk: &Path, run: &Path) -> Result<Option<Self>> {
        Self::start_dockerd(disk, run, &["--iptables=false", "--bridge=none"])
    }

    fn start_dockerd(disk: &Path, run: &Path, options: &[&str]) -> Result<Option<Self>> {
        let name = "docker";
        let Some(program) = tools::optional("dockerd", "docker.io") else {
            return Ok(None);
        };
        let (directory, run) = directories(name, disk, run)?;
        let socket = run.join("docker.sock");
        let mut daemon = Command::new(program);
        daemon
            .arg("--data-root")
            .arg(&directory)
            .arg("--exec-root")
            .arg(run.join("exec"))
            .arg("--pidfile")
            .arg(run.join("pid"))
            .arg("--host")
            .arg(url(&socket))
            .args(options)
            .args(["--storage-driver", "overlay2"])
            .args(["--cgroup-parent", &format!("/{}", group_path(name))])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        Self::docker(name, daemon, directory, &socket).map(Some)
    }

    fn docker(name: &str, daemon: Command, directory: PathBuf, socket: &Path) -> Result<Self> {
        let docker = tools::require("docker", "docker-cli (or docker.io)")?;
        let client = vec![docker.into(), "--host".into(), url(socket).into()];
        Self::start(name, Dialect::Docker, client, daemon, directory, socket)
    }

    /// Starts containerd with its own client.
    ///
    /// # Errors
    /// It does not start.
    pub fn containerd(disk: &Path, run: &Path) -> Result<Option<Self>> {
        let name = "containerd";
        let (Some(program), Some(ctr)) = (
            tools::optional("containerd", "containerd"),
            tools::optional("ctr", "containerd"),
        ) else {
            return Ok(None);
        };
        let (directory, run) = directories(name, disk, run)?;
        let socket = run.join("containerd.sock");
        let settings = run.join("config.toml");
        fs::write(
            &settings,
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )?;
        let mut daemon = Command::new(program);
        daemon
            .arg("--config")
            .arg(settings)
            .arg("--root")
            .arg(&directory)
            .arg("--state")
            .arg(run.join("state"))
            .arg("--address")
            .arg(&socket);
        let client = vec![ctr.into(), "--address".into(), socket.clone().into()];
        Self::start(
            name,
            Dialect::Containerd,
            client,
            daemon,
            directory,
            &socket,
        )
        .map(Some)
    }

    /// Prepares Podman, which has no daemon. A sleeping process holds a mount namespace for it. In
    /// that namespace an empty directory hides the machine-wide cache, and there is no cgroup2
    /// mount beside version 1 controllers, because its runtime refuses such hosts.
    ///
    /// # Errors
    /// It does not start.
    pub fn podman(disk: &Path, run: &Path) -> Result<Option<Self>> {
        let name = "podman";
        let Some(podman) = tools::optional("podman", "podman") else {
            return Ok(None);
        };
        let (directory, run) = directories(name, disk, run)?;
        let ready = run.join("ready");
        let cache = directory.join("cache");
        fs::create_dir(&cache)?;
        fs::create_dir_all("/var/lib/containers/cache")?;
        let script = "mount --bind \"$1\" /var/lib/containers/cache && \
                      { umount /sys/fs/cgroup/unified 2>/dev/null || :; } && : > \"$2\" && \
                      exec sleep infinity";
        let mut holder = Command::new(tools::require("unshare", "util-linux")?);
        holder
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(cache)
            .arg(&ready);
        let mut engine = Self::start(name, Dialect::Podman, Vec::new(), holder, directory, &ready)?;
        let namespace = engine.pid().context("no mount namespace is held")?;
        engine.client = vec![
            tools::require("nsenter", "util-linux")?.into(),
            format!("--mount=/proc/{namespace}/ns/mnt").into(),
            podman.into(),
            "--root".into(),
            engine.directory.join("storage").into(),
            "--runroot".into(),
            run.join("storage").into(),
            "--tmpdir".into(),
            run.join("tmp").into(),
            "--storage-driver=overlay".into(),
            "--cgroup-manager=cgroupfs".into(),
            "--events-backend=none".into(),
        ];
        Ok(Some(engine))
    }

    /// Starts a daemon. It is ready when the socket `ready` answers or, if `ready` is no socket,
    /// when it exists.
    fn start(
        name: &str,
        dialect: Dialect,
        client: Vec<OsString>,
        mut daemon: Command,
        directory: PathBuf,
        ready: &Path,
    ) -> Result<Self> {
        let log_path = directory.with_extension("log");
        let log = File::create(&log_path)?;
        let group = Group::new(&group_name(name))?;
        daemon
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = group
            .contain(&mut daemon)?
            .spawn()
            .with_context(|| format!("execute {daemon:?}"))?;
        let mut engine = Self {
            name: name.to_owned(),
            dialect,
            client,
            daemon: Some(child),
            start: daemon,
            group,
            directory,
            socket: ready.to_owned(),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let up = match dialect {
                Dialect::Podman => ready.exists(),
                _ => UnixStream::connect(ready).is_ok(),
            };
            if up {
                return Ok(engine);
            }
            let ended = match &mut engine.daemon {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                bail!("{name} does not start: {log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The socket of its daemon.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Processor time so far of everything that the engine has started, containers included.
    ///
    /// # Errors
    /// Its cgroup is gone.
    pub fn processor_time(&self) -> Result<ProcessorTime> {
        self.group.processor_time()
    }

    /// Kills the daemon and starts it again; returns when it is executed.
    ///
    /// # Errors
    /// It has none, or can't be executed.
    pub fn restart(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("there is no daemon")?;
        daemon.kill()?;
        daemon.wait()?;
        self.daemon = Some(self.start.spawn().context("execute the daemon again")?);
        Ok(())
    }

    /// Its processes whose program has one of these names, containers included.
    ///
    /// # Errors
    /// Its cgroup is gone.
    pub fn programs(&self, names: &[&str]) -> Result<Vec<i32>> {
        let mut processes = self.group.processes()?;
        // Not by the kernel's name of it: shims are executed by the number of a descriptor.
        processes.retain(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let program = String::from_utf8_lossy(program);
            let name = program.rsplit('/').next().unwrap_or_default();
            names.contains(&name)
        });
        Ok(processes)
    }

    /// Proportional memory of such processes, in bytes.
    ///
    /// # Errors
    /// Its cgroup is gone.
    pub fn memory(&self, names: &[&str]) -> Result<u64> {
        let memory = self.programs(names)?.into_iter();
        // One may have ended meanwhile.
        Ok(memory.flat_map(usage::proportional_memory).sum())
    }

    /// Its daemon, when it has one.
    fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM);
            let deadline = Instant::now() + PATIENCE;
            while !matches!(daemon.try_wait(), Ok(Some(_)) | Err(_)) {
                if Instant::now() > deadline || self.dialect == Dialect::Podman {
                    let _ = daemon.kill();
                    let _ = daemon.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn group_name(engine: &str) -> String {
    format!("keelson-engine-{engine}")
}

/// The path of an engine's cgroup, in which its containers have theirs.
fn group_path(engine: &str) -> String {
    format!("{}-{}", group_name(engine), std::process::id())
}

/// The engine's directories for data and for sockets.
fn directories(name: &str, disk: &Path, run: &Path) -> Result<(PathBuf, PathBuf)> {
    let (data, run) = (disk.join(name), run.join(name));
    fs::create_dir_all(&data)?;
    fs::create_dir_all(&run)?;
    Ok((data, run))
}

fn url(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}
