//! cgroup v2: a container's cgroup is made, limited, watched, frozen, killed and removed here.
//!
//! On a hybrid host (version 1 controllers beside a bare cgroup2 mount) all of it works except
//! limits, whose controllers are not there: asking for one is an error that names it.

pub(crate) mod devices;
pub(crate) mod resources;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keelson_sys::clone;
use nix::poll::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use crate::failure::{Failure, Step};
use crate::files;
use crate::spec::Resources;
use resources::{Setting, Variant};

const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Longest wait for processes to be frozen or to go on.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for killed processes to leave a cgroup.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A cgroup of version 2, opened.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    folder: OwnedFd,
}

/// Where cgroup2 is mounted on this machine.
pub(crate) fn mount_point() -> Option<PathBuf> {
    static FOUND: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    FOUND.get_or_init(find_mount_point).clone()
}

/// Whether there is a cgroup of this path.
pub(crate) fn exists(path: &str) -> Result<bool, Failure> {
    Ok(folder_of(path)?.is_dir())
}

/// Whether version 2 is the machine's only hierarchy.
pub(crate) fn is_unified() -> bool {
    mount_point().is_some_and(|path| path == Path::new("/sys/fs/cgroup"))
}

fn find_mount_point() -> Option<PathBuf> {
    let usual = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    for path in usual {
        if let Ok(status) = rustix::fs::statfs(path)
            && status.f_type as u64 == CGROUP2_MAGIC
        {
            return Some(PathBuf::from(path));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (fields, tail) = line.split_once(" - ")?;
        tail.starts_with("cgroup2 ")
            .then(|| fields.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The folder of a cgroup path, which is taken relative to the mount and may not leave it.
pub(crate) fn folder_of(path: &str) -> Result<PathBuf, Failure> {
    if path.contains(':') && !path.starts_with('/') {
        return Err(Failure::unsupported(format!(
            "linux.cgroupsPath {path:?}: the systemd cgroup driver is not supported"
        )));
    }
    let mut folder = mount_point()
        .ok_or_else(|| Failure::internal("no cgroup2 file system is mounted on this machine"))?;
    for part in Path::new(path).components() {
        match part {
            std::path::Component::Normal(name) => folder.push(name),
            std::path::Component::RootDir | std::path::Component::CurDir => {}
            _ => {
                return Err(Failure::invalid(format!(
                    "linux.cgroupsPath {path:?} must not contain \"..\""
                )));
            }
        }
    }
    Ok(folder)
}

impl Cgroup {
    /// Makes a cgroup with the folders above it, or opens it when it exists.
    pub(crate) fn create(path: &str) -> Result<Self, Failure> {
        let folder = folder_of(path)?;
        match std::fs::create_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(&folder)
                    .step(|| format!("create cgroup {}", folder.display()))?
            }
            Err(error) => {
                return Err(error).step(|| format!("create cgroup {}", folder.display()));
            }
        }
        Self::open_folder(folder)
    }

    /// Opens an existing cgroup.
    pub(crate) fn open(path: &str) -> Result<Self, Failure> {
        Self::open_folder(folder_of(path)?)
    }

    fn open_folder(path: PathBuf) -> Result<Self, Failure> {
        let folder = rustix::fs::open(
            &path,
            OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY,
            Mode::empty(),
        )
        .step(|| format!("open cgroup {}", path.display()))?;
        Ok(Self { path, folder })
    }

    /// The folder, for CLONE_INTO_CGROUP.
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Moves a process into the cgroup.
    pub(crate) fn add(&self, pid: i32) -> Result<(), Failure> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Gives the cgroup to a user, as far as the kernel says that it may be given away: limits stay
    /// the host's.
    pub(crate) fn delegate(&self, owner: u32) -> Result<(), Failure> {
        const USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let listed = listed.unwrap_or_else(|_| USUAL.to_owned());
        let files = listed.lines().filter(|name| !name.contains('/'));
        for name in std::iter::once(".").chain(files) {
            match std::os::unix::fs::chown(self.path.join(name), Some(owner), None) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other
                    .step(|| format!("give {} to user {owner}", self.path.join(name).display()))?,
            }
        }
        Ok(())
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Failure> {
        let path = self.path.join(file);
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .step(|| format!("write {value:?} to {}", path.display()))
    }

    /// A file's text.
    pub(crate) fn read(&self, file: &str) -> Result<String, Failure> {
        let path = self.path.join(file);
        let bytes = files::read(&path).step(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Changes limits. Unlike with a new cgroup, -1 takes a limit away.
    pub(crate) fn update(&self, resources: &Resources) -> Result<(), Failure> {
        if !resources.devices.is_empty() {
            return Err(Failure::unsupported(
                "linux.resources.devices: the device filter of a container can't be changed",
            ));
        }
        self.check_memory(resources)?;
        let mut settings = resources::plan(resources)?;
        settings.extend(resources::lifted(resources));
        self.enable_controllers(&settings)?;
        self.write_settings(&settings)
    }

    /// With `memory.checkBeforeUpdate`, refuses a limit that the kernel would kill for.
    fn check_memory(&self, resources: &Resources) -> Result<(), Failure> {
        let memory = resources.memory.as_ref();
        let limit = memory
            .filter(|memory| memory.check_before_update)
            .and_then(|memory| memory.limit)
            .and_then(|limit| u64::try_from(limit).ok());
        let usage = match limit {
            Some(_) => self.read("memory.current").ok(),
            None => None,
        };
        let usage = usage.and_then(|text| text.trim().parse::<u64>().ok());
        match (limit, usage) {
            (Some(limit), Some(usage)) if limit < usage => Err(Failure::conflict(format!(
                "linux.resources.memory.limit: {limit} is less than the {usage} bytes in use"
            ))),
            _ => Ok(()),
        }
    }

    fn write_settings(&self, settings: &[Setting]) -> Result<(), Failure> {
        for setting in settings {
            self.write_setting(setting).map_err(|failure| Failure {
                message: format!("{}: {}", setting.member, failure.message),
                ..failure
            })?;
        }
        Ok(())
    }

    fn write_setting(&self, setting: &Setting) -> Result<(), Failure> {
        let exists = |file: &str| self.path.join(file).exists();
        match &setting.variant {
            Some(Variant::Instead(file, value)) if exists(file) => return self.write(file, value),
            Some(Variant::Beside(file)) if exists(file) => self.write(file, &setting.value)?,
            Some(Variant::IfThere) if !exists(&setting.file) => return Ok(()),
            _ => {}
        }
        self.write(&setting.file, &setting.value)
    }

    /// Applies limits, all but the device filter. Every limit is applied or the call fails.
    pub(crate) fn limit(&self, resources: &Resources) -> Result<(), Failure> {
        let mut settings = resources::plan(resources)?;
        settings.retain(|setting| !setting.is_usual() || machine_has(&setting.controller));
        self.enable_controllers(&settings)?;
        self.write_settings(&settings)
    }

    /// Applies the device filter. It may come after the processes: it decides when a device is
    /// opened.
    pub(crate) fn filter_devices(&self, resources: &Resources) -> Result<(), Failure> {
        if !resources.devices.is_empty() {
            devices::attach(self.folder(), &resources.devices)?;
        }
        Ok(())
    }

    /// Makes the controllers that settings need available here, from the root downwards.
    fn enable_controllers(&self, settings: &[Setting]) -> Result<(), Failure> {
        let root = mount_point().unwrap_or_default();
        let mut seen = BTreeSet::new();
        for setting in settings {
            let controller = setting.controller.as_str();
            if !seen.insert(controller) || has(&self.path, "cgroup.controllers", controller) {
                continue;
            }
            if !machine_has(controller) {
                return Err(Failure::invalid(format!(
                    "{}: this machine has no cgroup v2 controller {controller:?}",
                    setting.member
                )));
            }
            let mut above: Vec<&Path> = self
                .path
                .ancestors()
                .skip(1)
                .take_while(|folder| folder.starts_with(&root))
                .collect();
            above.reverse();
            for folder in above {
                if !has(folder, "cgroup.subtree_control", controller) {
                    let file = folder.join("cgroup.subtree_control");
                    std::fs::write(&file, format!("+{controller}")).step(|| {
                        format!(
                            "{}: enable controller {controller} in {}",
                            setting.member,
                            file.display()
                        )
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Freezes or thaws all processes and waits until they are.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Failure> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        let step = || format!("watch {}/cgroup.events", self.path.display());
        if reaches(&self.path, wanted, Instant::now() + FREEZE_TIMEOUT).step(step)? {
            return Ok(());
        }
        Err(Failure::internal(format!(
            "cgroup {}: not {wanted:?} after {} s",
            self.path.display(),
            FREEZE_TIMEOUT.as_secs()
        )))
    }

    /// Whether the processes are frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.read("cgroup.freeze")
            .is_ok_and(|text| text.trim() == "1")
    }

    /// Kills all processes with SIGKILL, also new ones.
    pub(crate) fn kill(&self) -> Result<(), Failure> {
        self.write("cgroup.kill", "1")
    }

    /// Sends a signal to all processes, with SIGKILL also to those that are made meanwhile.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), Failure> {
        if signal == libc::SIGKILL && self.kill().is_ok() {
            return Ok(());
        }
        for pid in self.processes()? {
            match clone::signal_pid(pid, signal) {
                // Ended since it was listed.
                Err(nix::errno::Errno::ESRCH) => {}
                other => other.step(|| format!("send signal {signal} to process {pid}"))?,
            }
        }
        Ok(())
    }

    /// The processes, cgroups below included.
    pub(crate) fn processes(&self) -> Result<Vec<i32>, Failure> {
        fn collect(folder: &Path, into: &mut Vec<i32>) -> std::io::Result<()> {
            let text = std::fs::read_to_string(folder.join("cgroup.procs"))?;
            into.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    collect(&entry.path(), into)?;
                }
            }
            Ok(())
        }
        let mut pids = Vec::new();
        collect(&self.path, &mut pids)
            .step(|| format!("list processes of cgroup {}", self.path.display()))?;
        Ok(pids)
    }

    /// How often the kernel's OOM killer struck in the cgroup; 0 without the memory controller.
    pub(crate) fn oom_kills(&self) -> u64 {
        let text = self.read("memory.events").unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Kills what is left and removes the cgroup with those below it.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        remove_folder(&self.path)
    }
}

/// Kills what is left in a cgroup and removes it with those below it, if it exists.
pub(crate) fn remove(path: &str) -> Result<(), Failure> {
    match folder_of(path) {
        Ok(folder) => remove_folder(&folder),
        // Without cgroups there is none.
        Err(_) => Ok(()),
    }
}

fn remove_folder(folder: &Path) -> Result<(), Failure> {
    let step = || format!("remove cgroup {}", folder.display());
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    loop {
        match remove_tree(folder) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
            other => return other.step(step),
        }
        // Killed processes leave their cgroup only when they have been torn down.
        let _ = std::fs::write(folder.join("cgroup.kill"), "1");
        match reaches(folder, "populated 0", deadline) {
            Ok(true) if Instant::now() < deadline => {}
            // Somebody else has removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).step(step),
            Ok(_) => {
                return Err(Failure::internal(format!(
                    "{}: processes are left in it after {} s",
                    step(),
                    REMOVE_TIMEOUT.as_secs()
                )));
            }
        }
    }
}

/// Waits until a line is in a cgroup's `cgroup.events`; false: it is not at the deadline.
fn reaches(folder: &Path, wanted: &str, deadline: Instant) -> std::io::Result<bool> {
    let mut events = File::open(folder.join("cgroup.events"))?;
    let mut text = String::new();
    loop {
        text.clear();
        events.rewind()?;
        match events.read_to_string(&mut text) {
            // Removed since it was opened.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Err(ErrorKind::NotFound.into());
            }
            other => other?,
        };
        if text.lines().any(|line| line == wanted) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // The kernel signals a change of the file as an exceptional condition. Rounded up, so that
        // the rest of a millisecond is not spent by asking again and again.
        let milliseconds = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let mut poll = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match nix::poll::poll(&mut poll, milliseconds) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a file of a cgroup that lists controllers has one.
fn has(folder: &Path, file: &str, controller: &str) -> bool {
    std::fs::read_to_string(folder.join(file))
        .is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
}

/// Whether cgroup v2 has a controller on this machine.
fn machine_has(controller: &str) -> bool {
    mount_point().is_some_and(|root| has(&root, "cgroup.controllers", controller))
}

fn remove_tree(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    remove_tree(&entry.path())?;
                }
            }
            std::fs::remove_dir(folder)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_cgroup_is_removed_with_what_runs_in_it() {
        if !keelson_testing::is_root() {
            return;
        }
        if mount_point().is_none() {
            keelson_testing::skip("cgroup2", "it is not mounted");
            return;
        }
        let name = format!("/keelson-test/removal-{}", std::process::id());
        let cgroup = Cgroup::create(&name).unwrap();
        let below = Cgroup::create(&format!("{name}/below")).unwrap();
        let mut children: Vec<_> = (0..20)
            .map(|_| Command::new("sleep").arg("1000").spawn().unwrap())
            .collect();
        for child in &children {
            below.add(child.id() as i32).unwrap();
        }
        // Frozen ones die of SIGKILL as well.
        cgroup.freeze(true).unwrap();
        let soon = Instant::now() + Duration::from_millis(30);
        assert!(reaches(&cgroup.path, "populated 1", soon).unwrap());
        assert!(!reaches(&cgroup.path, "populated 0", soon).unwrap());
        assert!(Instant::now() >= soon);
        cgroup.remove().unwrap();
        assert!(!cgroup.path.exists());
        cgroup.remove().unwrap();
        for child in &mut children {
            assert!(!child.wait().unwrap().success());
        }
    }
}
