//! Garbage in what a machine keeps about itself: it reaches its API, or says on the console why not,
//! and nothing is lost.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::harness::{Disk, Machine};
use qemu_tests::lab::{BOOT_LIMIT, Lab, STOP_LIMIT, boot_status, docker, load_busybox, shell};

/// What the machine keeps about itself, but for its keys.
const STATE: &str = "find host random-seed engine/containers -type f ! -path 'host/tls/*' \
    ! -path '*/upper/*' ! -name kept";

fn launch(lab: &Lab, name: &str, disk: &Path) -> Result<Machine> {
    Ok(lab.direct(name)?.disk(Disk::writable(disk)).launch()?)
}

fn power_off(machine: &Machine) -> Result<()> {
    machine.qmp()?.system_powerdown()?;
    machine.wait_for_exit(STOP_LIMIT)?;
    Ok(())
}

/// Runs a script in /var/lib/keelson.
fn in_state(machine: &Machine, script: &str) -> Result<String> {
    shell(
        machine,
        &["-v", "/var/lib/keelson:/state", "-w", "/state"],
        script,
    )
}

#[test]
fn garbage_in_its_state_does_not_keep_a_machine_from_its_api() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;

    let machine = launch(&lab, "whole", &disk)?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    docker(&machine, &["volume", "create", "data"])?;
    let write = ["run", "--name", "ended", "-v", "data:/data", "busybox"];
    let script = "echo kept >/data/kept";
    docker(&machine, &[&write[..], &["sh", "-c", script]].concat())?;
    let garble = format!(
        "{STATE} | while read -r file; do head -c 777 /dev/urandom >\"$file\"; echo \"$file\"; done; sync"
    );
    let garbled = in_state(&machine, &garble)?;
    ensure!(garbled.contains("host/identity.json"), "{garbled}");
    let sums = "sha256sum host/identity.json";
    let before = in_state(&machine, sums)?;
    power_off(&machine)?;
    drop(machine);

    let machine = launch(&lab, "garbled", &disk)?;
    machine.wait_api(BOOT_LIMIT)?;
    machine.wait_for_console("identity.json", Duration::from_secs(1))?;
    let status = boot_status(&machine)?;
    let identity = status.boot.iter().find(|step| step.name == "identity");
    ensure!(
        identity.is_some_and(|step| step.error.is_some()),
        "{:?}",
        status.boot
    );
    ensure!(
        in_state(&machine, sums)? == before,
        "the record was replaced"
    );
    // What can't be read is shown, and what can be is as before.
    let all = docker(&machine, &["ps", "-a", "--format", "{{.State}}"])?;
    ensure!(all.contains("dead"), "{all:?}");
    let kept = shell(&machine, &["-v", "data:/data"], "cat /data/kept")?;
    ensure!(kept == "kept", "{kept:?}");
    in_state(
        &machine,
        "head -c 777 /dev/urandom >host/tls/ca-key.pem; sync",
    )?;
    power_off(&machine)?;
    drop(machine);

    // Without its key it can't have an API that is reached by certificates.
    let machine = launch(&lab, "keyless", &disk)?;
    machine.wait_for_console("ca-key.pem", BOOT_LIMIT)?;
    ensure!(machine.is_running(), "{}", machine.details());
    power_off(&machine)
}
