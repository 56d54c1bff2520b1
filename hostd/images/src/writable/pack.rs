//! Tar archives of a writable layer, and of a whole root file system.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use keelson_oci::archive::{Entry, EntryKind, SparsePart};
use keelson_oci::layer::tree::{OPAQUE, WHITEOUT};
use keelson_oci::tar_entry::{self, MAX_SPARSE};
use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;

use super::object::{Attributes, Found, Object, entries, lookup, names};
use super::stream::TarStream;
use super::{WritableLayer, at, is_mount_point, join};
use crate::error::ImageError;
use crate::owners::Owners;

/// The smallest hole, in bytes, for which a sparse entry is written. Some programs can't read
/// sparse entries.
const MIN_HOLES: u64 = 64 << 10;
/// With more parts than this, the map is larger than what it saves.
const MAX_PARTS: usize = 16_384;

/// Writes objects, and remembers the first name of those with several names.
pub(super) struct Packer<'a, 'b> {
    stream: &'a mut TarStream<'b>,
    links: HashMap<(u64, u64), Vec<u8>>,
    /// How many attributes no archive could hold.
    left_out: u64,
    owners: Owners,
}

/// Up to this number, skipped attributes are logged one by one.
const MAX_TOLD: u64 = 10;

impl<'a, 'b> Packer<'a, 'b> {
    pub(super) fn new(stream: &'a mut TarStream<'b>) -> Self {
        Self {
            stream,
            links: HashMap::new(),
            left_out: 0,
            owners: Owners::default(),
        }
    }

    /// Translates owners to the container's ids.
    pub(super) fn with_owners(self, owners: Owners) -> Self {
        Self { owners, ..self }
    }

    fn header(&mut self, entry: &mut Entry) -> Result<(), ImageError> {
        let owners = self.owners;
        (entry.uid, entry.gid) = (owners.inside(entry.uid), owners.inside(entry.gid));
        let attributes = std::mem::take(&mut entry.xattrs).into_iter();
        entry.xattrs = attributes
            .filter_map(|(name, value)| {
                let value = owners.attribute_inside(&name, value)?;
                Some((name, value))
            })
            .collect();
        for attribute in tar_entry::leave_out(entry) {
            self.left_out += 1;
            if self.left_out <= MAX_TOLD {
                tracing::warn!(
                    path = entry.name(),
                    attribute,
                    "an archive cannot hold this attribute, which is left out"
                );
            }
        }
        let bytes =
            tar_entry::header(entry).map_err(|error| ImageError::Invalid(error.to_string()))?;
        self.stream.put(&bytes)
    }

    /// Logs how many attributes are missing, if not all were logged.
    pub(super) fn end(&self) {
        if self.left_out > MAX_TOLD {
            tracing::warn!(
                count = self.left_out,
                "attributes were left out of an archive"
            );
        }
    }

    pub(super) fn directory(
        &mut self,
        path: &[u8],
        object: &Object,
        attributes: Attributes,
    ) -> Result<(), ImageError> {
        let mut entry = entry(path, EntryKind::Directory, object);
        entry.xattrs = attributes.own;
        self.header(&mut entry)
    }

    /// Writes any object but a directory. Sockets are skipped: they have no use without their
    /// process.
    pub(super) fn object(&mut self, path: &[u8], object: &Object) -> Result<(), ImageError> {
        let kind = match object.kind() {
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Symlink,
            FileType::CharacterDevice => EntryKind::CharDevice,
            FileType::BlockDevice => EntryKind::BlockDevice,
            FileType::Fifo => EntryKind::Fifo,
            _ => return Ok(()),
        };
        let stat = &object.stat;
        let mut entry = entry(path, kind, object);
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                entry.kind = EntryKind::HardLink;
                entry.link.clone_from(first);
                return self.header(&mut entry);
            }
            self.links.insert(key, entry.path.clone());
        }
        entry.xattrs = object.attributes().map_err(at(path))?.own;
        match kind {
            EntryKind::File => return self.file(path, object, entry),
            EntryKind::Symlink => entry.link = object.link_target().map_err(at(path))?,
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                entry.major = rustix::fs::major(stat.st_rdev);
                entry.minor = rustix::fs::minor(stat.st_rdev);
            }
            _ => {}
        }
        self.header(&mut entry)
    }

    fn file(&mut self, path: &[u8], object: &Object, mut entry: Entry) -> Result<(), ImageError> {
        let size = u64::try_from(object.stat.st_size).unwrap_or(0);
        (entry.size, entry.stored) = (size, size);
        if size == 0 {
            return self.header(&mut entry);
        }
        let file = object.file().map_err(at(path))?;
        let allocated = u64::try_from(object.stat.st_blocks).unwrap_or(0) * 512;
        if allocated + MIN_HOLES <= size
            && let Some(parts) = parts(&file, size).map_err(at(path))?
        {
            entry.stored = parts.iter().map(|part| part.length).sum();
            entry.sparse = Some(parts);
        }
        self.header(&mut entry)?;
        let whole = [SparsePart {
            offset: 0,
            length: size,
        }];
        for part in entry.sparse.as_deref().unwrap_or(&whole) {
            self.stream.put_file(&file, *part, path)?;
        }
        self.stream.pad(entry.stored)
    }

    /// An entry about a name of lower layers.
    fn mark(&mut self, directory: &[u8], name: &[u8]) -> Result<(), ImageError> {
        let path = join(directory, name)?;
        self.header(&mut Entry::new(relative(&path), EntryKind::File))
    }
}

