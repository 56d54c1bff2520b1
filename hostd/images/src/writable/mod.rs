//! A container's writable layer over the layers of its image: its changes, its size, and tar
//! archives of it and of the whole root file system. Nothing is mounted for this: the rules of
//! overlayfs are applied to the directories that it stacks.
//!
//! The container may be running. Every object is reached from its directory's descriptor, never by
//! a path and never through a symbolic link. Objects that disappear meanwhile are skipped.

mod changes;
mod object;
mod pack;
mod size;
mod stream;
mod tree;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};

use crate::error::ImageError;
use crate::types::RootfsLayers;
use keelson_blocking::TaskDied;

pub use size::tree_bytes;
pub(crate) use stream::TarStream;
pub use tree::{is_of_kernel, pack_tree};

/// How many levels of directories are supported: each needs a descriptor and a few stack frames.
const MAX_DEPTH: usize = 256;
/// Enough stack for that many levels, even without optimisation.
const STACK: usize = 32 << 20;

/// Mount points that the runtime makes if the image does not have them. They do not count as
/// changes while they are empty, as in Docker, which keeps them in a separate layer.
const MOUNT_POINTS: [&[u8]; 12] = [
    b"/.dockerenv",
    b"/dev",
    b"/dev/console",
    b"/dev/mqueue",
    b"/dev/pts",
    b"/dev/shm",
    b"/etc",
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/resolv.conf",
    b"/proc",
    b"/sys",
];

/// A container's writable layer and the layers below it.
#[derive(Debug, Clone)]
pub struct WritableLayer {
    /// Overlayfs's upper directory.
    pub upper: PathBuf,
    /// The image's layers, mounted.
    pub lower: RootfsLayers,
    /// Absolute paths of volumes that are stored in the writable layer. Their contents are not part
    /// of the root file system.
    pub volumes: BTreeSet<String>,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It differs from the image's object, has other attributes, or (a directory) its contents have
    /// changed.
    Modified = 0,
    /// The image does not have it.
    Added = 1,
    /// Only the image has it.
    Deleted = 2,
}

/// One difference between a container's root file system and its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path in the container, as bytes.
    pub path: Vec<u8>,
    /// What happened to it.
    pub kind: ChangeKind,
}

impl WritableLayer {
    /// The changes, sorted by path; a directory comes before its contents. Blocks.
    pub fn changes(&self) -> Result<Vec<Change>, ImageError> {
        deep(|| changes::list(self))
    }

    /// Bytes of the files in the writable layer. Blocks.
    pub fn size(&self) -> Result<u64, ImageError> {
        deep(|| size::of(self))
    }

    /// Sends the whole root file system as a tar archive, in pieces, to `send`, which returns
    /// whether the receiver still wants them. Blocks.
    pub fn export<'a>(
        &self,
        send: &'a mut (dyn FnMut(Bytes) -> bool + std::marker::Send + 'a),
    ) -> Result<(), ImageError> {
        let mut stream = TarStream::new(send);
        deep(|| pack::whole(self, &mut stream))?;
        stream.end()
    }

    /// Writes the changes as a layer. False: there are none, and nothing was written.
    pub(crate) fn pack(&self, stream: &mut TarStream<'_>) -> Result<bool, ImageError> {
        deep(|| pack::upper(self, stream))
    }

    fn open_upper(&self) -> Result<OwnedFd, ImageError> {
        open(&self.upper)
    }

    fn open_lower(&self) -> Result<Vec<OwnedFd>, ImageError> {
        self.lower.lower.iter().map(|path| open(path)).collect()
    }

    fn is_volume(&self, path: &[u8]) -> bool {
        std::str::from_utf8(path).is_ok_and(|path| self.volumes.contains(path))
    }
}

/// Walks a tree on a thread whose stack is large enough for the deepest tree.
fn deep<T: std::marker::Send>(
    walk: impl FnOnce() -> Result<T, ImageError> + std::marker::Send,
) -> Result<T, ImageError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("writable-layer".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, walk)
            .map_err(ImageError::io("start a thread for", "a container".as_ref()))?
            .join()
            .map_err(|panic| TaskDied::of_panic(&*panic))?
    })
}

/// A directory that only the engine can replace.
fn open(path: &Path) -> Result<OwnedFd, ImageError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| ImageError::io("open", path)(error.into()))
}

fn is_mount_point(path: &[u8]) -> bool {
    MOUNT_POINTS.contains(&path)
}

/// An absolute path extended by one name. Refused if it is too long or too deep for an archive.
fn join(directory: &[u8], name: &[u8]) -> Result<Vec<u8>, ImageError> {
    let path = [directory, b"/", name].concat();
    let depth = path.iter().filter(|byte| **byte == b'/').count();
    if path.len() > keelson_oci::archive::MAX_PATH || depth > MAX_DEPTH {
        let start = String::from_utf8_lossy(path.get(..200).unwrap_or(&path)).into_owned();
        return Err(ImageError::Invalid(format!(
            "the container's root file system has too long or too deep a path: it begins with {start}"
        )));
    }
    Ok(path)
}

/// The error, with the path as the container sees it.
fn at(path: &[u8]) -> impl FnOnce(std::io::Error) -> ImageError + use<> {
    let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    move |source| ImageError::Io {
        operation: "read in the container",
        path,
        source,
    }
}
