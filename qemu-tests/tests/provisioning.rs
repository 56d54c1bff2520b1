//! A seed disk makes the machine what it says, also after it was taken away.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::harness::{Disk, Machine};
use qemu_tests::lab::{
    BOOT_LIMIT, Lab, SEES_ALL, boot_status, docker, host_get, load_busybox, power_off, shell, until,
};

const USER_DATA: &str = "#cloud-config\nhostname: seeded\nnonsense: 1\n";
/// The first address is where QEMU forwards ports to; it would be given by DHCP, too.
const NETWORK: &str = "version: 2\nethernets:\n  nic:\n    match: {name: 'eth*'}\n    \
    addresses: [10.0.2.15/24, 10.0.2.77/24]\n    gateway4: 10.0.2.2\n";

/// A vfat disk called `cidata`.
fn seed(dir: &Path) -> Result<std::path::PathBuf> {
    let disk = dir.join("seed.img");
    let run = |command: &mut Command| -> Result<()> {
        let output = command.output()?;
        ensure!(output.status.success(), "{command:?}: {output:?}");
        Ok(())
    };
    run(Command::new("/usr/sbin/mkfs.vfat")
        .args(["-C", "-n", "CIDATA"])
        .arg(&disk)
        .arg("2048"))?;
    for (name, text) in [
        ("meta-data", "instance-id: i-vm\n"),
        ("user-data", USER_DATA),
        ("network-config", NETWORK),
    ] {
        let file = dir.join(name);
        std::fs::write(&file, text)?;
        run(Command::new("mcopy")
            .arg("-i")
            .arg(&disk)
            .arg(&file)
            .arg("::"))?;
    }
    Ok(disk)
}

fn is_as_the_seed_says(machine: &Machine) -> Result<()> {
    let status = boot_status(machine)?;
    let failed: Vec<_> = status
        .boot
        .iter()
        .filter(|step| step.error.is_some())
        .collect();
    ensure!(failed.is_empty(), "boot steps failed: {failed:?}");
    ensure!(
        status.boot.iter().any(|step| step.name == "provision"),
        "{:?}",
        status.boot
    );
    let name = docker(machine, &["info", "--format", "{{.Name}}"])?;
    ensure!(name.trim() == "seeded", "the machine is called {name:?}");
    load_busybox(machine)?;
    until("the address of the seed", Duration::from_secs(30), || {
        let status = shell(
            machine,
            &SEES_ALL,
            "cat /host/run/keelson/netcfg/status.json",
        )?;
        Ok(if status.contains("10.0.2.77") {
            Ok(())
        } else {
            Err(status)
        })
    })?;
    let report = host_get(machine, "/host/v1/provision")?;
    for (member, value) in [
        ("state", "complete"),
        ("source", "nocloud"),
        ("instance_id", "i-vm"),
    ] {
        ensure!(report[member] == value, "{member}: {report:#}");
    }
    for (member, words) in [
        ("applied", "hostname"),
        ("left_out", "user-data:3: nonsense is unknown"),
    ] {
        let list = report[member].as_array().cloned().unwrap_or_default();
        let has = |text: &serde_json::Value| text.as_str().is_some_and(|text| text.contains(words));
        ensure!(list.iter().any(has), "no {words} in {report:#}");
    }
    Ok(())
}

#[test]
fn a_seed_disk_is_read_once_and_not_needed_again() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (dir, disk) = lab.own_disk()?;
    let seed = seed(dir.path())?;
    let first = lab
        .direct("seeded")?
        .disk(Disk::writable(&disk))
        .extra_disk(Disk::read_only(&seed))
        .launch()?;
    first.wait_api(BOOT_LIMIT)?;
    is_as_the_seed_says(&first)?;
    power_off(&first)?;
    drop(first);

    let second = lab
        .direct("unseeded")?
        .disk(Disk::writable(&disk))
        .launch()?;
    second.wait_api(BOOT_LIMIT)?;
    is_as_the_seed_says(&second)
}
