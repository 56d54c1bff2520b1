//! The containers of the command line, kept under `--root`.
