//! The paths in the source tree and in the build directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The target triple of everything that runs on the machine.
pub const MUSL_TARGET: &str = "x86_64-unknown-linux-musl";

/// How the executables for the machine are compiled; profiles of Cargo.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// For development and tests: compiles quickly.
    #[default]
    Quick,
    /// For shipping and benchmarks: small and fast, but compiles for minutes.
    Release,
}

impl Profile {
    /// Its name for cargo, which is also the name of the output directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Release => "release",
        }
    }
}

/// The source tree and the build directory.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
    profile: Profile,
}

impl Workspace {
    /// The workspace that this program was built from. `CARGO_TARGET_DIR` moves the build directory
    /// as it does for cargo.
    ///
    /// # Errors
    /// The source tree is no longer where it was when this program was built.
    pub fn locate() -> Result<Self> {
        let member = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = member
            .parent()
            .context("image-build has no parent directory")?
            .canonicalize()
            .with_context(|| format!("source tree of {}", member.display()))?;
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(path) => std::path::absolute(PathBuf::from(path))?,
            None => root.join("target"),
        };
        Ok(Self {
            root,
            target,
            profile: Profile::default(),
        })
    }

    /// Returns this workspace with another profile.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// How the executables for the machine are compiled.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Top of the source tree.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The build directory.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Executables for the machine.
    #[must_use]
    pub fn binaries(&self) -> PathBuf {
        self.target.join(MUSL_TARGET).join(self.profile.name())
    }

    /// Everything about the image: trees, repository, disks.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.target.join("image")
    }

    /// Downloaded build tools.
    #[must_use]
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The developer's virtual machine: its disk, keys, console log.
    #[must_use]
    pub fn vm(&self) -> PathBuf {
        self.target.join("vm")
    }

    /// Output of the programs that were run, one file each.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.target.join("log")
    }

    /// `path` relative to the current directory, if it is below it; for messages.
    #[must_use]
    pub fn display(&self, path: &Path) -> String {
        let shown = std::env::current_dir()
            .ok()
            .and_then(|current| path.strip_prefix(current).ok().map(Path::to_path_buf))
            .unwrap_or_else(|| path.to_path_buf());
        shown.display().to_string()
    }
}
