//! Extracting an archive into a directory of a container.
//!
//! Every object is made by its name in its directory's descriptor, and never through a link. An
//! existing object at the name is removed first, so that nothing is written through a file, a
//! device or a pipe of the container.

use std::fs::File;
use std::io::{BufRead, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{ffi::OsStr, io};

use hostd_images::overlay;
use keelson_oci::archive::{Entry, EntryKind, Scanner, SparsePart, Visitor};
use keelson_oci::compression::{Compression, DETECT_BYTES};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::root::Root;
use crate::copy_error::CopyError;

/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// Bytes of the paths of directories whose times are set at the end. Times of other directories are
/// set at once, and change if something is extracted into them later.
const MAX_LATER: usize = 16 << 20;
/// How often a name is cleared if the container keeps using it.
const TRIES: usize = 100;

/// How an archive is extracted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtractOptions {
    /// Directories and other objects never replace each other.
    pub keep_kinds: bool,
    /// All files get the container's user as their owner, if it has one.
    pub own_by_user: bool,
}

/// Extracts an archive, decompressed in this process, into the directory at `destination`. Blocks.
pub(super) fn unpack(
    root: &Root,
    destination: &[u8],
    keep_kinds: bool,
    owner: Option<(u32, u32)>,
    mut input: impl BufRead + Send,
) -> Result<(), CopyError> {
    let mut start = [0; DETECT_BYTES];
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest).map_err(CopyError::Input)? {
            0 => break,
            count => filled += count,
        }
    }
    let start = start.get(..filled).unwrap_or_default();
    let compression = Compression::detect(start)?;
    let mut decoder = compression
        .decoder(io::Read::chain(start, input))
        .map_err(CopyError::Input)?;
    let mut scanner = Scanner::new();
    let mut unpacker = Unpacker {
        root,
        destination,
        keep_kinds,
        owner,
        parent: None,
        current: None,
        later: Vec::new(),
        later_bytes: 0,
    };
    let mut piece = vec![0; PIECE];
    loop {
        let count = match decoder.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Input(error)),
        };
        scanner.push(piece.get(..count).unwrap_or_default(), &mut unpacker)?;
    }
    scanner.finish(&mut unpacker)?;
    unpacker.end()
}

/// A file that is being written.
struct Current {
    file: File,
    entry: Entry,
    path: Vec<u8>,
    parts: std::vec::IntoIter<SparsePart>,
    /// The rest of the next part.
    part: SparsePart,
}

struct Unpacker<'a> {
    root: &'a Root,
    destination: &'a [u8],
    keep_kinds: bool,
    owner: Option<(u32, u32)>,
    /// The directory of the last entry.
    parent: Option<(Vec<Vec<u8>>, OwnedFd)>,
    current: Option<Current>,
    /// Directories with their times.
    later: Vec<(Vec<Vec<u8>>, Timestamps)>,
    later_bytes: usize,
}

