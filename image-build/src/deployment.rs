//! The ostree repository, its commits, and a system root with one deployment.
//!
//! The base has its own commit, so that later commits take it from the repository and read only
//! what we add.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::base::Base;
use crate::progress::{self, Step};
use crate::workspace::Workspace;

/// The operating system's name in the system root.
pub const OS: &str = "keelson";
/// The branch of the finished system.
const BRANCH: &str = "keelson/x86_64/development";
/// The branch that holds Debian's tree only.
const BASE_BRANCH: &str = "keelson/x86_64/base";
/// What every system finds in /var at its first boot, with permissions.
const VAR: [(&str, u32); 8] = [
    ("home", 0o755),
    ("lib", 0o755),
    ("log", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("roothome", 0o700),
    ("srv", 0o755),
    ("tmp", 0o1777),
];

/// A system root with a deployment in it.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The system root: the content of the root file system.
    pub sysroot: PathBuf,
    /// The commit.
    pub commit: String,
    /// Distinguishes deployments of the same commit.
    pub serial: u32,
}

impl Deployment {
    /// `<commit>.<serial>`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.commit, self.serial)
    }

    /// The path of the deployment in the root file system.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/ostree/deploy/{OS}/deploy/{}", self.name())
    }
}

fn ostree(repository: &Path) -> Command {
    let mut command = Command::new("ostree");
    command.arg(format!("--repo={}", repository.display()));
    command
}

/// Commits the base and the overlay, and deploys the result into a new system root.
///
/// # Errors
/// ostree fails.
pub fn build(
    workspace: &Workspace,
    base: &Base,
    overlay: &Path,
    version: &str,
) -> Result<Deployment> {
    let mut step = Step::begin("ostree commit and deployment");
    let repository = workspace.image().join("repo");
    let log = progress::log_file(&workspace.log(), "ostree");
    if !repository.join("config").exists() {
        // Objects are plain files that deployments share by hard links.
        let mut command = ostree(&repository);
        progress::run(&mut step, command.args(["init", "--mode=bare"]), &log)?;
        disable_fsync(&mut step, &repository, &log)?;
    }
    let timestamp = timestamp(workspace.root());
    let base_commit = commit_base(&mut step, &repository, base, timestamp)?;
    let parent = revision(&repository, BRANCH);
    let mut command = ostree(&repository);
    command
        .arg("commit")
        .arg(format!("--branch={BRANCH}"))
        .arg(format!("--tree=ref={base_commit}"))
        .arg(format!("--tree=dir={}", overlay.display()))
        .args(["--owner-uid=0", "--owner-gid=0"])
        .arg(format!("--add-metadata-string=version={version}"))
        .arg(format!("--subject=Keelson {version}"))
        .arg(format!("--timestamp=@{timestamp}"));
    if let Some(parent) = parent {
        command.arg(format!("--parent={parent}"));
    }
    let commit = progress::output(&mut command)?;
    let deployment = deploy(&mut step, workspace, &repository, &commit, &log)?;
    // Prune what former builds left behind. Two generations stay for updates and comparisons.
    let mut command = ostree(&repository);
    command.args(["prune", "--refs-only", "--depth=1"]);
    progress::run(&mut step, &mut command, &log)?;
    step.done(commit.get(..12).unwrap_or(&commit));
    Ok(deployment)
}

/// Switches fsync off in a repository: if a power failure destroys it, it is built again.
fn disable_fsync(step: &mut Step, repository: &Path, log: &Path) -> Result<()> {
    let mut command = ostree(repository);
    command.args(["config", "set", "core.fsync", "false"]);
    progress::run(step, &mut command, log)
}

