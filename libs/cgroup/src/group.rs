//! One cgroup.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::iter;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::Step;
use crate::{CgroupError, Event, wait};

/// An open cgroup.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroup {
    /// Creates a cgroup with those above it, or opens it when it exists.
    ///
    /// # Errors
    /// It can't be created or opened.
    pub fn create(path: PathBuf) -> Result<Self, CgroupError> {
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&path).step(|| format!("create cgroup {}", path.display()))?;
            }
            Err(error) => {
                return Err(error).step(|| format!("create cgroup {}", path.display()));
            }
        }
        Self::open(path)
    }

    /// Opens an existing cgroup.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(path: PathBuf) -> Result<Self, CgroupError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = rustix::fs::open(&path, flags, Mode::empty())
            .step(|| format!("open cgroup {}", path.display()))?;
        Ok(Self { path, directory })
    }

    /// Its directory in the mounted hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its open directory, for `CLONE_INTO_CGROUP`.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its open directory.
    pub fn into_directory(self) -> OwnedFd {
        self.directory
    }

    /// Moves a process into the cgroup.
    ///
    /// # Errors
    /// There is no such process, or the caller may not move it.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Gives the cgroup to a user: the directory and the files that the kernel lists for this. The
    /// limits are not among them and stay the host's.
    ///
    /// # Errors
    /// The owner of a file can't be changed.
    pub fn delegate(&self, owner: u32) -> Result<(), CgroupError> {
        /// The files to delegate on kernels without the list.
        const USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";
        let listed = fs::read_to_string("/sys/kernel/cgroup/delegate");
        let listed = listed.unwrap_or_else(|_| USUAL.to_owned());
        let files = listed.lines().filter(|name| !name.contains('/'));
        for name in iter::once(".").chain(files) {
            let path = self.path.join(name);
            match std::os::unix::fs::chown(&path, Some(owner), None) {
                // A controller that this cgroup does not have.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.step(|| format!("give {} to user {owner}", path.display()))?,
            }
        }
        Ok(())
    }

    /// Freezes or thaws all processes, and waits until that is done.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] when they are not after `limit`.
    pub fn freeze(&self, frozen: bool, limit: Duration) -> Result<(), CgroupError> {
        let (value, event) = match frozen {
            true => ("1", Event::Frozen),
            false => ("0", Event::Thawed),
        };
        self.write("cgroup.freeze", value)?;
        let step = || {
            format!(
                "wait for {event:?} in {}/cgroup.events",
                self.path.display()
            )
        };
        match wait(&self.path, event, Instant::now() + limit).step(step)? {
            true => Ok(()),
            false => Err(io::Error::from(ErrorKind::TimedOut)).step(step),
        }
    }

    /// Whether the processes are frozen, or being frozen.
    pub fn is_frozen(&self) -> bool {
        self.read("cgroup.freeze")
            .is_ok_and(|text| text.trim() == "1")
    }

    /// Kills all processes with SIGKILL, in the cgroups below too, also those that are created
    /// meanwhile.
    ///
    /// # Errors
    /// The kernel is older than 5.14, or the cgroup is gone.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    /// The processes, those in cgroups below included.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        processes(&self.path)
    }

    /// How often the kernel's OOM killer killed a process of the cgroup; 0 without the controller
    /// `memory`.
    pub fn oom_kills(&self) -> u64 {
        let text = self.read("memory.events").unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Whether the cgroup has a file, that is, a controller that this kernel can do it with.
    pub fn has_file(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// Reads a file of the cgroup.
    ///
    /// # Errors
    /// There is no such file.
    pub fn read(&self, name: &str) -> Result<String, CgroupError> {
        let path = self.path.join(name);
        read(&path).step(|| format!("read {}", path.display()))
    }

    /// Writes to a file of the cgroup.
    ///
    /// # Errors
    /// There is no such file, or the kernel refuses the value.
    pub fn write(&self, name: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path.join(name);
        // Never creates the file: cgroup2 refuses that with a misleading error.
        let file = fs::OpenOptions::new().write(true).open(&path);
        file.and_then(|mut file| file.write_all(value.as_bytes()))
            .step(|| format!("write {value:?} to {}", path.display()))
    }
}

/// Reads a whole file. [`fs::read_to_string`] takes three system calls more: with musl it sets
/// close-on-exec twice, and it asks for a size and a position that these files do not have.
fn read(path: &Path) -> io::Result<String> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::with_capacity(4096);
    File::from(file).take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The processes of a cgroup, those in cgroups below included.
///
/// # Errors
/// The cgroup is gone.
pub fn processes(group: &Path) -> Result<Vec<i32>, CgroupError> {
    fn collect(group: &Path, into: &mut Vec<i32>) -> io::Result<()> {
        let text = read(&group.join("cgroup.procs"))?;
        into.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        for entry in fs::read_dir(group)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            let Err(error) = collect(&entry.path(), into) else {
                continue;
            };
            // It was removed meanwhile; or it has only threads, whose processes the cgroup above
            // lists.
            match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
                _ => return Err(error),
            }
        }
        Ok(())
    }
    let mut pids = Vec::new();
    collect(group, &mut pids)
        .step(|| format!("list the processes of cgroup {}", group.display()))?;
    Ok(pids)
}
