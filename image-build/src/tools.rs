//! Build tools that a distribution may not have in a usable version: mkosi, and the docker
//! command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use keelson_testing::elf;

use crate::apt;
use crate::progress::{self, Step};
use crate::workspace::Workspace;

/// The oldest mkosi that understands our configuration.
const MKOSI_WANTED: u32 = 25;
/// Where Debian's mkosi package has its Python modules.
const PYTHON_MODULES: &str = "usr/lib/python3/dist-packages";

/// How mkosi is run.
#[derive(Debug, Clone)]
pub struct Mkosi {
    /// Directory of its Python modules, when it is not the installed one.
    modules: Option<PathBuf>,
    version: String,
}

impl Mkosi {
    /// The installed mkosi if it is new enough, else that of the image's Debian release, which is
    /// fetched once into the tools directory.
    ///
    /// # Errors
    /// It can be neither found nor fetched, or does not run.
    pub fn find(workspace: &Workspace) -> Result<Self> {
        if let Ok(text) = progress::output(Command::new("mkosi").arg("--version"))
            && major(&text).is_some_and(|version| version >= MKOSI_WANTED)
        {
            return Ok(Self {
                modules: None,
                version: text,
            });
        }
        let unpacked = workspace.tools().join("mkosi");
        let modules = unpacked.join(PYTHON_MODULES);
        if !modules.join("mkosi").is_dir() {
            let mut step = Step::begin("mkosi");
            apt::fetch_and_unpack(
                &mut step,
                "mkosi",
                &workspace.tools().join("apt"),
                &unpacked,
                &workspace.log(),
            )?;
            step.done(&format!("fetched to {}", workspace.display(&unpacked)));
        }
        let mut found = Self {
            modules: Some(modules),
            version: String::new(),
        };
        found.version = progress::output(found.command().arg("--version"))?;
        if major(&found.version).is_none_or(|version| version < MKOSI_WANTED) {
            bail!(
                "{} is too old: version {MKOSI_WANTED} or newer is needed",
                found.version
            );
        }
        Ok(found)
    }

    /// A command to which mkosi's arguments are added.
    #[must_use]
    pub fn command(&self) -> Command {
        match &self.modules {
            None => Command::new("mkosi"),
            Some(modules) => {
                // The distribution's Python, not that of a version manager in PATH.
                let mut command = Command::new("/usr/bin/python3");
                command
                    .env("PYTHONPATH", modules)
                    .args(["-B", "-m", "mkosi"]);
                command
            }
        }
    }

    /// `mkosi 25.3`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The major version in `mkosi 25.3` or `mkosi 26~devel`.
fn major(text: &str) -> Option<u32> {
    let number = text.split_whitespace().nth(1)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The docker command line: from `PATH`, or from the distribution's package. Only the client is
/// unpacked, into the tools directory. No daemon is installed.
///
/// # Errors
/// The package cannot be fetched.
pub fn docker(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = in_path("docker") {
        return Ok(path);
    }
    let unpacked = workspace.tools().join("docker");
    let program = unpacked.join("usr/bin/docker");
    if !program.is_file() {
        let mut step = Step::begin("docker command line");
        apt::fetch_and_unpack(
            &mut step,
            "docker-cli",
            &workspace.tools().join("apt"),
            &unpacked,
            &workspace.log(),
        )?;
        step.done(&format!("fetched to {}", workspace.display(&program)));
    }
    progress::output(Command::new(&program).arg("--version"))
        .context("the docker command line does not run")?;
    Ok(program)
}

/// A static busybox, which tests run in containers: the installed one, or that of the image's
/// Debian release, unpacked into the tools directory. Its package is not installed, because it
/// conflicts with the dynamic one that many machines need for their initrd.
///
/// # Errors
/// The package cannot be fetched.
pub fn busybox(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = in_path("busybox").filter(|path| is_static(path)) {
        return Ok(path);
    }
    let unpacked = workspace.tools().join("busybox");
    // Its path depends on whether the release has a single directory for executables.
    let program = || {
        ["usr/bin/busybox", "bin/busybox"]
            .map(|place| unpacked.join(place))
            .into_iter()
            .find(|path| is_static(path))
    };
    if let Some(program) = program() {
        return Ok(program);
    }
    let mut step = Step::begin("static busybox");
    apt::fetch_and_unpack(
        &mut step,
        "busybox-static",
        &workspace.tools().join("apt"),
        &unpacked,
        &workspace.log(),
    )?;
    let program = program().context("the package busybox-static brought no static busybox")?;
    step.done(&format!("fetched to {}", workspace.display(&program)));
    Ok(program)
}

fn is_static(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|content| elf::asks_for_loader(&content) == Some(false))
}

/// The path of `program` in `PATH`, or in one of the directories that only root has there.
#[must_use]
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mkosi_versions() {
        assert_eq!(major("mkosi 25.3"), Some(25));
        assert_eq!(major("mkosi 26~devel"), Some(26));
        assert_eq!(major("mkosi 14"), Some(14));
        assert_eq!(major(""), None);
    }

    #[test]
    fn programs_are_found() {
        assert!(in_path("sh").is_some());
        assert_eq!(in_path("no-such-program-anywhere"), None);
    }
}
