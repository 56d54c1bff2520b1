//! A container that another OCI runtime makes. The shim is the same. Where it would use this
//! program's own code, it calls the other runtime's command line, as containerd does.
//!
//! The root file system is mounted in the shim's own mount namespace, and the runtime is called
//! there. So the host never keeps a mount, whatever happens.

mod bundle;
mod call;
mod console;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keelson_shim_protocol::{OtherRuntime, ShimSpec};
use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::files;
use crate::process::channel::Channel;
use crate::process::spawn::Container;
use crate::sandbox::layers::Owner;
use crate::sandbox::namespaces;
use crate::sandbox::root::{self, Propagation};
use crate::spec::Spec;
pub(crate) use call::Call;
pub(crate) use console::Console;

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(50);
/// The same for the deletion, because nobody can wait long for it.
const DELETE_LIMIT: Duration = Duration::from_secs(10);
/// How many ended processes are remembered because a running call may have made them.
const MOST_STRAYS: usize = 1024;

/// The purpose of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Start,
    Pause,
    Resume,
    Update,
    /// It is for the session with this number.
    Exec(u64),
}

/// The runtime of a container, and its calls.
#[derive(Debug)]
pub(crate) struct Foreign {
    runtime: OtherRuntime,
    id: String,
    /// The shim's.
    directory: PathBuf,
    /// Whether it has frozen the container.
    pub(crate) paused: bool,
    calls: BTreeMap<i32, (Purpose, Call)>,
    made: u64,
    /// Where the root file system is mounted.
    root: PathBuf,
    /// Exit codes of unknown processes that ended while calls ran: a call may have made them.
    strays: BTreeMap<i32, i32>,
}

impl Foreign {
    pub(crate) fn new(runtime: OtherRuntime, id: &str, directory: &Path) -> Self {
        Self {
            runtime,
            id: id.to_owned(),
            directory: directory.to_owned(),
            paused: false,
            calls: BTreeMap::new(),
            made: 0,
            root: directory.join("root"),
            strays: BTreeMap::new(),
        }
    }

