//! The developer's own disk: a layer over the image's disk for the machine's writes. It is kept
//! between runs as long as the image stays the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::disk::Image;
use crate::progress;
use crate::workspace::Workspace;

/// Version of [`Record`].
const VERSION: u32 = 1;

/// The image that the layer belongs to. With another image its content would be garbage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    deployment: String,
    /// Inode, modification time in nanoseconds and size of the image's disk.
    base: (u64, i64, u64),
}

impl Record {
    fn of(image: &Image) -> Result<Self> {
        let disk = image.disk();
        let metadata = disk.metadata().with_context(|| {
            format!(
                "{} is missing; `cargo xtask image` makes it",
                disk.display()
            )
        })?;
        let modified = metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec());
        Ok(Self {
            version: VERSION,
            deployment: fs::read_to_string(image.directory.join("deployment"))
                .unwrap_or_default()
                .trim()
                .to_owned(),
            base: (metadata.ino(), modified, metadata.len()),
        })
    }
}

/// Returns the disk of the virtual machine, made new when there is none, when the image has
/// changed or when `fresh` asks for it. `size` in bytes enlarges it.
///
/// # Errors
/// The image's disk is missing, the kept disk is damaged or larger than `size`, or qemu-img fails.
pub fn prepare(
    workspace: &Workspace,
    image: &Image,
    fresh: bool,
    size: Option<u64>,
) -> Result<PathBuf> {
    let directory = workspace.vm();
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let disk = directory.join("disk.qcow2");
    let record_file = directory.join("disk.json");
    let record = Record::of(image)?;
    let known: Option<Record> = fs::read(&record_file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let shown = workspace.display(&disk);
    match (disk.exists(), known) {
        (true, Some(known)) if known == record && !fresh => {
            check(&disk, &shown)?;
            progress::say(&format!("   ✓ disk of the last run is used again: {shown}"));
            grow(&disk, &shown, size)?;
            return Ok(disk);
        }
        (true, _) if fresh => {
            progress::say(&format!("   ! disk made new, as --fresh asks: {shown}"))
        }
        (true, _) => progress::say(&format!(
            "   ! the image has changed since the last run: the machine's disk is made new, \
             containers and images on it are gone ({shown})"
        )),
        (false, Some(_)) => progress::say(&format!("   ! {shown} is missing and is made new")),
        (false, None) => {}
    }
    let _ = fs::remove_file(&record_file);
    let _ = fs::remove_file(&disk);
    let mut command = Command::new("qemu-img");
    command
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(image.disk())
        .arg(&disk);
    progress::output(&mut command)?;
    grow(&disk, &shown, size)?;
    fs::write(&record_file, serde_json::to_string_pretty(&record)?)?;
    Ok(disk)
}

/// Refuses a disk whose own structure is damaged, before a machine makes it worse.
fn check(disk: &Path, shown: &str) -> Result<()> {
    let output = Command::new("qemu-img")
        .args(["check", "-q", "-f", "qcow2"])
        .arg(disk)
        .output()
        .context("start qemu-img")?;
    // 3: clusters that nobody uses, as a killed QEMU leaves them; harmless.
    if !matches!(output.status.code(), Some(0 | 3)) {
        bail!(
            "{shown} is damaged: {}\n`cargo xtask run --fresh` makes a new one; containers and \
             images on it are lost then.",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn grow(disk: &Path, shown: &str, size: Option<u64>) -> Result<()> {
    #[derive(Deserialize)]
    struct Information {
        #[serde(rename = "virtual-size")]
        virtual_size: u64,
    }
    let Some(size) = size else { return Ok(()) };
    let mut command = Command::new("qemu-img");
    command.args(["info", "--output=json"]).arg(disk);
    let information: Information = serde_json::from_str(&progress::output(&mut command)?)
        .with_context(|| format!("qemu-img about {shown}"))?;
    if size < information.virtual_size {
        bail!(
            "--disk-size: the disk has {} already and cannot become smaller",
            progress::megabytes(information.virtual_size)
        );
    }
    if size > information.virtual_size {
        let mut command = Command::new("qemu-img");
        command
            .args(["resize", "-q", "-f", "qcow2"])
            .arg(disk)
            .arg(size.to_string());
        progress::output(&mut command)?;
    }
    Ok(())
}

/// Reads a size: bytes, or a number with `K`, `M`, `G` or `T` (powers of 1024).
///
/// # Errors
/// It is neither.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; 20G and 512M are");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = text
        .get(digits.len()..)
        .unwrap_or_default()
        .to_ascii_uppercase();
    let factor = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" if unit.is_empty() => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(factor)
        .filter(|size| *size > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("20G"), Ok(20 << 30));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "G", "-1G", "1X", "0", "99999999999T", "1 G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
