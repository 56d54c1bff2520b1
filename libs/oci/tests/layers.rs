//! Properties of the archive scanner, the layer tree and the EROFS index.

use std::collections::BTreeMap;

use keelson_oci::archive::{ArchiveError, Entry, EntryKind, Scanner, Visitor};
use keelson_oci::layer::tree::{NodeKind, ROOT, Tree, TreeBuilder, TreeError};
use keelson_oci::layer::{LayerLimits, erofs};
use proptest::prelude::*;
use tar::EntryType;

/// The results of a scanner.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    entries: Vec<Entry>,
    data: Vec<Vec<u8>>,
    ended: usize,
}

impl Visitor for Heard {
    type Error = ArchiveError;

    fn entry(&mut self, entry: Entry) -> Result<(), ArchiveError> {
        self.entries.push(entry);
        self.data.push(Vec::new());
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.data.last_mut().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        self.ended += 1;
        Ok(())
    }
}

fn hear(archive: &[u8], piece: usize) -> Result<Heard, ArchiveError> {
    let mut heard = Heard::default();
    let mut scanner = Scanner::new();
    for piece in archive.chunks(piece) {
        scanner.push(piece, &mut heard)?;
    }
    scanner.finish(&mut heard)?;
    Ok(heard)
}

#[derive(Debug, Clone)]
struct Item {
    path: String,
    kind: u8,
    link: String,
    data: Vec<u8>,
    pax: bool,
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            4 => "[abc]",
            1 => Just("..".to_owned()),
            1 => Just(".".to_owned()),
            1 => Just(".wh.a".to_owned()),
            1 => Just(".wh..wh..opq".to_owned()),
            1 => Just("n".repeat(120)),
        ],
        1..4,
    )
    .prop_map(|parts| parts.join("/"))
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let item = (
        path(),
        0_u8..7,
        path(),
        prop::collection::vec(any::<u8>(), 0..1500),
        any::<bool>(),
    )
        .prop_map(|(path, kind, link, data, pax)| Item {
            path,
            kind,
            link,
            data,
            pax,
        });
    prop::collection::vec(item, 0..25)
}

