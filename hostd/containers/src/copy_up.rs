//! Copies an image's files at a path into a new volume: content, owners, modes, times, extended
//! attributes and links.
//!
//! The image is foreign input, and another container may see the volume already. So every object is
//! opened in its directory, by name, without following links.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use hostd_images::Owners;
use hostd_images::overlay::{self, LayerEntry, Visible};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

/// Most levels of directories; each needs descriptors while it is copied.
const DEEPEST: usize = 256;
/// Longest list of names, or value, of attributes; the kernel's own limit.
const ATTRIBUTES: usize = 64 << 10;
/// How many bytes of names of files with several names are remembered. If a file's first copy is
/// not remembered any more, the file is copied again.
const MAX_LINKED: usize = 16 << 20;

/// Copies the content of the merged directory `from` (topmost layer first) to the directory `to`.
/// `owners` translates owners to the container's.
pub(crate) fn copy_up(from: &[OwnedFd], to: &Path, owners: Owners) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(CWD, to, flags, Mode::empty())?;
    let mut copy = Copy {
        top: &target,
        way: Vec::new(),
        linked: HashMap::new(),
        linked_bytes: 0,
        owners,
    };
    copy.directory(from, &target, 0)?;
    let top = from.first().ok_or(Errno::NOENT)?;
    finish(
        top.as_fd(),
        &rustix::fs::fstat(top)?,
        target.as_fd(),
        owners,
    )?;
    rustix::fs::fsync(&target)?;
    Ok(())
}

struct Copy<'a> {
    top: &'a OwnedFd,
    /// The names from there to the current directory.
    way: Vec<CString>,
    /// The path below `top` of the first copy of a file with several names.
    linked: HashMap<(u64, u64), Vec<u8>>,
    linked_bytes: usize,
    owners: Owners,
}

