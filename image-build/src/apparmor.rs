//! Compiles the AppArmor profile of containers. The machine has no compiler, and its boot no time
//! for one.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::{self, Step};
use crate::workspace::Workspace;

/// Where apparmor_parser finds included files.
const INCLUDES: &str = "/etc/apparmor.d";
/// The features of the image's kernel, which may differ from those of the building machine. The
/// profile names the same ABI.
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
