//! Bad input and a broken environment: the message is clear, the machine works, and nothing is left
//! half-done.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::assets::{Corruption, busybox_archive, corrupt_archive};
use qemu_tests::harness::{Boot, Credentials, Disk, Identity, Machine, MachineSpec, Network};
use qemu_tests::lab::{BOOT_LIMIT, Lab, STOP_LIMIT, docker, host_get, load_busybox, shell};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

#[test]
fn bad_configuration_bad_clients_and_bad_images_are_refused() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let toml = "hostname = \"broken\"\n\n[network]\nnameserver = [\"192.0.2.1\"]\n";
    let machine = lab.direct("faults")?.host_toml(toml).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    unknown_field_is_named(&machine)?;
    strangers_are_refused(&machine)?;
    broken_archives_leave_nothing(&machine)
}

fn unknown_field_is_named(machine: &Machine) -> Result<()> {
    let named = |text: &str| text.contains("nameserver") && text.contains("host.toml");
    let limit = Duration::from_secs(10);
    let line = machine.wait_for_line(
        "warning that names the unknown field",
        |line| line.contains("keelson: warning:") && named(line),
        limit,
    )?;
    ensure!(line.text.contains('4'), "no line number: {}", line.text);
    let warnings = docker(machine, &["info", "--format", "{{json .Warnings}}"])?;
    ensure!(named(&warnings), "docker info: {warnings}");
    let status = host_get(machine, "/host/v1/status")?.to_string();
    ensure!(named(&status), "status: {status}");
    // The layer is left out as a whole.
    let name = docker(machine, &["info", "--format", "{{.Name}}"])?;
    ensure!(name != "broken", "half a layer was applied");
    Ok(())
}

/// Credentials from an authority that the machine has never seen, which trust the machine.
fn foreign_credentials(machine: &Machine, ours: &Credentials) -> Result<Credentials> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(Vec::new())?.signed_by(&key, &issuer)?;
    let dir = machine.dir().join("foreign");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("key.pem"), key.serialize_pem())?;
    std::fs::write(dir.join("cert.pem"), certificate.pem())?;
    std::fs::copy(ours.dir.join("ca.pem"), dir.join("ca.pem"))?;
    Ok(Credentials { dir })
}

fn strangers_are_refused(machine: &Machine) -> Result<()> {
    let ours = machine.provision(Duration::ZERO)?;
    let foreign = foreign_credentials(machine, &ours)?;
    let limit = Duration::from_secs(20);
    for (who, identity) in [
        ("without certificate", Identity::Anonymous(&ours)),
        (
            "with a foreign certificate",
            Identity::Certificate(&foreign),
        ),
    ] {
        for path in ["/_ping", "/v1.51/containers/json", "/host/v1/status"] {
            let answer = machine.request(identity, "GET", path, None, limit);
            let error = answer
                .err()
                .with_context(|| format!("{who}: GET {path} answered"))?;
            let text = error.to_string();
            ensure!(
                ["certificate", "alert", "reset", "Unknown"]
                    .iter()
                    .any(|w| text.contains(w)),
                "{who}: {text}"
            );
        }
    }
    ensure!(machine.api("GET", "/_ping", None)?.status == 200);
    Ok(())
}

fn broken_archives_leave_nothing(machine: &Machine) -> Result<()> {
    load_busybox(machine)?;
    // Names of all files of the store; the index of images changes with every try of its own, and
    // busybox's layer is sealed at some time.
    let list = "cd /engine && find images layers ! -name seal.json | sort; test ! -e /host/escaped && \
        test ! -e /host/var/escaped && test ! -e /host/var/lib/escaped && echo nothing escaped";
    let options = [
        "-v",
        "/var/lib/keelson/engine:/engine:ro",
        "-v",
        "/:/host:ro",
    ];
    let before = shell(machine, &options, list)?;
    ensure!(before.ends_with("nothing escaped"), "{before}");
    for corruption in Corruption::ALL {
        let archive = corrupt_archive(corruption)?;
        let output = machine.docker_with(&["load"], Some(archive), Duration::from_secs(60))?;
        ensure!(output.code != Some(0), "{corruption:?}: {output}");
        ensure!(
            output.stderr.trim().len() > 10,
            "{corruption:?}: no message: {output}"
        );
        eprintln!("{corruption:?}: {}", output.stderr.trim());
        let images = docker(machine, &["images", "--format", "{{.Repository}}"])?;
        ensure!(
            images == "busybox",
            "{corruption:?} left an image: {images}"
        );
        let after = shell(machine, &options, list)?;
        ensure!(
            after == before,
            "{corruption:?} left files:\n{before}\n{after}"
        );
    }
    Ok(())
}

