//! What the configuration says about the machine itself: people, files, commands, the kernel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One entry of `[[user]]`: a person who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// Login name.
    pub name: String,
    /// Keys that may log in, one line of `authorized_keys` each.
    #[serde(default)]
    pub ssh_authorized_keys: Vec<String>,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Hash of the password as in crypt(5); without one, the password is locked.
    pub password_hash: Option<String>,
    /// Login shell.
    pub shell: Option<String>,
    /// Whether the user may become root.
    #[serde(default)]
    pub sudo: bool,
    /// The image of a container of the user's own, in which logins land.
    pub container: Option<String>,
}

/// One entry of `[[file]]`: a file that each boot writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Absolute path below /etc or /var.
    pub path: String,
    /// Content that is text. Exactly one of this and `base64`.
    pub contents: Option<String>,
    /// Content in base64 (RFC 4648, with padding); white space is ignored.
    pub base64: Option<String>,
    /// Permission bits in octal; 0644.
    pub mode: Option<String>,
    /// `user` or `user:group`, by name or number; root.
    pub owner: Option<String>,
    /// Add the content to the end of the file, unless it is in it already.
    #[serde(default)]
    pub append: bool,
}

/// One entry of `[[command]]`: exactly one of `argv`, `shell` and `script`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// A program and its arguments.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Lines for `/bin/sh`. One that fails does not keep the next from running.
    pub shell: Option<String>,
    /// A whole script, whose first line names its interpreter.
    pub script: Option<String>,
    /// Run at every boot; otherwise once for each instance.
    #[serde(default)]
    pub every_boot: bool,
}

/// `[modules]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModulesConfig {
    /// Kernel modules that each boot loads, whether a device needs them or not.
    pub load: Vec<String>,
    /// Options of modules: `nvme = "poll_queues=2"`.
    pub options: BTreeMap<String, String>,
}

/// `[swap]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwapConfig {
    /// Size of a compressed swap device in memory (zram), in percent of the memory; 0: none.
    pub zram_percent: u32,
    /// Size of a swap file on /var in bytes; 0: none.
    pub file_bytes: u64,
}

/// `[watchdog]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchdogConfig {
    /// Seconds after which the hardware watchdog restarts a machine that hangs; 0: it is not used.
    pub timeout: Option<u32>,
}

/// `[storage]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// `[[storage.mount]]`: file systems to mount below /var.
    pub mount: Vec<MountConfig>,
}

/// One entry of `[[storage.mount]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountConfig {
    /// The device: `LABEL=`, `UUID=`, `PARTLABEL=`, `PARTUUID=` or a path below /dev.
    pub device: String,
    /// Directory below /var.
    pub path: String,
    /// Type of the file system; found by looking when absent.
    pub kind: Option<String>,
    /// Mount options, comma-separated.
    pub options: Option<String>,
}
