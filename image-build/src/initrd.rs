//! The initrd: our `init` as `/init`, the marker `/etc/initrd-release`, and the kernel modules that
//! reach a root file system, with the parts of depmod's indexes about them.
//!
//! `/modules.list` names the modules that are loaded in any case, in their order; the others are
//! loaded for the devices that a machine has.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cpio::Archive;

/// Loaded on every machine: what virtual machines boot from. ext4 asks for its checksums by the
/// name of an algorithm, which `modules.dep` doesn't list.
const ALWAYS: [&str; 3] = ["virtio_blk", "crc32c_generic", "ext4"];
/// Loaded when there is such a device. Names that this kernel has built in, or that its flavour
/// lacks, are skipped.
const STORAGE: [&str; 36] = [
    "aacraid",
    "ahci",
    "ata_generic",
    "ata_piix",
    "efivarfs",
    "ehci_pci",
    "hid_generic",
    "hpsa",
    "hv_storvsc",
    "hyperv_keyboard",
    "isci",
    "megaraid_sas",
    "mmc_block",
    "mpi3mr",
    "mpt3sas",
    "mptsas",
    "mptspi",
    "nvme",
    "ohci_pci",
    "sd_mod",
    "sdhci_acpi",
    "sdhci_pci",
    "smartpqi",
    "uas",
    "uhci_hcd",
    "usb_storage",
    "usbhid",
    "virtio_mmio",
    "virtio_pci",
    "virtio_scsi",
    "vmd",
    "vmw_pvscsi",
    "xen_blkfront",
    "xen_scsifront",
    "xhci_hcd",
    "xhci_pci",
];
/// Debian's static e2fsck, and its place in the initrd (`CHECKER` in init's `disk::check`). The
/// one in the deployment comes too late: it can't repair the file system that it lies on.
const CHECKER: [&str; 2] = ["usr/sbin/e2fsck.static", "sbin/e2fsck"];

/// Modules of a kernel as depmod's `modules.dep` lists them.
#[derive(Debug)]
struct Dependencies<'a> {
    lines: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> Dependencies<'a> {
    fn parse(text: &'a str) -> Self {
        let lines = text
            .lines()
            .filter_map(|line| {
                let (path, needs) = line.split_once(':')?;
                Some((path, needs.split_whitespace().collect()))
            })
            .collect();
        Self { lines }
    }

    /// The file of module `name`, in which `-` and `_` are the same.
    fn file(&self, name: &str) -> Option<&'a str> {
        self.lines
            .iter()
            .map(|(path, _)| *path)
            .find(|path| module_name(path) == name)
    }

    /// The modules to load for the module in `path`, in order, with itself last. depmod lists the
    /// nearest dependency first.
    fn in_order(&self, path: &'a str) -> Vec<&'a str> {
        let needs = self.lines.iter().find(|(known, _)| *known == path);
        needs
            .into_iter()
            .flat_map(|(_, needs)| needs.iter().rev().copied())
            .chain([path])
            .collect()
    }
}

