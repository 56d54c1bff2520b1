//! Requests to a registry, or to another host.

use std::fmt;

use keelson_oci::digest::Digest;

/// A request. Errors contain its words: `manifest latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The version of the protocol that the registry speaks.
    Version,
    /// Whether it accepts credentials.
    Login,
    /// A token for it.
    Token,
    /// A manifest or index, by tag or digest.
    Manifest(String),
    /// To store a manifest with this tag or digest.
    ManifestUpload(String),
    /// The tags of a repository.
    Tags,
    /// A blob.
    Blob(Digest),
    /// To store a blob.
    BlobUpload(Digest),
    /// To mount a blob from another of its repositories.
    BlobMount(Digest),
    /// To cancel an upload.
    Cancelling,
    /// To search for a term.
    Search(String),
    /// A file at an address.
    File,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("its version"),
            Self::Login => f.write_str("login"),
            Self::Token => f.write_str("a token"),
            Self::Manifest(reference) => write!(f, "manifest {reference}"),
            Self::ManifestUpload(reference) => write!(f, "upload of manifest {reference}"),
            Self::Tags => f.write_str("list of tags"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::BlobUpload(digest) => write!(f, "upload of blob {digest}"),
            Self::BlobMount(digest) => write!(f, "mount of blob {digest}"),
            Self::Cancelling => f.write_str("cancelling"),
            Self::Search(term) => write!(f, "a search for {term:?}"),
            Self::File => f.write_str("a file"),
        }
    }
}
