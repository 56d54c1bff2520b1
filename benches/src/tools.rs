//! Finds the programs with which ours are compared.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

/// A program in the search path, or in the directories where Debian puts those for root.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// A program that a benchmark needs.
///
/// # Errors
/// It is not installed; the message names Debian's package.
pub fn require(program: &str, package: &str) -> Result<PathBuf> {
    match find(program) {
        Some(path) => Ok(path),
        None => bail!("{program} is not installed: apt-get install {package}"),
    }
}

/// An optional program. If it is missing, a line on standard error says so.
pub fn optional(program: &str, package: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        eprintln!("{program} is left out, it is not installed: apt-get install {package}");
    }
    found
}

/// The first line that a program prints when it is asked for its version.
pub fn version(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout);
    let text = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    text.lines().next().unwrap_or("unknown version").to_owned()
}