fn relative(path: &[u8]) -> Vec<u8> {
    path.strip_prefix(b"/").unwrap_or(path).to_vec()
}

fn entry(path: &[u8], kind: EntryKind, object: &Object) -> Entry {
    let stat = &object.stat;
    Entry {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        ..Entry::new(relative(path), kind)
    }
}

/// The parts of a file that have data. `None` if the holes are too small.
fn parts(file: &File, size: u64) -> std::io::Result<Option<Vec<SparsePart>>> {
    let mut parts = Vec::new();
    let mut stored = 0;
    let mut at = 0;
    while at < size {
        let offset = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(offset) => offset,
            // The rest is a hole.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if offset >= size {
            break;
        }
        let end = rustix::fs::seek(file, SeekFrom::Hole(offset))?.min(size);
        let length = end.saturating_sub(offset);
        parts.push(SparsePart { offset, length });
        stored += length;
        at = end;
        // The file may be growing: every step must make progress.
        if length == 0 || parts.len() > MAX_PARTS || stored >= MAX_SPARSE {
            return Ok(None);
        }
    }
    Ok((stored + MIN_HOLES <= size).then_some(parts))
}

/// The whole root file system.
pub(super) fn whole(layer: &WritableLayer, stream: &mut TarStream<'_>) -> Result<(), ImageError> {
    let mut directories = vec![layer.open_upper()?];
    directories.extend(layer.open_lower()?);
    let mut packer = Packer::new(stream);
    merged(layer, &mut packer, b"", &directories)?;
    packer.end();
    Ok(())
}

fn merged(
    layer: &WritableLayer,
    packer: &mut Packer<'_, '_>,
    path: &[u8],
    directories: &[OwnedFd],
) -> Result<(), ImageError> {
    // Each name, with the topmost directory that has it.
    let mut all: BTreeMap<Box<[u8]>, (usize, FileType)> = BTreeMap::new();
    for (index, directory) in directories.iter().enumerate() {
        for (name, kind) in entries(directory).map_err(at(path))? {
            all.entry(name).or_insert((index, kind));
        }
    }
    for (name, (index, kind)) in all {
        let path = join(path, &name)?;
        let from = directories.get(index..).unwrap_or_default();
        // This is true for most files: nobody replaces files in a layer of the image, so they are
        // not examined again.
        if index > 0
            && kind == FileType::RegularFile
            && let Some(directory) = from.first()
            && let Some(object) = Object::open_file(directory.as_fd(), &name).map_err(at(&path))?
        {
            packer.object(&path, &object)?;
            continue;
        }
        match lookup(from, &name).map_err(at(&path))? {
            Found::Absent => {}
            Found::Other(object) => packer.object(&path, &object)?,
            Found::Directory(object, mut inside) => {
                let attributes = object.attributes().map_err(at(&path))?;
                packer.directory(&path, &object, attributes)?;
                if index == 0 && layer.is_volume(&path) {
                    inside.remove(0);
                }
                merged(layer, packer, &path, &inside)?;
            }
        }
    }
    Ok(())
}

/// Writes the changes of the upper directory as a layer: the marks of overlayfs are replaced by
/// those of layer archives. False: there are no changes, and nothing was written.
pub(super) fn upper(layer: &WritableLayer, stream: &mut TarStream<'_>) -> Result<bool, ImageError> {
    let (upper, lower) = (layer.open_upper()?, layer.open_lower()?);
    let mut changes = Changes {
        layer,
        packer: Packer::new(stream),
        pending: Vec::new(),
        written: false,
    };
    changes.root(&upper)?;
    changes.contents(b"", &upper, &lower)?;
    changes.packer.end();
    Ok(changes.written)
}

