//! All stages from executables to a disk.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::disk::{self, Image};
use crate::privilege::Means;
use crate::progress;
use crate::stamp::{Inputs, Stamp};
use crate::workspace::{Profile, Workspace};
use crate::{base, binaries, deployment, overlay};

/// Options of a build.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildOptions {
    /// Take the newest Debian packages although nothing of ours has changed.
    pub refresh: bool,
    /// Pack the disk for distribution, too.
    pub compressed: bool,
    /// Take the executables as they are instead of letting cargo build them.
    pub prebuilt: bool,
    /// Leave the console out: an image without ssh and without logins, for a smaller download.
    pub without_console: bool,
}

/// Builds everything that is not up to date.
///
/// # Errors
/// A stage fails.
pub fn build(workspace: &Workspace, options: BuildOptions) -> Result<Image> {
    let started = Instant::now();
    if !options.prebuilt {
        binaries::build(workspace)?;
    }
    match Means::find() {
        Means::Root => assemble(workspace, options, started)?,
        means @ Means::UserNamespace => {
            // mkosi makes a namespace of its own.
            base::build(workspace, options.refresh)?;
            let options = BuildOptions {
                refresh: false,
                ..options
            };
            means.run_self(&arguments(workspace, options))?;
        }
        means @ Means::Sudo => means.run_self(&arguments(workspace, options))?,
    }
    Ok(Image::of(workspace))
}

/// The command line that makes an image of the existing executables.
fn arguments(workspace: &Workspace, options: BuildOptions) -> Vec<&'static str> {
    let mut arguments = vec!["image", "--prebuilt"];
    if workspace.profile() == Profile::Release {
        arguments.push("--release");
    }
    if options.refresh {
        arguments.push("--refresh");
    }
    if options.compressed {
        arguments.push("--compressed");
    }
    if options.without_console {
        arguments.push("--without-console");
    }
    arguments
}

fn assemble(workspace: &Workspace, options: BuildOptions, started: Instant) -> Result<()> {
    let base = base::build(workspace, options.refresh)?;
    let (overlay, key) = overlay::build(workspace, &base, !options.without_console)?;
    let image = Image::of(workspace);
    let mut inputs = Inputs::new("disk", 1);
    inputs.text(&key);
    let stamp = Stamp::new(&workspace.image().join("stamps"), "disk", inputs);
    let [kernel, initrd, cmdline] = image.direct();
    let disk = image.disk();
    if stamp.is_current(&[&disk, &kernel, &initrd, &cmdline]) {
        progress::say(&format!(
            "   ✓ image up to date: {}",
            workspace.display(&disk)
        ));
    } else {
        stamp.clear()?;
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("{version}-{}", key.get(..12).unwrap_or(&key));
        let deployment = deployment::build(workspace, &base, &overlay, &build)?;
        disk::build(workspace, &deployment, &build)?;
        stamp.set()?;
        progress::say(&format!(
            "   ✓ image built ({:.1} s in all)",
            started.elapsed().as_secs_f64()
        ));
    }
    if options.compressed {
        let current = image
            .compressed()
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .zip(
                disk.metadata()
                    .and_then(|metadata| metadata.modified())
                    .ok(),
            )
            .is_some_and(|(compressed, raw)| compressed >= raw);
        if !current {
            disk::compress(workspace)?;
        }
    }
    Ok(())
}

/// Removes everything that was built for images and virtual machines; cargo's own files stay.
///
/// # Errors
/// Something cannot be removed.
pub fn clean(workspace: &Workspace) -> Result<()> {
    deployment::remove(&workspace.image().join("sysroot"))?;
    for directory in [
        workspace.image(),
        workspace.tools(),
        workspace.vm(),
        workspace.log(),
    ] {
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| {
                format!(
                    "remove {} (what sudo made, `sudo rm -r` removes)",
                    directory.display()
                )
            })?;
        }
    }
    Ok(())
}
