//! Boots through UEFI firmware and systemd-boot, and checks the machine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_model::init::ProcessState;
use qemu_tests::harness::Machine;
use qemu_tests::lab::{
    BOOT_LIMIT, Lab, SEES_ALL, boot_status, docker, load_busybox, record_steps, seconds, services,
    shell, until,
};

#[test]
fn uefi_boot_reaches_the_api_and_the_system_is_laid_out_as_promised() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _alone = lab.exclusive()?;
    let machine = lab.uefi("uefi").launch()?;
    let api = machine.wait_api(BOOT_LIMIT)?;
    lab.record("uefi_qemu_start_to_api_s", seconds(api))?;
    record_steps(&lab, &machine, "uefi")?;

    let status = boot_status(&machine)?;
    let failed: Vec<_> = status.boot.iter().filter(|s| s.error.is_some()).collect();
    ensure!(failed.is_empty(), "boot steps failed: {failed:?}");
    ensure!(status.deployment.is_some(), "no deployment: {status:?}");
    for name in ["netcfg", "hostd"] {
        let ready = status
            .processes
            .iter()
            .any(|p| p.name == name && p.state == ProcessState::Ready && p.restarts == 0);
        ensure!(ready, "{name}: {:?}", status.processes);
    }

    time_service_runs_out_of_sight(&machine)?;
    load_busybox(&machine)?;
    let listed = shell(&machine, &SEES_ALL, "chroot /host hostctl service list")?;
    ensure!(
        listed.contains("time") && listed.contains("running"),
        "hostctl service list: {listed}"
    );
    file_systems_are_as_promised(&machine)?;
    all_controllers_are_delegated(&machine)
}

fn time_service_runs_out_of_sight(machine: &Machine) -> Result<()> {
    until("running the time service", Duration::from_secs(60), || {
        let services = services(machine)?;
        let time = services.iter().find(|s| s["name"] == "time");
        Ok(match time {
            Some(time) if time["state"] == "running" => Ok(()),
            _ => Err(format!("{services:?}")),
        })
    })?;
    let listed = docker(machine, &["ps", "-aq"])?;
    ensure!(listed.is_empty(), "docker ps -a lists {listed:?}");
    let inspected = machine.docker(&["inspect", "time"])?;
    ensure!(inspected.code == Some(1), "docker inspect: {inspected}");
    let images = docker(machine, &["images", "-aq"])?;
    ensure!(images.is_empty(), "docker images lists {images:?}");
    Ok(())
}

fn file_systems_are_as_promised(machine: &Machine) -> Result<()> {
    let script = "for f in usr/x etc/x var/x; do \
            (echo probe > /host/$f) 2>/dev/null && echo $f writable || echo $f read-only; \
            rm -f /host/$f; \
        done; \
        test -e /host/run/ostree-booted && echo ostree-booted; \
        test -d /host/sysroot/ostree/repo && echo repository; \
        echo pid1 $(cat /host/proc/1/comm)";
    let seen = shell(machine, &SEES_ALL, script)?;
    let seen: Vec<&str> = seen.lines().collect();
    ensure!(
        seen == [
            "usr/x read-only",
            "etc/x writable",
            "var/x writable",
            "ostree-booted",
            "repository",
            "pid1 init",
        ],
        "{seen:?}"
    );
    // `/proc/1/mountinfo` (proc(5)): the fifth field is the mount point, the sixth its options.
    let mounts = shell(machine, &SEES_ALL, "cat /host/proc/1/mountinfo")?;
    let mounted = |point: &str| {
        mounts
            .lines()
            .rev()
            .find(|line| line.split(' ').nth(4) == Some(point))
    };
    for point in ["/run", "/tmp", "/dev/shm"] {
        let line = mounted(point).unwrap_or_default();
        for part in [" - tmpfs ", "nosuid", "nodev", "size=", "nr_inodes="] {
            ensure!(line.contains(part), "{point}: no {part} in {line:?}");
        }
    }
    let cgroup = mounted("/sys/fs/cgroup").unwrap_or_default();
    ensure!(cgroup.contains(" - cgroup2 "), "cgroup mount: {cgroup:?}");
    ensure!(
        !mounts.contains(" - cgroup "),
        "cgroup v1 is mounted: {mounts}"
    );
    let persistent = mounted("/var").or_else(|| mounted("/"));
    ensure!(
        persistent.is_some_and(|line| line.contains(" - ext4 ")),
        "/var: {persistent:?}"
    );
    Ok(())
}

fn all_controllers_are_delegated(machine: &Machine) -> Result<()> {
    let script = "cd /host/sys/fs/cgroup; cat cgroup.controllers cgroup.subtree_control \
        keelson/cgroup.subtree_control keelson/user/cgroup.subtree_control";
    let seen = shell(machine, &SEES_ALL, script)?;
    let lists: Vec<&str> = seen.lines().collect();
    ensure!(lists.len() == 4, "{seen:?}");
    for (index, list) in lists.iter().enumerate() {
        for controller in ["cpu", "memory", "pids", "io", "cpuset"] {
            ensure!(
                list.split(' ').any(|name| name == controller),
                "{controller} is not in list {index}: {seen:?}"
            );
        }
    }
    Ok(())
}

/// MiB of memory with which a machine runs a container.
const LEAST_MEMORY: u32 = 128;

#[test]
fn a_small_machine_runs_containers() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    // So small a machine has no room for people.
    let machine = lab
        .direct("small")?
        .memory_mib(LEAST_MEMORY)
        .host_toml("[services]\nconsole.enabled = false\nbus.enabled = false\n")
        .launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let web = ["run", "-d", "--name=web", "-p=8080:80", "busybox"];
    let serve = "mkdir /www && echo here >/www/index.html && exec httpd -f -h /www";
    docker(&machine, &[&web[..], &["sh", "-c", serve]].concat())?;
    until("page", Duration::from_secs(60), || {
        let get = ["exec", "web", "wget", "-qO-", "http://127.0.0.1/"];
        let got = machine.docker(&get)?;
        Ok(match got.stdout.trim() {
            "here" => Ok(()),
            _ => Err(got.to_string()),
        })
    })?;
    let left = shell(
        &machine,
        &[],
        "sed -n 's/^MemAvailable: *//p' /proc/meminfo",
    )?;
    lab.record("memory_available_of_128_mib", left)?;
    ensure!(
        machine.console().find("Out of memory").is_none(),
        "{}",
        machine.details()
    );
    Ok(())
}

/// A machine whose kernel has nothing to make random numbers of, is told of consoles that are not there,
/// and whose clock is wrong by decades, neither waits nor fails.
#[test]
fn a_machine_without_entropy_consoles_and_time_boots_as_usual() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab
        .direct("bare")?
        .without_entropy()
        .clock("2099-01-01T00:00:00")
        .kernel_argument("console=ttyS3,115200")
        .kernel_argument("console=hvc7")
        .launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    // The console that is there has the messages, although it is not the last one.
    machine.wait_for_console("keelson: init started at", Duration::from_secs(1))?;
    // Else every certificate would have expired.
    let corrected = "ahead of the last known time and was moved back";
    machine.wait_for_console(corrected, Duration::from_secs(1))?;
    let status = boot_status(&machine)?;
    // The kernel makes its own randomness, which takes about a second; it is waited for once.
    for name in ["random-seed", "machine-id", "mounts", "config"] {
        let step = status.boot.iter().find(|step| step.name == name);
        let step = step.with_context(|| format!("no step {name}"))?;
        let took = step.ended - step.started;
        ensure!(took < 10.0 && step.error.is_none(), "{step:?}");
    }
    Ok(())
}
