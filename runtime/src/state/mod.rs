//! The containers of the command line, kept under `--root`.
//!
//! `ROOT/ID/state.json` is written as soon as the container has a process. So the process and the
//! cgroup can be found and removed, whatever happens to the runtime. `ROOT/ID/start.sock` exists
//! until the container is started: its first process accepts connections there, so no process of
//! the runtime has to stay for the start. The socket's mode shows whether the creation was
//! completed. Whether the container still runs is asked of the kernel.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use keelson_shim_protocol::OciStatus;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::files;
use crate::process::hooks::Subject;
use crate::process::stat::Stat;
use crate::sandbox::shared::Shared;
use crate::spec::Hooks;

const STATE_FILE: &str = "state.json";
const START_SOCKET: &str = "start.sock";

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// Version of this format; 1.
    pub(crate) version: u32,
    /// The container's identifier.
    pub(crate) id: String,
    /// The specification's version that config.json names.
    pub(crate) oci_version: String,
    /// First process.
    pub(crate) pid: i32,
    /// When it was started, in clock ticks since boot. It distinguishes the process from a later
    /// one with the same number.
    pub(crate) pid_start: u64,
    /// The bundle, absolute.
    pub(crate) bundle: PathBuf,
    /// The root file system, absolute.
    pub(crate) rootfs: PathBuf,
    /// `linux.cgroupsPath`.
    pub(crate) cgroup: Option<String>,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// Annotations of config.json.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Hooks of config.json, because some run later.
    #[serde(default)]
    pub(crate) hooks: Hooks,
    /// Mounts in a namespace that others use.
    #[serde(default)]
    pub(crate) shared: Option<Shared>,
}

/// How far a container's start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is being made, or the runtime was killed meanwhile.
    Creating,
    /// It waits to be started.
    Created,
    /// It was started.
    Started,
}

/// The mode of the start socket while the container waits on it. A new socket never has the sticky
/// bit.
const READY_MODE: u32 = 0o1600;

/// A container's directory.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    id: String,
}

/// Longest directory name, in bytes.
const LONGEST_ID: usize = 255;

/// Checks an identifier: it becomes a directory's name.
fn check_id(id: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let refused = |reason: String| Err(Failure::invalid(reason));
    match id {
        "" => refused("container id: is empty".to_owned()),
        "." | ".." => refused(format!(
            "container id {id:?}: is the name of another directory"
        )),
        _ if !id.bytes().all(allowed) => refused(format!(
            "container id {id:?}: only letters, digits and _+-. are allowed"
        )),
        _ if id.len() > LONGEST_ID => {
            let (length, start) = (id.len(), id.get(..20).unwrap_or_default());
            refused(format!(
                "container id \"{start}…\": is too long, {length} bytes where {LONGEST_ID} are possible"
            ))
        }
        _ => Ok(()),
    }
}

impl Store {
    /// The directory of an identifier, which need not exist.
    pub(crate) fn new(root: &Path, id: &str) -> Result<Self, Failure> {
        check_id(id)?;
        Ok(Self {
            directory: root.join(id),
            id: id.to_owned(),
        })
    }

