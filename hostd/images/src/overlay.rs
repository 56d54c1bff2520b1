//! Finds what a stack of overlay layers shows at a name. It follows the kernel's rules
//! (`Documentation/filesystems/overlayfs.rst`), without a mount.
//!
//! An upper object hides what lower layers have at its name, except that directories are merged. A
//! *whiteout* (a character device 0:0) shows nothing. An *opaque* directory
//! (`trusted.overlay.opaque=y`) ends the merging.
//!
//! Layers are untrusted input: a name is opened in its directory without following links, and
//! examining devices and pipes has no effect.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Prefix of the attributes that belong to overlayfs, not to the object.
pub const ATTRIBUTES: &[u8] = b"trusted.overlay.";
/// The attribute that makes a directory opaque.
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// An object of a layer, opened with `O_PATH`.
#[derive(Debug)]
pub struct LayerEntry {
    /// The object, which can't be read through this handle.
    pub handle: OwnedFd,
    /// Its kind.
    pub stat: Stat,
}

impl LayerEntry {
    /// Opens a name in a directory. `None`: there is no such object.
    ///
    /// # Errors
    /// The file system fails.
    pub fn open(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(handle) => handle,
            // A name that no file system allows does not exist either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&handle)?;
        Ok(Some(Self { handle, stat }))
    }

    /// The type of the object.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// The object that a stack shows at a name.
#[derive(Debug)]
pub enum Visible {
    /// Nothing.
    Nothing,
    /// A directory: the directories of all layers that are merged, topmost first; at least one.
    Directory(Vec<LayerEntry>),
    /// Anything but a directory.
    Other(LayerEntry),
}

/// Looks up a name in the merged directory that `directories` form, topmost first.
///
/// # Errors
/// The file system fails.
pub fn look_up(directories: &[impl AsFd], name: &[u8]) -> io::Result<Visible> {
    let mut merged = Vec::new();
    for directory in directories {
        let Some(entry) = LayerEntry::open(directory.as_fd(), name)? else {
            continue;
        };
        if entry.file_type() != FileType::Directory {
            if !merged.is_empty() {
                // It ends the merging like an opaque directory.
                break;
            }
            return Ok(match is_whiteout(&entry.stat) {
                true => Visible::Nothing,
                false => Visible::Other(entry),
            });
        }
        let opaque = is_opaque(entry.handle.as_fd())?;
        merged.push(entry);
        if opaque {
            break;
        }
    }
    Ok(match merged.is_empty() {
        true => Visible::Nothing,
        false => Visible::Directory(merged),
    })
}

/// Whether an object is a whiteout.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a directory hides what lower layers have at its name. The handle may be `O_PATH`.
///
/// # Errors
/// The file system fails.
pub fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    // An O_PATH handle has no attributes of its own; /proc leads to the very same object.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mut value = [0; 1];
    match rustix::fs::getxattr(path, OPAQUE, &mut value[..]) {
        Ok(1) => Ok(value == *b"y"),
        // Overlayfs uses other values, such as `x`, for other purposes.
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::PathBuf;

    use rustix::fs::{CWD, XattrFlags, mknodat, setxattr};

    use super::*;

    fn layers() -> (tempfile::TempDir, [PathBuf; 3]) {
        let base = tempfile::tempdir().unwrap();
        let layers = ["upper", "middle", "lower"].map(|name| base.path().join(name));
        for layer in &layers {
            fs::create_dir(layer).unwrap();
        }
        (base, layers)
    }

    /// How many directories are merged at `name`; `None` for nothing, 0 for another object.
    fn shown(layers: &[PathBuf; 3], name: &str) -> Option<usize> {
        let open: Vec<_> = layers
            .iter()
            .map(|path| File::open(path).unwrap())
            .collect();
        match look_up(&open, name.as_bytes()).unwrap() {
            Visible::Nothing => None,
            Visible::Directory(merged) => Some(merged.len()),
            Visible::Other(_) => Some(0),
        }
    }

    #[test]
    fn directories_are_merged_until_something_else_hides_them() {
        let (_base, layers) = layers();
        for layer in &layers {
            fs::create_dir(layer.join("all")).unwrap();
        }
        fs::create_dir(layers[0].join("split")).unwrap();
        fs::write(layers[1].join("split"), "").unwrap();
        fs::create_dir(layers[2].join("split")).unwrap();
        fs::write(layers[1].join("file"), "").unwrap();
        fs::create_dir(layers[2].join("file")).unwrap();
        assert_eq!(shown(&layers, "all"), Some(3));
        assert_eq!(shown(&layers, "split"), Some(1));
        assert_eq!(shown(&layers, "file"), Some(0));
        assert_eq!(shown(&layers, "none"), None);
        assert_eq!(shown(&layers, &"x".repeat(300)), None);
    }

    #[test]
    fn whiteouts_and_opaque_directories_hide_lower_layers() {
        if !keelson_testing::is_root() {
            return;
        }
        let (_base, layers) = layers();
        let kind = FileType::CharacterDevice;
        mknodat(CWD, layers[0].join("gone"), kind, Mode::empty(), 0).unwrap();
        fs::write(layers[2].join("gone"), "").unwrap();
        // A device with a number is a device.
        mknodat(CWD, layers[0].join("null"), kind, Mode::empty(), 259).unwrap();
        for layer in &layers {
            fs::create_dir(layer.join("d")).unwrap();
        }
        assert_eq!(shown(&layers, "gone"), None);
        assert_eq!(shown(&layers, "null"), Some(0));
        let none = XattrFlags::empty();
        if setxattr(layers[1].join("d"), OPAQUE, b"x", none).is_ok() {
            assert_eq!(shown(&layers, "d"), Some(3));
            setxattr(layers[1].join("d"), OPAQUE, b"y", none).unwrap();
            assert_eq!(shown(&layers, "d"), Some(2));
        }
    }
}
