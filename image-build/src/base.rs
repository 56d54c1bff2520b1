//! The Debian trees, made by mkosi: the system's and one for each service's image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::progress::{self, Step};
use crate::stamp::{Inputs, Stamp};
use crate::tools::Mkosi;
use crate::workspace::Workspace;

/// What mkosi needs of /dev/shm to work there, in bytes.
const WORKSPACE_MEMORY: u64 = 3 << 30;

/// The trees and the hash of their inputs.
#[derive(Debug, Clone)]
pub struct Base {
    /// The system's tree, in the shape that ostree commits.
    pub system: PathBuf,
    /// Directory with one tree for each image of a service.
    pub trees: PathBuf,
    /// Hash of everything from which the trees were made.
    pub key: String,
}

/// Builds the trees unless they are there and their configuration is unchanged. `refresh` takes
/// the newest packages from the mirror although nothing of ours has changed.
///
/// # Errors
/// mkosi is missing or fails.
pub fn build(workspace: &Workspace, refresh: bool) -> Result<Base> {
    let root = workspace.root();
    let mkosi = Mkosi::find(workspace)?;
    let mut inputs = Inputs::new("base", 1);
    inputs.text(mkosi.version());
    for entry in [
        "mkosi.conf",
        "mkosi.finalize",
        "mkosi.images",
        "image-build/files/mkosi",
    ] {
        inputs.path(&root.join(entry))?;
    }
    let trees = workspace.image().join("trees");
    let system = trees.join("keelson");
    let stamp = Stamp::new(&workspace.image().join("stamps"), "base", inputs);
    if stamp.is_current(&[&system]) && !refresh {
        return Ok(Base {
            system,
            key: base_key(&trees, &stamp)?,
            trees,
        });
    }
    stamp.clear()?;
    let mut step = Step::begin("operating system tree (mkosi, Debian packages)");
    remove_trees(&trees)?;
    fs::create_dir_all(&trees)?;
    let log = progress::log_file(&workspace.log(), "mkosi");
    let mut command = command(workspace, &mkosi, root, &trees)?;
    progress::run(&mut step, &mut command, &log)?;
    if !system.is_dir() {
        bail!(
            "mkosi left no tree at {}; see {}",
            system.display(),
            log.display()
        );
    }
    // Two runs from the same configuration may still differ in package versions.
    let packages = fs::read(system.join("usr/lib/sysimage/dpkg/status"))
        .context("the system's tree has no package database")?;
    let mut contents = Inputs::new("packages", 1);
    contents.text(stamp.key());
    contents.text(&String::from_utf8_lossy(&packages));
    fs::write(trees.join("key"), contents.finish())?;
    stamp.set()?;
    step.done(&progress::megabytes(tree_size(&system)?));
    Ok(Base {
        system,
        key: base_key(&trees, &stamp)?,
        trees,
    })
}

fn base_key(trees: &Path, stamp: &Stamp) -> Result<String> {
    let packages = fs::read_to_string(trees.join("key"))
        .with_context(|| format!("read {}", trees.join("key").display()))?;
    Ok(format!("{}-{packages}", stamp.key()))
}

/// The command that makes the tree described in `directory`, below `output`.
pub(crate) fn command(
    workspace: &Workspace,
    mkosi: &Mkosi,
    directory: &Path,
    output: &Path,
) -> Result<Command> {
    let image = workspace.image();
    let sandbox = image.join("sandbox");
    let sources = sandbox.join("etc/apt/sources.list.d");
    fs::create_dir_all(&sources)?;
    // Otherwise mkosi asks an archive of debug symbols that many mirrors do not have.
    fs::write(
        sources.join("mkosi.sources"),
        apt::deb822(&apt::image_sources()?),
    )?;
    let packages = image.join("packages");
    fs::create_dir_all(&packages)?;
    let mut command = mkosi.command();
    command
        .current_dir(directory)
        .arg("--force")
        .arg(format!("--output-directory={}", output.display()))
        .arg(format!("--package-cache-dir={}", packages.display()))
        .arg(format!("--sandbox-tree={}", sandbox.display()));
    if shared_memory_is_roomy() {
        // This is twice as fast as on a disk.
        command.arg("--workspace-directory=/dev/shm");
    } else {
        let directory = image.join("workspace");
        fs::create_dir_all(&directory)?;
        command.arg(format!("--workspace-directory={}", directory.display()));
    }
    command.arg("build");
    Ok(command)
}

fn shared_memory_is_roomy() -> bool {
    let Ok(space) = nix::sys::statvfs::statvfs("/dev/shm") else {
        return false;
    };
    let free = space.blocks_available() * space.fragment_size();
    let memory = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_memory(&text))
        .unwrap_or(0);
    // A tmpfs can be larger than the memory that is left.
    free.min(memory) >= WORKSPACE_MEMORY
}

/// Bytes, from the line `MemAvailable:` of /proc/meminfo.
fn available_memory(text: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn remove_trees(trees: &Path) -> Result<()> {
    match fs::remove_dir_all(trees) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", trees.display()))
        }
        _ => Ok(()),
    }
}

/// Bytes of all regular files below a directory.
///
/// # Errors
/// A directory cannot be read.
pub fn tree_size(path: &Path) -> Result<u64> {
    let mut total = 0;
    let entries = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            total += tree_size(&entry.path())?;
        } else if metadata.is_file() {
            total += metadata.len();
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       24683124 kB\nMemAvailable:   24438000 kB\n";
        assert_eq!(available_memory(text), Some(24_438_000 * 1024));
        assert_eq!(available_memory("MemFree: 1 kB"), None);
    }
}
