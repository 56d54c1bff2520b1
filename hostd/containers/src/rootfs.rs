//! Looking into a root file system without mounting it: the kernel's overlay rules (upper
//! before lower, whiteouts, opaque folders) applied to the layers' folders.
//!
//! Layers are foreign input. Every component is opened relative to its parent without following
//! links, links are resolved here within the root, and sizes are bounded.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// As the kernel: more links on the way are an error.
const MAX_LINKS: usize = 40;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Absent,
    Folder,
    Other,
}

/// The layers of a root file system, topmost first.
pub(crate) struct Merged<'a> {
    layers: &'a [PathBuf],
}

/// One path component in the merged view.
enum Found {
    Absent,
    /// The folder in every layer that contributes to it, topmost first.
    Folder(Vec<OwnedFd>),
    Link(PathBuf),
    File(OwnedFd),
}

impl<'a> Merged<'a> {
    pub(crate) fn new(layers: &'a [PathBuf]) -> Self {
        Self { layers }
    }

    /// What is at an absolute path, links followed.
    pub(crate) fn kind(&self, path: &str) -> std::io::Result<Kind> {
        Ok(match self.walk(path)? {
            Found::Folder(_) => Kind::Folder,
            Found::File(_) => Kind::Other,
            Found::Absent | Found::Link(_) => Kind::Absent,
        })
    }

    /// The content of a regular file, links followed; `None` when there is no such file or it is
    /// larger than `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
        let Found::File(handle) = self.walk(path)? else {
            return Ok(None);
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        // The handle is O_PATH, so that looking at a device or a pipe has no effect. Opening
        // through /proc reaches the very file that was examined.
        let file = std::fs::File::open(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&handle)
        ))?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }

    fn walk(&self, path: &str) -> std::io::Result<Found> {
        let mut links = 0;
        let mut todo: VecDeque<String> = components(path).collect();
        // The folders from the root to the current one, for `..`.
        let mut stack: Vec<Vec<OwnedFd>> = vec![self.root()?];
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let Some(folder) = stack.last() else {
                return Ok(Found::Absent);
            };
            match lookup(folder, &name)? {
                Found::Folder(folders) => stack.push(folders),
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = target.to_string_lossy();
                    if target.starts_with('/') {
                        stack.truncate(1);
                    }
                    for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(component);
                    }
                }
                found @ Found::File(_) if todo.is_empty() => return Ok(found),
                Found::File(_) | Found::Absent => return Ok(Found::Absent),
            }
        }
        Ok(stack.pop().map_or(Found::Absent, Found::Folder))
    }

    fn root(&self) -> std::io::Result<Vec<OwnedFd>> {
        let mut folders = Vec::with_capacity(self.layers.len());
        for layer in self.layers {
            folders.push(rustix::fs::open(
                layer,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
        }
        Ok(folders)
    }
}

fn components(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
}

fn lookup(folders: &[OwnedFd], name: &str) -> std::io::Result<Found> {
    let mut found = Vec::new();
    for folder in folders {
        let handle = match rustix::fs::openat(
            folder.as_fd(),
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => continue,
            Err(Errno::NAMETOOLONG | Errno::INVAL) => return Ok(Found::Absent),
            Err(error) => return Err(error.into()),
        };
        let status = rustix::fs::fstat(&handle)?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let opaque = is_opaque(&handle);
                found.push(handle);
                if opaque {
                    break;
                }
            }
            // A whiteout, or a file above a folder, hides what is below.
            _ if !found.is_empty() => break,
            FileType::CharacterDevice if status.st_rdev == 0 => return Ok(Found::Absent),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&handle, "", Vec::new())?;
                let target = std::ffi::OsString::from(target.to_string_lossy().into_owned());
                return Ok(Found::Link(Path::new(&target).to_owned()));
            }
            _ => return Ok(Found::File(handle)),
        }
    }
    Ok(if found.is_empty() {
        Found::Absent
    } else {
        Found::Folder(found)
    })
}

fn is_opaque(handle: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(handle));
    let mut value = [0_u8; 1];
    matches!(
        rustix::fs::getxattr(path, "trusted.overlay.opaque", &mut value[..]),
        Ok(1) if value == *b"y"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn layers() -> (tempfile::TempDir, Vec<PathBuf>) {
        let base = tempfile::tempdir().unwrap();
        let layers: Vec<_> = ["upper", "middle", "lower"]
            .iter()
            .map(|name| base.path().join(name))
            .collect();
        for layer in &layers {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        (base, layers)
    }

    fn put(layer: &Path, path: &str, text: &str) {
        let path = layer.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn upper_layers_hide_lower_ones() {
        let (_base, layers) = layers();
        let [upper, middle, lower] = &layers[..] else {
            panic!()
        };
        put(lower, "etc/passwd", "low");
        put(lower, "etc/group", "low");
        put(middle, "etc/passwd", "mid");
        put(upper, "etc/other/x", "up");
        let merged = Merged::new(&layers);
        assert_eq!(merged.read("/etc/passwd", 10).unwrap().unwrap(), b"mid");
        assert_eq!(merged.read("etc//./group", 10).unwrap().unwrap(), b"low");
        assert_eq!(merged.read("/etc/passwd", 2).unwrap(), None, "too large");
        assert_eq!(merged.read("/etc", 10).unwrap(), None);
        assert_eq!(merged.kind("/etc/other").unwrap(), Kind::Folder);
        assert_eq!(merged.kind("/etc/passwd").unwrap(), Kind::Other);
        assert_eq!(merged.kind("/etc/passwd/x").unwrap(), Kind::Absent);
        assert_eq!(merged.kind("/").unwrap(), Kind::Folder);
    }

    #[test]
    fn links_stay_within_the_root() {
        let (base, layers) = layers();
        let [upper, _, lower] = &layers[..] else {
            panic!()
        };
        fs::write(base.path().join("secret"), "outside").unwrap();
        put(lower, "real/passwd", "inside");
        symlink("/real/passwd", upper.join("etc/passwd")).unwrap();
        symlink("../../../../secret", upper.join("etc/escape")).unwrap();
        symlink(base.path().join("secret"), upper.join("etc/absolute")).unwrap();
        symlink("loop", upper.join("etc/loop")).unwrap();
        let merged = Merged::new(&layers);
        assert_eq!(merged.read("/etc/passwd", 10).unwrap().unwrap(), b"inside");
        assert_eq!(merged.read("/etc/escape", 10).unwrap(), None);
        assert_eq!(merged.read("/etc/absolute", 10).unwrap(), None);
        assert!(merged.read("/etc/loop", 10).is_err());
    }

    #[test]
    fn whiteouts_and_opaque_folders() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root for whiteouts");
            return;
        }
        let (_base, layers) = layers();
        let [upper, middle, lower] = &layers[..] else {
            panic!()
        };
        put(lower, "etc/passwd", "low");
        put(lower, "opt/a", "low");
        put(middle, "opt/b", "mid");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            upper.join("etc/passwd"),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
        let merged = Merged::new(&layers);
        assert_eq!(merged.kind("/etc/passwd").unwrap(), Kind::Absent);
        assert_eq!(merged.kind("/opt/a").unwrap(), Kind::Other);
        let set = rustix::fs::setxattr(
            middle.join("opt"),
            "trusted.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        );
        if set.is_ok() {
            assert_eq!(merged.kind("/opt/a").unwrap(), Kind::Absent);
            assert_eq!(merged.kind("/opt/b").unwrap(), Kind::Other);
        }
    }
}
