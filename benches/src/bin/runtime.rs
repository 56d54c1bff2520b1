//! The OCI runtimes of this machine and ours, beside each other. See README.md.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;
use clap::Parser;
use keelson_benches::table::{Cell, Table};
use keelson_benches::usage::milliseconds;
use keelson_benches::{build, rounds, table, tools, usage};

/// Command line.
#[derive(Debug, Parser)]
struct Options {
    /// How often each runtime is measured.
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let ours = build::release("keelson-runtime", "keelson-runtime")?;
    let peers = [("crun", "crun"), ("runc", "runc"), ("youki", "youki")];
    let mut subjects = vec![("keelson-runtime".to_owned(), ours)];
    subjects.extend(peers.iter().filter_map(|(program, package)| {
        Some(((*program).to_owned(), tools::optional(program, package)?))
    }));
    let series = rounds::interleave(&mut subjects, options.rounds, |program| {
        usage::run(Command::new(program).arg("--version").stdout(Stdio::null()))
    })?;
    let mut results = Table::new("Start of the program itself", &["wall ms", "CPU ms"]);
    for one in &series {
        let cell = |value: fn(&usage::Cost) -> f64| Cell::series(one.values.iter().map(value), 2);
        let cells = vec![
            cell(|cost| milliseconds(cost.wall)),
            cell(|cost| milliseconds(cost.cpu())),
        ];
        results.row(&one.name, cells);
    }
    table::publish(&[results], options.json.as_deref())
}