fn archive(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let kind = match item.kind {
            0 | 1 => EntryType::Regular,
            2 | 3 => EntryType::Directory,
            4 => EntryType::Symlink,
            5 => EntryType::Link,
            _ => EntryType::Char,
        };
        let data = if kind == EntryType::Regular {
            &item.data[..]
        } else {
            &[]
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_size(data.len() as u64);
        let mut records: Vec<(&str, &[u8])> = vec![("path", item.path.as_bytes())];
        if item.pax {
            records.push(("mtime", b"-1.25"));
            records.push((
                "SCHILY.xattr.user.a",
                &item.data[..item.data.len().min(100)],
            ));
        }
        if kind.is_symlink() || kind.is_hard_link() {
            records.push(("linkpath", item.link.as_bytes()));
        }
        builder.append_pax_extensions(records).unwrap();
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Every path of a tree with its node. Also checks that names and link counts agree.
fn walk(tree: &Tree) -> BTreeMap<Vec<u8>, u32> {
    let mut found = BTreeMap::new();
    let mut counts = BTreeMap::new();
    let mut left = vec![(Vec::new(), ROOT)];
    while let Some((path, id)) = left.pop() {
        let node = tree.node(id).unwrap();
        if let NodeKind::Directory { children, .. } = &node.kind {
            for (name, child) in children {
                assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/'));
                assert!(**name != *b"." && **name != *b"..");
                let mut path = path.clone();
                path.push(b'/');
                path.extend_from_slice(name);
                left.push((path, *child));
                *counts.entry(*child).or_insert(0_u32) += 1;
            }
        }
        assert!(found.insert(path, id).is_none());
    }
    for (id, count) in counts {
        let node = tree.node(id).unwrap();
        assert_eq!(node.names, count);
        assert!(count == 1 || !matches!(node.kind, NodeKind::Directory { .. }));
    }
    found
}

proptest! {
    #[test]
    fn the_size_of_pieces_does_not_matter(items in items(), piece in 1_usize..2000) {
        let archive = archive(&items);
        let whole = hear(&archive, usize::MAX).unwrap();
        prop_assert_eq!(whole.entries.len(), items.len());
        prop_assert_eq!(whole.ended, items.len());
        for ((entry, data), item) in whole.entries.iter().zip(&whole.data).zip(&items) {
            prop_assert_eq!(&entry.path, item.path.as_bytes());
            prop_assert_eq!(data.len() as u64, entry.stored);
            let offset = entry.data_offset as usize;
            prop_assert_eq!(&archive[offset..offset + data.len()], &data[..]);
            if item.pax {
                prop_assert_eq!((entry.mtime, entry.mtime_nsec), (-2, 750_000_000));
            }
        }
        prop_assert_eq!(hear(&archive, piece).unwrap(), whole);
    }

    #[test]
    fn trees_are_consistent_and_can_be_indexed(items in items()) {
        let archive = archive(&items);
        let mut builder = TreeBuilder::new(LayerLimits::default());
        for entry in hear(&archive, 512).unwrap().entries {
            // Errors are ignored here: a real layer ends with its first error.
            if builder.add(entry).is_err() {
                break;
            }
        }
        let tree = builder.finish();
        walk(&tree);
        let index = erofs::index(&tree, archive.len() as u64).unwrap();
        prop_assert_eq!(index.size % 512, 0);
        prop_assert!(index.metadata.len() as u64 <= index.size);
    }

    #[test]
    fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..4000), piece in 1_usize..700) {
        let _ = hear(&bytes, piece);
        // With correct checksums the deeper parts are reached.
        for block in bytes.chunks_exact_mut(512) {
            block[148..156].copy_from_slice(b"        ");
            block[257..263].copy_from_slice(b"ustar\0");
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        let _ = hear(&bytes, piece);
    }
}

#[test]
fn limits_are_kept() {
    let item = |path: &str| Item {
        path: path.to_owned(),
        kind: 0,
        link: String::new(),
        data: vec![1; 1000],
        pax: false,
    };
    let archive = archive(&[item("a"), item("b")]);
    let entries = hear(&archive, 100).unwrap().entries;
    let add = |limits: LayerLimits| {
        let mut builder = TreeBuilder::new(limits);
        entries
            .iter()
            .try_for_each(|entry| builder.add(entry.clone()))
    };
    let none = LayerLimits::default();
    assert!(add(none.clone()).is_ok());
    for limits in [
        LayerLimits {
            entries: 1,
            ..none.clone()
        },
        LayerLimits {
            bytes: 2000,
            ..none.clone()
        },
        LayerLimits {
            metadata: 1,
            ..none.clone()
        },
        LayerLimits { file: 999, ..none },
    ] {
        assert!(matches!(add(limits), Err(TreeError::Limit { .. })));
    }
}

#[test]
fn directories_that_are_only_named_count() {
    let mut builder = TreeBuilder::new(LayerLimits {
        entries: 100,
        ..LayerLimits::default()
    });
    builder.add(entry("a", EntryKind::File, &[])).unwrap();
    let deep = "d/".repeat(200);
    let error = builder
        .add(entry(&deep, EntryKind::Directory, &[]))
        .unwrap_err();
    assert!(
        error.to_string().contains("too many directories"),
        "{error}"
    );
}

fn entry(path: &str, kind: EntryKind, xattrs: &[(&str, &[u8])]) -> Entry {
    Entry {
        path: path.into(),
        kind,
        link: b"target".to_vec(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nsec: 0,
        major: 0,
        minor: 0,
        size: 0,
        stored: 0,
        data_offset: 512,
        sparse: None,
        xattrs: xattrs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
            .collect(),
    }
}

#[test]
fn only_attributes_that_linux_has_are_kept() {
    let all: Vec<_> = [
        "user.a",
        "user.",
        "trusted.a",
        "security.a",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "system.posix_acl_access.more",
        "system.nfs4_acl",
        "trusted.overlay.redirect",
        "com.apple.quarantine",
        "security.a\0b",
    ]
    .map(|name| (name, &b"x"[..]))
    .to_vec();
    for (kind, kept) in [
        (
            EntryKind::File,
            &[
                "security.a",
                "system.posix_acl_access",
                "trusted.a",
                "user.a",
            ][..],
        ),
        (
            EntryKind::Directory,
            &[
                "security.a",
                "system.posix_acl_access",
                "system.posix_acl_default",
                "trusted.a",
                "user.a",
            ],
        ),
        (EntryKind::Symlink, &["security.a", "trusted.a"]),
        (
            EntryKind::Fifo,
            &["security.a", "system.posix_acl_access", "trusted.a"],
        ),
    ] {
        let mut builder = TreeBuilder::new(LayerLimits::default());
        builder.add(entry("x", kind, &all)).unwrap();
        let tree = builder.finish();
        let id = walk(&tree)[&b"/x"[..]];
        let names: Vec<_> = tree.node(id).unwrap().xattrs.keys().cloned().collect();
        let kept: Vec<_> = kept.iter().map(|name| name.as_bytes().to_vec()).collect();
        assert_eq!(names, kept, "{kind:?}");
    }
}

#[test]
fn malformed_file_capabilities_are_refused() {
    let whole = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let add = |value: &[u8]| {
        let attribute = [("security.capability", value)];
        TreeBuilder::new(LayerLimits::default()).add(entry("x", EntryKind::File, &attribute))
    };
    add(&whole).unwrap();
    let other_revision = [&[1, 0, 0, 9][..], &whole[4..]].concat();
    for wrong in [&b""[..], b"abc", &whole[..12], &other_revision] {
        let error = add(wrong).unwrap_err().to_string();
        assert!(error.contains("capabilities"), "{error}");
    }
}

#[test]
fn nothing_is_hidden_where_nothing_is_below() {
    let mut builder = TreeBuilder::new(LayerLimits::default());
    for (path, kind) in [
        ("new/", EntryKind::Directory),
        ("new/.wh.a", EntryKind::File),
        ("new/.wh..wh..opq", EntryKind::File),
        ("new/.wh.b", EntryKind::File),
        ("old/.wh.c", EntryKind::File),
        // Overlayfs's own form.
        ("old/d", EntryKind::CharDevice),
    ] {
        builder.add(entry(path, kind, &[])).unwrap();
    }
    let tree = builder.finish();
    let found = walk(&tree);
    let paths: Vec<_> = found
        .keys()
        .map(|path| String::from_utf8_lossy(path))
        .collect();
    assert_eq!(paths, ["", "/new", "/old", "/old/c", "/old/d"]);
    for hidden in ["/old/c", "/old/d"] {
        let node = tree.node(found[hidden.as_bytes()]).unwrap();
        assert!(matches!(node.kind, NodeKind::Whiteout));
    }
}
