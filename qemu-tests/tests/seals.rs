//! Layers on the machine's own file system, which has fs-verity.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::assets::busybox_layer_with;
use qemu_tests::harness::{CommandOutput, Machine, run};
use qemu_tests::lab::{BOOT_LIMIT, Lab, SEES_ALL, binaries, docker, load_busybox, shell, until};
use sha2::{Digest, Sha256};

const LAYERS: &str = "/host/var/lib/keelson/engine/layers";
const SIZE: usize = 2 << 20;

/// An image whose largest file repeats one letter.
struct Image {
    tag: String,
    layer: Vec<u8>,
}

impl Image {
    fn import(machine: &Machine, letter: char) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("data");
        std::fs::write(&data, letter.to_string().repeat(SIZE))?;
        let image = Self {
            tag: format!("sealed:{letter}"),
            layer: busybox_layer_with(&[("data".to_owned(), data)])?,
        };
        let arguments = ["import", "-", image.tag.as_str()];
        let limit = Duration::from_secs(180);
        let output = machine.docker_with(&arguments, Some(image.layer.clone()), limit)?;
        output.success()?;
        Ok(image)
    }

    /// The layer's identifier.
    fn layer(&self) -> String {
        hex::encode(Sha256::digest(&self.layer))
    }

    fn file(&self, name: &str) -> String {
        format!("{LAYERS}/{}/{name}", self.layer())
    }

    /// Counts the letters of the large file in a new container.
    fn read(&self, machine: &Machine) -> Result<CommandOutput> {
        let script = "tr -d a < /data | wc -c";
        Ok(machine.docker(&["run", "--rm", &self.tag, "sh", "-c", script])?)
    }
}

fn root_shell(machine: &Machine, script: &str) -> Result<String> {
    shell(machine, &SEES_ALL, &format!("set -e; {script}"))
}

#[test]
fn a_sealed_layer_is_read_unchanged_or_not_at_all() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab.direct("sealed")?.launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let (a, b) = (Image::import(&machine, 'a')?, Image::import(&machine, 'b')?);
    until("seals", Duration::from_secs(90), || {
        let script = format!(
            "ls {} {} 2>&1 || true",
            a.file("seal.json"),
            b.file("seal.json")
        );
        let seen = root_shell(&machine, &script)?;
        Ok(if seen.contains("No such") {
            Err(seen)
        } else {
            Ok(())
        })
    })?;
    let sound = verify(&machine)?;
    ensure!(sound.code == Some(0), "{sound}");
    exchanged_files_are_not_mounted(&machine, &a, &b)?;
    a_flipped_bit_is_not_read(&machine, &a, &b)
}

/// Swaps two sealed files: both are protected, but each is in the wrong place.
fn exchanged_files_are_not_mounted(machine: &Machine, a: &Image, b: &Image) -> Result<()> {
    let (first, second) = (a.file("layer.tar"), b.file("layer.tar"));
    let exchange = format!("mv {first} {first}.x; mv {second} {first}; mv {first}.x {second}");
    root_shell(machine, &exchange)?;
    for image in [a, b] {
        let refused = image.read(machine)?;
        ensure!(refused.code != Some(0), "{refused}");
        ensure!(refused.stderr.contains(&image.layer()), "{refused}");
        ensure!(refused.stderr.contains("layer.tar"), "{refused}");
    }
    root_shell(machine, &exchange)?;
    ensure!(a.read(machine)?.success()? == "0");
    ensure!(b.read(machine)?.success()? == SIZE.to_string());
    Ok(())
}

fn a_flipped_bit_is_not_read(machine: &Machine, a: &Image, b: &Image) -> Result<()> {
    let at = a.layer.len() - SIZE / 2;
    ensure!(a.layer[at] == b'a', "not where the letters are");
    let path = a.file("layer.tar");
    // A sealed file can't be written, so write to the disk below the file system.
    let script = format!(
        "if echo x >> {path}; then echo written; exit 1; fi 2> /dev/null; \
         disk=$(sed -n 's| /host/var .*||p' /proc/mounts); \
         block=$(chroot /host debugfs -R \"bmap <$(stat -c %i {path})> {}\" $disk 2> /dev/null); \
         printf c | dd of=/host$disk bs=1 seek=$((block * 4096 + {})) conv=notrunc 2> /dev/null; \
         sync; echo 3 > /host/proc/sys/vm/drop_caches",
        at / 4096,
        at % 4096
    );
    root_shell(machine, &script)?;
    let broken = a.read(machine)?;
    ensure!(
        broken.stderr.contains("I/O error") || broken.stderr.contains("Input/output error"),
        "{broken}"
    );
    ensure!(b.read(machine)?.success()? == SIZE.to_string());
    ensure!(docker(machine, &["run", "--rm", &a.tag, "echo", "fine"])? == "fine");

    let damage = verify(machine)?;
    ensure!(damage.code == Some(1), "{damage}");
    let text = format!("{damage}");
    ensure!(
        text.contains("layer.tar") && text.contains(&a.tag),
        "{damage}"
    );
    ensure!(!text.contains(&b.tag), "{damage}");
    Ok(())
}

/// `hostctl image verify` against the machine.
fn verify(machine: &Machine) -> Result<CommandOutput> {
    let mut command = Command::new(binaries()?.join("hostctl"));
    let docker = machine.docker_command()?;
    command.envs(
        docker
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command.args(["image", "verify"]);
    run(&mut command, None, Duration::from_secs(120)).context("hostctl image verify")
}
