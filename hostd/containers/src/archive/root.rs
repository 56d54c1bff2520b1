//! Paths inside a container's root, found by descriptors.
//!
//! Every path is looked up by the kernel with the container's root as the root, so that neither
//! `..` nor a link leads out of it, whatever the container replaces meanwhile. Links of procfs that
//! jump elsewhere are not followed.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use hostd_images::Owners;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::copy_error::CopyError;

/// How often a path is looked up again whose parts were moved meanwhile.
const TRIES: usize = 100;
/// As in the kernel: more links on a path are an error.
const MAX_LINKS: usize = 40;
/// How many components of a path, including those of its links, are resolved one by one.
const MAX_COMPONENTS: usize = 4096;

/// A container's root, with the namespace that keeps the mounts below it.
#[derive(Debug)]
pub(super) struct Root {
    handle: OwnedFd,
    _namespace: OwnedFd,
    owners: Owners,
}

impl Root {
    pub(super) fn new(handle: OwnedFd, namespace: OwnedFd, owners: Owners) -> Self {
        Self {
            handle,
            _namespace: namespace,
            owners,
        }
    }

    /// Translates owners, as seen here, to the container's ids.
    pub(super) fn owners(&self) -> Owners {
        self.owners
    }

    /// Gives this thread the identity of the container's root user for new files, with all
    /// capabilities of the host's root. Ids that are not mapped into the container can't own files
    /// in its layers. The change is permanent for the thread.
    pub(super) fn act_as_root(&self) -> Result<(), CopyError> {
        let root = match self.owners.outside(0) {
            None | Some(0) => return Ok(()),
            Some(root) => root,
        };
        let failed = || CopyError::io("act as the root user of", Path::new("/"));
        let all = rustix::thread::capabilities(None).map_err(failed())?;
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(root));
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(root));
        // The change of user has dropped some capabilities.
        rustix::thread::set_capabilities(None, all).map_err(failed())
    }

    /// Opens an object, which can't be read through the handle. The last component is followed too
    /// when it is a link, unless `follow` is false.
    pub(super) fn open(&self, path: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
        let flags = match follow {
            true => OFlags::empty(),
            false => OFlags::NOFOLLOW,
        };
        look_up(self.handle.as_fd(), path, flags)
    }

    /// Opens a directory, links followed.
    pub(super) fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        look_up(self.handle.as_fd(), path, OFlags::DIRECTORY)
    }

    /// Whether an object is on the root's own mount.
    pub(super) fn is_on_root(&self, object: &OwnedFd) -> Result<bool, Errno> {
        Ok(mount_id(&self.handle)? == mount_id(object)?)
    }

    /// Resolves all links of a path, as far as it exists.
    pub(super) fn evaluate(&self, path: &Path) -> Result<PathBuf, Errno> {
        let mut todo: VecDeque<Vec<u8>> = components(path.as_os_str().as_bytes()).collect();
        let mut place: Vec<Vec<u8>> = Vec::new();
        let (mut links, mut looked_at) = (0, 0);
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                place.pop();
                continue;
            }
            looked_at += 1;
            if looked_at > MAX_COMPONENTS {
                return Err(Errno::NAMETOOLONG);
            }
            place.push(name);
            let object = match self.open(&joined(&place), false) {
                Ok(object) => object,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    place.extend(todo);
                    break;
                }
                Err(error) => return Err(error),
            };
            let target = match rustix::fs::readlinkat(&object, "", Vec::new()) {
                Ok(target) => target.into_bytes(),
                // It is no link.
                Err(Errno::NOENT | Errno::INVAL) => continue,
                Err(error) => return Err(error),
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            place.pop();
            if target.starts_with(b"/") {
                place.clear();
            }
            for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                todo.push_front(component);
            }
        }
        Ok(PathBuf::from(OsStr::from_bytes(&joined(&place))))
    }
}

/// Looks a path up with `root` as the root.
pub(super) fn look_up(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // Something was moved or mounted, and the kernel can't be sure that it stayed inside.
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

fn mount_id(object: &OwnedFd) -> Result<u64, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::statx(object, "", flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn joined(place: &[Vec<u8>]) -> Vec<u8> {
    [b"/", place.join(&b'/').as_slice()].concat()
}

/// The components of a path that are not empty and not `.`.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}

/// A client's path as Docker reads it: absolute, with `..` resolved in the text. A slash or `/.` at
/// the end is kept, because then a link at the end is followed.
pub(super) fn clean(path: &str) -> String {
    let mut place: Vec<Vec<u8>> = Vec::new();
    for name in components(path.as_bytes()) {
        match name.as_slice() {
            b".." => drop(place.pop()),
            _ => place.push(name),
        }
    }
    let mut clean = String::from_utf8_lossy(&joined(&place)).into_owned();
    if clean != "/" && (path.ends_with('/') || path.ends_with("/.")) {
        clean.push_str(if path.ends_with('/') { "/" } else { "/." });
    } else if clean == "/" && (path == "." || path.ends_with("/.")) {
        clean.push('.');
    }
    clean
}

/// The last name of a clean path: `/` for the root, `.` when the path ends with `/.`.
pub(super) fn base(clean: &str) -> &str {
    match clean.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_of_clients() {
        for (path, wanted, name) in [
            ("", "/", "/"),
            ("/", "/", "/"),
            ("a", "/a", "a"),
            ("/a//b/", "/a/b/", "b"),
            ("/a/./b/.", "/a/b/.", "."),
            ("/a/../../b", "/b", "b"),
            ("/.", "/.", "."),
            ("..", "/", "/"),
        ] {
            assert_eq!(clean(path), wanted, "{path}");
            assert_eq!(base(&clean(path)), name, "{path}");
        }
    }

    fn root(directory: &Path) -> Root {
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(directory, flags, Mode::empty()).unwrap()
        };
        Root::new(open(), open(), Owners::default())
    }

    #[test]
    fn nothing_leads_out() {
        let base = tempfile::tempdir().unwrap();
        let inside = base.path().join("root");
        std::fs::create_dir_all(inside.join("run")).unwrap();
        std::fs::create_dir_all(inside.join("var")).unwrap();
        std::fs::write(base.path().join("secret"), "outside").unwrap();
        std::fs::write(inside.join("run/x"), "inside").unwrap();
        symlink("/run", inside.join("var/run")).unwrap();
        symlink("../../secret", inside.join("up")).unwrap();
        symlink(base.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        let root = root(&inside);
        let file = root.open(b"/var/run/x", true).unwrap();
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 6);
        for path in ["/up", "/absolute", "/../secret", "/var/../../secret"] {
            let error = root.open(path.as_bytes(), true).unwrap_err();
            assert_eq!(error, Errno::NOENT, "{path}");
        }
        let evaluate = |path: &str| {
            let found = root.evaluate(Path::new(path));
            found.map(|path| path.to_string_lossy().into_owned())
        };
        assert_eq!(evaluate("/var/run/x").unwrap(), "/run/x");
        assert_eq!(evaluate("/up").unwrap(), "/secret");
        assert_eq!(evaluate("/var/run/new/thing").unwrap(), "/run/new/thing");
        assert_eq!(evaluate("/loop"), Err(Errno::LOOP));
        assert!(root.is_on_root(&file).unwrap());
    }
}
