//! Our static executables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

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

/// Packages whose executables tests take into the machine.
const TESTERS: [&str; 1] = ["conformance"];

/// Lets cargo build the executables and returns their folder.
///
/// # Errors
/// cargo fails.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    build_with(workspace, &[])
}

/// Lets cargo build the executables, and beside them those that tests take into the machine.
///
/// # Errors
/// cargo fails.
pub fn build_testers(workspace: &Workspace) -> Result<PathBuf> {
    build_with(workspace, &TESTERS)
}

/// All in one call, so that the features of dependencies are chosen the same way each time.
fn build_with(workspace: &Workspace, others: &[&str]) -> Result<PathBuf> {
    let started = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace.root())
        .args(["build", "--release", "--target", MUSL_TARGET]);
    let names = BINARIES.iter().map(|binary| binary.name);
    for name in names.chain(others.iter().copied()) {
        command.args(["--package", name]);
    }
    progress::say(&format!("   … executables ({MUSL_TARGET}, release)"));
    progress::run_shown(
        &mut command,
        &progress::log_file(&workspace.log(), "cargo-build"),
    )?;
    let names = BINARIES.iter().map(|binary| binary.name);
    for name in names.chain(others.iter().copied()) {
        check_static(&workspace.binaries().join(name))?;
    }
    progress::say(&format!(
        "   ✓ executables ({:.1} s)",
        started.elapsed().as_secs_f64()
    ));
    Ok(workspace.binaries())
}

/// Refuses an executable that asks for a dynamic loader: the image has none for musl, and a
/// linker driver that misunderstands its options makes such executables without a word.
fn check_static(file: &Path) -> Result<()> {
    let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    match asks_for_loader(&content) {
        Some(false) => Ok(()),
        Some(true) => bail!(
            "{} is not static: it asks for a dynamic loader",
            file.display()
        ),
        None => bail!("{} is no 64-bit ELF executable", file.display()),
    }
}

/// Whether a 64-bit little-endian ELF file has a program header of type PT_INTERP.
fn asks_for_loader(content: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let number = |offset: usize, size: usize| -> Option<u64> {
        let bytes = content.get(offset..offset.checked_add(size)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    };
    if content.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(number(0x20, 8)?).ok()?;
    let entry_size = usize::try_from(number(0x36, 2)?).ok()?;
    let entries = usize::try_from(number(0x38, 2)?).ok()?;
    for index in 0..entries {
        let offset = table.checked_add(index.checked_mul(entry_size)?)?;
        if number(offset, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_with_a_loader_are_recognised() {
        let mut elf = vec![0; 0x40 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x36] = 56;
        elf[0x38] = 2;
        assert_eq!(asks_for_loader(&elf), Some(false));
        elf[0x40 + 56] = 3;
        assert_eq!(asks_for_loader(&elf), Some(true));
        assert_eq!(asks_for_loader(&elf[..0x50]), None);
        assert_eq!(asks_for_loader(b"#!/bin/sh"), None);
    }
}
