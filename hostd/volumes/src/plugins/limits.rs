//! The limits of plugins.

use std::time::Duration;

/// What changes a volume may take this long.
pub(super) const LONG: Duration = Duration::from_secs(120);
/// What only looks, when somebody asks for this plugin.
pub(super) const SHORT: Duration = Duration::from_secs(20);
/// What only looks, when all plugins are asked.
pub(super) const GLANCE: Duration = Duration::from_secs(2);
/// How long a silent plugin is skipped.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// How many wait for one plugin.
pub(super) const MOST_EACH: usize = 64;
/// How many wait for all plugins. Each of them holds a thread.
pub(super) const MOST_ALL: usize = 192;
/// Bytes of a path.
/// Longest description of a plugin, in bytes.
pub(super) const LONGEST_DESCRIPTION: u64 = 16 << 10;
pub(super) const LONGEST_PATH: usize = 4096;
/// Bytes of an answer.
pub(super) const LONGEST_ANSWER: usize = 1 << 20;
/// Bytes of its head.
pub(super) const LONGEST_HEAD: usize = 16 << 10;
