//! Orderly ends of a machine, and its state after the next boot.

use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::harness::{Disk, Machine};
use qemu_tests::lab::{
    BOOT_LIMIT, Lab, SEES_ALL, STOP_LIMIT, docker, ended_cleanly, host_get, load_busybox,
    request_power_off, seconds, services, shell, until,
};
use serde_json::{Value, json};

#[test]
fn a_container_that_never_stops_does_not_prevent_an_orderly_power_off() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;
    let machine = lab.direct("deaf")?.disk(Disk::writable(&disk)).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let deaf = "trap '' TERM; echo started; while :; do sleep 0.2; done";
    let polite = "trap 'echo stopped; exit 5' TERM; echo started; while :; do sleep 0.2; done";
    for (name, script, seconds) in [
        ("deaf", deaf, "-1"),
        ("deafer", deaf, "86400"),
        ("polite", polite, "-1"),
    ] {
        docker(
            &machine,
            &[
                "run",
                "-d",
                "--name",
                name,
                "--stop-timeout",
                seconds,
                "busybox",
                "sh",
                "-c",
                script,
            ],
        )?;
        until("trap that is set", Duration::from_secs(30), || {
            Ok(match docker(&machine, &["logs", name])?.as_str() {
                "started" => Ok(()),
                other => Err(other.to_owned()),
            })
        })?;
    }
    until("running the time service", Duration::from_secs(60), || {
        let all = services(&machine)?;
        let runs = all
            .iter()
            .any(|s| s["name"] == "time" && s["state"] == "running");
        Ok(if runs {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        })
    })?;
    dependents(&machine)?;
    let asked = machine.elapsed();
    machine.qmp()?.system_powerdown()?;
    ended_cleanly(&machine, &disk)?;
    let (_, ended) = machine.wait_for_exit(Duration::ZERO)?;
    lab.record(
        "poweroff_with_deaf_containers_to_qemu_exit_s",
        seconds(ended - asked),
    )?;
    // In this order; the service ended by itself, not by SIGKILL.
    let lines = machine.console().lines();
    let mut rest = lines.iter();
    for words in [
        &["powering off"][..],
        &["containers stopped"],
        &["service stopped", "time", "code=0"],
        &["unmounted /var"],
        &["all file systems unmounted"],
    ] {
        ensure!(
            rest.any(|line| words.iter().all(|word| line.text.contains(word))),
            "no {words:?} in its place\n{}",
            machine.details()
        );
    }
    for text in ["is killed", "hangs", "survive"] {
        ensure!(
            machine.console().find(text).is_none(),
            "{text}\n{}",
            machine.details()
        );
    }
    drop(machine);

    let machine = lab.direct("after")?.disk(Disk::writable(&disk)).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    for (name, code) in [("deaf", "137"), ("deafer", "137"), ("polite", "5")] {
        let format = "{{.State.Status}} {{.State.ExitCode}}";
        let state = docker(&machine, &["inspect", "--format", format, name])?;
        ensure!(state == format!("exited {code}"), "{name}: {state}");
    }
    dependents_were_started_in_order(&machine)
}

/// Containers that the machine starts again at its boot; each one that comes first in the list is
/// made first, but needs the next one.
const DEPENDENTS: [&str; 4] = ["shop", "database", "guest", "owner"];

fn dependents(machine: &Machine) -> Result<()> {
    let project = "--label=com.docker.compose.project=market";
    let depends = "--label=com.docker.compose.depends_on=database:service_started:false";
    let service = |name| format!("--label=com.docker.compose.service={name}");
    let run = |name: &str, options: &[&str]| -> Result<()> {
        let always = ["run", "-d", "--restart=always", "--stop-signal=KILL"];
        let end = ["busybox", "sleep", "100000"];
        docker(
            machine,
            &[&always[..], &["--name", name], options, &end].concat(),
        )?;
        Ok(())
    };
    run("shop", &[project, depends, &service("shop")])?;
    run("database", &[project, &service("database")])?;
    run("owner", &[])?;
    run("guest", &["--network=container:owner"])
}

/// A policy says that they run, labels and namespaces in which order.
fn dependents_were_started_in_order(machine: &Machine) -> Result<()> {
    let mut times = Vec::new();
    for name in DEPENDENTS {
        let time = until(&format!("running {name}"), BOOT_LIMIT, || {
            let format = "{{.State.Status}} {{.State.StartedAt}}";
            let state = docker(machine, &["inspect", "--format", format, name])?;
            // Times without the letter of their zone: their fractions have no trailing zeros.
            let time = state.strip_prefix("running ");
            Ok(time
                .map(|time| time.trim_end_matches('Z').to_owned())
                .ok_or(state))
        })?;
        times.push(time);
    }
    let [shop, database, guest, owner] = times.as_slice() else {
        anyhow::bail!("{times:?}");
    };
    ensure!(
        database < shop && owner < guest,
        "{DEPENDENTS:?}: {times:?}"
    );
    Ok(())
}