    /// Makes the container. When that fails, nothing of it is left.
    pub(crate) fn create(
        &mut self,
        spec: &ShimSpec,
        config: &Spec,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Result<Container, Failure> {
        self.mount_root(spec, config)?;
        let made = self.make(spec, config, stdio);
        if made.is_err() {
            self.delete();
        }
        made
    }

    fn make(
        &mut self,
        spec: &ShimSpec,
        config: &Spec,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Result<Container, Failure> {
        let bundle = self.directory.join("other");
        std::fs::create_dir(&bundle).step(|| format!("make {}", bundle.display()))?;
        let given = spec.bundle.join("config.json");
        let bytes = files::read(&given).step(|| format!("read {}", given.display()))?;
        let given: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::invalid(format!("{}: {error}", given.display())))?;
        let rewritten = bundle::rewrite(given, &self.root)?;
        self.write(&bundle.join("config.json"), &rewritten)?;

        let pid_file = self.directory.join("other.pid");
        let console = match stdio {
            Some(_) => None,
            None => Some(Console::listen(&self.directory, "other.sock")?),
        };
        let (mut command, log) = self.command("create");
        command.arg("--bundle").arg(&bundle);
        command.arg("--pid-file").arg(&pid_file);
        self.finish(&mut command, stdio, console.as_ref());
        Call::start(command, "create", log, LIMIT)?.wait()?;

        let pid = read_pid(&pid_file)?;
        let pidfd = Pid::from_raw(pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .step(|| format!("open process {pid}"))?;
        let terminal = console.map(|console| console.terminal()).transpose()?;
        // Nothing is sent over it: the runtime is called instead.
        let (channel, _) = Channel::pair()?;
        let cgroup = config.linux.cgroups_path.as_deref();
        Ok(Container {
            pid,
            pidfd,
            // A cgroup that the runtime made in another hierarchy can't be reached.
            cgroup: cgroup.and_then(|path| Cgroup::open(path).ok()),
            channel,
            terminal,
            shared: None,
        })
    }

    fn mount_root(&mut self, spec: &ShimSpec, config: &Spec) -> Result<(), Failure> {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).step(|| "make a mount namespace")?;
        let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", flags).step(|| "make the host's mounts slaves")?;
        let users = namespaces::plan(config)?.user;
        let owner = users.as_ref().and_then(|it| Owner::new(it, &config.linux));
        let tree = match owner {
            None => {
                let place = &self.root;
                std::fs::create_dir(place).step(|| format!("make {}", place.display()))?;
                root::make(&spec.rootfs, Propagation::parse(None)?, None)?
            }
            Some(owner) => {
                self.root = reachable_place()?;
                // Layers are mapped in a further namespace, where also the container's other files
                // would have other owners.
                let here = open_namespace()?;
                let tree = root::make(&spec.rootfs, Propagation::parse(None)?, Some(owner));
                setns(here, CloneFlags::CLONE_NEWNS).step(|| "return to the mount namespace")?;
                tree?
            }
        };
        root::attach(&tree, &self.root)
    }

    /// Deletes the runtime's state of the container. Remaining processes are killed.
    pub(crate) fn delete(&mut self) {
        let (mut command, log) = self.command("delete");
        command.arg("--force").arg(&self.id);
        // Nobody could receive an error. The runtime's state is in the shim's directory.
        let _ = Call::start(command, "delete", log, DELETE_LIMIT).and_then(Call::wait);
        // Another run of the container mounts the same layers.
        let _ = rustix::mount::unmount(&self.root, UnmountFlags::DETACH);
    }

    /// Calls a command of the runtime that takes only the container's name.
    pub(crate) fn call(&mut self, purpose: Purpose) -> Result<i32, Failure> {
        let what = match purpose {
            Purpose::Start => "start",
            Purpose::Pause => "pause",
            Purpose::Resume => "resume",
            Purpose::Update | Purpose::Exec(_) => {
                return Err(Failure::internal("this call takes more than a name"));
            }
        };
        let (mut command, log) = self.command(what);
        command.arg(&self.id);
        self.note(purpose, Call::start(command, what, log, LIMIT)?)
    }

    /// Changes limits.
    pub(crate) fn update(&mut self, resources: &Value) -> Result<i32, Failure> {
        let path = self.directory.join("other-resources.json");
        self.write(&path, resources)?;
        let (mut command, log) = self.command("update");
        command.arg("--resources").arg(&path).arg(&self.id);
        let call = Call::start(command, "update", log, LIMIT)?;
        self.note(Purpose::Update, call)
    }

    /// Runs an additional process. Returns the call, and the socket for the terminal if no streams
    /// are given.
    pub(crate) fn exec(
        &mut self,
        number: u64,
        process: &Value,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Result<(i32, Option<Console>), Failure> {
        let path = self.directory.join(format!("other-exec-{number}.json"));
        self.write(&path, process)?;
        let console = match stdio {
            Some(_) => None,
            None => Some(Console::listen(
                &self.directory,
                &format!("other-{number}.sock"),
            )?),
        };
        let (mut command, log) = self.command("exec");
        command.arg("--detach").arg("--process").arg(&path);
        command.arg("--pid-file").arg(self.exec_pid_file(number));
        self.finish(&mut command, stdio, console.as_ref());
        let call = Call::start(command, "exec", log, LIMIT)?;
        Ok((self.note(Purpose::Exec(number), call)?, console))
    }

    /// The process that a call made for a session.
    pub(crate) fn exec_pid(&self, number: u64) -> Result<i32, Failure> {
        let (process, pid_file) = (
            self.directory.join(format!("other-exec-{number}.json")),
            self.exec_pid_file(number),
        );
        let pid = read_pid(&pid_file);
        let _ = std::fs::remove_file(process);
        let _ = std::fs::remove_file(pid_file);
        pid
    }

    fn exec_pid_file(&self, number: u64) -> PathBuf {
        self.directory.join(format!("other-exec-{number}.pid"))
    }

    /// A call that has ended, by its process.
    pub(crate) fn take(&mut self, pid: i32) -> Option<(Purpose, Call)> {
        self.calls.remove(&pid)
    }

    /// The call that starts the container, if it is still running.
    pub(crate) fn take_start(&mut self) -> Option<Call> {
        let mut calls = self.calls.iter();
        let found = calls.find(|(_, (purpose, _))| *purpose == Purpose::Start);
        let pid = found.map(|(pid, _)| *pid)?;
        self.take(pid).map(|(_, call)| call)
    }

    /// Remembers the exit code of a process that is not known yet.
    pub(crate) fn note_stray(&mut self, pid: i32, code: i32) {
        if self.makes_processes() && self.strays.len() < MOST_STRAYS {
            self.strays.insert(pid, code);
        }
    }

    /// The exit code of a process that a call made, if it has ended.
    pub(crate) fn claim_stray(&mut self, pid: i32) -> Option<i32> {
        let code = self.strays.remove(&pid);
        if !self.makes_processes() {
            self.strays.clear();
        }
        code
    }

    fn makes_processes(&self) -> bool {
        let mut calls = self.calls.values();
        calls.any(|(purpose, _)| matches!(purpose, Purpose::Exec(_)))
    }

    /// The earliest deadline of the calls.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.calls.values().map(|(_, call)| call.deadline()).min()
    }

    /// Ends calls that take too long.
    pub(crate) fn expire(&mut self) {
        let now = Instant::now();
        for (_, call) in self.calls.values_mut() {
            if call.deadline() <= now {
                call.give_up();
            }
        }
    }

    fn note(&mut self, purpose: Purpose, call: Call) -> Result<i32, Failure> {
        let pid = call.pid();
        self.calls.insert(pid, (purpose, call));
        Ok(pid)
    }

    /// A command of the runtime, and its log.
    fn command(&mut self, what: &str) -> (Command, PathBuf) {
        self.made += 1;
        let log = self.directory.join(format!("other-{}.log", self.made));
        let mut command = call::quiet(&self.runtime.path);
        command
            .args(&self.runtime.arguments)
            .arg("--root")
            .arg(self.directory.join("other-state"))
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json", what])
            .current_dir(&self.directory);
        (command, log)
    }

    /// Adds the streams, or the terminal, and the container's name.
    fn finish(
        &self,
        command: &mut Command,
        stdio: Option<[OwnedFd; 3]>,
        console: Option<&Console>,
    ) {
        if let Some([stdin, stdout, stderr]) = stdio {
            command
                .stdin(Stdio::from(stdin))
                .stdout(Stdio::from(stdout))
                .stderr(Stdio::from(stderr));
        }
        if let Some(console) = console {
            command.arg("--console-socket").arg(console.name());
        }
        command.arg(&self.id);
    }

    fn write(&self, path: &Path, value: &Value) -> Result<(), Failure> {
        let temporary = path.with_extension("new");
        files::replace(path, &temporary, value.to_string().as_bytes(), 0o600)
            .step(|| format!("write {}", path.display()))
    }
}

/// A directory that everybody can reach, as opposed to those of the shim: the runtime opens the root
/// file system as the container's own user. What others have mounted there is hidden only in the
/// shim's mount namespace.
fn reachable_place() -> Result<PathBuf, Failure> {
    const PLACES: [&str; 4] = ["/sys/kernel/debug", "/sys/fs/bpf", "/mnt", "/media"];
    let mut places = PLACES.iter().map(Path::new);
    let place = places.find(|place| place.is_dir()).ok_or_else(|| {
        Failure::internal(format!(
            "no place for the root of a container with a user namespace: none of {} exists",
            PLACES.join(", ")
        ))
    })?;
    Ok(place.to_owned())
}

fn open_namespace() -> Result<OwnedFd, Failure> {
    let path = "/proc/self/ns/mnt";
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).step(|| format!("open {path}"))
}

fn read_pid(path: &Path) -> Result<i32, Failure> {
    let text = files::read(path).step(|| format!("read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let pid = text.trim().parse().ok().filter(|pid: &i32| *pid > 0);
    pid.ok_or_else(|| {
        Failure::internal(format!(
            "{}: {:?} is no process",
            path.display(),
            text.trim()
        ))
    })
}
