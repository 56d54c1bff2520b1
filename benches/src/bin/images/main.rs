//! Compares image operations of Keelson, Docker, Podman and containerd with each other, and with
//! the best that the machine can do. See README.md.

mod floor;
mod lab;
mod operation;
mod registry;
mod sample;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use keelson_benches::subjects::Hostds;
use keelson_benches::table;

use crate::lab::{Budget, Lab};
use crate::operation::Operation;
use crate::sample::Size;

/// Command line.
#[derive(Debug, Parser)]
struct Options {
    /// What is measured.
    #[arg(long, alias = "operations", value_delimiter = ',', default_values_t = Operation::DEFAULT)]
    only: Vec<Operation>,
    /// Largest number of rounds of each operation, after one to warm up.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many minutes the measurements may take together. Afterwards no further round and no
    /// further operation begins. Building, and generating the images once, do not count.
    #[arg(long, default_value_t = 9.0)]
    minutes: f64,
    /// The measured image: about 470 MB, or a small one to try out the benchmark.
    #[arg(long, default_value = "full")]
    size: Scale,
    /// Seconds of rest before each measurement, because earlier deletions keep the disk busy.
    #[arg(long, default_value_t = 1.0)]
    pause: f64,
    #[command(flatten)]
    hostds: Hostds,
    /// Measure hostd only.
    #[arg(long)]
    alone: bool,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How large the images are.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scale {
    Small,
    Full,
}

impl Scale {
    /// The image of all operations, and the two between which peak memory must not grow.
    const fn sizes(self) -> (Size, [Size; 2]) {
        const fn size(name: &'static str, megabytes: u64, files: u64) -> Size {
            let bytes = megabytes * 1_000_000;
            Size { name, bytes, files }
        }
        match self {
            Self::Small => (
                size("small", 40, 2_000),
                [size("tiny", 10, 500), size("small", 40, 2_000)],
            ),
            Self::Full => (
                size("full", 450, 24_000),
                [size("100mb", 95, 5_000), size("1gb-names", 950, 100_000)],
            ),
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let programs = options.hostds.programs(&["keelson-runtime"])?;
    let (size, memory_sizes) = options.size.sizes();
    let budget = Budget::new(
        Duration::from_secs_f64(60.0 * options.minutes),
        options.only.iter().map(|one| one.tables()).sum(),
    );
    let pause = Duration::from_secs_f64(options.pause);
    let mut lab = Lab::open(size, pause, options.rounds, budget)?;
    lab.start_engines(&programs, !options.alone)?;
    lab.budget.begin();
    let mut tables = Vec::new();
    for operation in &options.only {
        if lab.budget.is_over() {
            eprintln!("no time is left for {operation}; see --minutes and --only");
            continue;
        }
        tables.extend(operation.measure(&lab, memory_sizes)?);
    }
    table::publish(&tables, options.json.as_deref())
}