struct Changes<'a, 'b, 'c> {
    layer: &'a WritableLayer,
    packer: Packer<'b, 'c>,
    /// Parent directories that are written only if something inside is written.
    pending: Vec<Entry>,
    written: bool,
}

impl Changes<'_, '_, '_> {
    fn flush(&mut self) -> Result<(), ImageError> {
        self.written = true;
        for mut entry in std::mem::take(&mut self.pending) {
            self.packer.header(&mut entry)?;
        }
        Ok(())
    }

    /// The root's own attributes, if they differ from those that the engine set.
    fn root(&mut self, upper: &OwnedFd) -> Result<(), ImageError> {
        let Some(root) = Object::open(upper.as_fd(), b".").map_err(at(b"/"))? else {
            return Ok(());
        };
        let attributes = root.attributes().map_err(at(b"/"))?;
        let stat = &root.stat;
        if (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) != (0o755, 0, 0)
            || !attributes.own.is_empty()
        {
            self.written = true;
            self.packer.directory(b"/.", &root, attributes)?;
        }
        Ok(())
    }

    /// True: it contains an empty mount point, whose creation has changed the directory's time.
    fn contents(
        &mut self,
        path: &[u8],
        upper: &OwnedFd,
        lower: &[OwnedFd],
    ) -> Result<bool, ImageError> {
        let mut own = names(upper).map_err(at(path))?;
        own.sort_unstable();
        let mut stub = false;
        for name in own {
            let inside = join(path, &name)?;
            let Some(object) = Object::open(upper.as_fd(), &name).map_err(at(&inside))? else {
                continue;
            };
            let old = lookup(lower, &name).map_err(at(&inside))?;
            let absent = matches!(old, Found::Absent);
            if object.is_whiteout() {
                if !absent {
                    self.flush()?;
                    self.packer.mark(path, &[WHITEOUT, &name].concat())?;
                }
                continue;
            }
            if name.starts_with(WHITEOUT) {
                return Err(ImageError::Invalid(format!(
                    "{} cannot be put into a layer: names that begin with .wh. hide others there",
                    String::from_utf8_lossy(&inside)
                )));
            }
            if object.is_directory() {
                stub |= self.directory(&inside, &object, old)?;
                continue;
            }
            let empty = object.kind() == FileType::RegularFile && object.stat.st_size == 0;
            if absent && empty && is_mount_point(&inside) {
                stub = true;
                continue;
            }
            self.flush()?;
            self.packer.object(&inside, &object)?;
        }
        Ok(stub)
    }

    /// True: the directory is an empty mount point that the image does not have.
    fn directory(&mut self, path: &[u8], object: &Object, old: Found) -> Result<bool, ImageError> {
        let attributes = object.attributes().map_err(at(path))?;
        let opaque = attributes.opaque;
        let (same, lower) = match &old {
            Found::Directory(old, lower) => (
                same_directory(object, &attributes, old).map_err(at(path))?,
                lower.as_slice(),
            ),
            _ => (false, &[][..]),
        };
        let same_time = match &old {
            Found::Directory(old, _) => old.stat.st_mtime == object.stat.st_mtime,
            _ => false,
        };
        let mut own = entry(path, EntryKind::Directory, object);
        own.xattrs = attributes.own;
        self.pending.push(own);
        let depth = self.pending.len();
        if opaque && !lower.is_empty() {
            self.flush()?;
            self.packer.mark(path, OPAQUE)?;
        }
        let mut stub = false;
        if !self.layer.is_volume(path) {
            let opened = object.directory().map_err(at(path))?;
            let lower = if opaque { &[][..] } else { lower };
            stub = self.contents(path, &opened, lower)?;
        }
        if self.pending.len() < depth {
            return Ok(false);
        }
        let absent = matches!(old, Found::Absent);
        let empty_mount_point = absent && is_mount_point(path);
        if empty_mount_point || (same && (same_time || stub)) {
            self.pending.pop();
        } else {
            self.flush()?;
        }
        Ok(empty_mount_point)
    }
}

/// Whether a directory was only copied up; its time is ignored.
fn same_directory(new: &Object, attributes: &Attributes, old: &Object) -> std::io::Result<bool> {
    Ok(new.stat.st_mode == old.stat.st_mode
        && new.stat.st_uid == old.stat.st_uid
        && new.stat.st_gid == old.stat.st_gid
        && attributes.own == old.attributes()?.own)
}
