//! Our static executables.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::progress;
use crate::workspace::{MUSL_TARGET, Workspace};

/// A package of the workspace and where its executable lies on the machine.
#[derive(Debug, Clone, Copy)]
pub struct Binary {
    /// Name of the executable and of the package.
    pub name: &'static str,
    /// Folder on the machine.
    pub folder: &'static str,
}

/// Everything of ours that runs on the machine.
pub const BINARIES: [Binary; 5] = [
    Binary {
        name: "init",
        folder: "usr/sbin",
    },
    Binary {
        name: "netcfg",
        folder: "usr/bin",
    },
    Binary {
        name: "hostd",
        folder: "usr/bin",
    },
    Binary {
        name: "keelson-runtime",
        folder: "usr/bin",
    },
    Binary {
        name: "hostctl",
        folder: "usr/bin",
    },
];

/// Lets cargo build the executables and returns their folder.
///
/// # Errors
/// cargo fails.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let started = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace.root())
        .args(["build", "--release", "--target", MUSL_TARGET]);
    for binary in BINARIES {
        command.args(["--package", binary.name]);
    }
    progress::say(&format!("   … executables ({MUSL_TARGET}, release)"));
    progress::run_shown(
        &mut command,
        &progress::log_file(&workspace.log(), "cargo-build"),
    )?;
    progress::say(&format!(
        "   ✓ executables ({:.1} s)",
        started.elapsed().as_secs_f64()
    ));
    Ok(workspace.binaries())
}

/// Says where the executables lie and how large they are.
///
/// # Errors
/// One is missing.
pub fn list(workspace: &Workspace) -> Result<()> {
    let folder = workspace.binaries();
    progress::say(&format!("Executables in {}:", workspace.display(&folder)));
    let mut total = 0;
    for binary in BINARIES {
        let file = folder.join(binary.name);
        let size = file
            .metadata()
            .with_context(|| format!("{} was not built", file.display()))?
            .len();
        total += size;
        progress::say(&format!(
            "  {:<16} {:>9}",
            binary.name,
            progress::megabytes(size)
        ));
    }
    progress::say(&format!(
        "  {:<16} {:>9}",
        "together",
        progress::megabytes(total)
    ));
    Ok(())
}
