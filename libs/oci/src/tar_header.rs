//! Headers of tar archives that we write (POSIX ustar, with GNU's base-256 sizes for files of
//! 8 GiB and more).

/// Why a header cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is too long for the name of a tar entry")]
pub struct NameTooLong(pub String);

/// The two blocks of zeros that end an archive.
pub const END: [u8; 1024] = [0; 1024];

/// The header of a regular file, owned by root, mode 0644; `mtime` in seconds since 1970.
pub fn file(name: &str, size: u64, mtime: u64) -> Result<[u8; 512], NameTooLong> {
    header(name, b'0', 0o644, size, mtime)
}

/// The header of a directory, owned by root, mode 0755. The name must end with a slash.
pub fn directory(name: &str, mtime: u64) -> Result<[u8; 512], NameTooLong> {
    header(name, b'5', 0o755, 0, mtime)
}

/// How many zeros follow a file of this size.
pub fn padding(size: u64) -> usize {
    // Below 512, so it fits.
    (size.next_multiple_of(512) - size) as usize
}

fn header(
    name: &str,
    kind: u8,
    mode: u64,
    size: u64,
    mtime: u64,
) -> Result<[u8; 512], NameTooLong> {
    if name.len() > 100 {
        return Err(NameTooLong(name.to_owned()));
    }
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in block.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    if size < 1 << 33 {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, format!("{:011o}", mtime.min((1 << 33) - 1)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in block
        .iter_mut()
        .skip(148)
        .zip(format!("{sum:06o}\0 ").bytes())
    {
        *to = from;
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{ArchiveError, Entry, EntryKind, Scanner, Visitor};

    #[derive(Default)]
    struct Entries(Vec<Entry>);

    impl Visitor for Entries {
        type Error = ArchiveError;

        fn entry(&mut self, entry: Entry) -> Result<(), ArchiveError> {
            self.0.push(entry);
            Ok(())
        }
    }

    #[test]
    fn is_read_back() {
        for size in [0, 1, 512, (1 << 33) - 1, 1 << 33, 1 << 45] {
            let mut entries = Entries::default();
            let mut scanner = Scanner::new();
            scanner
                .push(&directory("d/", 5).unwrap(), &mut entries)
                .unwrap();
            scanner
                .push(&file("d/name", size, 7).unwrap(), &mut entries)
                .unwrap();
            assert_eq!(entries.0[0].kind, EntryKind::Directory);
            assert_eq!(entries.0[1].path, b"d/name");
            assert_eq!(entries.0[1].size, size);
            assert_eq!((entries.0[1].mode, entries.0[1].mtime), (0o644, 7));
        }
        assert_eq!(padding(0), 0);
        assert_eq!(padding(1), 511);
        assert!(file(&"n".repeat(101), 0, 0).is_err());
    }
}
