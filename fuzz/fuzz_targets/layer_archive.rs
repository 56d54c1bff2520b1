//! A layer from a hostile registry: scanned, made a tree and indexed within the limits.
#![cfg_attr(fuzzing, no_main)]

use keelson_oci::archive::{ArchiveError, Entry, Scanner, Visitor};
use keelson_oci::layer::{LayerLimits, TreeBuilder, TreeError};

struct Build(TreeBuilder);

#[derive(Debug)]
#[expect(
    dead_code,
    reason = "read by nobody, but tells a debugger what happened"
)]
enum Refused {
    Archive(ArchiveError),
    Tree(TreeError),
}

impl From<ArchiveError> for Refused {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl Visitor for Build {
    type Error = Refused;

    fn entry(&mut self, entry: Entry) -> Result<(), Refused> {
        self.0.add(entry).map_err(Refused::Tree)
    }
}

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let mut build = Build(TreeBuilder::new(LayerLimits::default()));
    let mut scanner = Scanner::new();
    // Cut in two, because the data come in pieces of any size.
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let result = scanner
        .push(first, &mut build)
        .and_then(|()| scanner.push(second, &mut build))
        .and_then(|()| scanner.finish(&mut build));
    if result.is_ok() {
        let tree = build.0.finish();
        let _ = keelson_oci::layer::erofs::index(&tree, bytes.len() as u64);
    }
});