impl Copy<'_> {
    fn directory(&mut self, from: &[OwnedFd], to: &OwnedFd, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(Errno::NAMETOOLONG.into());
        }
        let mut seen = HashSet::new();
        for layer in from {
            let readable = File::open(format!("/proc/self/fd/{}", layer.as_raw_fd()))?;
            for entry in Dir::new(readable)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") || !seen.insert(name.to_owned()) {
                    continue;
                }
                match overlay::look_up(from, name.to_bytes())? {
                    Visible::Nothing => {}
                    Visible::Directory(merged) => self.subdirectory(merged, name, to, depth)?,
                    Visible::Other(entry) => self.object(&entry, name, to)?,
                }
            }
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        merged: Vec<LayerEntry>,
        name: &CStr,
        to: &OwnedFd,
        depth: usize,
    ) -> io::Result<()> {
        rustix::fs::mkdirat(to, name, Mode::RWXU)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(to, name, flags, Mode::empty())?;
        let handles: Vec<OwnedFd> = merged.into_iter().map(|entry| entry.handle).collect();
        self.way.push(name.to_owned());
        self.directory(&handles, &made, depth + 1)?;
        self.way.pop();
        let top = handles.first().ok_or(Errno::NOENT)?;
        let stat = rustix::fs::fstat(top)?;
        finish(top.as_fd(), &stat, made.as_fd(), self.owners)
    }

    fn object(&mut self, entry: &LayerEntry, name: &CStr, to: &OwnedFd) -> io::Result<()> {
        let stat = &entry.stat;
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.first_copy(key)?
        {
            let path = format!("/proc/self/fd/{}", first.as_raw_fd());
            rustix::fs::linkat(CWD, path, to, name, AtFlags::SYMLINK_FOLLOW)?;
            return Ok(());
        }
        match entry.file_type() {
            FileType::RegularFile => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let made = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                let mut source = File::open(format!("/proc/self/fd/{}", entry.handle.as_raw_fd()))?;
                let mut file = File::from(made);
                io::copy(&mut source, &mut file)?;
                finish(entry.handle.as_fd(), stat, file.as_fd(), self.owners)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&entry.handle, "", Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                own(stat, to, name, self.owners)?;
                times(stat, to, name)?;
            }
            kind => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
                own(stat, to, name, self.owners)?;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(to, name, flags, Mode::empty())?;
                let path = format!("/proc/self/fd/{}", made.as_raw_fd());
                rustix::fs::chmod(path, mode)?;
                times(stat, to, name)?;
            }
        }
        if stat.st_nlink > 1 {
            self.remember(key, name);
        }
        Ok(())
    }

    fn remember(&mut self, key: (u64, u64), name: &CStr) {
        let mut path = Vec::new();
        for directory in &self.way {
            path.extend_from_slice(directory.to_bytes());
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let size = path.len() + 64;
        if self.linked_bytes + size <= MAX_LINKED {
            self.linked_bytes += size;
            self.linked.insert(key, path);
        }
    }

    /// The first copy of a file with several names; `None` if there is none, or if another user of
    /// the volume has replaced it. It is reached through no link, so it can't be outside of the
    /// volume.
    fn first_copy(&self, key: (u64, u64)) -> io::Result<Option<OwnedFd>> {
        let Some(path) = self.linked.get(&key) else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(self.top, path.as_slice(), flags, Mode::empty(), within) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Fails for a user or group that does not exist in the container.
fn ids(stat: &Stat, owners: Owners) -> Result<(Option<Uid>, Option<Gid>), Errno> {
    let outside = |id| owners.outside(id).ok_or(Errno::OVERFLOW);
    Ok((
        Some(Uid::from_raw(outside(stat.st_uid)?)),
        Some(Gid::from_raw(outside(stat.st_gid)?)),
    ))
}

fn own(stat: &Stat, directory: &OwnedFd, name: &CStr, owners: Owners) -> io::Result<()> {
    let (user, group) = ids(stat, owners)?;
    Ok(rustix::fs::chownat(
        directory,
        name,
        user,
        group,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn stamps(stat: &Stat) -> Timestamps {
    let stamp = |seconds: i64, nanoseconds: i64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    #[expect(clippy::unnecessary_cast, reason = "the types differ between targets")]
    Timestamps {
        last_access: stamp(stat.st_atime as i64, stat.st_atime_nsec as i64),
        last_modification: stamp(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
    }
}

fn times(stat: &Stat, directory: &OwnedFd, name: &CStr) -> io::Result<()> {
    Ok(rustix::fs::utimensat(
        directory,
        name,
        &stamps(stat),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Copies the attributes of a file or directory.
fn finish(from: BorrowedFd<'_>, stat: &Stat, to: BorrowedFd<'_>, owners: Owners) -> io::Result<()> {
    let (user, group) = ids(stat, owners)?;
    rustix::fs::fchown(to, user, group)?;
    // After the owner, because a change of the owner clears mode bits and file capabilities.
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    attributes(from, to, owners)?;
    Ok(rustix::fs::futimens(to, &stamps(stat))?)
}

fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, owners: Owners) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", from.as_raw_fd());
    let mut names = vec![0; ATTRIBUTES];
    let length = match rustix::fs::listxattr(&path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut value = Vec::new();
    let list = names.get(..length).unwrap_or_default();
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name.starts_with(overlay::ATTRIBUTES) {
            continue;
        }
        value.resize(ATTRIBUTES, 0);
        let length = match rustix::fs::getxattr(&path, name, &mut value[..]) {
            Ok(length) => length,
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        };
        let value = value.get(..length).unwrap_or_default().to_vec();
        let Some(value) = owners.attribute_outside(name, value) else {
            continue;
        };
        match rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty()) {
            // The volume's file system does not support them.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn handles(layers: &[PathBuf]) -> Vec<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path| rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap();
        layers.iter().map(open).collect()
    }

    #[test]
    fn a_copy_is_like_the_original() {
        let base = tempfile::tempdir().unwrap();
        let layers = ["upper", "lower"].map(|name| base.path().join(name));
        for layer in &layers {
            fs::create_dir_all(layer.join("d")).unwrap();
        }
        let [upper, lower] = &layers;
        fs::write(upper.join("file"), "up").unwrap();
        fs::write(lower.join("file"), "low").unwrap();
        fs::write(lower.join("d/deep"), "deep").unwrap();
        fs::hard_link(lower.join("d/deep"), lower.join("same")).unwrap();
        symlink("/etc/passwd", upper.join("link")).unwrap();
        fs::set_permissions(upper.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(upper, fs::Permissions::from_mode(0o1777)).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5);
        let file = File::open(upper.join("file")).unwrap();
        file.set_modified(old).unwrap();
        rustix::fs::fsetxattr(&file, "user.a", b"b", XattrFlags::empty()).unwrap();
        let to = base.path().join("to");
        fs::create_dir(&to).unwrap();
        copy_up(&handles(&layers), &to, Owners::default()).unwrap();
        assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "up");
        let found = fs::metadata(to.join("file")).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o640);
        assert_eq!(found.modified().unwrap(), old);
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(to.join("file"), "user.a", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"b");
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o1777);
        let target = fs::read_link(to.join("link")).unwrap();
        assert_eq!(target, Path::new("/etc/passwd"));
        let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
        assert_eq!(inode("same"), inode("d/deep"));
    }
}
