//! Where the layers and the state of the configuration are.

use std::path::{Path, PathBuf};

/// The paths of the layers. A file that does not exist is an empty layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The image's file.
    pub image: PathBuf,
    /// Directory of the OS's services (`*.toml`, in the order of their names).
    pub services: PathBuf,
    /// The kernel command line.
    pub command_line: PathBuf,
    /// The platform's files, lowest first: provisioning, then QEMU fw_cfg.
    pub platform: Vec<PathBuf>,
    /// The operator's file.
    pub operator: PathBuf,
    /// Directory of the operator's other files (`*.toml`, in the order of their names).
    pub operator_dir: PathBuf,
    /// Directory of what is remembered over boots: `/var/lib/keelson/host`.
    pub state: PathBuf,
    /// The merged configuration of this boot: `/run/keelson/config/effective.toml`.
    pub effective: PathBuf,
}

impl Sources {
    /// The sources of a running machine.
    #[must_use]
    pub fn machine() -> Self {
        Self::under(Path::new("/"))
    }

    /// The same layout below another directory, for tests and for images.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        let state = root.join("var/lib/keelson/host");
        Self {
            image: root.join("usr/lib/keelson/host.toml"),
            services: root.join("usr/share/keelson/services"),
            command_line: root.join("proc/cmdline"),
            platform: vec![
                state.join("platform/host.toml"),
                root.join("sys/firmware/qemu_fw_cfg/by_name/opt/io.keelson/host.toml/raw"),
            ],
            operator: root.join("etc/keelson/host.toml"),
            operator_dir: root.join("etc/keelson/host.toml.d"),
            state,
            effective: root.join("run/keelson/config/effective.toml"),
        }
    }

    /// The same layers with the state in another directory.
    #[must_use]
    pub fn with_state(self, state: PathBuf) -> Self {
        Self { state, ..self }
    }

    /// The copy of the operator's files that [`save_last_good`](crate::save_last_good) keeps.
    #[must_use]
    pub fn last_good(&self) -> PathBuf {
        self.state.join("last-good.toml")
    }

    /// What is remembered about starts and changes.
    pub(crate) fn memory(&self, name: &str) -> PathBuf {
        self.state.join("config").join(name)
    }
}
