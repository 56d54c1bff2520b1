//! Container networks on a booted machine: a published page, separate networks, names, and the same
//! after a reboot.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::disk::copy_sparse;
use qemu_tests::harness::{Disk, Machine};
use qemu_tests::lab::{BOOT_LIMIT, Lab, STOP_LIMIT, docker, load_busybox, until};
use serde_json::json;

/// The port at which the page is published on the machine.
const PORT: u16 = 8080;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gets the page from outside the machine.
fn page(machine: &Machine) -> Result<String> {
    let port = machine.port(PORT)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").context("no page")?;
    Ok(body.trim().to_owned())
}

fn is_served(machine: &Machine) -> Result<()> {
    until("the page is served", BOOT_LIMIT, || {
        Ok(match page(machine) {
            Ok(body) if body == "shop" => Ok(()),
            Ok(body) => Err(body),
            Err(error) => Err(format!("{error:#}")),
        })
    })
}

/// Checks what `front` sees of the others.
fn relations(machine: &Machine) -> Result<()> {
    let exec = |name: &str, line: &str| machine.docker(&["exec", name, "sh", "-c", line]);
    exec("front", "ping -c1 -W5 store")?.success()?;
    exec("front", "ping -c1 -W5 depot")?.success()?;
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let apart = docker(machine, &["inspect", "--format", format, "apart"])?;
    ensure!(apart.starts_with("172."), "address {apart:?}");
    let reached = exec("front", &format!("ping -c1 -W2 {apart}"))?;
    ensure!(
        reached.code != Some(0),
        "the networks are not apart: {reached}"
    );
    let named = exec("front", "ping -c1 -W2 apart")?;
    ensure!(named.code != Some(0), "a name of another network: {named}");
    // QEMU's gateway is outside of the machine.
    exec("front", "ping -c1 -W5 10.0.2.2")?.success()?;
    Ok(())
}

#[test]
fn publishing_names_and_separation_work_and_survive_a_reboot() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("disk.raw");
    copy_sparse(&lab.disk(), &disk)?;

    let spec = lab.direct("networks")?.disk(Disk::writable(&disk));
    let machine = spec.forward(0, PORT).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    for name in ["one", "two"] {
        docker(&machine, &["network", "create", name])?;
    }
    let serve = "mkdir -p /www; echo shop > /www/index.html; exec httpd -f -p 80 -h /www";
    let always = ["run", "-d", "--restart=always", "--stop-signal=KILL"];
    for (name, options, command) in [
        (
            "store",
            &["--network=one", "--network-alias=depot"][..],
            "sleep 100000",
        ),
        ("front", &["--network=one", "-p=8080:80"], serve),
        ("apart", &["--network=two"], "sleep 100000"),
    ] {
        let mut arguments = always.to_vec();
        arguments.extend(["--name", name]);
        arguments.extend(options);
        arguments.extend(["busybox", "sh", "-c", command]);
        docker(&machine, &arguments)?;
    }
    is_served(&machine)?;
    relations(&machine)?;
    let networks = docker(&machine, &["network", "ls", "--format={{.ID}} {{.Name}}"])?;

    let answer = machine.api(
        "POST",
        "/host/v1/power",
        Some(&json!({"action": "poweroff"})),
    )?;
    ensure!((200..300).contains(&answer.status), "{}", answer.text());
    machine.wait_for_exit(STOP_LIMIT)?;
    drop(machine);

    let spec = lab.direct("networks-again")?.disk(Disk::writable(&disk));
    let machine = spec.forward(0, PORT).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    is_served(&machine)?;
    relations(&machine)?;
    let after = docker(&machine, &["network", "ls", "--format={{.ID}} {{.Name}}"])?;
    ensure!(after == networks, "{networks}\n{after}");
    Ok(())
}
