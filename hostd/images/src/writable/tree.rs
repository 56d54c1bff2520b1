//! A tar archive of an object of a file system, with everything below it.

use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::FileType;

use super::object::{Object, entries};
use super::pack::Packer;
use super::stream::TarStream;
use super::{at, deep, join};
use crate::error::ImageError;
use crate::overlay::LayerEntry;
use crate::owners::Owners;

/// File systems that show the kernel's state. They store no files, and reading some entries never
/// ends. In an archive they are empty directories.
const OF_KERNEL: [u32; 12] = [
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x0000_1cd1, // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x6e73_6673, // nsfs
];

/// Whether this object is in a file system that shows the kernel's state.
///
/// # Errors
/// The file system's type can't be read.
pub fn is_of_kernel(object: impl AsFd) -> std::io::Result<bool> {
    let kind = rustix::fs::fstatfs(object)?.f_type;
    // The magic numbers have 32 bits, whatever the member's type is.
    Ok(OF_KERNEL.contains(&(kind as u32)))
}

/// Sends an object with everything below it as a tar archive, in pieces, to `send`, which returns
/// whether the receiver still wants them. `name` is the object's name in the archive; `owners`
/// translates owners to the container's ids. The object's descriptor may be `O_PATH`. Blocks.
///
/// # Errors
/// A file can't be read, or the receiver has gone.
pub fn pack_tree<'a>(
    object: OwnedFd,
    name: &[u8],
    owners: Owners,
    send: &'a mut (dyn FnMut(Bytes) -> bool + Send + 'a),
) -> Result<(), ImageError> {
    let mut stream = TarStream::new(send);
    let top = [b"/", name].concat();
    // Below the root, names begin with a slash.
    let inside = match name {
        b"/" => b"/".to_vec(),
        _ => top.clone(),
    };
    let stat = rustix::fs::fstat(&object).map_err(|error| at(&top)(error.into()))?;
    let object = Object::from(LayerEntry {
        handle: object,
        stat,
    });
    deep(|| {
        let mut packer = Packer::new(&mut stream).with_owners(owners);
        match object.is_directory() {
            true => directory(&mut packer, &top, &inside, &object)?,
            false => packer.object(&top, &object)?,
        }
        packer.end();
        Ok(())
    })?;
    stream.end()
}

fn directory(
    packer: &mut Packer<'_, '_>,
    path: &[u8],
    inside: &[u8],
    object: &Object,
) -> Result<(), ImageError> {
    let opened = object.directory().map_err(at(path))?;
    if is_of_kernel(&opened).map_err(at(path))? {
        return packer.directory(path, object, Default::default());
    }
    let attributes = object.attributes().map_err(at(path))?;
    packer.directory(path, object, attributes)?;
    let mut names = entries(&opened).map_err(at(path))?;
    names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    for (name, _) in names {
        let path = join(inside, &name)?;
        let Some(object) = Object::open(opened.as_fd(), &name).map_err(at(&path))? else {
            continue;
        };
        match object.kind() {
            FileType::Directory => self::directory(packer, &path, &path, &object)?,
            _ => packer.object(&path, &object)?,
        }
    }
    Ok(())
}
