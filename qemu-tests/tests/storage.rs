//! The one image on the disks that machines have: every adapter, sectors of 4096 bytes, copies of
//! the disk beside it, damaged file systems and tables, and growth. Most boots end as soon as the
//! deployment's PID 1 runs: its file system is the root then.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::disk::{Ext4State, Partition, partitions, use_large_sectors};
use qemu_tests::harness::{Bus, Disk, Machine, MachineSpec, Network};
use qemu_tests::lab::{BOOT_LIMIT, Lab, SEES_ALL, STOP_LIMIT, load_busybox, seconds, shell, until};

/// PID 1 of the deployment runs.
const STARTED: &str = "keelson: init started at";

/// Starts the machine and waits for PID 1 of the deployment.
fn started(spec: MachineSpec) -> Result<Machine> {
    let machine = spec
        .network(Network::None)
        .without_provisioning()
        .launch()?;
    machine.wait_for_console(STARTED, BOOT_LIMIT)?;
    Ok(machine)
}

fn says(machine: &Machine, text: &str) -> Result<()> {
    ensure!(
        machine.console().find(text).is_some(),
        "no {text:?} on the console\n{}",
        machine.details()
    );
    Ok(())
}

/// Nothing on the console is a warning or an error of stage 1.
fn is_quiet(machine: &Machine) -> Result<()> {
    for text in ["keelson: warning:", "keelson: error:", "grown"] {
        let line = machine.console().find(text);
        ensure!(line.is_none(), "{line:?}\n{}", machine.details());
    }
    Ok(())
}

fn root(disk: &Path) -> Result<Partition> {
    let largest = partitions(disk)?
        .into_iter()
        .max_by_key(|partition| partition.length);
    largest.context("no partition")
}

/// Writes a partition table by sfdisk.
fn write_table(disk: &Path, layout: &str) -> Result<()> {
    let mut child = Command::new("/usr/sbin/sfdisk")
        .arg("-q")
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("start sfdisk")?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    std::io::Write::write_all(&mut pipe, layout.as_bytes())?;
    drop(pipe);
    let status = child.wait()?;
    ensure!(status.success(), "sfdisk: {status}");
    Ok(())
}

#[test]
fn the_image_boots_from_every_adapter() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    for (name, bus) in [
        ("virtio-blk", Bus::VirtioBlk),
        ("virtio-scsi", Bus::VirtioScsi),
        ("nvme", Bus::Nvme),
        ("ahci", Bus::Ahci),
        ("usb", Bus::Usb),
        ("uas", Bus::UsbAttachedScsi),
        ("pvscsi", Bus::Pvscsi),
        ("lsi-sas", Bus::LsiSas),
        ("megaraid", Bus::MegaRaid),
    ] {
        let disk = Disk::snapshot(lab.disk()).behind(bus);
        let machine = started(lab.direct(name)?.disk(disk)).context(name)?;
        is_quiet(&machine).context(name)?;
        let line = machine.wait_for_console(STARTED, Duration::ZERO)?;
        lab.record(&format!("boot_from_{name}_to_pid1_s"), seconds(line.at))?;
    }
    Ok(())
}

#[test]
fn a_disk_with_large_sectors_needs_its_own_table() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;
    // As it is, the kernel finds no partitions; the message says why.
    let large = || Disk::snapshot(&disk).sector(4096);
    let machine = lab
        .direct("wrong-table")?
        .disk(large())
        .kernel_argument("keelson.root_timeout=1")
        .kernel_argument("panic=-1")
        .without_provisioning()
        .network(Network::None)
        .launch()?;
    machine.wait_for_console(
        "its partition table is for sectors of 512 bytes",
        BOOT_LIMIT,
    )?;
    machine.wait_for_exit(STOP_LIMIT)?;
    drop(machine);
    use_large_sectors(&disk)?;
    // It grows there, too.
    OpenOptions::new()
        .write(true)
        .open(&disk)?
        .set_len(10 << 30)?;
    let machine = started(lab.direct("large-sectors")?.disk(large()))?;
    says(&machine, "file system on vda2 grown from 8192 MiB to")
}

#[test]
fn of_two_equal_disks_the_one_that_was_booted_from_is_taken() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let dir = tempfile::tempdir()?;
    let other = dir.path().join("other.raw");
    File::create(&other)?.set_len(64 << 20)?;
    write_table(&other, "label: gpt\nname=root\n")?;
    let other = || Disk::snapshot(&other);
    let machine = started(lab.uefi("booted-from").disk_before(other()))?;
    is_quiet(&machine)?;
    drop(machine);
    // QEMU's own loader does not tell where it took the kernel from.
    let machine = lab
        .direct("ambiguous")?
        .disk_before(other())
        .kernel_argument("panic=-1")
        .without_provisioning()
        .network(Network::None)
        .launch()?;
    machine.wait_for_line(
        "error that names both devices",
        |line| {
            ["keelson: error:", "ambiguous", "vda1", "vdb2"]
                .iter()
                .all(|text| line.contains(text))
        },
        BOOT_LIMIT,
    )?;
    machine.wait_for_exit(STOP_LIMIT)?;
    Ok(())
}