fn commit_base(step: &mut Step, repository: &Path, base: &Base, timestamp: u64) -> Result<String> {
    if let Some(known) = revision(repository, BASE_BRANCH) {
        let mut command = ostree(repository);
        command.args(["show", "--print-metadata-key=keelson.base", BASE_BRANCH]);
        if progress::output(&mut command).is_ok_and(|key| key.trim_matches('\'') == base.key) {
            return Ok(known);
        }
    }
    step.detail("base tree");
    let mut command = ostree(repository);
    command
        .arg("commit")
        .arg(format!("--branch={BASE_BRANCH}"))
        .arg("--orphan")
        .arg(format!("--tree=dir={}", base.system.display()))
        .args(["--owner-uid=0", "--owner-gid=0"])
        .arg(format!("--add-metadata-string=keelson.base={}", base.key))
        .arg(format!("--timestamp=@{timestamp}"));
    let commit = progress::output(&mut command)?;
    let mut command = ostree(repository);
    command.args(["refs", "--delete", BASE_BRANCH]);
    progress::output(&mut command)?;
    let mut command = ostree(repository);
    command.args(["refs", &format!("--create={BASE_BRANCH}"), &commit]);
    progress::output(&mut command)?;
    Ok(commit)
}

fn revision(repository: &Path, branch: &str) -> Option<String> {
    progress::output(ostree(repository).args(["rev-parse", branch])).ok()
}

/// The time of commits: `SOURCE_DATE_EPOCH`, else that of the source's last commit.
pub(crate) fn timestamp(root: &Path) -> u64 {
    let named = std::env::var("SOURCE_DATE_EPOCH").ok();
    let committed = || {
        let mut command = Command::new("git");
        command
            .current_dir(root)
            .args(["log", "-1", "--format=%ct"]);
        progress::output(&mut command).ok()
    };
    named
        .or_else(committed)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn deploy(
    step: &mut Step,
    workspace: &Workspace,
    repository: &Path,
    commit: &str,
    log: &Path,
) -> Result<Deployment> {
    let sysroot = workspace.image().join("sysroot");
    remove(&sysroot)?;
    fs::create_dir_all(&sysroot)?;
    let argument = format!("--sysroot={}", sysroot.display());
    let inner = sysroot.join("ostree/repo");
    let admin = |arguments: &[&str]| {
        let mut command = Command::new("ostree");
        command.arg("admin").args(arguments);
        command
    };
    let path = sysroot.display().to_string();
    progress::run(step, &mut admin(&["init-fs", "--modern", &path]), log)?;
    for (key, value) in [("sysroot.bootloader", "none"), ("sysroot.readonly", "true")] {
        progress::run(
            step,
            ostree(&inner).args(["config", "set", key, value]),
            log,
        )?;
    }
    disable_fsync(step, &inner, log)?;
    progress::run(step, &mut admin(&["os-init", &argument, OS]), log)?;
    progress::run(
        step,
        ostree(&inner).arg("pull-local").arg(repository).arg(BRANCH),
        log,
    )?;
    let os = format!("--os={OS}");
    let kernel_argument = "--karg=root=PARTLABEL=root";
    progress::run(
        step,
        &mut admin(&["deploy", &argument, &os, kernel_argument, BRANCH]),
        log,
    )?;
    // On the machine itself, fsync stays on.
    progress::run(
        step,
        ostree(&inner).args(["config", "unset", "core.fsync"]),
        log,
    )?;
    unlock(&sysroot);
    let deployment = Deployment {
        commit: commit.to_owned(),
        serial: 0,
        sysroot: sysroot.clone(),
    };
    if !sysroot.join(&deployment.path()[1..]).is_dir() {
        bail!("ostree did not deploy {}", deployment.name());
    }
    let var = sysroot.join("ostree/deploy").join(OS).join("var");
    for (name, permissions) in VAR {
        let directory = var.join(name);
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(permissions))?;
    }
    Ok(deployment)
}

/// Makes deployments ordinary directories again. ostree makes them immutable, which would keep even
/// root from `cargo clean` and from removing the checkout. Nothing is lost: `mkfs.ext4 -d` does not
/// carry the flag into the image, where the mount is read-only instead.
fn unlock(sysroot: &Path) {
    let deployments = sysroot.join("ostree/deploy").join(OS).join("deploy");
    if let Ok(entries) = fs::read_dir(&deployments) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            // If the file system does not have the flag, it need not be cleared.
            let _ = progress::output(Command::new("chattr").arg("-i").arg(entry.path()));
        }
    }
}

/// Removes a system root, also one that an interrupted build left locked.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove(sysroot: &Path) -> Result<()> {
    if !sysroot.exists() {
        return Ok(());
    }
    unlock(sysroot);
    fs::remove_dir_all(sysroot).with_context(|| format!("remove {}", sysroot.display()))
}
