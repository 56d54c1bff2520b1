//! The requirements of the OCI runtime specification 1.2 and of runc's command line, as named cases
//! that run against any runtime. docs/conformance.md lists them.
//!
//! - `runtime`, `exceptions`: the runtimes, and their known differences.
//! - `lab`, `command`, `host`: tools for cases: bundles, containers, programs, cleaning up.
//! - `case`, `cases`, `verdict`: the cases, by section of the specification, and their results.
//! - `runner`, `report`: runs the cases, and writes the table.
//! - `rootless`, `inside`, `elsewhere`: the cases as an ordinary user, and on other machines.

mod case;
mod cases;
mod command;
mod elsewhere;
mod exceptions;
mod host;
mod inside;
mod lab;
mod report;
mod rootless;
mod runner;
mod runtime;
mod verdict;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use runtime::WITHOUT_UNIFIED;

/// Runs the conformance cases against runtimes and compares them.
#[derive(Debug, Parser)]
struct Options {
    /// A runtime's executable; may be given several times. Without one, runc and crun where they
    /// are installed and the keelson-runtime beside this program.
    #[arg(long = "runtime", value_name = "PATH")]
    runtimes: Vec<PathBuf>,
    /// The name of the runtime that must pass every case; the others are shown beside it.
    #[arg(long, default_value = "keelson-runtime")]
    subject: String,
    /// Only cases whose identifier contains one of these.
    #[arg(long = "filter", value_name = "TEXT")]
    filters: Vec<String>,
    /// How many cases run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as the page of the documentation.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "docs/conformance.md")]
    page: Option<PathBuf>,
    /// The JSON of a run on another machine, for the cases that are passed over on this one.
    #[arg(long, value_name = "FILE")]
    elsewhere: Option<PathBuf>,
    /// A case that is passed over is a failure.
    #[arg(long)]
    strict: bool,
    /// Longest time in seconds that one call may take.
    #[arg(long, default_value_t = 10)]
    deadline: u64,
    /// Run the cases that apply as an ordinary user in a user namespace, as rootless engines call a
    /// runtime (needs the package uidmap). `--page` does both.
    #[arg(long, conflicts_with_all = ["page", "elsewhere"])]
    rootless: bool,
    /// This program is the ordinary user's.
    #[arg(long, hide = true)]
    inside: bool,
    /// Print the cases and run none.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == WITHOUT_UNIFIED)
    {
        runtime::without_unified(arguments)?;
    }
    let options = Options::parse();
    if options.inside {
        inside::set_inside();
    }
    let all = match options.rootless || options.inside {
        true => rootless::cases(),
        false => cases::all(),
    };
    let chosen: Vec<_> = all
        .iter()
        .filter(|case| {
            options.filters.is_empty() || options.filters.iter().any(|text| case.id.contains(text))
        })
        .collect();
    if options.list {
        for case in &chosen {
            println!(
                "{:<48} {:<6} {}",
                case.id,
                case.level.name(),
                case.requirement
            );
        }
        println!("{} cases", chosen.len());
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "containers are made as root"
    );
    let paths = match options.runtimes.is_empty() {
        true => runtime::installed()?,
        false => options.runtimes.clone(),
    };
    let runtimes = paths
        .iter()
        .map(|path| lab::detect(path))
        .collect::<Result<Vec<_>>>()?;
    let subject = runtimes
        .iter()
        .position(|runtime| runtime.name == options.subject)
        .with_context(|| format!("no runtime is called {}: see --subject", options.subject))?;
    ensure!(!chosen.is_empty(), "no case is called like this");
    for runtime in runtimes.iter().filter(|runtime| runtime.hides_unified) {
        println!(
            "{} refuses a hybrid cgroup layout; it is called where cgroup2 is not mounted.",
            runtime.name
        );
    }
    command::set_deadline(Duration::from_secs(options.deadline));
    let mut results = match options.rootless {
        true => rootless::run(&chosen, &runtimes, options.jobs)?,
        false => runner::run(&chosen, &runtimes, options.jobs),
    };
    host::remove_cgroup_parent();
    let filled_in = match &options.elsewhere {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            let found = serde_json::from_slice(&text)
                .with_context(|| format!("{} is no result", path.display()))?;
            elsewhere::fill_in(&mut results, &runtimes, &found)
        }
        None => BTreeSet::new(),
    };
    let report = report::Report {
        cases: &chosen,
        runtimes: &runtimes,
        results: &results,
        elsewhere: &filled_in,
        subject,
    };
    print!("{}", report.table());
    let mut failed = report.subject_fails() || options.strict && report.passes_over();
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", report.json()))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &options.page {
        ensure!(
            chosen.len() == all.len(),
            "the documentation needs all cases, not --filter"
        );
        let cases = rootless::cases();
        let cases: Vec<_> = cases.iter().collect();
        let of_user = report::Report {
            cases: &cases,
            runtimes: &runtimes,
            results: &rootless::run(&cases, &runtimes, options.jobs)?,
            elsewhere: &BTreeSet::new(),
            subject,
        };
        println!("As an ordinary user:\n{}", of_user.table());
        failed |= of_user.subject_fails();
        std::fs::write(path, report.page(&of_user))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}
