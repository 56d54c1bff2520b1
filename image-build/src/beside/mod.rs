//! `cargo xtask beside`: our image beside Debian with docker.io, on machines that are alike.
//!
//! Both disks are made by the same mkosi from the same mirror and have the same kernel, which QEMU loads
//! itself. They are booted in turns. A boot ends when `GET /_ping` answers outside of the machine; then
//! both get the same image, run one container, and have a rest before their memory is read by another
//! container. What that container and its shim take is in the figures of both.

mod debian;
mod memory;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::{Boot, Disk, Machine, MachineSpec, assets, run as run_command};

use self::debian::Debian;
use self::memory::Memory;
use crate::disk::Image;
use crate::progress::{self, Step};
use crate::workspace::Workspace;
use crate::{image, tools};

/// How long a boot may take.
const BOOT_LIMIT: Duration = Duration::from_secs(400);
/// How long one command of docker may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// Until what a boot postpones is done.
const REST: Duration = Duration::from_secs(15);
/// The image that both run: busybox alone.
const IMAGE: &str = "busybox:latest";
/// Where dockerd listens, see files/debian.
const DOCKER_PORT: u16 = 2375;

/// What one boot showed.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// From the start of QEMU.
    to_api: Duration,
    memory: Memory,
}

/// Boots both in turns, and prints medians and their ratios.
///
/// # Errors
/// Something can't be built or does not come up.
pub fn run(workspace: &Workspace, rounds: usize, prebuilt: bool) -> Result<()> {
    let options = image::BuildOptions {
        prebuilt,
        ..image::BuildOptions::default()
    };
    let ours = image::build(workspace, options)?;
    let debian = debian::build(workspace)?;
    same_kernel(&ours, &debian)?;
    if rounds == 0 {
        return Ok(());
    }
    let docker = tools::docker(workspace)?;
    let archive = assets::lone_busybox(&tools::busybox(workspace)?, IMAGE)?;
    let (mut of_ours, mut of_debian) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let mut step = Step::begin(format!("round {round} of {rounds}"));
        step.detail("Keelson");
        of_ours.push(keelson(&ours, &archive)?);
        step.detail("Debian");
        of_debian.push(with_docker(&debian, &docker, &archive)?);
        step.done("");
    }
    progress::say(&table(&of_ours, &of_debian)?);
    Ok(())
}

fn same_kernel(ours: &Image, debian: &Debian) -> Result<()> {
    let Boot::Direct { kernel, .. } = &debian.boot else {
        return Ok(());
    };
    let [our_kernel, ..] = ours.direct();
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    ensure!(
        read(kernel)? == read(&our_kernel)?,
        "{} and {} differ: the mirror has a new kernel; build ours again with `cargo xtask image \
         --refresh`, or remove {} and try again",
        kernel.display(),
        our_kernel.display(),
        debian.disk.display()
    );
    Ok(())
}

fn keelson(image: &Image, archive: &[u8]) -> Result<Figures> {
    let boot = Boot::direct_from(&image.directory)?;
    let spec = MachineSpec::new("keelson", boot).disk(Disk::snapshot(image.disk()));
    let machine = spec.launch()?;
    let to_api = machine.wait_api(BOOT_LIMIT)?;
    let memory = memory(archive, || Ok(machine.docker_command()?))?;
    Ok(Figures { to_api, memory })
}

fn with_docker(debian: &Debian, docker: &Path, archive: &[u8]) -> Result<Figures> {
    let machine = MachineSpec::new("debian", debian.boot.clone())
        .disk(Disk::snapshot(&debian.disk))
        .without_provisioning()
        .forward(0, DOCKER_PORT)
        .launch()?;
    let to_api = wait_docker(&machine)?;
    let port = machine.port(DOCKER_PORT)?;
    let memory = memory(archive, || {
        let mut command = Command::new(docker);
        command
            .env_remove("DOCKER_TLS_VERIFY")
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}"));
        Ok(command)
    })?;
    Ok(Figures { to_api, memory })
}

/// The same patience as with ours, see `Machine::wait_api`.
fn wait_docker(machine: &Machine) -> Result<Duration> {
    let port = machine.port(DOCKER_PORT)?;
    let deadline = Instant::now() + BOOT_LIMIT;
    let mut patience = Duration::from_millis(500);
    loop {
        if ping(port, patience).is_ok_and(|answer| answer.contains("200 OK")) {
            return Ok(machine.elapsed());
        }
        patience = (patience * 3 / 2).min(Duration::from_secs(20));
        ensure!(
            machine.is_running() && Instant::now() < deadline,
            "dockerd does not answer\n{}",
            machine.details()
        );
        // No event reports that a server has begun to listen.
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ping(port: u16, patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: debian\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Loads busybox and runs a container, which reads the machine's memory after a rest.
fn memory(archive: &[u8], command: impl Fn() -> Result<Command>) -> Result<Memory> {
    let docker = |arguments: &[&str], input: Option<Vec<u8>>| -> Result<String> {
        let output = run_command(command()?.args(arguments), input, COMMAND_LIMIT)?;
        Ok(output.success()?.to_owned())
    };
    docker(&["load"], Some(archive.to_vec()))?;
    docker(&["run", "--rm", IMAGE, "/bin/busybox", "true"], None)?;
    std::thread::sleep(REST);
    Memory::parse(&docker(
        &["run", "--rm", IMAGE, "/bin/busybox", "cat", "/proc/meminfo"],
        None,
    )?)
}

/// A row: what is measured, and its value of a boot.
type Row = (&'static str, fn(&Figures) -> f64);

fn table(ours: &[Figures], debian: &[Figures]) -> Result<String> {
    let rows: [Row; 3] = [
        ("boot to the API, s", |f| f.to_api.as_secs_f64()),
        ("memory used, MiB", |f| f.memory.used as f64 / 1024.0),
        ("anonymous memory, MiB", |f| {
            f.memory.anonymous as f64 / 1024.0
        }),
    ];
    let mut text = format!(
        "{:<24}{:>10}{:>10}{:>10}",
        "medians", "Keelson", "Debian", "ratio"
    );
    for (name, value) in rows {
        let [a, b] = [ours, debian].map(|all| median(all.iter().map(value)));
        let (a, b) = (a.context("no round")?, b.context("no round")?);
        text += &format!("\n{name:<24}{a:>10.1}{b:>10.1}{:>10.3}", a / b);
    }
    Ok(text)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_medians() {
        let figures = |seconds, used: u64| Figures {
            to_api: Duration::from_secs(seconds),
            memory: Memory {
                used: used * 1024,
                anonymous: 1024,
            },
        };
        let ours = [figures(9, 40), figures(1, 20), figures(5, 30)];
        let debian = [figures(50, 100), figures(50, 100), figures(10, 100)];
        let text = table(&ours, &debian).unwrap();
        let numbers = |line: usize| {
            let line = text.lines().nth(line).unwrap();
            line.split_whitespace().rev().take(3).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1), ["0.100", "50.0", "5.0"]);
        assert_eq!(numbers(2), ["0.300", "100.0", "30.0"]);
    }
}
