//! Archives that programs read in different ways: we read them like Go's archive/tar, which Docker
//! and its tools use.

use keelson_oci::archive::{ArchiveError, Entry, EntryKind, Scanner, SparsePart, Visitor};
use tar::Header;

#[derive(Debug, Default, PartialEq)]
struct Entries(Vec<Entry>);

impl Visitor for Entries {
    type Error = ArchiveError;

    fn entry(&mut self, entry: Entry) -> Result<(), ArchiveError> {
        self.0.push(entry);
        Ok(())
    }
}

fn read(archive: &[u8], piece: usize) -> Result<Vec<Entry>, ArchiveError> {
    let mut entries = Entries::default();
    let mut scanner = Scanner::new();
    for piece in archive.chunks(piece) {
        scanner.push(piece, &mut entries)?;
    }
    scanner.finish(&mut entries)?;
    Ok(entries.0)
}

/// A header and its data, filled up to whole blocks.
fn item(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[156] = kind;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn a_slash_makes_a_directory_only_where_there_are_no_types() {
    let archive = [
        item(b"file/", b'0', &[1; 600]),
        item(b"old/", 0, b""),
        item(b"last", b'0', b"x"),
    ]
    .concat();
    let entries = read(&archive, 100).unwrap();
    let kinds: Vec<_> = entries.iter().map(|e| (e.kind, e.size)).collect();
    // The data of a file are never read as headers.
    assert_eq!(
        kinds,
        [
            (EntryKind::File, 600),
            (EntryKind::Directory, 0),
            (EntryKind::File, 1)
        ]
    );
}

#[test]
fn a_long_name_ends_at_its_first_zero() {
    let archive = [
        item(b"././@LongLink", b'L', b"long/name\0and more\0"),
        item(b"././@LongLink", b'K', b"target\0\0\0"),
        item(b"short", b'2', b""),
    ]
    .concat();
    let entries = read(&archive, 512).unwrap();
    assert_eq!(entries[0].path, b"long/name");
    assert_eq!(entries[0].link, b"target");
}

/// A sparse file of `parts` single bytes whose map's numbers have `digits` digits each.
fn with_long_map(parts: u64, digits: usize) -> Vec<u8> {
    let mut map = format!("{parts}\n");
    for at in 0..parts {
        map.push_str(&format!("{:0digits$}\n{:0digits$}\n", 2 * at, 1));
    }
    let mut data = map.into_bytes();
    data.resize(data.len().next_multiple_of(512), 0);
    data.resize(data.len() + parts as usize, b'x');
    let mut records = Vec::new();
    for (key, value) in [
        ("major", "1"),
        ("minor", "0"),
        ("name", "sparse"),
        ("realsize", "1000000"),
    ] {
        let rest = format!(" GNU.sparse.{key}={value}\n");
        records.extend_from_slice(format!("{}{rest}", rest.len() + 2).as_bytes());
    }
    [
        item(b"pax", b'x', &records),
        item(b"stored", b'0', &data),
        item(b"behind", b'0', b"data"),
    ]
    .concat()
}

/// The parser asks for such a map block by block, and reads it again each time. Without the
/// collection this would take minutes.
#[test]
fn a_long_map_of_a_sparse_file_is_read_once_or_twice() {
    let archive = with_long_map(30_000, 120);
    let last = SparsePart {
        offset: 59_998,
        length: 1,
    };
    let whole = read(&archive, usize::MAX).unwrap();
    assert_eq!(whole.len(), 2);
    assert_eq!(whole[0].path, b"sparse");
    assert_eq!(whole[0].sparse.as_ref().unwrap().last(), Some(&last));
    assert_eq!(whole[1].path, b"behind");
    assert_eq!(read(&archive, 70_000).unwrap(), whole);
    // Also if fewer bytes follow than were collected for.
    let without_last = &archive[..archive.len() - 1024];
    assert_eq!(read(without_last, 4096).unwrap(), whole[..1]);
}

#[test]
fn small_maps_are_read_with_pieces_of_any_size() {
    let archive = with_long_map(700, 60);
    let whole = read(&archive, usize::MAX).unwrap();
    for piece in [1, 511, 65_536, 66_000] {
        assert_eq!(read(&archive, piece).unwrap(), whole, "{piece}");
    }
}
