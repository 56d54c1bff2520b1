//! Seed disks: found by label, and read through a mount.
//!
//! The kernel's drivers read them, and not a crate: there is none for all of vfat with long names,
//! Rock Ridge, Joliet and UDF that is kept well, and these drivers read the same disks everywhere.
//! They are mounted read-only, without devices, programs and links, in a mount namespace that only
//! this process sees and that ends with it.

pub mod label;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use self::label::{Blocks, FileSystem};

/// Largest file of a seed disk, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Most block devices that are looked at.
const MOST_DEVICES: usize = 1024;

/// A file system that may hold a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its device.
    pub device: PathBuf,
    /// Its kind.
    pub file_system: FileSystem,
    /// Its labels.
    pub labels: Vec<String>,
}

impl Volume {
    /// Whether it has the label in any case.
    #[must_use]
    pub fn is_called(&self, label: &str) -> bool {
        self.labels
            .iter()
            .any(|known| known.eq_ignore_ascii_case(label))
    }
}

/// Why a seed disk can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No place of one's own to mount it.
    #[error("make a mount namespace: {0}")]
    Namespace(nix::Error),
    /// It can't be mounted.
    #[error("mount {} as {file_system}: {source}", device.display())]
    Mount {
        /// Its device.
        device: PathBuf,
        /// As what.
        file_system: &'static str,
        /// The system's answer.
        source: nix::Error,
    },
    /// A file can't be read.
    #[error("read {file} of {}: {source}", device.display())]
    File {
        /// Its device.
        device: PathBuf,
        /// Name of the file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A directory for the mount can't be made.
    #[error("make {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The disks of a machine.
pub trait Volumes {
    /// Those that may hold a seed, the last by name of its device first.
    fn list(&self) -> Vec<Volume>;

    /// The files of these names that the volume has.
    ///
    /// # Errors
    /// [`DiskError`].
    fn read(&self, volume: &Volume, names: &[&str])
    -> Result<BTreeMap<String, Vec<u8>>, DiskError>;
}

/// The block devices of the kernel.
#[derive(Debug, Clone)]
pub struct BlockDevices {
    /// Where the root directory is, for `sys` and `dev`.
    pub root: PathBuf,
    /// A directory to mount on, which is made.
    pub mount_point: PathBuf,
}

impl Volumes for BlockDevices {
    fn list(&self) -> Vec<Volume> {
        let mut names: Vec<String> = fs::read_dir(self.root.join("sys/class/block"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| {
                !["loop", "ram", "zram", "nbd", "fd"]
                    .iter()
                    .any(|kind| name.starts_with(kind))
            })
            .take(MOST_DEVICES)
            .collect();
        names.sort();
        names.reverse();
        let volume = |name: String| {
            // The kernel writes / in names as !.
            let device = self.root.join("dev").join(name.replace('!', "/"));
            let file = File::open(&device).ok()?;
            let (file_system, labels) = label::examine(&Device(file))?;
            Some(Volume {
                device,
                file_system,
                labels,
            })
        };
        names.into_iter().filter_map(volume).collect()
    }

    fn read(
        &self,
        volume: &Volume,
        names: &[&str],
    ) -> Result<BTreeMap<String, Vec<u8>>, DiskError> {
        let mounted = Mounted::new(volume, &self.mount_point)?;
        let mut files = BTreeMap::new();
        for name in names {
            let path = mounted.0.join(name);
            match read_file(&path) {
                Ok(bytes) => {
                    files.insert((*name).to_owned(), bytes);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(source) => {
                    return Err(DiskError::File {
                        device: volume.device.clone(),
                        file: (*name).to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(files)
    }
}

/// Reads a plain file within the limit.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it has more than 4 MiB"));
    }
    Ok(bytes)
}

struct Device(File);

impl Blocks for Device {
    fn at(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A drive without a disc, a disk with a bad block.
                Err(_) => break,
            }
        }
        bytes.truncate(filled);
        bytes
    }
}

/// A mount that ends with the value.
struct Mounted(PathBuf);

impl Mounted {
    fn new(volume: &Volume, at: &Path) -> Result<Self, DiskError> {
        // From here on nobody else sees what this process mounts.
        unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| {
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            })
            .map_err(DiskError::Namespace)?;
        fs::create_dir_all(at).map_err(|source| DiskError::Directory {
            path: at.to_owned(),
            source,
        })?;
        let flags = MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC
            // MS_NOSYMFOLLOW: a link of the disk could lead to the machine's own files.
            | MsFlags::from_bits_retain(256);
        let file_system = volume.file_system.name();
        // Names of FAT are UTF-16; without this they would be cut down to ASCII. Case does not count.
        let options = (volume.file_system == FileSystem::Vfat).then_some("utf8=1");
        mount(Some(&volume.device), at, Some(file_system), flags, options).map_err(|source| {
            DiskError::Mount {
                device: volume.device.clone(),
                file_system,
                source,
            }
        })?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The namespace ends with the process in any case.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}
