//! A runtime under test: a program that understands runc's command line.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use crate::command;

/// The cgroup2 mount of a hybrid layout.
pub(crate) const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// The first argument with which this program starts a runtime in [`without_unified`].
pub(crate) const WITHOUT_UNIFIED: &str = "--run-without-unified";

/// A runtime, and how to call it.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) path: PathBuf,
    /// The name of its file, which reports use.
    pub(crate) name: String,
    /// The first line of its output for `--version`.
    pub(crate) version: String,
    /// It refuses a host with both versions of cgroups, so version 2 is hidden from it.
    pub(crate) hides_unified: bool,
}

impl Runtime {
    /// A program that is asked for its version.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let path = path
            .canonicalize()
            .with_context(|| format!("find the runtime {}", path.display()))?;
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let version = command::run(command::quiet(&path).arg("--version"))?;
        let version = version.stdout.lines().next().unwrap_or_default().to_owned();
        Ok(Self {
            path,
            name,
            version,
            hides_unified: false,
        })
    }

    /// A call of the runtime.
    pub(crate) fn command(&self) -> Result<Command> {
        if !self.hides_unified {
            return Ok(command::quiet(&self.path));
        }
        let own = std::env::current_exe().context("find this program")?;
        let mut command = command::quiet(own);
        command.arg(WITHOUT_UNIFIED).arg(&self.path);
        Ok(command)
    }
}

/// The distribution's runtimes and the one that was built with this program.
pub(crate) fn installed() -> Result<Vec<PathBuf>> {
    let own = std::env::current_exe().context("find this program")?;
    let places = ["/usr/sbin/runc", "/usr/bin/crun"].map(PathBuf::from);
    let mut found: Vec<PathBuf> = places.into_iter().filter(|path| path.is_file()).collect();
    found.push(own.with_file_name("keelson-runtime"));
    Ok(found)
}

/// Executes a program that doesn't see the cgroup2 mount of a hybrid layout. Returns only if that
/// fails. The program still sees later mounts of the host.
pub(crate) fn without_unified(
    mut arguments: impl Iterator<Item = std::ffi::OsString>,
) -> Result<()> {
    let program = arguments.next().context("a program is needed")?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("keep mounts from the host")?;
    nix::mount::umount2(UNIFIED, MntFlags::MNT_DETACH).context("unmount cgroup2")?;
    Err(Command::new(program).args(arguments).exec()).context("execute the runtime")
}