impl Visitor for Unpacker<'_> {
    type Error = CopyError;

    fn entry(&mut self, entry: Entry) -> Result<(), CopyError> {
        let place = inside(&entry.path, &entry)?;
        // Check this before anything is removed for it.
        self.owner_of(&entry)?;
        let Some((name, above)) = place.split_last() else {
            // The directory itself is not changed.
            return Ok(());
        };
        let parent = self.directory(above)?;
        let path = self.path(&place);
        let is_directory = entry.kind == EntryKind::Directory;
        let there = stat(&parent, name).map_err(failed("look at", &path))?;
        let is_there = self.clear(&parent, name, &path, there, is_directory)?;
        match entry.kind {
            EntryKind::Directory => {
                let made = match is_there {
                    true => Ok(()),
                    false => rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)),
                };
                made.map_err(failed("mkdir", &path))?;
                let handle = open(&parent, name).map_err(failed("open", &path))?;
                self.attributes(&handle, &entry, &path)?;
                self.postpone(place.clone(), &parent, &entry, &path)?;
            }
            EntryKind::File => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(failed("create", &path))?;
                let whole = vec![SparsePart {
                    offset: 0,
                    length: entry.size,
                }];
                let mut parts = entry.sparse.clone().unwrap_or(whole).into_iter();
                let none = SparsePart {
                    offset: 0,
                    length: 0,
                };
                self.current = Some(Current {
                    file: file.into(),
                    part: parts.next().unwrap_or(none),
                    parts,
                    entry,
                    path,
                });
            }
            EntryKind::HardLink => {
                let target = inside(&entry.link, &entry)?;
                let Some((old, above)) = target.split_last() else {
                    return Err(CopyError::Outside(entry.name()));
                };
                let from = self.open_directory(above)?;
                rustix::fs::linkat(&from, old, &parent, name, AtFlags::empty())
                    .map_err(failed("link", &path))?;
            }
            EntryKind::Symlink => {
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), &parent, name)
                    .map_err(failed("symlink", &path))?;
                let handle = open(&parent, name).map_err(failed("open", &path))?;
                self.own(&handle, &entry, &path)?;
                self.xattrs(&handle, &entry, &path)?;
                touch(&parent, name, &times(&entry)).map_err(failed("set times of", &path))?;
            }
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                let (kind, device) = match entry.kind {
                    EntryKind::CharDevice => (FileType::CharacterDevice, device(&entry)),
                    EntryKind::BlockDevice => (FileType::BlockDevice, device(&entry)),
                    _ => (FileType::Fifo, 0),
                };
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(&parent, name, kind, mode, device)
                    .map_err(failed("mknod", &path))?;
                let handle = open(&parent, name).map_err(failed("open", &path))?;
                self.attributes(&handle, &entry, &path)?;
                touch(&parent, name, &times(&entry)).map_err(failed("set times of", &path))?;
            }
            EntryKind::Other(flag) => {
                return Err(CopyError::Type {
                    name: entry.name(),
                    kind: char::from(flag),
                });
            }
        }
        self.parent = Some((above.to_vec(), parent));
        Ok(())
    }

    fn data(&mut self, mut bytes: &[u8]) -> Result<(), CopyError> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        while !bytes.is_empty() {
            if current.part.length == 0 {
                match current.parts.next() {
                    Some(part) => current.part = part,
                    None => return Ok(()),
                }
                continue;
            }
            let length = usize::try_from(current.part.length)
                .map_or(bytes.len(), |length| length.min(bytes.len()));
            let (now, rest) = bytes.split_at(length);
            let written = current.file.write_all_at(now, current.part.offset);
            written.map_err(|source| CopyError::Io {
                operation: "write",
                path: shown(&current.path),
                source,
            })?;
            current.part.offset += length as u64;
            current.part.length -= length as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), CopyError> {
        let Some(Current {
            file, entry, path, ..
        }) = self.current.take()
        else {
            return Ok(());
        };
        rustix::fs::ftruncate(&file, entry.size).map_err(failed("truncate", &path))?;
        let file = OwnedFd::from(file);
        self.attributes(&file, &entry, &path)?;
        rustix::fs::futimens(&file, &times(&entry)).map_err(failed("set times of", &path))
    }
}

