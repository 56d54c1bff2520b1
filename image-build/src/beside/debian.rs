//! A disk with Debian and docker.io, made by the same mkosi as ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use qemu_tests::harness::Boot;

use crate::base;
use crate::privilege::is_root;
use crate::progress::{self, Step};
use crate::stamp::{Inputs, Stamp};
use crate::tools::{self, Mkosi};
use crate::workspace::Workspace;

/// KiB of the disk's file system; a sparse file.
const SIZE_KIB: u64 = 8 << 20;
/// The directory of mkosi's configuration, in the source tree.
const CONFIGURATION: &str = "image-build/files/debian";

/// Debian's disk, and what QEMU boots it with.
#[derive(Debug)]
pub(super) struct Debian {
    pub(super) disk: PathBuf,
    pub(super) boot: Boot,
}

/// Builds it, unless it is there and its configuration is unchanged.
pub(super) fn build(workspace: &Workspace) -> Result<Debian> {
    if !is_root() {
        bail!("Debian's disk can be made by root only: run this command with sudo");
    }
    let mkosi = Mkosi::find(workspace)?;
    let directory = workspace.root().join(CONFIGURATION);
    let mut inputs = Inputs::new("debian", 1);
    inputs.text(mkosi.version());
    inputs.path(&directory)?;
    let output = workspace.image().join("debian");
    let disk = output.join("disk.raw");
    let tree = output.join("debian");
    let stamp = Stamp::new(&workspace.image().join("stamps"), "debian", inputs);
    if !stamp.is_current(&[&disk]) {
        stamp.clear()?;
        let mut step = Step::begin("Debian with docker.io (mkosi)");
        if output.exists() {
            fs::remove_dir_all(&output).with_context(|| format!("remove {}", output.display()))?;
        }
        fs::create_dir_all(&output).with_context(|| format!("create {}", output.display()))?;
        let log = progress::log_file(&workspace.log(), "mkosi-debian");
        let mut command = base::command(workspace, &mkosi, &directory, &output)?;
        progress::run(&mut step, &mut command, &log)?;
        let program = tools::in_path("mkfs.ext4").context("mkfs.ext4 is not installed")?;
        progress::run(
            &mut step,
            Command::new(program)
                .args(["-q", "-F", "-L", "root", "-m", "1", "-d"])
                .arg(&tree)
                .arg(&disk)
                .arg(format!("{SIZE_KIB}k")),
            &log,
        )?;
        step.done(&progress::megabytes(base::tree_size(&tree)?));
        stamp.set()?;
    }
    let kernel = only(&tree.join("boot"), "vmlinuz-")?;
    let boot = Boot::Direct {
        initrd: only(&tree.join("boot"), "initrd.img-")?,
        cmdline: "root=LABEL=root rw console=ttyS0 quiet".to_owned(),
        kernel,
    };
    Ok(Debian { disk, boot })
}

/// The file in a directory whose name begins so.
fn only(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("{} has no {prefix}…", directory.display())
}