/// `virtio_blk` for `kernel/drivers/block/virtio-blk.ko.xz`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// The lines of `modules.alias` or `modules.softdep` that are about one of `modules`.
fn about(text: &str, modules: &BTreeSet<String>, column: usize) -> String {
    text.lines()
        .filter(|line| {
            line.split_whitespace()
                .nth(column)
                .is_some_and(|name| modules.contains(&name.replace('-', "_")))
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Makes the initrd for the kernel in `system` (a tree with /usr/lib/modules/RELEASE), with the
/// executable `init`, compressed by zstd.
///
/// # Errors
/// The tree holds no kernel or a module that its index names, or zstd fails.
pub fn build(system: &Path, release: &str, init: &Path) -> Result<Vec<u8>> {
    let directory = system.join("usr/lib/modules").join(release);
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let index = read("modules.dep")?;
    let built_in = read("modules.builtin")?;
    let dependencies = Dependencies::parse(&index);
    let is_built_in = |name: &str| built_in.lines().any(|line| module_name(line) == name);

    let mut always: Vec<&str> = Vec::new();
    for name in ALWAYS {
        match dependencies.file(name) {
            Some(path) => always.extend(dependencies.in_order(path)),
            None if is_built_in(name) => {}
            None => bail!("kernel {release} has no module {name}"),
        }
    }
    let mut seen = BTreeSet::new();
    always.retain(|path| seen.insert(*path));
    let files: BTreeSet<&str> = STORAGE
        .iter()
        .filter_map(|name| dependencies.file(name))
        .flat_map(|path| dependencies.in_order(path))
        .chain(always.iter().copied())
        .collect();
    let names: BTreeSet<String> = files.iter().map(|path| module_name(path)).collect();

    let mut archive = Archive::new(Vec::new());
    for mount_point in ["dev", "proc", "run", "sys", "sysroot"] {
        archive.directory(mount_point)?;
    }
    let program = fs::read(init).with_context(|| format!("read {}", init.display()))?;
    archive.file("init", 0o755, &program)?;
    archive.file("etc/initrd-release", 0o644, b"ID=keelson\n")?;
    let [checker, place] = CHECKER;
    let checker = system.join(checker);
    let program = fs::read(&checker).with_context(|| format!("read {}", checker.display()))?;
    archive.directory("sbin")?;
    archive.file(place, 0o755, &program)?;
    let inside = format!("usr/lib/modules/{release}");
    let list: String = always
        .iter()
        .map(|path| format!("/{inside}/{path}\n"))
        .collect();
    archive.file("modules.list", 0o644, list.as_bytes())?;
    for path in &files {
        let content =
            fs::read(directory.join(path)).with_context(|| format!("read module {path}"))?;
        archive.file(&format!("{inside}/{path}"), 0o644, &content)?;
    }
    let kept: String = index
        .lines()
        .filter(|line| {
            line.split(':')
                .next()
                .is_some_and(|path| files.contains(path))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    for (name, content) in [
        ("modules.dep", kept),
        ("modules.builtin", built_in),
        ("modules.alias", about(&read("modules.alias")?, &names, 2)),
        (
            "modules.softdep",
            about(&read("modules.softdep")?, &names, 1),
        ),
    ] {
        archive.file(&format!("{inside}/{name}"), 0o644, content.as_bytes())?;
    }
    compress(&archive.finish()?)
}

/// Compresses with the program zstd; level 19, since the boot loader reads it on every boot.
fn compress(content: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("zstd")
        .args(["-q", "-19", "--no-progress", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start zstd")?;
    let mut input = child.stdin.take().context("zstd has no standard input")?;
    let output = std::thread::scope(|scope| {
        // Write in a thread of its own, since both pipes could fill up.
        scope.spawn(move || input.write_all(content));
        child.wait_with_output()
    })
    .context("run zstd")?;
    if !output.status.success() {
        bail!("zstd failed ({})", output.status);
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "kernel/a/top.ko.xz: kernel/a/mid-dle.ko.xz kernel/b/base.ko.xz\n\
        kernel/a/mid-dle.ko.xz: kernel/b/base.ko.xz\n\
        kernel/b/base.ko.xz:\n";

    #[test]
    fn dependencies_come_first() {
        let dependencies = Dependencies::parse(INDEX);
        let top = dependencies.file("top").unwrap();
        assert_eq!(
            dependencies.in_order(top),
            [
                "kernel/b/base.ko.xz",
                "kernel/a/mid-dle.ko.xz",
                "kernel/a/top.ko.xz"
            ]
        );
        assert_eq!(dependencies.file("mid_dle"), Some("kernel/a/mid-dle.ko.xz"));
        assert_eq!(dependencies.file("none"), None);
    }

    #[test]
    fn aliases_of_other_modules_are_left_out() {
        let names = BTreeSet::from(["virtio_blk".to_owned()]);
        let text = "# comment\nalias virtio:d00000002v* virtio_blk\nalias pci:v1 e1000\n";
        assert_eq!(
            about(text, &names, 2),
            "alias virtio:d00000002v* virtio_blk\n"
        );
        assert_eq!(
            about("softdep virtio-blk pre: x\n", &names, 1),
            "softdep virtio-blk pre: x\n"
        );
    }

    #[test]
    fn an_initrd_holds_what_the_kernel_needs() {
        let tree = std::env::temp_dir().join(format!("xtask-initrd-{}", std::process::id()));
        let directory = tree.join("usr/lib/modules/1.0");
        fs::create_dir_all(directory.join("kernel/b")).unwrap();
        fs::write(directory.join("kernel/b/virtio_blk.ko"), "module").unwrap();
        fs::write(directory.join("modules.dep"), "kernel/b/virtio_blk.ko:\n").unwrap();
        let built_in = "kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n";
        fs::write(directory.join("modules.builtin"), built_in).unwrap();
        for empty in ["modules.alias", "modules.softdep"] {
            fs::write(directory.join(empty), "").unwrap();
        }
        fs::create_dir_all(tree.join("usr/sbin")).unwrap();
        fs::write(tree.join("usr/sbin/e2fsck.static"), "checker").unwrap();
        fs::write(tree.join("init"), "program").unwrap();
        let first = build(&tree, "1.0", &tree.join("init")).unwrap();
        assert_eq!(first, build(&tree, "1.0", &tree.join("init")).unwrap());
        assert_eq!(first[..4], [0x28, 0xb5, 0x2f, 0xfd], "magic of zstd");
        fs::write(directory.join("modules.dep"), "").unwrap();
        assert!(build(&tree, "1.0", &tree.join("init")).is_err());
        fs::remove_dir_all(&tree).unwrap();
    }
}
