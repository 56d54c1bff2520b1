//! The disk image: a GPT with an EFI system partition and a root file system, written without
//! loop devices or mounts.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::deployment::Deployment;
use crate::progress::{self, Step};
use crate::workspace::Workspace;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Room for the kernels and initrds of three deployments, and for the smallest FAT32 with
/// clusters that firmware likes.
const ESP_SIZE: u64 = 512 * MIB;
/// The root file system fills its partition; stage 1 enlarges both on a larger disk.
const ROOT_SIZE: u64 = 8192 * MIB;
/// Behind the last partition: the second copy of the partition table.
const END: u64 = MIB;
const ESP_TYPE: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const ROOT_TYPE: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
/// systemd-boot in the system's tree.
const BOOT_LOADER: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// The other files of an image directory, for direct boot.
#[derive(Debug, Clone)]
pub struct Image {
    /// The directory.
    pub directory: PathBuf,
}

impl Image {
    /// The image directory of a workspace.
    #[must_use]
    pub fn of(workspace: &Workspace) -> Self {
        Self {
            directory: workspace.image(),
        }
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk.raw")
    }

    /// The disk, compressed, for distribution.
    #[must_use]
    pub fn compressed(&self) -> PathBuf {
        self.directory.join("disk.qcow2")
    }

    /// Kernel, initrd and kernel command line of the deployment on the disk.
    #[must_use]
    pub fn direct(&self) -> [PathBuf; 3] {
        ["vmlinuz", "initrd", "cmdline"].map(|name| self.directory.join(name))
    }
}

/// The kernel command line of a deployment.
///
/// It names the deployment itself, not one of ostree's `boot.N` links. These change with every
/// deployment, and an entry that names one would not boot until it is rewritten.
#[must_use]
pub fn kernel_options(deployment: &Deployment) -> String {
    format!(
        "root=PARTLABEL=root ostree={} console=tty0 console=ttyS0,115200 panic=10 quiet",
        deployment.path()
    )
}

/// Writes `disk.raw`, `vmlinuz`, `initrd` and `cmdline` of a deployment.
///
/// # Errors
/// A file is missing in the deployment, or a program fails; former outputs are then still there.
pub fn build(workspace: &Workspace, deployment: &Deployment, version: &str) -> Result<Image> {
    let mut step = Step::begin("disk image");
    let image = Image::of(workspace);
    let log = progress::log_file(&workspace.log(), "disk");
    let tree = deployment.sysroot.join(&deployment.path()[1..]);
    let release = crate::overlay::kernel_release(&tree)?;
    let modules = tree.join("usr/lib/modules").join(release);
    let kernel = modules.join("vmlinuz");
    let initrd = modules.join("initramfs.img");
    let options = kernel_options(deployment);

    let disk = image.directory.join("disk.raw.new");
    let _ = fs::remove_file(&disk);
    let size = MIB + ESP_SIZE + ROOT_SIZE + END;
    File::create(&disk)
        .and_then(|file| file.set_len(size))
        .with_context(|| format!("create {}", disk.display()))?;
    let seed = deployment.name();
    step.detail("partition table");
    partition(&disk, &seed)?;
    step.detail("EFI system partition");
    let entry = Entry {
        deployment,
        version,
        options: &options,
    };
    let loader = tree.join(BOOT_LOADER);
    write_esp(
        &mut step,
        &disk,
        &seed,
        &entry,
        [&loader, &kernel, &initrd],
        &log,
    )?;
    step.detail("root file system");
    write_root(&mut step, &disk, &seed, &deployment.sysroot, &log)?;

    let [kernel_out, initrd_out, options_out] = image.direct();
    replace(&kernel_out, &fs::read(&kernel)?)?;
    replace(&initrd_out, &fs::read(&initrd)?)?;
    replace(&options_out, format!("{options}\n").as_bytes())?;
    replace(
        &image.directory.join("deployment"),
        format!("{}\n", deployment.name()).as_bytes(),
    )?;
    fs::rename(&disk, image.disk())
        .with_context(|| format!("rename {} to disk.raw", disk.display()))?;
    let used = image.disk().metadata()?.blocks() * 512;
    step.done(&format!(
        "{}, {} of {} used",
        workspace.display(&image.disk()),
        progress::megabytes(used),
        progress::megabytes(size)
    ));
    Ok(image)
}

