//! The harness against a real QEMU, without an operating system: the firmware is enough to have
//! a console, a monitor and an end.

use std::time::Duration;

use qemu_tests::harness::{Boot, DetachedMachine, Disk, HarnessError, MachineSpec, Stopped};

const LIMIT: Duration = Duration::from_secs(60);

/// Starts a machine without a disk. Returns `None` and reports a skip if QEMU is not installed.
fn launch(spec: MachineSpec) -> Option<qemu_tests::harness::Machine> {
    match spec.launch() {
        Ok(machine) => Some(machine),
        Err(error @ HarnessError::Missing { .. }) => {
            keelson_testing::skip("QEMU", error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn firmware_speaks_on_the_console_and_the_machine_ends_with_its_owner() {
    let Some(machine) = launch(MachineSpec::new("firmware", Boot::Uefi)) else {
        return;
    };
    let line = machine.wait_for_console("BdsDxe", LIMIT).unwrap();
    assert!(line.at > Duration::ZERO && line.at < LIMIT);
    assert_eq!(machine.qmp().unwrap().status().unwrap(), "running");
    assert!(machine.api_port().unwrap() > 0);

    let limit = Duration::from_millis(50);
    let late = machine.wait_for_console("never shown", limit).unwrap_err();
    assert!(late.to_string().contains("BdsDxe"), "{late}");

    let pid = machine.pid();
    assert!(machine.is_running());
    drop(machine);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_wait_reports_that_qemu_quit() {
    let Some(machine) = launch(MachineSpec::new("quit", Boot::Uefi)) else {
        return;
    };
    machine.qmp().unwrap().quit().unwrap();
    let (status, after) = machine.wait_for_exit(LIMIT).unwrap();
    assert!(status.success() && after < LIMIT);
    let error = machine.wait_for_console("never shown", LIMIT).unwrap_err();
    assert!(matches!(error, HarnessError::Ended { .. }), "{error}");
}

#[test]
fn a_detached_machine_is_found_again_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("machine.json");
    let spec = MachineSpec::new("detached", Boot::Uefi)
        .dir(dir.path().join("vm"))
        .outlives();
    let Some(machine) = launch(spec) else { return };
    machine.wait_for_console("BdsDxe", LIMIT).unwrap();
    machine.detach(&file).unwrap();

    let found = DetachedMachine::open(&file).unwrap().unwrap();
    assert!(found.is_running());
    assert_eq!(found.qmp().unwrap().status().unwrap(), "running");
    // No operating system hears the power button.
    assert_eq!(
        found.stop(Duration::from_millis(200)).unwrap(),
        Stopped::Quit
    );
    assert!(!found.is_running());
    assert_eq!(found.stop(LIMIT).unwrap(), Stopped::NotRunning);
}

#[test]
fn a_missing_disk_is_named_before_anything_starts() {
    let spec = MachineSpec::new("nothing", Boot::Uefi).disk(Disk::snapshot("/nonexistent.raw"));
    let error = spec.launch().unwrap_err().to_string();
    assert!(error.contains("/nonexistent.raw"), "{error}");
}

#[test]
fn what_qemu_refuses_is_shown() {
    let spec = MachineSpec::new("refused", Boot::Uefi).cpus(1_000_000);
    match spec.launch() {
        Err(error @ HarnessError::Missing { .. }) => keelson_testing::skip("QEMU", error),
        Err(error) => assert!(error.to_string().contains("CPU"), "{error}"),
        Ok(_) => panic!("QEMU started with a million processors"),
    }
}
