//! Containers as clients ask for them and as they are kept on disk, in the vocabulary of the
//! Docker Engine API.
