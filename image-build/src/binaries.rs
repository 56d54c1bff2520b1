//! Our static executables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use keelson_testing::elf;

use crate::progress;
use crate::spent::Spent;
use crate::workspace::{MUSL_TARGET, Profile, Workspace};

/// A package of the workspace, and the path of its executable on the machine.
#[derive(Debug, Clone, Copy)]
pub struct Binary {
    /// Name of the executable and of the package.
    pub name: &'static str,
    /// Directory on the machine.
    pub directory: &'static str,
}

/// Everything of ours that runs on the machine.
pub const BINARIES: [Binary; 9] = [
    Binary {
        name: "init",
        directory: "usr/sbin",
    },
    Binary {
        name: "keelson-configure",
        directory: "usr/bin",
    },
    Binary {
        name: "netcfg",
        directory: "usr/bin",
    },
    Binary {
        name: "hostd",
        directory: "usr/bin",
    },
    Binary {
        name: RUNTIME,
        directory: "usr/bin",
    },
    Binary {
        name: "keelson-resolver",
        directory: "usr/bin",
    },
    Binary {
        name: "keelson-provision",
        directory: "usr/bin",
    },
    Binary {
        name: "keelson-console",
        directory: "usr/bin",
    },
    Binary {
        name: "hostctl",
        directory: "usr/bin",
    },
];

/// The container runtime.
pub const RUNTIME: &str = "keelson-runtime";

/// Packages whose executables tests copy into the machine.
const TESTERS: [&str; 1] = ["conformance"];

/// Lets cargo build the executables and returns their directory.
///
/// # Errors
/// cargo fails.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    build_with(workspace, &[])
}

/// Lets cargo build the executables, and those that tests copy into the machine.
///
/// # Errors
/// cargo fails.
pub fn build_testers(workspace: &Workspace) -> Result<PathBuf> {
    build_with(workspace, &TESTERS)
}

/// Lets cargo build only our runtime, as it is shipped, and returns its path. The security tests
/// run against that file too, and building it alone takes a fraction of the time.
///
/// # Errors
/// cargo fails.
pub fn build_shipped_runtime(workspace: &Workspace) -> Result<PathBuf> {
    let shipped = workspace.clone().with_profile(Profile::Release);
    build_packages(&shipped, &[RUNTIME])?;
    Ok(shipped.binaries().join(RUNTIME))
}

/// All in one call, so that the features of dependencies are chosen the same way each time.
fn build_with(workspace: &Workspace, others: &[&str]) -> Result<PathBuf> {
    let names = BINARIES.iter().map(|binary| binary.name);
    let names: Vec<&str> = names.chain(others.iter().copied()).collect();
    build_packages(workspace, &names)?;
    Ok(workspace.binaries())
}

fn build_packages(workspace: &Workspace, names: &[&str]) -> Result<()> {
    let spent = Spent::begin();
    let profile = workspace.profile().name();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace.root()).args([
        "build",
        "--profile",
        profile,
        "--target",
        MUSL_TARGET,
    ]);
    for name in names {
        command.args(["--package", name]);
    }
    progress::say(&format!("   … executables ({MUSL_TARGET}, {profile})"));
    progress::run_shown(
        &mut command,
        &progress::log_file(&workspace.log(), "cargo-build"),
    )?;
    for name in names {
        check_static(&workspace.binaries().join(name))?;
    }
    progress::say(&format!("   ✓ executables ({spent})"));
    Ok(())
}

/// Refuses an executable that needs a dynamic loader. The image has none for musl, and a linker
/// driver that misunderstands its options makes such executables without a warning.
fn check_static(file: &Path) -> Result<()> {
    let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    match elf::asks_for_loader(&content) {
        Some(false) => Ok(()),
        Some(true) => bail!(
            "{} is not static: it asks for a dynamic loader",
            file.display()
        ),
        None => bail!("{} is no 64-bit ELF executable", file.display()),
    }
}

/// Prints the paths and sizes of the executables.
///
/// # Errors
/// One is missing.
pub fn list(workspace: &Workspace) -> Result<()> {
    let directory = workspace.binaries();
    progress::say(&format!(
        "Executables in {}:",
        workspace.display(&directory)
    ));
    let mut total = 0;
    for binary in BINARIES {
        let file = directory.join(binary.name);
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
