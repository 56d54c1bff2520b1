//! Layers: what a tar archive of file system changes means, as a tree.
//!
//! [`tree::TreeBuilder`] is fed with archive entries and yields a [`tree::Tree`] in which every
//! path is inside the root, every name is unique and every hard link is resolved. Code that makes
//! files or an index of it ([`erofs`]) walks that tree and never looks at a path from the archive.

pub mod erofs;
pub mod tree;

pub use tree::{Limits, Tree, TreeBuilder, TreeError};