    /// The path of another file beside the state.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Reserves the identifier.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        let step = || format!("create {}", self.directory.display());
        let create = || {
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(&self.directory)
        };
        let mut created = create();
        if let Some(root) = self.directory.parent()
            && created
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(root)
                .step(step)?;
            created = create();
        }
        match created {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::conflict(
                format!("container {} exists already", self.id),
            )),
            other => other.step(step),
        }
    }

    /// Locks the container, so that others can't remove it until the result is dropped. `None`: it
    /// was removed, perhaps while this waited for the lock.
    pub(crate) fn lock(&self) -> Result<Option<OwnedFd>, Failure> {
        let step = || format!("lock {}", self.directory.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(&self.directory, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other.step(step)?,
        };
        loop {
            match rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.step(step)?,
            }
        }
        // It may have been removed meanwhile, and its name used for another container.
        let locked = rustix::fs::fstat(&directory).step(step)?;
        let removed = match rustix::fs::stat(&self.directory) {
            Ok(named) => (named.st_dev, named.st_ino) != (locked.st_dev, locked.st_ino),
            Err(_) => true,
        };
        Ok((!removed).then_some(directory))
    }

    /// Removes the container's state. It is no error if it is gone already.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        // In most cases these are all files.
        let _ = std::fs::remove_file(self.directory.join(STATE_FILE));
        let removed = match std::fs::remove_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                std::fs::remove_dir_all(&self.directory)
            }
            other => other,
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).step(|| format!("remove {}", self.directory.display()))
            }
            _ => Ok(()),
        }
    }

    /// Stores the state, completely or not at all.
    pub(crate) fn save(&self, state: &State) -> Result<(), Failure> {
        let path = self.directory.join(STATE_FILE);
        let temporary = self.directory.join(".state.json.new");
        let json = serde_json::to_vec(state)
            .map_err(|error| Failure::internal(format!("{}: {error}", path.display())))?;
        files::replace(&path, &temporary, &json, 0o600).step(|| format!("write {}", path.display()))
    }

    /// The stored state. A directory without one is a container that is being made, or whose
    /// creation was interrupted.
    pub(crate) fn load(&self) -> Result<State, Failure> {
        let path = self.directory.join(STATE_FILE);
        let bytes = match files::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Failure::not_found(format!(
                    "container {} does not exist",
                    self.id
                )));
            }
            other => other.step(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::internal(format!("{}: {error}", path.display())))
    }

    /// Whether the directory exists.
    pub(crate) fn exists(&self) -> bool {
        self.directory.exists()
    }

    /// How far the container has come.
    pub(crate) fn progress(&self) -> Progress {
        match rustix::fs::stat(self.directory.join(START_SOCKET)) {
            Ok(status) if status.st_mode & 0o7777 == READY_MODE => Progress::Created,
            Ok(_) => Progress::Creating,
            Err(_) => Progress::Started,
        }
    }

    /// Records that the container's creation was completed.
    pub(crate) fn created(&self) -> Result<(), Failure> {
        let path = self.directory.join(START_SOCKET);
        rustix::fs::chmod(&path, Mode::from_raw_mode(READY_MODE))
            .step(|| format!("change {}", path.display()))
    }

    /// Records that the container was started.
    pub(crate) fn started(&self) -> Result<(), Failure> {
        let path = self.directory.join(START_SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).step(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The socket on which the container's first process waits to be started.
    pub(crate) fn listen(&self) -> Result<OwnedFd, Failure> {
        let step = || format!("listen on {}", self.directory.join(START_SOCKET).display());
        let (socket, address, _directory) = self.socket().step(step)?;
        rustix::net::bind(&socket, &address).step(step)?;
        rustix::net::listen(&socket, 1).step(step)?;
        Ok(socket)
    }

    /// Connects to that socket.
    pub(crate) fn connect(&self) -> Result<OwnedFd, Failure> {
        let step = || format!("connect to {}", self.directory.join(START_SOCKET).display());
        let (socket, address, _directory) = self.socket().step(step)?;
        rustix::net::connect(&socket, &address).step(step)?;
        Ok(socket)
    }

    /// A socket, and its address through an open directory, because socket addresses are short.
    fn socket(&self) -> Result<(OwnedFd, SocketAddrUnix, OwnedFd), rustix::io::Errno> {
        let directory = rustix::fs::open(
            &self.directory,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let path = format!("/proc/self/fd/{}/{START_SOCKET}", directory.as_raw_fd());
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((socket, SocketAddrUnix::new(path)?, directory))
    }
}

/// Identifiers of all containers.
pub(crate) fn list(root: &Path) -> Result<Vec<String>, Failure> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.step(|| format!("list {}", root.display()))?,
    };
    let mut ids: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| check_id(name).is_ok())
        .collect();
    ids.sort();
    Ok(ids)
}

impl State {
    /// Its status, as the kernel shows it.
    pub(crate) fn status(&self, progress: Progress) -> OciStatus {
        match start_time(self.pid) {
            Some(start) if start == self.pid_start => {}
            _ => return OciStatus::Stopped,
        }
        match progress {
            Progress::Creating => return OciStatus::Creating,
            Progress::Created => return OciStatus::Created,
            Progress::Started => {}
        }
        match self.open_cgroup() {
            Some(cgroup) if cgroup.is_frozen() => OciStatus::Paused,
            _ => OciStatus::Running,
        }
    }

    /// The state that hooks get.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject {
            oci_version: &self.oci_version,
            id: &self.id,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }

    /// The cgroup, when there is one.
    pub(crate) fn open_cgroup(&self) -> Option<Cgroup> {
        Cgroup::open(self.cgroup.as_deref()?).ok()
    }
}

/// When a process was started, in clock ticks since boot. `None`: there is no such process, or it
/// has ended and only waits to be reaped.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = Stat::of(pid).filter(|stat| !stat.ended)?;
    Some(stat.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_directory_names() {
        assert!(check_id("a-b_c.1").is_ok());
        for id in ["", ".", "..", "a/b", "a b", "ä"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        assert!(check_id(&"x".repeat(LONGEST_ID)).is_ok());
        let long = check_id(&"x".repeat(LONGEST_ID + 1)).unwrap_err();
        assert!(long.message.contains("too long"), "{long}");
    }

    #[test]
    fn the_own_start_time_is_known() {
        assert!(start_time(std::process::id() as i32).is_some_and(|start| start > 0));
        assert_eq!(start_time(i32::MAX), None);
    }
}
