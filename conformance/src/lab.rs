//! The environment of one case: its own bundle and state directory. At the end, everything that the
//! case or the runtime left is removed.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use keelson_testing::CAPABILITIES;
use serde_json::{Value, json};

use crate::command::{self, Ended};
use crate::host;
use crate::inside;
use crate::runtime::{Runtime, UNIFIED};
use crate::verdict::Skip;

mod container;

pub(crate) use container::Container;

/// The programs of busybox that inspect a container from inside.
const APPLETS: &[&str] = &[
    "[",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "dnsdomainname",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "ionice",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mknod",
    "mount",
    "mountpoint",
    "mv",
    "nice",
    "od",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "sysctl",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "unshare",
    "wc",
];

/// The environment of one case.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) runtime: Runtime,
    directory: tempfile::TempDir,
    /// Unique on this machine.
    name: String,
    /// The identifiers that `next_id` returned.
    ids: RefCell<Vec<String>>,
    count: Cell<usize>,
    /// Whether a container did something that only a real runtime can make it do.
    witnessed: Cell<bool>,
}

impl Lab {
    pub(crate) fn new(runtime: &Runtime) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::Builder::new()
            .prefix("conformance-")
            .tempdir()
            .context("make a temporary directory")?;
        let lab = Self {
            runtime: runtime.clone(),
            directory,
            name: format!("case-{}-{number}-", std::process::id()),
            ids: RefCell::default(),
            count: Cell::new(0),
            witnessed: Cell::new(false),
        };
        make_root(&lab.rootfs()).context("make a root file system")?;
        Ok(lab)
    }

    /// The bundle for [`Lab::create`] and [`Lab::run`].
    pub(crate) fn bundle(&self) -> PathBuf {
        self.directory.path().join("bundle")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// A path outside the bundle, removed with the case.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the runtime keeps its state.
    pub(crate) fn state_directory(&self) -> PathBuf {
        self.path("state")
    }

    /// An identifier for a container, killed and deleted at the end.
    pub(crate) fn next_id(&self) -> String {
        let number = self.count.get();
        self.count.set(number + 1);
        let id = format!("{}{number}", self.name);
        self.ids.borrow_mut().push(id.clone());
        id
    }

    /// The cgroup path that [`Lab::config`] asks for.
    pub(crate) fn cgroup(&self) -> String {
        format!("/{}/{}", host::cgroup_parent(), self.name)
    }

    /// A configuration like that of `runc spec`, for a process that does nothing.
    pub(crate) fn config(&self) -> Value {
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": ["true"],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {
                    "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES
                }
            },
            "root": {"path": "rootfs"},
            "hostname": "conformance",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
            ],
            "linux": {
                "cgroupsPath": self.cgroup(),
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": [
                    {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
                ]
            }
        });
        if inside::is_inside() {
            // As in engines of ordinary users, which own no cgroup.
            config["linux"]["cgroupsPath"] = Value::Null;
        }
        config
    }

    /// Asks for a cgroup other than that of [`Lab::config`], if the machine allows one.
    pub(crate) fn place(&self, config: &mut Value, name: &str) {
        config["linux"]["cgroupsPath"] = match inside::is_inside() {
            true => Value::Null,
            false => json!(format!("{}{name}", self.cgroup())),
        };
    }

    /// Writes the changed configuration into the bundle.
    pub(crate) fn write_config(&self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let mut config = self.config();
        edit(&mut config);
        if inside::is_inside() {
            inside::bind_what_cannot_be_mounted(&mut config);
        }
        std::fs::write(self.bundle().join("config.json"), format!("{config:#}"))
            .context("write config.json")
    }

    /// A call of the runtime with the case's state directory.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.runtime.command()?;
        command
            .arg("--root")
            .arg(self.state_directory())
            .args(arguments)
            .current_dir(self.bundle());
        Ok(command)
    }

    /// Calls the runtime.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Ended> {
        command::run(&mut self.command(arguments)?)
    }

    /// Runs a container to its end by `run`.
    pub(crate) fn run(&self, edit: impl FnOnce(&mut Value)) -> Result<Ended> {
        self.write_config(edit)?;
        self.call(&["run", &self.next_id()])
    }

    /// Runs a shell script in a container of the changed configuration, and returns its output.
    pub(crate) fn script(&self, script: &str, edit: impl FnOnce(&mut Value)) -> Result<String> {
        // Printed first, so that the rest is known to come from the script.
        let word = &self.name;
        let text = self
            .run(|config| {
                config["process"]["args"] = json!(["sh", "-c", format!("echo {word}; {script}")]);
                edit(config);
            })?
            .output()?;
        Ok(match text.strip_prefix(word.as_str()) {
            Some(rest) => {
                self.witness();
                rest.trim_start_matches(['\r', '\n']).to_owned()
            }
            None => text,
        })
    }

    /// Expects that a container can't be created, or can't be started: the specification leaves
    /// open which operation finds an error. Returns the message. [`Lab::prove`] requires that the
    /// container runs without the edit.
    pub(crate) fn refuses(&self, edit: impl FnOnce(&mut Value)) -> Result<String> {
        self.write_config(edit)?;
        let container = self.created()?;
        let ended = match container.created_by {
            Err(ended) => ended,
            Ok(()) => self.call(&["start", &container.id])?,
        };
        ensure!(
            !ended.status.success(),
            "the container was created and started, it must be refused"
        );
        // A failure without a message does not help the caller.
        let said = !ended.stderr.trim().is_empty();
        let message = ended.failure()?;
        ensure!(said, "it is refused without a word");
        Ok(message)
    }

    /// Like [`Lab::refuses`], for settings that are wrong only in combination: with the first edit
    /// alone the container runs, with both it is refused.
    pub(crate) fn refuses_within(
        &self,
        setting: impl Fn(&mut Value),
        wrong: impl FnOnce(&mut Value),
    ) -> Result<String> {
        let text = self
            .script("echo runs", &setting)
            .context("without what is wrong")?;
        same("without what is wrong", &text, "runs")?;
        self.refuses(|config| {
            setting(config);
            wrong(config);
        })
    }

    /// Expects a call to report that there is no such container.
    pub(crate) fn knows_none(&self, arguments: &[&str]) -> Result<()> {
        let message = self.call(arguments)?.failure()?;
        let words = ["not exist", "No such file", "not found"];
        ensure!(
            words.iter().any(|word| message.contains(word)),
            "the message does not say that the container does not exist: {message:?}"
        );
        Ok(())
    }

    /// Records that a container did something that only a real runtime can make it do.
    pub(crate) fn witness(&self) {
        self.witnessed.set(true);
    }

    /// If the runtime has not proved yet, in this case, that it works, requires that it runs the
    /// base configuration. Otherwise a program that always fails would pass cases that expect an
    /// error, and a program that always succeeds would pass cases that check no effect.
    pub(crate) fn prove(&self) -> Result<()> {
        if self.witnessed.get() {
            return Ok(());
        }
        let plain = Self::new(&self.runtime)?;
        let word = plain.name.as_str();
        let text = plain
            .script(&format!("echo {word}"), |_| {})
            .context("an ordinary container does not run either")?;
        same("output of an ordinary container", &text, word)
    }

    /// Calls `create` with the bundle's configuration, and accepts any result.
    fn created(&self) -> Result<Attempt> {
        let id = self.next_id();
        let out = self.path(&format!("{id}.out"));
        let file = std::fs::File::create(&out)?;
        let mut command = self.command(&["create", &id])?;
        let mut stderr = tempfile::tempfile()?;
        command.stdout(file).stderr(stderr.try_clone()?);
        let status = command::wait(&mut command.spawn()?).context("create")?;
        let mut text = String::new();
        std::io::Seek::rewind(&mut stderr)?;
        std::io::Read::read_to_string(&mut stderr, &mut text)?;
        let created_by = match status.success() {
            true => Ok(()),
            false => Err(Ended {
                status,
                stdout: String::new(),
                stderr: text,
            }),
        };
        Ok(Attempt { id, created_by })
    }

    /// Creates a container of the changed configuration.
    pub(crate) fn create(&self, edit: impl FnOnce(&mut Value)) -> Result<Container<'_>> {
        self.write_config(edit)?;
        let attempt = self.created()?;
        match attempt.created_by {
            Ok(()) => Ok(Container {
                lab: self,
                id: attempt.id,
            }),
            Err(ended) => bail!("create: {ended}"),
        }
    }

    /// Creates and starts a container that runs a shell script.
    pub(crate) fn start(
        &self,
        script: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Container<'_>> {
        let container = self.create(|config| {
            config["process"]["args"] = json!(["sh", "-c", script]);
            edit(config);
        })?;
        container.start()?;
        Ok(container)
    }

    /// A running container that waits to be killed.
    pub(crate) fn idle(&self) -> Result<Container<'_>> {
        self.start("echo ready; exec sleep 1000", |_| {})
            .and_then(|container| {
                container.says("ready")?;
                Ok(container)
            })
    }

    fn clean_up(&self) {
        for id in self.ids.borrow().iter() {
            let known = self.state_directory().join(id).exists();
            if known && let Err(error) = self.call(&["delete", "--force", id]) {
                eprintln!("{}: delete --force: {error:#}", self.runtime.name);
            }
        }
        host::kill_inside(self.directory.path());
        host::remove_cgroups(&self.name);
        host::unmount_below(self.directory.path());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.clean_up();
    }
}

