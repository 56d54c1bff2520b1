//! The limits of plugins.

use std::time::Duration;

/// Time limit of requests that change a volume.
pub(super) const LONG: Duration = Duration::from_secs(120);
/// Time limit of read-only requests, if the client asked for this plugin.
pub(super) const SHORT: Duration = Duration::from_secs(20);
/// Time limit of read-only requests, if all plugins are asked.
pub(super) const GLANCE: Duration = Duration::from_secs(2);
/// How long a silent plugin is skipped.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// How many requests may wait for one plugin.
pub(super) const MOST_EACH: usize = 64;
/// How many requests may wait for all plugins together. Each occupies a thread.
pub(super) const MOST_ALL: usize = 192;
/// Bytes of a path.
/// Longest description of a plugin, in bytes.
pub(super) const LONGEST_DESCRIPTION: u64 = 16 << 10;
pub(super) const LONGEST_PATH: usize = 4096;
/// Largest answer in bytes.
pub(super) const LONGEST_ANSWER: usize = 1 << 20;
/// Largest head of an answer in bytes.
pub(super) const LONGEST_HEAD: usize = 16 << 10;