#[test]
fn a_file_system_with_errors_is_checked() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;
    let root = root(&disk)?;
    let target = format!("{}?offset={}", disk.display(), root.offset);
    let output = Command::new("/usr/sbin/debugfs")
        .args(["-w", "-R", "set_super_value state 3", &target])
        .output()
        .context("start debugfs")?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(
        !Ext4State::read(&disk, &root)?.clean,
        "debugfs did nothing: {output:?}"
    );
    let machine = started(lab.direct("errors")?.disk(Disk::writable(&disk)))?;
    says(
        &machine,
        "file system on vda2 is marked as having errors; checking it",
    )?;
    says(&machine, "file system on vda2 checked in")?;
    machine.kill();
    drop(machine);
    ensure!(Ext4State::read(&disk, &root)?.clean, "still marked");
    Ok(())
}

#[test]
fn growth_needs_one_boot_and_survives_a_torn_table() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    for (name, size, grown) in [
        ("20-gib", 20_u64 << 30, "to 19966 MiB"),
        ("3-tib", 3 << 40, "to 3145214 MiB"),
    ] {
        let (_dir, disk) = lab.own_disk()?;
        let device = OpenOptions::new().read(true).write(true).open(&disk)?;
        device.set_len(size)?;
        let writable = || Disk::writable(&disk);
        let machine = started(lab.direct(name)?.disk(writable()))?;
        says(&machine, "partition vda2 grown")?;
        let line = machine.wait_for_console("file system on vda2 grown from", Duration::ZERO)?;
        ensure!(line.text.contains(grown), "{}", line.text);
        let line = machine.wait_for_console(STARTED, Duration::ZERO)?;
        lab.record(&format!("growth_to_{name}_to_pid1_s"), seconds(line.at))?;
        machine.kill();
        drop(machine);
        if size > 1 << 40 {
            continue;
        }
        // As after a power failure between the writes of header and entries.
        device.write_all_at(&[0x5a; 8], 1024 + 40)?;
        let machine = started(lab.direct("torn")?.disk(writable()))?;
        says(
            &machine,
            "the partition table of vda was damaged and is restored",
        )?;
        machine.kill();
        drop(machine);
        let machine = started(lab.direct("again")?.disk(writable()))?;
        is_quiet(&machine)?;
    }
    Ok(())
}

#[test]
fn a_copied_disk_makes_itself_a_new_identity() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;
    // Made for the first one; the board may be another one; the third one is a copy.
    for (name, uuid, serial, expected) in [
        (
            "original",
            "11111111-2222-4333-8444-000000000001",
            "one",
            "new machine-id ",
        ),
        (
            "other-board",
            "11111111-2222-4333-8444-000000000002",
            "one",
            "product_uuid is not the one",
        ),
        (
            "copy",
            "11111111-2222-4333-8444-000000000002",
            "two",
            "gets a new identity: product_uuid and disk have changed",
        ),
    ] {
        let machine = lab
            .direct(name)?
            .disk(Disk::writable(&disk).serial(serial))
            .uuid(uuid)
            .without_provisioning()
            .network(Network::None)
            .launch()?;
        machine.wait_for_console(expected, BOOT_LIMIT)?;
        machine.wait_for_console("keelson: netcfg ready at", BOOT_LIMIT)?;
        let renewed = machine.console().find("new machine-id").is_some();
        ensure!(renewed == (name != "other-board"), "{}", machine.details());
        // Also a power failure keeps what was decided.
        machine.kill();
    }
    Ok(())
}

/// `/dev/disk` has the names of the boot disk, and nodes have their groups.
#[test]
fn disks_have_names_and_every_console_is_told() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let disk = Disk::snapshot(lab.disk()).serial("boot-disk");
    let machine = lab.direct("names")?.disk(disk).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let script = "cd /host/dev/disk && for link in by-*/*; do \
        echo $link $(readlink $link); done; stat -c %a:%g /host/dev/vda /host/dev/fuse";
    let seen = until("links in /dev/disk", Duration::from_secs(60), || {
        let seen = shell(&machine, &SEES_ALL, script)?;
        Ok(match seen.contains("by-id/virtio-boot-disk-part2") {
            true => Ok(seen),
            false => Err(seen),
        })
    })?;
    for line in [
        "by-id/virtio-boot-disk ../../vda",
        "by-label/ESP ../../vda1",
        "by-label/root ../../vda2",
        "by-partlabel/root ../../vda2",
        "660:6",
    ] {
        ensure!(seen.lines().any(|seen| seen == line), "no {line:?}: {seen}");
    }
    for part in ["by-path/pci-0000:00:", "by-uuid/", "by-partuuid/", "666:"] {
        ensure!(seen.contains(part), "no {part:?}: {seen}");
    }
    Ok(())
}