impl Unpacker<'_> {
    /// An absolute path in the container.
    fn path(&self, place: &[Vec<u8>]) -> Vec<u8> {
        [self.destination, b"/", place.join(&b'/').as_slice()].concat()
    }

    fn open_directory(&self, place: &[Vec<u8>]) -> Result<OwnedFd, CopyError> {
        let path = self.path(place);
        let found = self.root.directory(&path).map_err(failed("open", &path))?;
        self.check(found, &path)
    }

    /// Refuses directories in which files can't be kept.
    fn check(&self, directory: OwnedFd, path: &[u8]) -> Result<OwnedFd, CopyError> {
        match hostd_images::is_of_kernel(&directory) {
            Ok(false) => Ok(directory),
            Ok(true) => Err(CopyError::OfKernel(shown(path).display().to_string())),
            Err(source) => Err(CopyError::Io {
                operation: "look at",
                path: shown(path),
                source,
            }),
        }
    }

    /// Opens the directory of an entry, and makes missing parent directories.
    fn directory(&mut self, place: &[Vec<u8>]) -> Result<OwnedFd, CopyError> {
        match self.parent.take() {
            Some((known, handle)) if known == place => return Ok(handle),
            _ => {}
        }
        let path = self.path(place);
        match self.root.directory(&path) {
            Ok(found) => return self.check(found, &path),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("open", &path)(error)),
        }
        let mut directory = self.open_directory(&[])?;
        for depth in 1..=place.len() {
            let way = place.get(..depth).unwrap_or_default();
            let path = self.path(way);
            let found = match (self.root.directory(&path), way.last()) {
                (Err(Errno::NOENT), Some(name)) => {
                    match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(failed("mkdir", &path)(error)),
                    }
                    self.root.directory(&path)
                }
                (found, _) => found,
            };
            directory = self.check(found.map_err(failed("open", &path))?, &path)?;
        }
        Ok(directory)
    }

    /// Removes an existing object at a name. True: a directory exists there, and is kept.
    fn clear(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        mut there: Option<Stat>,
        wants_directory: bool,
    ) -> Result<bool, CopyError> {
        let is_directory =
            |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        for _ in 0..TRIES {
            let Some(found) = there else {
                return Ok(false);
            };
            match (is_directory(&found), wants_directory) {
                (true, true) => return Ok(true),
                (true, false) if self.keep_kinds => {
                    return Err(CopyError::OverwritesDirectory(
                        shown(path).display().to_string(),
                    ));
                }
                (false, true) if self.keep_kinds => {
                    return Err(CopyError::OverwritesFile(shown(path).display().to_string()));
                }
                (true, false) => {
                    // Through the descriptor. Links below are removed, not followed.
                    let by_descriptor = Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd()))
                        .join(OsStr::from_bytes(name));
                    match std::fs::remove_dir_all(&by_descriptor) {
                        Err(source)
                            if !matches!(
                                source.kind(),
                                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                            ) =>
                        {
                            return Err(CopyError::Io {
                                operation: "remove",
                                path: shown(path),
                                source,
                            });
                        }
                        _ => {}
                    }
                }
                (false, _) => match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
                    Err(error) => return Err(failed("remove", path)(error)),
                },
            }
            there = stat(parent, name).map_err(failed("look at", path))?;
        }
        Err(failed("remove", path)(Errno::BUSY))
    }

    /// The owner of a new object, as the host's ids.
    fn owner_of(&self, entry: &Entry) -> Result<(Uid, Gid), CopyError> {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let outside = |id| {
            let found = self.root.owners().outside(id);
            found.ok_or_else(|| CopyError::NoSuchUser {
                name: entry.name(),
                id,
            })
        };
        Ok((Uid::from_raw(outside(uid)?), Gid::from_raw(outside(gid)?)))
    }

    fn own(&self, object: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<(), CopyError> {
        let (uid, gid) = self.owner_of(entry)?;
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(object, "", Some(uid), Some(gid), flags).map_err(failed("chown", path))
    }

    /// Owner, mode and extended attributes of anything but a link.
    fn attributes(&self, object: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<(), CopyError> {
        self.own(object, entry, path)?;
        let mode = Mode::from_raw_mode(entry.mode & 0o7777);
        rustix::fs::chmod(by_descriptor(object), mode).map_err(failed("chmod", path))?;
        // A change of the owner removes file capabilities.
        self.xattrs(object, entry, path)
    }

    /// Sets an object's portable extended attributes. On a file system without support for them the
    /// file is created without.
    fn xattrs(&self, object: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<(), CopyError> {
        let by_descriptor = by_descriptor(object);
        for (name, value) in &entry.xattrs {
            let kinds: [&[u8]; 3] = [b"user.", b"trusted.", b"system.posix_acl_"];
            let belongs = name == b"security.capability"
                || (kinds.iter().any(|kind| name.starts_with(kind))
                    && !name.starts_with(overlay::ATTRIBUTES));
            if !belongs {
                continue;
            }
            let value = self.root.owners().attribute_outside(name, value.clone());
            let Some(value) = value else {
                continue;
            };
            match rustix::fs::setxattr(&by_descriptor, name.as_slice(), &value, XattrFlags::empty())
            {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(failed("set an attribute of", path)(error)),
            }
        }
        Ok(())
    }

    /// Remembers a directory's time until everything in it was created.
    fn postpone(
        &mut self,
        place: Vec<Vec<u8>>,
        parent: &OwnedFd,
        entry: &Entry,
        path: &[u8],
    ) -> Result<(), CopyError> {
        let size = place.iter().map(|name| name.len() + 32).sum::<usize>() + 64;
        if self.later_bytes + size > MAX_LATER {
            let name = place.last().map_or(&b""[..], Vec::as_slice);
            return touch(parent, name, &times(entry)).map_err(failed("set times of", path));
        }
        self.later_bytes += size;
        self.later.push((place, times(entry)));
        Ok(())
    }

    fn end(mut self) -> Result<(), CopyError> {
        for (place, times) in std::mem::take(&mut self.later).into_iter().rev() {
            let Some((name, above)) = place.split_last() else {
                continue;
            };
            // A later entry, or the container, may have removed it.
            if let Ok(parent) = self.open_directory(above) {
                let _ = touch(&parent, name, &times);
            }
        }
        Ok(())
    }
}

/// The components of an entry's name, below the destination.
fn inside(path: &[u8], entry: &Entry) -> Result<Vec<Vec<u8>>, CopyError> {
    let mut place: Vec<Vec<u8>> = Vec::new();
    for name in super::root::components(path) {
        match name.as_slice() {
            b".." => {
                if place.pop().is_none() {
                    return Err(CopyError::Outside(entry.name()));
                }
            }
            _ => place.push(name),
        }
    }
    Ok(place)
}

fn stat(parent: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the new object. It can't be read through the handle.
fn open(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// A path that leads to this very object.
fn by_descriptor(object: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", object.as_fd().as_raw_fd())
}

fn touch(parent: &OwnedFd, name: &[u8], times: &Timestamps) -> Result<(), Errno> {
    rustix::fs::utimensat(parent, name, times, AtFlags::SYMLINK_NOFOLLOW)
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime,
        tv_nsec: entry.mtime_nsec.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn device(entry: &Entry) -> u64 {
    rustix::fs::makedev(entry.major, entry.minor)
}

fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

fn failed(operation: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> CopyError + use<> {
    CopyError::io(operation, &shown(path))
}
