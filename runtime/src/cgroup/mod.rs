//! cgroup v2: a container's cgroup is made, limited, watched, frozen, killed and removed here.
//!
//! On a hybrid host (version 1 controllers beside a bare cgroup2 mount) everything works except
//! limits, because their controllers are missing: a limit that is asked for is an error that names
//! it.

pub(crate) mod devices;
pub(crate) mod resources;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use keelson_cgroup::{CgroupError, USUAL_MOUNT_POINT, controllers};
use keelson_sys::clone;

use crate::failure::{Failure, Step};
use crate::spec::Resources;
use resources::{Setting, Variant};

/// Longest wait for processes to be frozen or to go on.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for killed processes to leave a cgroup.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);

/// A container's cgroup, opened.
#[derive(Debug)]
pub(crate) struct Cgroup(keelson_cgroup::Cgroup);

impl From<CgroupError> for Failure {
    fn from(error: CgroupError) -> Self {
        match Err::<(), _>(error.source).step(|| error.step) {
            Err(failure) => failure,
            Ok(()) => Self::internal("no error"),
        }
    }
}

/// Where cgroup2 is mounted on this machine.
pub(crate) fn mount_point() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(keelson_cgroup::mount_point).clone()
}

/// Whether there is a cgroup of this path.
pub(crate) fn exists(path: &str) -> Result<bool, Failure> {
    Ok(directory_of(path)?.is_dir())
}

/// Whether version 2 is the machine's only hierarchy.
pub(crate) fn is_unified() -> bool {
    mount_point().is_some_and(|path| path == Path::new(USUAL_MOUNT_POINT))
}

/// The directory of a cgroup path. The path is relative to the mount and may not leave it.
pub(crate) fn directory_of(path: &str) -> Result<PathBuf, Failure> {
    if path.contains(':') && !path.starts_with('/') {
        return Err(Failure::unsupported(format!(
            "linux.cgroupsPath {path:?}: the systemd cgroup driver is not supported"
        )));
    }
    let mut directory = mount_point()
        .ok_or_else(|| Failure::internal("no cgroup2 file system is mounted on this machine"))?;
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => directory.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => {
                return Err(Failure::invalid(format!(
                    "linux.cgroupsPath {path:?} must not contain \"..\""
                )));
            }
        }
    }
    Ok(directory)
}

impl Cgroup {
    /// Creates a cgroup with those above it, or opens it when it exists.
    pub(crate) fn create(path: &str) -> Result<Self, Failure> {
        Ok(Self(keelson_cgroup::Cgroup::create(directory_of(path)?)?))
    }

    /// Opens an existing cgroup.
    pub(crate) fn open(path: &str) -> Result<Self, Failure> {
        Ok(Self(keelson_cgroup::Cgroup::open(directory_of(path)?)?))
    }

    /// The directory, for CLONE_INTO_CGROUP.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.0.directory()
    }

    /// Moves a process into the cgroup.
    pub(crate) fn add(&self, pid: i32) -> Result<(), Failure> {
        Ok(self.0.add(pid)?)
    }

    /// Makes a user the owner of the cgroup, but not of its limits: those stay the host's.
    pub(crate) fn delegate(&self, owner: u32) -> Result<(), Failure> {
        Ok(self.0.delegate(owner)?)
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Failure> {
        Ok(self.0.write(file, value)?)
    }

    /// A file's text.
    pub(crate) fn read(&self, file: &str) -> Result<String, Failure> {
        Ok(self.0.read(file)?)
    }

    /// Changes limits. Unlike for a new cgroup, -1 removes a limit.
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

    /// With `memory.checkBeforeUpdate`, refuses a limit so low that the kernel would kill
    /// processes.
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
        let exists = |file: &str| self.0.has_file(file);
        match &setting.variant {
            Some(Variant::Instead(file, value)) if exists(file) => return self.write(file, value),
            Some(Variant::Beside(file)) if exists(file) => self.write(file, &setting.value)?,
            Some(Variant::IfThere) if !exists(&setting.file) => return Ok(()),
            _ => {}
        }
        self.write(&setting.file, &setting.value)
    }

    /// Applies all limits but the device filter. If one can't be applied, the call fails.
    pub(crate) fn limit(&self, resources: &Resources) -> Result<(), Failure> {
        let mut settings = resources::plan(resources)?;
        settings.retain(|setting| !setting.is_usual() || machine_has(&setting.controller));
        self.enable_controllers(&settings)?;
        self.write_settings(&settings)
    }

    /// Applies the device filter. Processes may be in the cgroup already: the filter is asked each
    /// time a device is opened.
    pub(crate) fn filter_devices(&self, resources: &Resources) -> Result<(), Failure> {
        if !resources.devices.is_empty() {
            devices::attach(self.directory(), &resources.devices)?;
        }
        Ok(())
    }

    /// Makes the controllers that the settings need available here, from the root of the hierarchy
    /// downwards.
    fn enable_controllers(&self, settings: &[Setting]) -> Result<(), Failure> {
        let root = mount_point().unwrap_or_default();
        let mut seen = BTreeSet::new();
        for setting in settings {
            let controller = setting.controller.as_str();
            if !seen.insert(controller) {
                continue;
            }
            let listed = controllers::has(self.0.path(), controller);
            if listed && self.0.has_file(&setting.file) {
                continue;
            }
            if !machine_has(controller) {
                return Err(Failure::invalid(format!(
                    "{}: this machine has no cgroup v2 controller {controller:?}",
                    setting.member
                )));
            }
            match controllers::enable_from(&root, self.0.path(), controller) {
                // If there is no such file, or it may not be waited for, writing to it tells.
                Err(_) if listed => {}
                other => other.map_err(|error| {
                    let failure = Failure::from(error);
                    Failure {
                        message: format!("{}: {}", setting.member, failure.message),
                        ..failure
                    }
                })?,
            }
        }
        Ok(())
    }

    /// Freezes or thaws all processes, and waits until that is done.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Failure> {
        Ok(self.0.freeze(frozen, FREEZE_LIMIT)?)
    }

    /// Whether the processes are frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        self.0.is_frozen()
    }

    /// Kills all processes with SIGKILL, also new ones.
    pub(crate) fn kill(&self) -> Result<(), Failure> {
        Ok(self.0.kill()?)
    }

    /// Sends a signal to all processes. SIGKILL also reaches those that are made meanwhile.
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
        Ok(self.0.processes()?)
    }

    /// How often the kernel's OOM killer struck in the cgroup; 0 without the memory controller.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.0.oom_kills()
    }

    /// Kills what is left and removes the cgroup with those below it.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        Ok(keelson_cgroup::remove(self.0.path(), REMOVE_LIMIT)?)
    }
}

/// Kills what is left in a cgroup and removes it with those below it, if it exists.
pub(crate) fn remove(path: &str) -> Result<(), Failure> {
    match directory_of(path) {
        Ok(directory) => Ok(keelson_cgroup::remove(&directory, REMOVE_LIMIT)?),
        // Without cgroups there is none.
        Err(_) => Ok(()),
    }
}

/// Whether cgroup v2 has a controller on this machine.
fn machine_has(controller: &str) -> bool {
    mount_point().is_some_and(|root| controllers::has(&root, controller))
}
