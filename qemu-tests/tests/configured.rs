//! The configuration of a booted machine: layers from the kernel command line and from QEMU merged at
//! boot, what PID 1 and `keelson-configure` do with it, a change that is taken back by itself, and one
//! for which hostd restarts.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::harness::{Disk, Machine};
use qemu_tests::lab::{
    BOOT_LIMIT, Lab, SEES_ALL, boot_status, host_get, load_busybox, shell, supervised_pid, until,
};
use serde_json::{Value, json};

const PLATFORM: &str = "hostname = 'platform'\n\
    [sysctl]\n'vm.swappiness' = 7\n\
    [[file]]\npath = '/etc/motd'\ncontents = 'declared'\nmode = '0640'\n\
    [swap]\nzram_percent = 20\nfile_bytes = 33554432\n\
    [watchdog]\ntimeout = 30\n\
    [modules]\nload = ['nbd']\noptions = { nbd = 'nbds_max=3' }\n\
    [[storage.mount]]\ndevice = 'LABEL=more'\npath = '/var/more/data'\noptions = 'noatime'\n";
/// How long what works at once may take.
const SOON: Duration = Duration::from_secs(60);

fn post(machine: &Machine, what: &str, body: &Value) -> Result<Value> {
    let path = format!("/host/v1/config/{what}");
    let response = machine.api("POST", &path, Some(body))?;
    ensure!(response.status == 200, "POST {path}: {}", response.text());
    Ok(serde_json::from_slice(&response.body)?)
}

/// Swap space, the watchdog, options of modules, and one more file system.
fn of_init(machine: &Machine) -> Result<()> {
    machine.wait_for_console("i6300ESB timer) resets the machine after 30 s", BOOT_LIMIT)?;
    let script = "cat /host/proc/swaps /host/sys/module/nbd/parameters/nbds_max; \
        grep ' /var/more/data ' /host/proc/1/mounts";
    let seen = shell(machine, &SEES_ALL, script)?;
    for line in [
        "/dev/zram0 ",
        "/var/lib/keelson/swap ",
        "3",
        " /var/more/data ext4 rw,nosuid,nodev,noatime",
    ] {
        ensure!(
            seen.lines().any(|seen| seen.contains(line)),
            "{line}: {seen}"
        );
    }
    Ok(())
}

/// The link that netcfg manages.
fn managed_link(machine: &Machine) -> Result<Value> {
    let status = host_get(machine, "/host/v1/status")?;
    let links = status["network"]["links"].as_array();
    let mut links = links.into_iter().flatten();
    let managed = links.find(|link| link["name"] != "lo" && link["managed"] == true);
    Ok(managed.cloned().unwrap_or_default())
}

#[test]
fn a_machine_merges_its_configuration_and_takes_unconfirmed_changes_back() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let dir = tempfile::tempdir()?;
    let more = dir.path().join("more.raw");
    std::fs::File::create(&more)?.set_len(64 << 20)?;
    let made = Command::new("/usr/sbin/mkfs.ext4")
        .args(["-q", "-L", "more"])
        .arg(&more)
        .status()?;
    ensure!(made.success(), "mkfs.ext4: {made}");
    let machine = lab
        .direct("configuration")?
        .host_toml(PLATFORM)
        .extra_disk(Disk::snapshot(&more))
        .device("i6300esb")
        .kernel_argument("keelson.config.hostname=command-line")
        .kernel_argument("keelson.config.engine.stop_timeout=5")
        .launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    let status = boot_status(&machine)?;
    let failed: Vec<_> = status.boot.iter().filter(|s| s.error.is_some()).collect();
    ensure!(failed.is_empty(), "boot steps failed: {failed:?}");

    let view = host_get(&machine, "/host/v1/config")?;
    ensure!(view["config"]["hostname"] == "platform", "{view:#}");
    ensure!(
        view["origins"]["hostname"]["layer"] == "platform",
        "{view:#}"
    );
    ensure!(view["config"]["engine"]["stop_timeout"] == 5, "{view:#}");
    let origin = &view["origins"]["engine.stop_timeout"];
    ensure!(origin["layer"] == "command-line", "{view:#}");

    load_busybox(&machine)?;
    let script = "cat /host/proc/sys/kernel/hostname /host/proc/sys/vm/swappiness /host/etc/motd; echo; \
        stat -c '%a' /host/etc/motd /host/run/keelson/config/effective.toml";
    // The kernel shows a reader the host name of the reader's own UTS namespace.
    let of_host = [&SEES_ALL[..], &["--uts=host"]].concat();
    let seen = shell(&machine, &of_host, script)?;
    let seen: Vec<&str> = seen.lines().collect();
    ensure!(
        seen == ["platform", "7", "declared", "640", "600"],
        "{seen:?}"
    );

    of_init(&machine)?;

    // The network waits for a confirmation that does not come; netcfg hears of both changes.
    let link = managed_link(&machine)?;
    let name = link["name"].as_str().unwrap_or_default();
    let mtu = |machine: &Machine| -> Result<u64> {
        Ok(managed_link(machine)?["mtu"].as_u64().unwrap_or(0))
    };
    let before = mtu(&machine)?;
    let text = format!("[[network.link]]\nname = '{name}'\ndhcp4 = true\nmtu = 1400\n");
    let applied = post(
        &machine,
        "apply",
        &json!({"text": text, "confirm_within": 20}),
    )?;
    ensure!(applied["notes"] == json!([]), "{applied}");
    until("the new MTU", SOON, || {
        let mtu = mtu(&machine)?;
        Ok(if mtu == 1400 {
            Ok(())
        } else {
            Err(format!("MTU {mtu}"))
        })
    })?;
    until("the former file", SOON, || {
        let view = host_get(&machine, "/host/v1/config")?;
        let back =
            view["waiting"].is_null() && view["origins"]["network.link"]["layer"] == "built-in";
        Ok(if back {
            Ok(())
        } else {
            Err(view["waiting"].to_string())
        })
    })?;
    // Without an MTU in the configuration a link keeps the one that it has.
    ensure!(before == 1500, "MTU {before}");

    // hostd restarts for what it reads at its start, and comes back with it.
    let pid = supervised_pid(&machine, "hostd")?;
    let text =
        json!({"text": "hostname = 'operator'\n[engine]\nstop_timeout = 3\n", "restart": true});
    let applied = post(&machine, "apply", &text)?;
    ensure!(applied["restarting"] == true, "{applied}");
    until("another hostd", SOON, || {
        Ok(match supervised_pid(&machine, "hostd") {
            Ok(now) if now != pid => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    machine.wait_api(BOOT_LIMIT)?;
    let view = host_get(&machine, "/host/v1/config")?;
    ensure!(view["config"]["engine"]["stop_timeout"] == 3, "{view:#}");
    let name = shell(&machine, &of_host, "cat /host/proc/sys/kernel/hostname")?;
    ensure!(name.trim() == "operator", "host name {name:?}");
    Ok(())
}
