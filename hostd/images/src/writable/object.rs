//! One object of a container's root file system, held by a descriptor. The container may rename
//! files meanwhile without any effect on it, and examining devices and pipes has no side effects.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::overlay::{self, LayerEntry, Visible};

/// Longest list of names of extended attributes, and longest value, that the kernel returns.
const MAX_XATTR: usize = 64 << 10;
/// Attributes that overlayfs writes to the upper layer if it may move or split objects. The runtime
/// forbids that when it mounts.
const NOT_SELF_CONTAINED: [&[u8]; 2] = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy"];

/// An object without its name.
pub(super) struct Object {
    handle: OwnedFd,
    /// Whether the handle can be read from. If not, it is `O_PATH`.
    readable: bool,
    pub(super) stat: Stat,
}

/// An object's extended attributes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// The attributes of the object itself.
    pub(super) own: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether overlayfs shows nothing of lower layers in this directory.
    pub(super) opaque: bool,
}

impl From<LayerEntry> for Object {
    fn from(entry: LayerEntry) -> Self {
        Self {
            handle: entry.handle,
            readable: false,
            stat: entry.stat,
        }
    }
}

impl Object {
    /// Finds a name in a directory. `None`: it does not exist (any more).
    pub(super) fn open(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Self>> {
        Ok(LayerEntry::open(directory, name)?.map(Self::from))
    }

    /// Opens a regular file of a read-only layer for reading. `None`: it is no regular file.
    pub(super) fn open_file(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&handle)?;
        let object = Self {
            handle,
            readable: true,
            stat,
        };
        Ok((object.kind() == FileType::RegularFile).then_some(object))
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Whether overlayfs shows nothing here.
    pub(super) fn is_whiteout(&self) -> bool {
        overlay::is_whiteout(&self.stat)
    }

    /// A path that leads to this very object, whatever its name is now.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.handle.as_raw_fd())
    }

    /// Opens the directory for listing.
    pub(super) fn directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.handle, ".", flags, Mode::empty())?)
    }

    /// Opens the regular file for reading.
    pub(super) fn file(&self) -> io::Result<File> {
        match self.readable {
            true => Ok(self.handle.try_clone()?.into()),
            false => File::open(self.path()),
        }
    }

    /// Target of a symbolic link.
    pub(super) fn link_target(&self) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.handle, "", Vec::new())?.into_bytes())
    }

    /// Whether lower layers stay hidden in this directory.
    pub(super) fn is_opaque(&self) -> io::Result<bool> {
        overlay::is_opaque(self.handle.as_fd())
    }

    /// The file capabilities, as the attribute's value.
    pub(super) fn capabilities(&self) -> io::Result<Option<Vec<u8>>> {
        if self.kind() != FileType::RegularFile {
            return Ok(None);
        }
        value(&self.path(), b"security.capability")
    }

    /// All attributes that make sense on another machine.
    pub(super) fn attributes(&self) -> io::Result<Attributes> {
        let query = match self.readable {
            true => rustix::fs::flistxattr_query(&self.handle),
            false => rustix::fs::listxattr_query(self.path()),
        };
        match query {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Attributes::default()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let path = self.path();
        let mut names = vec![0; MAX_XATTR];
        let length = rustix::fs::listxattr(&path, &mut names[..])?;
        names.truncate(length);
        let mut found = Attributes::default();
        for name in names.split(|byte| *byte == 0) {
            if NOT_SELF_CONTAINED.contains(&name) {
                return Err(io::Error::other(
                    "overlayfs made it with redirect_dir or metacopy, which cannot be read",
                ));
            }
            if name == overlay::OPAQUE {
                found.opaque = self.is_opaque()?;
            } else if belongs_to_object(name)
                && let Some(value) = value(&path, name)?
            {
                found.own.push((name.to_vec(), value));
            }
        }
        found.own.sort();
        Ok(found)
    }
}

/// Labels of security modules and of integrity measurement belong to this machine, and overlayfs's
/// own attributes to its mount.
fn belongs_to_object(name: &[u8]) -> bool {
    let kinds: [&[u8]; 3] = [b"user.", b"trusted.", b"system.posix_acl_"];
    name == b"security.capability"
        || (kinds.iter().any(|kind| name.starts_with(kind))
            && !name.starts_with(overlay::ATTRIBUTES))
}

fn value(path: &str, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::getxattr(path, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < MAX_XATTR => value.resize(MAX_XATTR, 0),
            // It disappeared between two calls.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The names in a directory.
pub(super) fn names(directory: &OwnedFd) -> io::Result<Vec<Box<[u8]>>> {
    let entries = entries(directory)?.into_iter();
    Ok(entries.map(|(name, _)| name).collect())
}

/// The names in a directory, with their types if the file system returns these.
pub(super) fn entries(directory: &OwnedFd) -> io::Result<Vec<(Box<[u8]>, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((Box::from(name), entry.file_type()));
        }
    }
    Ok(names)
}

/// The object at a name in a stack of directories.
pub(super) enum Found {
    /// Nothing, or a hidden object.
    Absent,
    /// A directory: its topmost object, and the directory in every layer that contributes to it.
    Directory(Object, Vec<OwnedFd>),
    /// Anything else.
    Other(Object),
}

/// Looks up a name by the rules of overlayfs. `directories`: topmost first.
pub(super) fn lookup(directories: &[OwnedFd], name: &[u8]) -> io::Result<Found> {
    Ok(match overlay::look_up(directories, name)? {
        Visible::Nothing => Found::Absent,
        Visible::Other(entry) => Found::Other(entry.into()),
        Visible::Directory(entries) => {
            let mut objects = entries.into_iter().map(Object::from);
            let Some(top) = objects.next() else {
                return Ok(Found::Absent);
            };
            let mut inside = vec![top.directory()?];
            for object in objects {
                inside.push(object.directory()?);
            }
            Found::Directory(top, inside)
        }
    })
}