#[test]
fn power_off_is_orderly_and_everything_is_there_afterwards() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;

    let machine = lab.direct("first")?.disk(Disk::writable(&disk)).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let running = "trap 'echo stopped; exit 5' TERM; echo started; while :; do sleep 0.2; done";
    docker(
        &machine,
        &[
            "run", "-d", "--name", "running", "busybox", "sh", "-c", running,
        ],
    )?;
    let written = "echo kept > /file; echo said; exit 3";
    machine.docker(&["run", "--name", "ended", "busybox", "sh", "-c", written])?;
    let bad = "mkdir -p /etc/keelson/host.toml.d && \
        printf '[time]\\nsevers = []\\n' > /etc/keelson/host.toml.d/90-typing-error.toml";
    shell(&machine, &["-v", "/etc:/etc"], bad)?;
    let id = docker(&machine, &["images", "-q", "--no-trunc"])?;

    let asked = machine.elapsed();
    request_power_off(&machine)?;
    ended_cleanly(&machine, &disk)?;
    let (_, ended) = machine.wait_for_exit(Duration::ZERO)?;
    lab.record("poweroff_request_to_qemu_exit_s", seconds(ended - asked))?;
    drop(machine);

    // The other boot path on the same disk.
    let machine = lab.uefi("second").disk(Disk::writable(&disk)).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    ensure!(
        docker(&machine, &["images", "-q", "--no-trunc"])? == id,
        "image is gone"
    );
    let listed = docker(&machine, &["ps", "-a", "--format", "{{.Names}} {{.State}}"])?;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    ensure!(listed == ["ended exited", "running exited"], "{listed:?}");
    let code = |name| {
        docker(
            &machine,
            &["inspect", "--format", "{{.State.ExitCode}}", name],
        )
    };
    ensure!(code("ended")? == "3");
    ensure!(code("running")? == "5");
    ensure!(docker(&machine, &["logs", "ended"])? == "said");
    ensure!(docker(&machine, &["logs", "running"])? == "started\nstopped");

    docker(&machine, &["start", "running"])?;
    let state = docker(
        &machine,
        &["inspect", "--format", "{{.State.Status}}", "running"],
    )?;
    ensure!(state == "running", "{state}");
    ensure!(shell(&machine, &[], "echo new")? == "new");

    let warnings = docker(&machine, &["info", "--format", "{{json .Warnings}}"])?;
    for part in ["90-typing-error.toml", "severs"] {
        ensure!(warnings.contains(part), "no {part:?} in {warnings}");
    }

    logs_of_both_boots_are_there(&machine)?;

    machine.qmp()?.system_powerdown()?;
    ended_cleanly(&machine, &disk)
}

/// Kernel, init, netcfg and hostd, of this boot and of the one before, each line once.
fn logs_of_both_boots_are_there(machine: &Machine) -> Result<()> {
    let boots = host_get(machine, "/host/v1/logs/boots")?;
    ensure!(
        boots.as_array().is_some_and(|boots| boots.len() == 2),
        "{boots:#}"
    );
    for boot in ["0", "-1"] {
        let path = format!("/host/v1/logs?boot={boot}");
        let response = machine.api("GET", &path, None)?;
        ensure!(response.status == 200, "GET {path}: {}", response.text());
        let text = response.text();
        let lines: Vec<Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        for (unit, part) in [
            ("kernel", "Linux version"),
            ("init", "init started at"),
            ("netcfg", ""),
            ("hostd", "ready"),
        ] {
            let of_unit = |line: &&Value| {
                let text = line["text"].as_str().unwrap_or_default();
                line["unit"] == unit && text.contains(part)
            };
            let count = lines.iter().filter(of_unit).count();
            let wanted = if part == "Linux version" {
                1..2
            } else {
                1..usize::MAX
            };
            ensure!(
                wanted.contains(&count),
                "{count} lines {unit}: {part:?} in boot {boot}"
            );
        }
        let numbers = lines.iter().map(|line| line["sequence"].as_u64());
        ensure!(numbers.is_sorted(), "{path}");
    }
    let status = host_get(machine, "/host/v1/logs/status")?;
    ensure!(
        status["lost"] == 0 && status["error"].is_null(),
        "{status:#}"
    );
    Ok(())
}

/// Seven presses of Ctrl-Alt-Del end a stop that waits for a container; the disk is clean.
#[test]
fn a_stop_that_is_forced_is_quick_and_clean() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;
    let machine = lab
        .direct("forced")?
        .disk(Disk::writable(&disk))
        .kernel_argument("keelson.zram=20")
        .device("i6300esb")
        .launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    machine.wait_for_console("i6300ESB timer) resets the machine after 60 s", BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let swaps = shell(&machine, &SEES_ALL, "cat /host/proc/swaps")?;
    ensure!(swaps.contains("/dev/zram0"), "{swaps}");
    let deaf = "trap '' TERM; echo started; while :; do sleep 0.2; done";
    let run = [
        "run",
        "-d",
        "--name",
        "deaf",
        "--stop-timeout",
        "-1",
        "busybox",
    ];
    docker(&machine, &[&run[..], &["sh", "-c", deaf]].concat())?;
    until("trap that is set", Duration::from_secs(30), || {
        Ok(match docker(&machine, &["logs", "deaf"])?.as_str() {
            "started" => Ok(()),
            other => Err(other.to_owned()),
        })
    })?;
    let mut qmp = machine.qmp()?;
    qmp.system_powerdown()?;
    machine.wait_for_console("keelson: powering off", Duration::from_secs(20))?;
    let keys: Vec<_> = ["ctrl", "alt", "delete"]
        .iter()
        .map(|key| json!({"type": "qcode", "data": key}))
        .collect();
    for _ in 0..7 {
        let press = json!({"keys": keys, "hold-time": 20});
        qmp.execute("send-key", Some(press))?;
        std::thread::sleep(Duration::from_millis(120));
    }
    let line = machine.wait_for_console("keelson: warning: powering off by force", STOP_LIMIT)?;
    ended_cleanly(&machine, &disk)?;
    let (_, ended) = machine.wait_for_exit(Duration::ZERO)?;
    lab.record("forced_poweroff_to_qemu_exit_s", seconds(ended - line.at))?;
    ensure!(
        machine.console().find("containers stopped").is_none(),
        "{}",
        machine.details()
    );
    Ok(())
}
