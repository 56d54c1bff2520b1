//! What hangs: a file system that nobody answers for does not hold up a stop, and the hardware
//! watchdog resets a machine whose PID 1 or hostd does not live.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::harness::assets::busybox_layer_with;
use qemu_tests::harness::{Disk, Machine};
use qemu_tests::lab::{BOOT_LIMIT, Lab, docker, ended_cleanly, load_busybox, seconds, until};
use qemu_tests::probe::Probe;
use serde_json::json;

/// How long a stop may take with a file system that hangs: less than one of the stop's limits, so
/// that none of them is what ended it.
const STOP: Duration = Duration::from_secs(45);
/// How long the image with a program may take to load.
const LOAD: Duration = Duration::from_secs(180);

/// Mounts a FUSE file system in the host's mount namespace, and never answers a request of the kernel. It
/// outlives its container, as a daemon of a network file system would; another process hangs in it.
const DEAF: &str = r#"
busybox=/run/deaf/busybox
echo $$ >/sys/fs/cgroup/deaf/cgroup.procs
exec 3<>/dev/fuse
$busybox mkdir -p /var/hung
$busybox mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hung /var/hung
$busybox cat /var/hung/file &
echo $! >/run/deaf/reader
exec $busybox sleep 100000
"#;

#[test]
fn a_file_system_that_nobody_answers_for_does_not_hold_up_the_stop() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;
    let machine = lab
        .direct("hung")?
        .disk(Disk::writable(&disk))
        .host_toml("[modules]\nload = ['fuse']\n")
        .launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let script = "mkdir -p /host/sys/fs/cgroup/deaf /host/run/deaf; cp /bin/busybox /host/run/deaf/; \
        setsid nsenter -t 1 -m /run/deaf/busybox sh -c \"$0\" </dev/null >/host/run/deaf/log 2>&1 & \
        i=0; until grep -q . /host/run/deaf/reader || [ $i -gt 100 ]; do sleep 0.1; i=$((i+1)); done; \
        cat /host/run/deaf/reader || cat /host/run/deaf/log";
    let mut words = vec!["run", "--rm", "--privileged", "--pid=host"];
    words.extend(["--cgroupns=host", "--network=none", "-v", "/:/host"]);
    words.extend(["busybox", "sh", "-c", script, DEAF]);
    let reader = docker(&machine, &words)?;
    let probe = Probe::start(&machine)?;
    let mounts = probe.shell("cat /proc/1/mounts")?;
    ensure!(mounts.contains("hung /var/hung fuse "), "{mounts}");
    let state = format!("cat /proc/{reader}/wchan /proc/{reader}/comm");
    until("reader that hangs", Duration::from_secs(30), || {
        let state = probe.shell(&state)?;
        Ok(
            match state.contains("fuse") || state.contains("request_wait") {
                true => Ok(()),
                false => Err(state),
            },
        )
    })?;

    // Nor does anything wait for the network, which is gone, too.
    let mut qmp = machine.qmp()?;
    qmp.execute("set_link", Some(json!({"name": "net0", "up": false})))?;
    let asked = machine.elapsed();
    qmp.system_powerdown()?;
    ended_cleanly(&machine, &disk)?;
    let (_, ended) = machine.wait_for_exit(Duration::ZERO)?;
    ensure!(
        machine.console().find("unmounted /var/hung").is_some(),
        "{}",
        machine.details()
    );
    let took = ended - asked;
    ensure!(took < STOP, "{took:?}\n{}", machine.details());
    lab.record("poweroff_with_hung_file_system_s", seconds(took))?;
    Ok(())
}

/// Boots a machine with a watchdog of ten seconds, lets something hang, and waits for the reset.
fn is_reset(name: &str, hang: impl Fn(&Machine, &Probe<'_>) -> Result<()>) -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab
        .direct(name)?
        .kernel_argument("keelson.watchdog=6")
        .host_toml("[watchdog]\ntimeout = 10\n")
        .device("i6300esb")
        .launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    machine.wait_for_console("i6300ESB timer) resets the machine after 10 s", BOOT_LIMIT)?;
    let hold = PathBuf::from(env!("CARGO_BIN_EXE_hold"));
    let layer = busybox_layer_with(&[("bin/hold".to_owned(), hold)])?;
    machine
        .docker_with(&["import", "-", "busybox"], Some(layer), LOAD)?
        .success()?;
    let probe = Probe::start(&machine)?;
    hang(&machine, &probe)?;
    // QEMU ends where a machine would start again.
    let (status, _) = machine.wait_for_exit(Duration::from_secs(60))?;
    ensure!(status.success(), "QEMU ended with {status}");
    for text in ["powering off", "rebooting", "Kernel panic"] {
        ensure!(
            machine.console().find(text).is_none(),
            "{text}\n{}",
            machine.details()
        );
    }
    Ok(())
}

#[test]
fn the_watchdog_resets_a_machine_whose_pid_1_hangs() -> Result<()> {
    is_reset("held", |_, probe| probe.begin("exec hold 1"))
}

#[test]
fn the_watchdog_resets_a_machine_whose_hostd_does_not_live() -> Result<()> {
    is_reset("without-hostd", |machine, probe| {
        // The answer would be lost together with the daemon.
        let kill = "sleep 1; while :; do echo 1 >/host/sys/fs/cgroup/system/hostd/cgroup.kill; sleep 0.1; done";
        probe.begin(kill)?;
        let told = "the watchdog is left to reset the machine";
        machine.wait_for_console(told, Duration::from_secs(120))?;
        Ok(())
    })
}
