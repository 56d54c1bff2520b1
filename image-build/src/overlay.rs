//! What we add to Debian's tree: our executables, the initrd, the services, the defaults and the
//! system's name. It is a separate directory that is laid over the base in the ostree commit. So
//! the base need not be read again if only an executable has changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apparmor;
use crate::base::Base;
use crate::binaries::BINARIES;
use crate::deployment;
use crate::initrd;
use crate::layers::{self, sorted_names};
use crate::progress::{self, Step};
use crate::stamp::{Inputs, Stamp};
use crate::workspace::Workspace;

/// Builds the directory unless it is there and nothing that it is made of has changed. Returns it
/// and the hash of its inputs. `console`: whether the image has one.
///
/// # Errors
/// An input is missing, or mkfs.erofs, apparmor_parser or zstd fails.
pub fn build(workspace: &Workspace, base: &Base, console: bool) -> Result<(PathBuf, String)> {
    let binaries = workspace.binaries();
    let files = workspace.root().join("image-build/files");
    let services = files.join("services");
    let mut inputs = Inputs::new("overlay", 1);
    inputs.text(&base.key);
    inputs.text(env!("CARGO_PKG_VERSION"));
    // A time before which no clock of a machine with this image can be right.
    let build_time = format!("{}\n", deployment::timestamp(workspace.root()));
    inputs.text(&build_time);
    inputs.path(&files)?;
    inputs.text(if console { "console" } else { "no console" });
    for binary in BINARIES {
        inputs.path(&binaries.join(binary.name))?;
    }
    let overlay = workspace.image().join("overlay");
    let stamp = Stamp::new(&workspace.image().join("stamps"), "overlay", inputs);
    let key = stamp.key().to_owned();
    if stamp.is_current(&[&overlay]) {
        return Ok((overlay, key));
    }
    stamp.clear()?;
    let mut step = Step::begin("executables, initrd and services for the image");
    if overlay.exists() {
        fs::remove_dir_all(&overlay).with_context(|| format!("remove {}", overlay.display()))?;
    }
    let release = kernel_release(&base.system)?;
    for binary in BINARIES {
        put(
            &overlay.join(binary.directory).join(binary.name),
            &fs::read(binaries.join(binary.name))?,
            0o755,
        )?;
    }
    let initrd = initrd::build(&base.system, &release, &binaries.join("init"))?;
    put(
        &overlay
            .join("usr/lib/modules")
            .join(&release)
            .join("initramfs.img"),
        &initrd,
        0o644,
    )?;
    let keelson = overlay.join("usr/lib/keelson");
    for name in ["host.toml", "modules.conf"] {
        put(&keelson.join(name), &fs::read(files.join(name))?, 0o644)?;
    }
    let profile = files.join("apparmor/docker-default");
    put(
        &keelson.join("apparmor/docker-default"),
        &apparmor::compile(workspace, &mut step, &profile)?,
        0o644,
    )?;
    for name in sorted_names(&files.join("apparmor/services"))? {
        let profile = files.join("apparmor/services").join(&name);
        put(
            &keelson.join("apparmor/services").join(&name),
            &apparmor::compile(workspace, &mut step, &profile)?,
            0o644,
        )?;
    }
    put(
        &overlay.join("usr/lib/os-release"),
        os_release(&key).as_bytes(),
        0o644,
    )?;
    put(&keelson.join("build-time"), build_time.as_bytes(), 0o644)?;
    for name in layers::names(workspace.root(), console)? {
        let file = format!("{name}.toml");
        put(
            &overlay.join("usr/share/keelson/services").join(&file),
            &fs::read(services.join(&file)).with_context(|| format!("read services/{file}"))?,
            0o644,
        )?;
    }
    layers::build(workspace, &mut step, base, console, &keelson.join("images"))?;
    stamp.set()?;
    step.done(&format!(
        "initrd {}",
        progress::megabytes(initrd.len() as u64)
    ));
    Ok((overlay, key))
}

/// The release of the one kernel in a tree.
///
/// # Errors
/// There is none, or more than one.
pub fn kernel_release(system: &Path) -> Result<String> {
    let directory = system.join("usr/lib/modules");
    let mut releases = fs::read_dir(&directory)
        .with_context(|| format!("list {}", directory.display()))?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()?;
    let release = releases.pop().context("the tree holds no kernel")?;
    anyhow::ensure!(releases.is_empty(), "the tree holds more than one kernel");
    Ok(release)
}

fn os_release(key: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let build = key.get(..12).unwrap_or(key);
    format!(
        "NAME=Keelson\n\
         ID=keelson\n\
         ID_LIKE=debian\n\
         PRETTY_NAME=\"Keelson {version}\"\n\
         VERSION=\"{version} ({build})\"\n\
         VERSION_ID={version}\n\
         BUILD_ID={build}\n"
    )
}

fn put(path: &Path, content: &[u8], permissions: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(permissions))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_system_has_version_and_build() {
        let text = os_release("0123456789abcdef");
        assert!(text.contains("ID=keelson\n"));
        assert!(text.contains("BUILD_ID=0123456789ab\n"));
        assert!(text.lines().all(|line| line.contains('=')));
    }
}
