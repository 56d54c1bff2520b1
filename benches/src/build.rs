//! Builds the measured programs, so that they are never outdated.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The target of everything that runs on Keelson.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds an executable of a package with the release profile and returns its path.
///
/// # Errors
/// cargo fails.
pub fn release(package: &str, executable: &str) -> Result<PathBuf> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .current_dir(root)
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(["-p", package, "--bin", executable])
        .status()
        .context("execute cargo")?;
    if !status.success() {
        bail!("cargo build -p {package} failed");
    }
    Ok(target_directory()
        .join(TARGET)
        .join("release")
        .join(executable))
}

/// Cargo's output directory.
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    )
}