/// A call of `create`.
struct Attempt {
    id: String,
    created_by: Result<(), Ended>,
}

/// Finds the path for calling a program.
pub(crate) fn detect(path: &Path) -> Result<Runtime> {
    let mut runtime = Runtime::new(path)?;
    if Path::new(UNIFIED).join("cgroup.procs").exists() {
        let trial = Lab::new(&runtime)?.run(|_| {})?;
        runtime.hides_unified = trial.stderr.contains("hybrid mode not supported");
    }
    Ok(runtime)
}

/// Ends a case that can't be tested on this machine.
pub(crate) fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Skip(reason.into()).into())
}

/// Requires that two texts are the same.
pub(crate) fn same(what: &str, found: &str, wanted: &str) -> Result<()> {
    ensure!(found == wanted, "{what}: {found:?}, not {wanted:?}");
    Ok(())
}

/// Requires that a text contains another.
pub(crate) fn contains(what: &str, text: &str, wanted: &str) -> Result<()> {
    ensure!(text.contains(wanted), "{what}: no {wanted:?} in {text:?}");
    Ok(())
}

/// Adds to a list of the configuration, which need not exist.
pub(crate) fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

fn make_root(directory: &Path) -> Result<()> {
    let bin = directory.join("bin");
    std::fs::create_dir_all(&bin)?;
    keelson_testing::busybox::install(&bin.join("busybox"))?;
    for applet in APPLETS {
        symlink("busybox", bin.join(applet))?;
    }
    for name in ["proc", "sys", "dev", "tmp", "etc"] {
        std::fs::create_dir(directory.join(name))?;
    }
    std::fs::write(
        directory.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )?;
    std::fs::write(directory.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
    Ok(())
}