#[test]
fn without_a_dhcp_server_the_machine_boots_and_says_so() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab.direct("silent")?.network(Network::Silent).launch()?;
    machine.wait_for_console("keelson: hostd ready at", BOOT_LIMIT)?;
    machine.wait_for_line(
        "warning about DHCP",
        |line| line.contains("DHCP") && (line.contains("WARN") || line.contains("warning:")),
        Duration::from_secs(60),
    )?;
    // The certificates come out without a network, too.
    machine.provision(Duration::from_secs(30))?;
    machine.qmp()?.system_powerdown()?;
    machine.wait_for_exit(STOP_LIMIT)?;
    ensure!(machine.console().find("keelson: powering off").is_some());
    Ok(())
}

#[test]
fn a_missing_root_disk_is_reported_and_nothing_hangs() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let boot = Boot::direct_from(lab.image())?;
    let Boot::Direct { cmdline, .. } = &boot else {
        unreachable!("direct_from makes a direct boot");
    };
    let root = cmdline
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("root="))
        .context("no root= on the kernel command line")?
        .to_owned();
    let machine = MachineSpec::new("no-disk", boot).launch()?;
    machine.wait_for_line(
        &format!("error that names {root}"),
        |line| line.contains("keelson: error:") && line.contains(&root),
        BOOT_LIMIT,
    )?;
    machine.wait_for_exit(STOP_LIMIT)?;
    ensure!(
        machine.console().find("Kernel panic").is_none(),
        "{}",
        machine.details()
    );
    Ok(())
}

#[test]
fn an_emergency_shell_comes_from_what_is_appended_to_the_initrd() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let dir = tempfile::tempdir()?;
    let rescue = dir.path().join("initrd-rescue");
    let mut bytes = std::fs::read(lab.image().join("initrd"))?;
    // An archive begins at a multiple of four bytes.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(cpio(&[
        ("bin", 0o040_755, Vec::new()),
        ("bin/busybox", 0o100_755, keelson_testing::busybox::bytes()?),
        ("TRAILER!!!", 0, Vec::new()),
    ]));
    std::fs::write(&rescue, bytes)?;
    for (name, emergency, expected) in [
        ("shell", true, "emergency shell /bin/busybox"),
        ("no-shell", false, "no shell for keelson.emergency=console"),
    ] {
        let mut boot = Boot::direct_from(lab.image())?;
        if let Boot::Direct { initrd, .. } = &mut boot
            && emergency
        {
            initrd.clone_from(&rescue);
        }
        let machine = MachineSpec::new(name, boot)
            .kernel_argument("keelson.root_timeout=1")
            .kernel_argument("keelson.emergency=console")
            .launch()?;
        machine.wait_for_console(expected, BOOT_LIMIT)?;
        if emergency {
            machine.kill();
        } else {
            machine.wait_for_exit(STOP_LIMIT)?;
        }
    }
    Ok(())
}

/// An archive of the form "newc" (`Documentation/driver-api/early-userspace/buffer-format.rst`).
fn cpio(files: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (inode, (name, mode, content)) in (1u32..).zip(files) {
        // Inode, mode, owner, group, links, time, size, device, device node, name, checksum.
        let fields = [inode, *mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0];
        out.extend(b"070701");
        for field in fields.into_iter().chain([name.len() as u32 + 1, 0]) {
            out.extend(format!("{field:08x}").bytes());
        }
        out.extend(name.bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// When the power fails during `docker load`.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Half of the archive was sent.
    Half,
    /// All of it was sent, and the answer may be on its way.
    End,
}

#[test]
fn a_power_cut_during_docker_load_leaves_a_usable_store() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let (_dir, disk) = lab.own_disk()?;
    let archive = busybox_archive()?;
    for cut in [Cut::Half, Cut::End] {
        let machine = lab.direct("cut")?.disk(Disk::writable(&disk)).launch()?;
        machine.wait_api(BOOT_LIMIT)?;
        let mut load = machine
            .docker_command()?
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut pipe = load.stdin.take().context("no pipe")?;
        let part = match cut {
            Cut::Half => archive.get(..archive.len() / 2),
            Cut::End => archive.get(..),
        };
        pipe.write_all(part.unwrap_or_default())?;
        pipe.flush()?;
        if matches!(cut, Cut::End) {
            drop(pipe);
        }
        machine.kill();
        load.kill().ok();
        load.wait()?;
    }
    let machine = lab.direct("after")?.disk(Disk::writable(&disk)).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    // Every listed image is complete.
    if !docker(&machine, &["images", "-q"])?.is_empty() {
        ensure!(shell(&machine, &[], "echo whole")? == "whole");
    }
    load_busybox(&machine)?;
    ensure!(shell(&machine, &[], "echo fine")? == "fine");
    let left = "find /engine -name '*tmp*' -o -name '*staging*' -type f";
    let left = shell(
        &machine,
        &["-v", "/var/lib/keelson/engine:/engine:ro"],
        left,
    )?;
    let files: Vec<&str> = left.lines().filter(|l| !l.ends_with("staging")).collect();
    ensure!(files.is_empty(), "left over: {files:?}");
    machine.qmp()?.system_powerdown()?;
    machine.wait_for_exit(STOP_LIMIT)?;
    Ok(())
}