/// Packs the disk into a compressed qcow2 image.
///
/// # Errors
/// qemu-img fails.
pub fn compress(workspace: &Workspace) -> Result<()> {
    let image = Image::of(workspace);
    let mut step = Step::begin("compressed disk image");
    let temporary = image.directory.join("disk.qcow2.new");
    progress::run(
        &mut step,
        Command::new("qemu-img")
            .args([
                "convert",
                "-c",
                "-O",
                "qcow2",
                "-o",
                "compression_type=zstd",
                "-m",
                "4",
                "-W",
            ])
            .arg(image.disk())
            .arg(&temporary),
        &progress::log_file(&workspace.log(), "qemu-img"),
    )?;
    fs::rename(&temporary, image.compressed())?;
    let size = image.compressed().metadata()?.len();
    step.done(&format!(
        "{}, {}",
        workspace.display(&image.compressed()),
        progress::megabytes(size)
    ));
    Ok(())
}

fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("write {}", path.display()))
}

/// A UUID (version 8, RFC 9562) that depends on nothing but its arguments: the same deployment
/// makes the same disk.
fn uuid(seed: &str, purpose: &str) -> String {
    let hash = Sha256::digest(format!("{purpose}\0{seed}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    id.hyphenated().to_string()
}

fn partition(disk: &Path, seed: &str) -> Result<()> {
    let script = format!(
        "label: gpt\nlabel-id: {}\n\
         start={}, size={}, type={ESP_TYPE}, uuid={}, name=esp\n\
         start={}, size={}, type={ROOT_TYPE}, uuid={}, name=root\n",
        uuid(seed, "disk"),
        MIB / SECTOR,
        ESP_SIZE / SECTOR,
        uuid(seed, "esp"),
        (MIB + ESP_SIZE) / SECTOR,
        ROOT_SIZE / SECTOR,
        uuid(seed, "root"),
    );
    let mut child = system_command("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start sfdisk")?;
    child
        .stdin
        .take()
        .context("sfdisk has no standard input")?
        .write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("sfdisk: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A boot entry of the Boot Loader Specification, type 1.
struct Entry<'a> {
    deployment: &'a Deployment,
    version: &'a str,
    options: &'a str,
}

impl Entry<'_> {
    fn name(&self) -> String {
        let commit = &self.deployment.commit;
        format!(
            "keelson-{}-{}",
            commit.get(..12).unwrap_or(commit),
            self.deployment.serial
        )
    }

    fn text(&self) -> String {
        let name = self.name();
        format!(
            "title Keelson {version}\n\
             sort-key keelson\n\
             version {version}\n\
             linux /keelson/{name}/vmlinuz\n\
             initrd /keelson/{name}/initrd\n\
             options {options}\n",
            version = self.version,
            options = self.options,
        )
    }
}

fn write_esp(
    step: &mut Step,
    disk: &Path,
    seed: &str,
    entry: &Entry<'_>,
    [loader, kernel, initrd]: [&Path; 3],
    log: &Path,
) -> Result<()> {
    let volume = u32::from_str_radix(&uuid(seed, "volume")[..8], 16)?;
    progress::run(
        step,
        system_command("mkfs.vfat")
            // Without these options mkfs.vfat derives them from the size of the whole disk.
            .args(["-s", "8", "-g", "255/63", "-h", &(MIB / SECTOR).to_string()])
            .args(["-F", "32", "-n", "ESP", "--invariant", "-i"])
            .arg(format!("{volume:08x}"))
            .arg(format!("--offset={}", MIB / SECTOR))
            .arg(disk)
            .arg((ESP_SIZE / 1024).to_string()),
        log,
    )?;
    // mtools address a file system inside a file by file@@offset.
    let target = format!("{}@@{MIB}", disk.display());
    let mtools = |program: &str| {
        let mut command = Command::new(program);
        // Our partition has no geometry of a floppy disk.
        command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(&target);
        command
    };
    let name = entry.name();
    let kernels = format!("::/keelson/{name}");
    progress::run(
        step,
        mtools("mmd").args([
            "::/EFI",
            "::/EFI/BOOT",
            "::/EFI/systemd",
            "::/keelson",
            &kernels,
            "::/loader",
            "::/loader/entries",
        ]),
        log,
    )?;
    let work = tempfile::tempdir().context("create a temporary directory")?;
    let text = |file: &str, content: &str| -> Result<PathBuf> {
        let path = work.path().join(file);
        fs::write(&path, content)?;
        Ok(path)
    };
    let menu = text("loader.conf", "timeout 0\nconsole-mode keep\neditor no\n")?;
    let entry_file = text("entry.conf", &entry.text())?;
    for (source, destination) in [
        (loader, "::/EFI/BOOT/BOOTX64.EFI".to_owned()),
        (loader, "::/EFI/systemd/systemd-bootx64.efi".to_owned()),
        (&menu, "::/loader/loader.conf".to_owned()),
        (kernel, format!("{kernels}/vmlinuz")),
        (initrd, format!("{kernels}/initrd")),
        (&entry_file, format!("::/loader/entries/{name}.conf")),
    ] {
        progress::run(step, mtools("mcopy").arg(source).arg(destination), log)?;
    }
    Ok(())
}

fn write_root(step: &mut Step, disk: &Path, seed: &str, sysroot: &Path, log: &Path) -> Result<()> {
    let offset = MIB + ESP_SIZE;
    let mut extended = format!(
        "offset={offset},hash_seed={},lazy_itable_init=1,lazy_journal_init=1",
        uuid(seed, "hash")
    );
    // Otherwise the first boot spends its time and our disk space on writing zeros over zeros.
    if e2fsprogs_version().is_some_and(|version| version >= (1, 47)) {
        extended.push_str(",assume_storage_prezeroed=1");
    }
    progress::run(
        step,
        system_command("mkfs.ext4")
            .env("E2FSPROGS_FAKE_TIME", "1")
            .args(["-q", "-F", "-L", "root", "-O", "verity", "-m", "1", "-U"])
            .arg(uuid(seed, "ext4"))
            .arg("-E")
            .arg(extended)
            .arg("-d")
            .arg(sysroot)
            .arg(disk)
            .arg(format!("{}k", ROOT_SIZE / 1024)),
        log,
    )
}

/// Version of e2fsprogs, from `mke2fs 1.47.0 (5-Feb-2023)`.
fn e2fsprogs_version() -> Option<(u32, u32)> {
    let output = system_command("mke2fs").arg("-V").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let mut numbers = text.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A program that only root has in its search path.
fn system_command(name: &str) -> Command {
    Command::new(crate::tools::in_path(name).unwrap_or_else(|| PathBuf::from(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Deployment {
        Deployment {
            sysroot: PathBuf::from("/nonexistent"),
            commit: "0123456789abcdef0123".to_owned(),
            serial: 2,
        }
    }

    #[test]
    fn identifiers_depend_on_their_seed_and_purpose() {
        assert_eq!(uuid("a", "disk"), uuid("a", "disk"));
        assert_ne!(uuid("a", "disk"), uuid("a", "root"));
        assert_ne!(uuid("a", "disk"), uuid("b", "disk"));
        let parts: Vec<usize> = uuid("a", "disk").split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn a_boot_entry_names_the_deployment_itself() {
        let deployment = deployment();
        let options = kernel_options(&deployment);
        let entry = Entry {
            deployment: &deployment,
            version: "1.2.3",
            options: &options,
        };
        assert_eq!(entry.name(), "keelson-0123456789ab-2");
        let text = entry.text();
        assert!(text.contains("ostree=/ostree/deploy/keelson/deploy/0123456789abcdef0123.2 "));
        assert!(text.contains("linux /keelson/keelson-0123456789ab-2/vmlinuz\n"));
        assert!(!text.contains("boot.0"));
    }
}
