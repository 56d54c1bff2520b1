//! A restart without the firmware: QEMU, which would end at a reset, goes on.

use anyhow::{Result, ensure};
use qemu_tests::lab::{BOOT_LIMIT, Lab, STOP_LIMIT, load_busybox, shell, until};
use serde_json::json;

#[test]
fn a_machine_starts_its_kernel_again_without_the_firmware() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab.direct("kexec")?.device("i6300esb").launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let boot_id = "cat /proc/sys/kernel/random/boot_id";
    let first = shell(&machine, &[], boot_id)?;
    let ask = |action: &str| {
        let body = json!({"action": action});
        machine.api("POST", "/host/v1/power", Some(&body))
    };
    let answer = ask("kexec")?;
    ensure!(answer.status == 202, "{}", answer.text());
    machine.wait_for_console("rebooting without the firmware", STOP_LIMIT)?;
    machine.wait_for_console("keelson: end at", STOP_LIMIT)?;
    let second = until("second boot", BOOT_LIMIT, || {
        Ok(match shell(&machine, &[], boot_id) {
            Ok(second) if second != first => Ok(second),
            Ok(same) => Err(same),
            Err(error) => Err(error.to_string()),
        })
    })?;
    ensure!(second.len() == first.len(), "{second}");
    let starts = machine.console().lines();
    let starts = starts
        .iter()
        .filter(|line| line.text.contains("init started at"));
    ensure!(starts.count() == 2, "{}", machine.details());

    // Who forbids it to the kernel forbids it to the API.
    let forbid = "echo 1 >/proc/sys/kernel/kexec_load_disabled";
    shell(&machine, &["--privileged"], forbid)?;
    let answer = ask("kexec")?;
    ensure!(answer.status == 409, "{}", answer.text());
    ensure!(
        answer.text().contains("kexec_load_disabled"),
        "{}",
        answer.text()
    );
    ensure!(shell(&machine, &[], boot_id)? == second);
    Ok(())
}
