//! The AppArmor profile of containers, compiled: the machine has no compiler, and its boot no time for
//! one.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::{self, Step};
use crate::workspace::Workspace;

/// Where apparmor_parser finds what profiles include.
const INCLUDES: &str = "/etc/apparmor.d";
/// What the kernel of the image is taken to mediate, whatever that of the building machine does. The
/// profile names the same.
const FEATURES: &str = "/etc/apparmor.d/abi/3.0";

/// Compiles a profile.
///
/// # Errors
/// apparmor_parser can't be executed or refuses the profile.
pub(crate) fn compile(workspace: &Workspace, step: &mut Step, profile: &Path) -> Result<Vec<u8>> {
    let output = workspace.image().join("apparmor-policy");
    let log = progress::log_file(&workspace.log(), "apparmor");
    progress::run(
        step,
        Command::new("apparmor_parser")
            // Nothing is loaded into this machine's kernel, and nothing read from its cache.
            .args(["--skip-kernel-load", "--skip-cache"])
            .args(["--base", INCLUDES, "--features-file", FEATURES])
            .arg("--ofile")
            .arg(&output)
            .arg(profile),
        &log,
    )?;
    let policy = fs::read(&output).with_context(|| format!("read {}", output.display()))?;
    fs::remove_file(&output)?;
    Ok(policy)
}
