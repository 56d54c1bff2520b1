//! Networks of containers: hostd beside Docker, Podman and the bare kernel. See README.md.

mod dns;
mod floor;
mod place;
mod ports;
mod starts;
mod subject;
mod traffic;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use keelson_benches::engines::Engine;
use keelson_benches::table;
use keelson_benches::{build, bundle};

use floor::Floor;
use subject::Subject;

/// Command line.
#[derive(Debug, Parser)]
struct Options {
    /// How often each start is measured; ports, traffic and names a quarter as often.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How many ports are published when the second figure of ports is measured.
    #[arg(long, default_value_t = 1000)]
    ports: u16,
    /// Measure only this; all without the option.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure hostd only.
    #[arg(long)]
    alone: bool,
    /// hostd, with its other programs in the same directory, instead of one that is built first.
    #[arg(long, value_name = "FILE")]
    hostd: Option<PathBuf>,
    /// Another hostd to be measured too, with keelson-runtime and keelson-resolver in the same
    /// directory; for comparing versions.
    #[arg(long, value_name = "FILE")]
    beside: Vec<PathBuf>,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Starts,
    Ports,
    Names,
    // The last one: it leaves the kernel's tables of connections full.
    Traffic,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        rustix::process::geteuid().is_root(),
        "engines can only be started by root"
    );
    let hostd = match &options.hostd {
        Some(hostd) => hostd.clone(),
        None => {
            for program in ["keelson-runtime", "keelson-resolver"] {
                build::release(program, program)?;
            }
            build::release("hostd", "hostd")?
        }
    };
    let directory = tempfile::Builder::new()
        .prefix("keelson-network-bench")
        .tempdir_in("/var/tmp")?;
    // Podman takes paths of 50 bytes at most there.
    let run = tempfile::Builder::new()
        .prefix("keelson-")
        .tempdir_in("/dev/shm")?;
    let subjects = subjects(&options, &hostd, directory.path(), run.path())?;
    let floor = Floor::new()?;
    let few = options.rounds.div_ceil(4);
    let mut tables = Vec::new();
    for part in Part::value_variants() {
        if !options.only.is_empty() && !options.only.contains(part) {
            continue;
        }
        tables.extend(match part {
            Part::Starts => starts::measure(&subjects, &floor, options.rounds)?,
            Part::Ports => ports::measure(&subjects, few, options.ports)?,
            Part::Traffic => traffic::measure(&subjects, &floor, few)?,
            Part::Names => dns::measure(&subjects, few)?,
        });
    }
    table::publish(&tables, options.json.as_deref())
}

/// Starts the engines, ours first.
fn subjects(
    options: &Options,
    hostd: &Path,
    disk: &Path,
    run: &Path,
) -> Result<Vec<(String, Subject)>> {
    let archive = bundle::image()?;
    let mut subjects = Vec::new();
    let others = options.beside.iter().map(PathBuf::as_path);
    for (number, program) in std::iter::once(hostd).chain(others).enumerate() {
        let name = match number {
            0 => "hostd".to_owned(),
            _ => format!("hostd-{}", number + 1),
        };
        let start = || Engine::hostd_networked(&name, program, disk, run).map(Some);
        subjects.extend(Subject::start(&archive, start)?.map(|subject| (name.clone(), subject)));
    }
    if !options.alone {
        let docker = Subject::start(&archive, || Engine::dockerd_networked(disk, run))?;
        subjects.extend(docker.map(|docker| ("docker".to_owned(), docker)));
        let upstream = IpAddr::V4(place::NEIGHBOUR);
        let podman = Subject::start(&archive, || Engine::podman_networked(disk, run, upstream))?;
        subjects.extend(podman.map(|podman| ("podman".to_owned(), podman)));
    }
    Ok(subjects)
}
