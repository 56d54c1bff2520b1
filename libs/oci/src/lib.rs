//! Image references, digests, manifests and layer archives.
