//! `keelson-provision local|network`: reads what the platform tells this machine, and writes it as a
//! layer of the configuration. init runs both phases; exit codes are in `keelson_model::provision`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use keelson_model::provision::{DIRECTORY, EXIT_CHANGED, EXIT_NETWORK_WANTED};
use keelson_provision::disk::BlockDevices;
use keelson_provision::machine::HostMachine;
use keelson_provision::phases::Provisioning;
use keelson_provision::store::Store;

const USAGE: &str = "usage: keelson-provision local|network [--root DIR] [--limit SECONDS]";

struct Arguments {
    phase: String,
    root: PathBuf,
    limit: Option<Duration>,
}

fn arguments() -> Result<Arguments> {
    let mut words = std::env::args().skip(1);
    let mut arguments = Arguments {
        phase: words.next().context(USAGE)?,
        root: PathBuf::from("/"),
        limit: None,
    };
    while let Some(word) = words.next() {
        let value = words
            .next()
            .with_context(|| format!("{word} needs a value; {USAGE}"))?;
        match word.as_str() {
            "--root" => arguments.root = PathBuf::from(value),
            "--limit" => {
                let seconds = value.parse().with_context(|| format!("--limit {value}"))?;
                arguments.limit = Some(Duration::from_secs(seconds));
            }
            _ => bail!("{word} is unknown; {USAGE}"),
        }
    }
    Ok(arguments)
}

fn run() -> Result<i32> {
    let arguments = arguments()?;
    let machine = HostMachine::under(&arguments.root);
    let disks = BlockDevices {
        root: arguments.root.clone(),
        mount_point: machine.path("run/keelson/seed"),
    };
    let store = Store::at(&machine.path(DIRECTORY));
    let provisioning = Provisioning {
        machine: &machine,
        disks: &disks,
        store: &store,
    };
    match arguments.phase.as_str() {
        "local" => {
            let outcome = provisioning.local()?;
            Ok(if outcome.network_wanted {
                EXIT_NETWORK_WANTED
            } else {
                0
            })
        }
        "network" => {
            let outcome = provisioning.network(arguments.limit)?;
            Ok(if outcome.changed { EXIT_CHANGED } else { 0 })
        }
        other => bail!("{other} is no phase; {USAGE}"),
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
    match run() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
