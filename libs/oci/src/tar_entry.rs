//! Headers of tar entries of every kind, for layers and exported file systems: POSIX ustar, with
//! pax records for values that it cannot hold (long names, large numbers, extended attributes) and
//! for the map of a sparse file (GNU's format 1.0).

use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use crate::archive::{Entry, EntryKind, SparsePart};

const BLOCK: usize = 512;
/// Programs that do not know sparse files unpack their stored form under this name.
const SPARSE_NAME: &[u8] = b"GNUSparseFile.0/";
const XATTR: &str = "SCHILY.xattr.";

/// A sparse file must store fewer bytes than this, because readers take the length of its data only
/// from the header.
pub const MAX_SPARSE: u64 = (1 << 33) - (8 << 20);

/// Longest name of an attribute that layers hold, in bytes.
pub(crate) const MAX_XATTR_NAME: usize = 255;
/// Longest value that an inode of EROFS, and the kernel's system call, can hold.
pub(crate) const MAX_XATTR_VALUE: usize = 65_535;
/// Sum of names and values of one file.
pub(crate) const MAX_XATTRS: usize = 128 << 10;

/// Removes the extended attributes that no header, or no layer, can hold, and returns their names:
/// those whose name has an equals sign (the name would end there) or is not text, and those that
/// are too large or too many. To lose an attribute is better than to lose the file.
pub fn leave_out(entry: &mut Entry) -> Vec<String> {
    let mut left_out = Vec::new();
    let mut total = 0;
    entry.xattrs.retain(|(name, value)| {
        let is_text = std::str::from_utf8(name).is_ok_and(|name| !name.contains(['=', '\0']));
        let size = name.len() + value.len();
        let fits = is_text
            && name.len() <= MAX_XATTR_NAME
            && value.len() <= MAX_XATTR_VALUE
            && total + size <= MAX_XATTRS;
        match fits {
            true => total += size,
            false => left_out.push(String::from_utf8_lossy(name).into_owned()),
        }
        fits
    });
    left_out
}

/// Why a header cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be put into a tar archive: {reason}")]
pub struct EntryError {
    /// The entry's path.
    pub name: String,
    /// The value that no header can hold.
    pub reason: String,
}

