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

use anyhow::Result;
use clap::{Parser, ValueEnum};
use keelson_benches::engines::Engine;
use keelson_benches::subjects::Hostds;
use keelson_benches::{bundle, table};

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
    #[command(flatten)]
    hostds: Hostds,
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
    let programs = options
        .hostds
        .programs(&["keelson-runtime", "keelson-resolver"])?;
    let directory = tempfile::Builder::new()
        .prefix("keelson-network-bench")
        .tempdir_in("/var/tmp")?;
    // Podman takes paths of 50 bytes at most there.
    let run = tempfile::Builder::new()
        .prefix("keelson-")
        .tempdir_in("/dev/shm")?;
    let subjects = subjects(options.alone, programs, directory.path(), run.path())?;
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
    alone: bool,
    programs: Vec<(String, PathBuf)>,
    disk: &Path,
    run: &Path,
) -> Result<Vec<(String, Subject)>> {
    let archive = bundle::image()?;
    let mut subjects = Vec::new();
    for (name, program) in programs {
        let start = || Engine::hostd_networked(&name, &program, disk, run).map(Some);
        subjects.extend(Subject::start(&archive, start)?.map(|subject| (name.clone(), subject)));
    }
    if !alone {
        let docker = Subject::start(&archive, || Engine::dockerd_networked(disk, run))?;
        subjects.extend(docker.map(|docker| ("docker".to_owned(), docker)));
        let upstream = IpAddr::V4(place::NEIGHBOUR);
        let podman = Subject::start(&archive, || Engine::podman_networked(disk, run, upstream))?;
        subjects.extend(podman.map(|podman| ("podman".to_owned(), podman)));
    }
    Ok(subjects)
}
