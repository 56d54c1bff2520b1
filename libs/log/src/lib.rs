//! The container log format: framed, rotated, indexed records.
