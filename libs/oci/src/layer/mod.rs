//! Layers: a tar archive of file system changes as a tree.
//!
//! [`tree::TreeBuilder`] is fed with archive entries and yields a [`tree::Tree`] in which every
//! path is inside the root, every name is unique and every hard link is resolved. Code that makes
//! files or an index ([`erofs`]) walks that tree, and never uses a path from the archive.

pub mod erofs;
pub mod tree;

pub use tree::{LayerLimits, Tree, TreeBuilder, TreeError};
