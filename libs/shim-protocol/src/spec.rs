//! The input of a new shim, and the names of the files in its directory.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Name of the specification inside the shim's directory.
pub const SPEC_FILE: &str = "shim.json";
/// Name of the unix socket inside the shim's directory.
pub const SOCKET_FILE: &str = "shim.sock";
/// Name of the exit record inside the shim's directory.
pub const EXIT_FILE: &str = "exit.json";

/// Name of the record of executions that have ended, inside the shim's directory.
pub const EXECUTIONS_FILE: &str = "executions.json";

/// The input of a new shim: `DIR/shim.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimSpec {
    /// Version of this format; 1.
    pub version: u32,
    /// The container's identifier (64 hexadecimal digits from hostd).
    pub id: String,
    /// OCI bundle: a directory with `config.json`. Terminal, process, namespaces, mounts, resources
    /// and cgroup path all come from there.
    pub bundle: PathBuf,
    /// How the root file system is assembled. Replaces `root.path` of config.json.
    pub rootfs: Rootfs,
    /// Whether the process's standard input is a pipe (or the terminal) that attached clients
    /// may write to; otherwise it reads end of file.
    pub open_stdin: bool,
    /// Close standard input when the first attached client that wrote to it goes away.
    pub stdin_once: bool,
    /// The log.
    pub log: LogFiles,
    /// cgroup v2 path, relative to the mount, for the shim itself (`/keelson/shim`); made when
    /// it does not exist. `None`: the shim stays where it was started.
    pub shim_cgroup: Option<String>,
    /// Another runtime that creates the container; `None`: the shim does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<OtherRuntime>,
}

/// A program that understands runc's command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherRuntime {
    /// The program.
    pub path: PathBuf,
    /// Arguments before its command.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// The root file system of a container. The mounts are made inside the container's mount
/// namespace, so that nothing is left on the host whatever happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rootfs {
    /// overlayfs.
    Overlay {
        /// Lower directories, topmost first. They are mounted or unpacked already.
        lower: Vec<PathBuf>,
        /// Upper directory; absent for a read-only root.
        upper: Option<PathBuf>,
        /// Work directory of overlayfs, on the file system of `upper`.
        work: Option<PathBuf>,
    },
    /// A directory.
    #[serde(rename = "folder")]
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// Where and how the shim records output (format: crate `keelson-log`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFiles {
    /// The current log file; rotated ones are beside it with `.1`, `.2`, … appended, newest first.
    pub path: PathBuf,
    /// Bytes after which the file is rotated.
    pub max_size: u64,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_words_in_the_file_stay() {
        let words = json!({"kind": "folder", "path": "/r"});
        let path = PathBuf::from("/r");
        let root = Rootfs::Directory { path };
        assert_eq!(serde_json::to_value(&root).unwrap(), words);
        assert_eq!(serde_json::from_value::<Rootfs>(words).unwrap(), root);
    }
}
