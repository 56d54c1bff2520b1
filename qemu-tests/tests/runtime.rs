//! The runtime on a kernel that has every controller of cgroup v2, and AppArmor.

use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::lab::{BOOT_LIMIT, Lab, conformance, load_conformance};

#[test]
fn limits_and_profiles_are_applied() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab.direct("runtime")?.launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_conformance(&machine, &[])?;
    let arguments = [
        "--runtime",
        "/bin/keelson-runtime",
        "--strict",
        "--filter",
        "linux.resources.",
        "--filter",
        "linux.cgroups-path.",
        "--filter",
        "linux.apparmor.",
    ];
    let output = conformance(&machine, &arguments, Duration::from_secs(300))?;
    eprintln!("{output}");
    ensure!(output.code == Some(0), "see the table");
    // A failure counts although there is no other runtime to compare with.
    ensure!(output.stdout.contains(" 0 failed,  0 skipped"));
    Ok(())
}