/// The bytes that come before an entry's data. `entry.stored` bytes of data must follow, filled
/// up to whole blocks. The fraction of the time is left out, as Docker does.
pub fn header(entry: &Entry) -> Result<Vec<u8>, EntryError> {
    let refuse = |reason: String| EntryError {
        name: entry.name(),
        reason,
    };
    let out_of_range = |error: tar_core::HeaderError| refuse(error.to_string());
    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let mut builder = EntryBuilder::new_ustar();
    let map = entry.sparse.as_ref().map(|parts| {
        // GNU tar takes the end of the last part for the end of the file.
        let end = SparsePart {
            offset: entry.size,
            length: 0,
        };
        let mut map = format!("{}\n", parts.len() + 1);
        for part in parts.iter().chain([&end]) {
            map.push_str(&format!("{}\n{}\n", part.offset, part.length));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        map
    });
    if map.is_some() {
        let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        builder
            .path([SPARSE_NAME, file.get(..80).unwrap_or(file)].concat())
            .add_pax("GNU.sparse.major", "1")
            .add_pax("GNU.sparse.minor", "0")
            .add_pax("GNU.sparse.name", &path)
            .add_pax("GNU.sparse.realsize", entry.size.to_string());
    } else {
        builder.path(&path);
    }
    builder.entry_type(match entry.kind {
        EntryKind::File => EntryType::Regular,
        EntryKind::Directory => EntryType::Directory,
        EntryKind::Symlink => EntryType::Symlink,
        EntryKind::HardLink => EntryType::Link,
        EntryKind::CharDevice => EntryType::Char,
        EntryKind::BlockDevice => EntryType::Block,
        EntryKind::Fifo => EntryType::Fifo,
        EntryKind::Other(flag) => return Err(refuse(format!("type {:?}", char::from(flag)))),
    });
    if matches!(entry.kind, EntryKind::Symlink | EntryKind::HardLink) {
        builder.link_name(&entry.link);
    }
    if matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
        builder
            .device(entry.major, entry.minor)
            .map_err(out_of_range)?;
    }
    if map.is_some() && entry.stored >= MAX_SPARSE {
        return Err(refuse("a sparse file with that much data".to_owned()));
    }
    let stored = entry.stored + map.as_ref().map_or(0, |map| map.len() as u64);
    builder
        .mode(entry.mode & 0o7777)
        .and_then(|builder| builder.uid(entry.uid.into()))
        .and_then(|builder| builder.gid(entry.gid.into()))
        .and_then(|builder| builder.size(stored))
        .map_err(out_of_range)?;
    match u64::try_from(entry.mtime) {
        Ok(time) if time < 1 << 33 => builder.mtime(time).map_err(out_of_range)?,
        _ => builder
            .mtime(0)
            .map_err(out_of_range)?
            .add_pax("mtime", entry.mtime.to_string()),
    };
    for (name, value) in &entry.xattrs {
        match std::str::from_utf8(name) {
            // The name ends at the equals sign.
            Ok(name) if !name.contains('=') => builder.add_pax(&format!("{XATTR}{name}"), value),
            _ => {
                let name = String::from_utf8_lossy(name);
                return Err(refuse(format!("the extended attribute {name:?}")));
            }
        };
    }
    let mut bytes = builder.finish_bytes();
    bytes.extend(map.into_iter().flatten());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::archive::{ArchiveError, Scanner, Visitor};

    #[derive(Default)]
    struct Entries(Vec<Entry>);

    impl Visitor for Entries {
        type Error = ArchiveError;

        fn entry(&mut self, entry: Entry) -> Result<(), ArchiveError> {
            self.0.push(entry);
            Ok(())
        }
    }

    fn read(bytes: &[u8]) -> Entry {
        let mut entries = Entries::default();
        let mut scanner = Scanner::new();
        scanner.push(bytes, &mut entries).unwrap();
        entries.0.remove(0)
    }

    fn entry(path: &[u8], kind: EntryKind) -> Entry {
        Entry {
            mode: 0o644,
            ..Entry::new(path.to_vec(), kind)
        }
    }

    fn round_trip(mut entry: Entry) {
        let bytes = header(&entry).unwrap();
        entry.data_offset = bytes.len() as u64;
        if entry.kind == EntryKind::Directory {
            entry.path.push(b'/');
        }
        assert_eq!(read(&bytes), entry);
    }

    #[test]
    fn sparse_files_are_read_back() {
        let mut file = entry(&[b'n'; 300], EntryKind::File);
        file.size = 1 << 41;
        file.stored = 3 << 31;
        file.sparse = Some(vec![
            SparsePart {
                offset: 4096,
                length: 1 << 31,
            },
            SparsePart {
                offset: 1 << 40,
                length: 1 << 32,
            },
        ]);
        round_trip(file.clone());
        file.stored = MAX_SPARSE;
        assert!(header(&file).is_err());
    }

    #[test]
    fn values_that_no_header_can_hold_are_refused() {
        let mut file = entry(b"f", EntryKind::File);
        file.xattrs = vec![(b"user.a=b".to_vec(), b"x".to_vec())];
        assert!(header(&file).is_err());
        file.xattrs = vec![(b"user.\xff".to_vec(), b"x".to_vec())];
        assert!(header(&file).is_err());
        let large = |name: &str, size| (name.as_bytes().to_vec(), vec![0; size]);
        file.xattrs.extend([
            large("user.a=b", 1),
            large("user.first", 60 << 10),
            large("user.huge", 65_536),
            large("user.second", 60 << 10),
            large("user.third", 60 << 10),
            large("user.small", 1),
        ]);
        let names = leave_out(&mut file);
        assert_eq!(names[1..], ["user.a=b", "user.huge", "user.third"]);
        assert_eq!(file.xattrs.len(), 3);
        assert!(header(&file).is_ok());
    }

    proptest! {
        #[test]
        fn every_entry_is_read_back(
            path in "[a-z\u{e4}]{1,120}(/[a-z ]{1,120}){0,3}",
            kind in prop::sample::select(vec![
                EntryKind::File, EntryKind::Directory, EntryKind::Symlink, EntryKind::HardLink,
                EntryKind::CharDevice, EntryKind::BlockDevice, EntryKind::Fifo,
            ]),
            mode in 0u32..0o10000,
            owner in (0..u32::MAX, 0..u32::MAX),
            mtime in -(1i64 << 40)..1i64 << 40,
            device in (0u32..0x1000, 0u32..0x10_0000),
            size in prop_oneof![0u64..1000, Just(1 << 33), 0u64..1 << 50],
            link in "[a-z/.]{1,200}",
            value in vec(any::<u8>(), 0..40),
        ) {
            let mut entry = entry(path.as_bytes(), kind);
            (entry.mode, entry.uid, entry.gid, entry.mtime) = (mode, owner.0, owner.1, mtime);
            match kind {
                EntryKind::File => (entry.size, entry.stored) = (size, size),
                EntryKind::Symlink | EntryKind::HardLink => entry.link = link.into_bytes(),
                EntryKind::CharDevice | EntryKind::BlockDevice => {
                    (entry.major, entry.minor) = device;
                }
                _ => {}
            }
            entry.xattrs = vec![(b"user.x".to_vec(), value)];
            round_trip(entry);
        }
    }
}
